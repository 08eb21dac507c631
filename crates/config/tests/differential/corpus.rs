//! The hand-written cases: text files, each case under a `=== name` line.

use std::path::Path;

use crate::expectation::Case;

pub fn cases() -> Vec<Case> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut cases = Vec::new();
    for (file, text) in read_dir(&dir) {
        for block in text.split("=== ").skip(1) {
            let (name, text) = block.split_once('\n').expect("a case has a name line");
            cases.push(Case::new(format!("{file}: {name}"), text.to_owned()));
        }
    }
    cases
}

/// Every file of a directory tree is one case.
pub fn files(dir: &Path) -> Vec<Case> {
    read_dir(dir).into_iter().map(|(name, text)| Case::new(name, text)).collect()
}

fn read_dir(dir: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut paths: Vec<_> = std::fs::read_dir(dir)
        .unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
        .map(|entry| entry.expect("a directory entry").path())
        .collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            found.extend(read_dir(&path));
        } else {
            let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            found.push((path.file_name().expect("a file name").to_string_lossy().into_owned(), text));
        }
    }
    found
}
