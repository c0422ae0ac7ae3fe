//! The file operations that durability rests on. The trait is the wall at which tests make them fail or record
//! them; [`Directory`] is the real one.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A directory of segments.
pub trait Disk: Send {
    /// Makes a new file. It is durable as an entry only after [`Disk::sync`].
    fn create(&mut self, name: &str) -> io::Result<Box<dyn Append>>;
    /// Makes entries of the directory durable.
    fn sync(&mut self) -> io::Result<()>;
    /// Makes durable what a file holds that another process has written.
    fn settle(&mut self, name: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&mut self, name: &str) -> io::Result<()>;
    /// Gives a file another name.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    /// Octets that may still be written.
    fn free(&mut self) -> io::Result<u64>;
}

/// A file that only grows.
pub trait Append: Send {
    /// Writes at the end.
    fn append(&mut self, octets: &[u8]) -> io::Result<()>;
    /// Makes all that was written durable.
    fn flush(&mut self) -> io::Result<()>;
    /// Cuts off what was written after `length`; only to clean up behind a failure.
    fn cut(&mut self, length: u64) -> io::Result<()>;
}

/// A real directory.
pub struct Directory {
    path: PathBuf,
    handle: File,
}

impl Directory {
    /// Opens the directory at `path`.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            handle: File::open(path)?,
        })
    }

    /// Octets of the whole file system.
    pub fn capacity(&self) -> io::Result<u64> {
        let status = nix::sys::statvfs::fstatvfs(&self.handle)?;
        Ok(status.blocks().saturating_mul(status.fragment_size()))
    }
}

impl Disk for Directory {
    fn create(&mut self, name: &str) -> io::Result<Box<dyn Append>> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.path.join(name))?;
        Ok(Box::new(file))
    }

    fn sync(&mut self) -> io::Result<()> {
        self.handle.sync_all()
    }

    fn settle(&mut self, name: &str) -> io::Result<()> {
        File::open(self.path.join(name))?.sync_data()
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    fn free(&mut self) -> io::Result<u64> {
        let status = nix::sys::statvfs::fstatvfs(&self.handle)?;
        Ok(status.blocks_available().saturating_mul(status.fragment_size()))
    }
}

impl Append for File {
    fn append(&mut self, octets: &[u8]) -> io::Result<()> {
        self.write_all(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)?;
        self.sync_data()
    }
}
