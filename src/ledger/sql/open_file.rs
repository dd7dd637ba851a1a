//! The file of a database, compared with the file of its name.

use std::path::PathBuf;

use crate::ledger::DbError;

/// A file that a connection has open. A removed or replaced file still takes writes, which end with the process.
#[derive(Debug)]
pub(crate) struct OpenFile {
    path: PathBuf,
    identity: Option<(u64, u64)>,
}

impl OpenFile {
    /// Returns the file that has this name now.
    #[cfg(feature = "sqlite")]
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { identity: identity(&path), path }
    }

    /// Rejects a file whose name is gone or names another file. Nothing is rejected where files have no identity, on
    /// systems other than Unix.
    pub(super) fn check(&self) -> Result<(), DbError> {
        if identity(&self.path) == self.identity && self.identity.is_some() == cfg!(unix) {
            return Ok(());
        }
        let path = self.path.display();
        Err(DbError::Lost(format!("the file of the ledger was removed or replaced while it was open, got {path}")))
    }
}

/// Returns the device and the inode of a file; `None` if there is none.
#[cfg(unix)]
fn identity(path: &std::path::Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

#[cfg(not(unix))]
fn identity(_: &std::path::Path) -> Option<(u64, u64)> {
    None
}
