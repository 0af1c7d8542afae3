//! A disk as a loss of power leaves it: what was synced, and of the rest whatever chance left.
//!
//! What it assumes of the platform is what SQLite assumes of it: a write changes no byte outside of its range (powersafe
//! overwrite), sectors of 512 bytes reach the disk whole or not at all, in any order, and a sync that succeeded holds.
//! After a failed sync what waited for it is there, or it is gone although reads show it, and no later sync makes up for it:
//! only writing it again does.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::control::Operation;
use crate::seeded::Random;

/// What a disk holds, by the names in the directory.
pub type Files = BTreeMap<Arc<str>, Vec<u8>>;

/// In bytes.
const SECTOR: usize = 512;

/// What becomes of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// All of it is gone.
    Nothing,
    /// Each change is there, or not, or torn, by chance.
    ByChance,
}

/// A disk on which operations are replayed.
#[derive(Debug)]
pub struct Disk {
    inodes: Vec<Inode>,
    /// Names that a loss of power leaves.
    durable: BTreeMap<Arc<str>, usize>,
    /// Names as the running system sees them.
    current: BTreeMap<Arc<str>, usize>,
    /// What happened to names since the directory was synced.
    renamed: Vec<(Arc<str>, Option<usize>)>,
    kept: Kept,
}

#[derive(Debug, Default)]
struct Inode {
    durable: Vec<u8>,
    /// As reads show it.
    shown: Vec<u8>,
    waiting: Vec<Change>,
}

impl Inode {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.shown);
        self.waiting.push(change);
    }
}

#[derive(Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Truncate { size: usize },
}

impl Disk {
    /// A disk that holds these files.
    #[must_use]
    pub fn holding(files: &Files, kept: Kept) -> Self {
        let mut inodes = Vec::new();
        let mut names = BTreeMap::new();
        for (name, content) in files {
            names.insert(Arc::clone(name), inodes.len());
            inodes.push(Inode { durable: content.clone(), shown: content.clone(), waiting: Vec::new() });
        }
        Self { inodes, durable: names.clone(), current: names, renamed: Vec::new(), kept }
    }

    /// Does what was recorded.
    ///
    /// # Panics
    /// If the operation is about a file that was never made: the recording began too late.
    pub fn replay(&mut self, operation: &Operation, random: &mut Random) {
        match operation {
            Operation::Create { file } => {
                let number = self.inodes.len();
                self.inodes.push(Inode::default());
                self.current.insert(Arc::clone(file), number);
                self.renamed.push((Arc::clone(file), Some(number)));
            }
            Operation::Delete { file } => {
                self.current.remove(file);
                self.renamed.push((Arc::clone(file), None));
            }
            Operation::Write { file, offset, bytes } => {
                let offset = usize::try_from(*offset).expect("a small file");
                self.inode(file).change(Change::Write { offset, bytes: bytes.clone() });
            }
            Operation::Truncate { file, size } => {
                let size = usize::try_from(*size).expect("a small file");
                self.inode(file).change(Change::Truncate { size });
            }
            Operation::Sync { file } => {
                let inode = self.inode(file);
                for change in std::mem::take(&mut inode.waiting) {
                    change.apply(&mut inode.durable);
                }
            }
            Operation::SyncFailed { file } => {
                let kept = self.kept;
                let inode = self.inode(file);
                let waiting = std::mem::take(&mut inode.waiting);
                keep(&waiting, kept, &mut inode.durable, random);
            }
            Operation::Rewrite { file } => {
                let inode = self.inode(file);
                let bytes = inode.shown.clone();
                inode.change(Change::Truncate { size: bytes.len() });
                inode.change(Change::Write { offset: 0, bytes });
            }
            Operation::SyncDirectory => {
                for (name, inode) in std::mem::take(&mut self.renamed) {
                    rename(&mut self.durable, name, inode);
                }
            }
        }
    }

    /// What a loss of power leaves now.
    pub fn after_power_cut(&self, random: &mut Random) -> Files {
        let mut names = self.durable.clone();
        for (name, inode) in &self.renamed {
            if self.kept == Kept::ByChance && random.below(2) == 0 {
                rename(&mut names, Arc::clone(name), *inode);
            }
        }
        names
            .into_iter()
            .map(|(name, inode)| {
                let inode = &self.inodes[inode];
                let mut content = inode.durable.clone();
                keep(&inode.waiting, self.kept, &mut content, random);
                (name, content)
            })
            .collect()
    }

    fn inode(&mut self, file: &Arc<str>) -> &mut Inode {
        let number = *self.current.get(file).unwrap_or_else(|| panic!("{file} was never made"));
        &mut self.inodes[number]
    }
}

fn rename(names: &mut BTreeMap<Arc<str>, usize>, name: Arc<str>, inode: Option<usize>) {
    match inode {
        Some(inode) => names.insert(name, inode),
        None => names.remove(&name),
    };
}

