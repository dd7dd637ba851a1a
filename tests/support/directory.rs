//! A temporary directory of one test.

use std::path::PathBuf;

/// A directory that is removed on drop.
#[derive(Debug)]
pub(crate) struct Directory(pub(crate) PathBuf);

impl Directory {
    /// Creates a directory of a random name.
    pub(crate) fn new() -> Self {
        let path = std::env::temp_dir().join(format!("tollgate-{:032x}", fastrand::u128(..)));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
