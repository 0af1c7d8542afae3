//! Power cuts: a file system of its own, in a file, that loses everything which was not synced.
//!
//! `kill -9` alone cannot test a sync: the page cache outlives the process. The ext4 shutdown call throws the unsynced
//! part away, as a loss of power does.
#![expect(unsafe_code, reason = "the one call that cuts the power of a file system has no safe wrapper")]

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::ioctl::{Setter, ioctl, opcode};

/// `EXT4_IOC_SHUTDOWN`.
const SHUTDOWN: rustix::ioctl::Opcode = opcode::read::<u32>(b'X', 125);
/// Do not flush the journal: what is not on the disk is gone.
const WITHOUT_LOG_FLUSH: u32 = 2;

/// An ext4 file system in a file, mounted. Its drop unmounts it.
#[derive(Debug)]
pub struct CuttableDisk {
    image: PathBuf,
    mount_point: PathBuf,
}

impl CuttableDisk {
    /// Makes and mounts a file system of `megabytes` in a directory.
    ///
    /// # Errors
    /// Why this machine cannot: no root, no loop devices, no `mkfs.ext4`.
    pub fn create(directory: &Path, megabytes: u64) -> Result<Self, String> {
        let disk = Self { image: directory.join("disk.img"), mount_point: directory.join("disk") };
        let image = File::create(&disk.image).map_err(|error| format!("no image: {error}"))?;
        image.set_len(megabytes << 20).map_err(|error| format!("no image: {error}"))?;
        std::fs::create_dir_all(&disk.mount_point).map_err(|error| format!("no mount point: {error}"))?;
        run(Command::new("mkfs.ext4").arg("-q").arg("-F").arg(&disk.image))?;
        disk.mount()?;
        Ok(disk)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.mount_point
    }

    /// Cuts the power. From now on every call on this file system fails.
    ///
    /// # Errors
    /// What the system reports.
    pub fn cut_power(&self) -> Result<(), String> {
        let root = File::open(&self.mount_point).map_err(|error| format!("cannot open the file system: {error}"))?;
        // SAFETY: the call reads one u32 from the given address and touches no memory of this process otherwise.
        unsafe { ioctl(root.as_fd(), Setter::<SHUTDOWN, u32>::new(WITHOUT_LOG_FLUSH)) }
            .map_err(|error| format!("the file system cannot be shut down: {error}"))
    }

    /// Mounts it again, as a machine does that comes back. Nobody may use it when this is called.
    ///
    /// # Errors
    /// What `umount` or `mount` report.
    pub fn restore_power(&self) -> Result<(), String> {
        run(Command::new("umount").arg(&self.mount_point))?;
        self.mount()
    }

    fn mount(&self) -> Result<(), String> {
        run(Command::new("mount").args(["-o", "loop"]).arg(&self.image).arg(&self.mount_point))
    }
}

impl Drop for CuttableDisk {
    fn drop(&mut self) {
        // What is not mounted need not be unmounted.
        drop(run(Command::new("umount").arg("-l").arg(&self.mount_point)));
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?} cannot be run: {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}
