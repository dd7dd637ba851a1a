//! Lists the files of the repository.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Returns the root of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns a path from the root, with `/` between its parts.
pub(crate) fn relative(path: &Path) -> String {
    let parts = path.strip_prefix(root()).unwrap().iter().map(|part| part.to_str().unwrap());
    parts.collect::<Vec<_>>().join("/")
}

/// Returns the files below `start` (a folder or one file) with one of the extensions, in the order of their names.
/// Build output and regression seeds are left out.
pub(crate) fn files(start: &str, extensions: &[&str]) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![root().join(start)]);
    while let Some(path) = open.pop() {
        if path.is_dir() {
            let hidden = path.file_name().is_some_and(|name| name == "target" || name == "proptest-regressions");
            if !hidden {
                open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
        } else if path.extension().is_some_and(|own| extensions.iter().any(|extension| own == *extension)) {
            found.push(path);
        }
    }
    found.sort();
    found
}
