//! The row *file*: one write and one fdatasync for each group of what is queued. No log can be faster on this disk.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::oneshot;

use super::measure::{Slice, closed_loop, median};

/// About what the log stores of one event of the bench, its columns included.
const EVENT_BYTES: usize = 260;
/// As many as a group of the log holds.
const GROUP_EVENTS: usize = 1_024;
/// The file is written again from its beginning after so many bytes, so that it is allocated once.
const FILE_BYTES: u64 = 256 << 20;

pub(super) struct PlainFile {
    queue: mpsc::Sender<oneshot::Sender<()>>,
    writer: JoinHandle<std::io::Result<Vec<f64>>>,
}

impl PlainFile {
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
        let (queue, waiting) = mpsc::channel();
        let writer = std::thread::spawn(move || write_groups(file, &waiting));
        Ok(Self { queue, writer })
    }

    pub(super) async fn run(&self, callers: usize, duration: Duration) -> anyhow::Result<Slice> {
        let caller = || {
            let queue = self.queue.clone();
            move || {
                let (answer, answered) = oneshot::channel();
                let sent = queue.send(answer);
                async move {
                    sent.context("the writer has ended")?;
                    answered.await.context("the writer has ended")
                }
            }
        };
        closed_loop((0..callers).map(|_| caller()).collect(), duration).await
    }

    /// Ends the writer; answers the median time of an fdatasync in µs.
    pub(super) fn close(self) -> anyhow::Result<f64> {
        drop(self.queue);
        let syncs = self.writer.join().map_err(|_| anyhow::anyhow!("the writer of the plain file panicked"))?;
        Ok(median(syncs.context("the plain file cannot be written")?))
    }
}

fn write_groups(mut file: File, waiting: &mpsc::Receiver<oneshot::Sender<()>>) -> std::io::Result<Vec<f64>> {
    let bytes = vec![b'x'; EVENT_BYTES * GROUP_EVENTS];
    let (mut written, mut syncs_us) = (0, Vec::new());
    while let Ok(first) = waiting.recv() {
        let group: Vec<_> = std::iter::once(first).chain(waiting.try_iter()).take(GROUP_EVENTS).collect();
        let size = EVENT_BYTES * group.len();
        if written + size as u64 > FILE_BYTES {
            file.seek(SeekFrom::Start(0))?;
            written = 0;
        }
        file.write_all(&bytes[..size])?;
        written += size as u64;
        let begun = Instant::now();
        file.sync_data()?;
        syncs_us.push(begun.elapsed().as_secs_f64() * 1e6);
        for caller in group {
            // A caller that has gone away no longer measures.
            let _ = caller.send(());
        }
    }
    Ok(syncs_us)
}
