//! The locked file of a spool.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    ops::{Deref, DerefMut},
    path::Path,
};

/// An open file, locked until it is dropped.
///
/// The lock is flock's, so that it belongs to all copies of the descriptor. A child process that another thread starts
/// holds a copy until it executes its program. Closing the file here would leave the lock to that copy, and the next
/// one to open the file would be refused.
#[derive(Debug)]
pub(super) struct LockedFile(File);

impl LockedFile {
    /// Opens the file at `path`, which is created if it is missing, and locks it.
    ///
    /// # Errors
    /// If the file cannot be opened or locked, or another descriptor has locked it.
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let mut options = OpenOptions::new();
        #[cfg(unix)] // charges are private
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.read(true).write(true).create(true).truncate(false).open(path).map_err(OpenError::Open)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse),
            Err(TryLockError::Error(error)) => Err(OpenError::Lock(error)),
        }
    }
}

/// Reason why a file was not opened.
#[derive(Debug)]
pub(super) enum OpenError {
    Open(io::Error),
    Lock(io::Error),
    /// Another descriptor has locked it.
    InUse,
}

impl Drop for LockedFile {
    fn drop(&mut self) {
        let _ = self.0.unlock(); // of all copies
    }
}

impl Deref for LockedFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl DerefMut for LockedFile {
    fn deref_mut(&mut self) -> &mut File {
        &mut self.0
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn drop_unlocks_copies_of_the_descriptor_too() {
        let path = std::env::temp_dir().join(format!("tollgate-spool-file-{:x}", fastrand::u64(..)));
        let file = LockedFile::open(&path).unwrap();
        let inherited = file.try_clone().unwrap(); // as a child process has it until it executes its program
        assert!(matches!(LockedFile::open(&path), Err(OpenError::InUse)));
        drop(file);
        drop(LockedFile::open(&path).unwrap());
        drop(inherited);
        std::fs::remove_file(path).unwrap();
    }
}