/// Applies what chance keeps of the changes.
fn keep(changes: &[Change], kept: Kept, content: &mut Vec<u8>, random: &mut Random) {
    if kept == Kept::Nothing || changes.is_empty() {
        return;
    }
    match random.below(4) {
        // The disk took them in order, and stopped in the middle of one.
        0 => {
            let whole = random.index(changes.len() + 1);
            for change in &changes[..whole] {
                change.apply(content);
            }
            if let Some(torn) = changes.get(whole) {
                torn.apply_beginning(content, random);
            }
        }
        // It took them in any order.
        1 => {
            for change in changes {
                match random.below(3) {
                    0 => change.apply(content),
                    1 => change.apply_sectors(content, random),
                    _ => {}
                }
            }
        }
        // Nearly all, and nearly none.
        chance => {
            let rare = random.index(changes.len());
            for (number, change) in changes.iter().enumerate() {
                if (number == rare) == (chance == 3) {
                    change.apply(content);
                }
            }
        }
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => put(content, *offset, bytes),
            Self::Truncate { size } => content.resize(*size, 0),
        }
    }

    /// Some of its sectors, from the first on.
    fn apply_beginning(&self, content: &mut Vec<u8>, random: &mut Random) {
        match self {
            Self::Write { offset, bytes } => {
                let sectors = sectors(*offset, bytes);
                let some = random.index(sectors.len() + 1);
                for (offset, bytes) in &sectors[..some] {
                    put(content, *offset, bytes);
                }
            }
            Self::Truncate { .. } => {}
        }
    }

    /// Any of its sectors.
    fn apply_sectors(&self, content: &mut Vec<u8>, random: &mut Random) {
        match self {
            Self::Write { offset, bytes } => {
                for (offset, bytes) in sectors(*offset, bytes) {
                    if random.below(2) == 0 {
                        put(content, offset, bytes);
                    }
                }
            }
            Self::Truncate { .. } => {}
        }
    }
}

/// The parts of a write, cut where sectors of the file end.
fn sectors(offset: usize, bytes: &[u8]) -> Vec<(usize, &[u8])> {
    let mut parts = Vec::new();
    let (mut at, mut rest) = (offset, bytes);
    while !rest.is_empty() {
        let (part, left) = rest.split_at(rest.len().min(SECTOR - at % SECTOR));
        parts.push((at, part));
        at += part.len();
        rest = left;
    }
    parts
}

/// Puts bytes into a file; what lies between its end and them is zeros.
fn put(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Arc<str> {
        "f".into()
    }

    fn write(offset: u64, bytes: &[u8]) -> Operation {
        Operation::Write { file: file(), offset, bytes: bytes.to_vec() }
    }

    #[test]
    fn what_was_synced_stays_and_the_rest_may_go() {
        let mut random = Random::new(1);
        let mut disk = Disk::holding(&Files::new(), Kept::Nothing);
        for operation in [Operation::Create { file: file() }, write(0, b"durable"), Operation::Sync { file: file() }] {
            disk.replay(&operation, &mut random);
        }
        assert!(disk.after_power_cut(&mut random).is_empty(), "its name was not synced");
        disk.replay(&Operation::SyncDirectory, &mut random);
        disk.replay(&write(0, b"waiting"), &mut random);
        assert_eq!(disk.after_power_cut(&mut random)[&file()], b"durable");
        disk.replay(&Operation::SyncFailed { file: file() }, &mut random);
        disk.replay(&write(7, b"!"), &mut random);
        disk.replay(&Operation::Sync { file: file() }, &mut random);
        assert_eq!(disk.after_power_cut(&mut random)[&file()], b"durable!", "a failed sync is not made up for");
        disk.replay(&Operation::Rewrite { file: file() }, &mut random);
        disk.replay(&Operation::Sync { file: file() }, &mut random);
        assert_eq!(disk.after_power_cut(&mut random)[&file()], b"waiting!", "but by writing what is shown");
    }

    #[test]
    fn chance_keeps_drops_and_tears() {
        let mut random = Random::new(1);
        let old = vec![b'a'; 3 * SECTOR];
        let mut disk = Disk::holding(&[(file(), old.clone())].into(), Kept::ByChance);
        disk.replay(&write(0, &vec![b'b'; 3 * SECTOR]), &mut random);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..5_000 {
            let content = disk.after_power_cut(&mut random).remove(&file()).expect("the file");
            let sectors: String = content
                .chunks(SECTOR)
                .map(|sector| {
                    assert!(sector.iter().all(|byte| *byte == sector[0]), "a sector is whole");
                    char::from(sector[0])
                })
                .collect();
            seen.insert(sectors);
        }
        assert_eq!(seen.len(), 8, "{seen:?}");
    }
}
