//! Files a command reads and leaves behind.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};

use crate::{Failure, go};

const PUBLIC: u32 = 0o644;
const PRIVATE: u32 = 0o600;

/// The whole file; an error names it as Go's `os.Open` and `Read` do.
pub fn read(path: &str) -> Result<Vec<u8>, Failure> {
    let verb = if fs::metadata(path).is_ok_and(|m| m.is_dir()) { "read" } else { "open" };
    fs::read(path).map_err(|error| Failure::new(format!("{verb} {path}: {}", go::io_error(&error))))
}

/// Written for everybody to read.
pub fn write_public(path: &str, data: &[u8]) -> Result<(), Failure> {
    write(path, data, PUBLIC)
}

/// Written for the owner alone: the mode is right before the first byte is there, also when the file was there.
pub fn write_private(path: &str, data: &[u8]) -> Result<(), Failure> {
    write(path, data, PRIVATE)
}

fn write(path: &str, data: &[u8], mode: u32) -> Result<(), Failure> {
    let written = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
        if mode == PRIVATE {
            file.set_permissions(fs::Permissions::from_mode(mode))?;
        }
        file.write_all(data)
    };
    written().map_err(|error| Failure::new(format!("open {path}: {}", go::io_error(&error))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_file_is_private_even_if_it_was_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        let path = path.to_str().unwrap();
        fs::write(path, "old and longer").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
        write_private(path, b"new").unwrap();
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, PRIVATE);
        assert_eq!(fs::read(path).unwrap(), b"new");
    }

    #[test]
    fn errors_name_the_file() {
        assert_eq!(
            read("/nonexistent").unwrap_err().to_string(),
            "open /nonexistent: no such file or directory"
        );
        assert_eq!(read("/").unwrap_err().to_string(), "read /: is a directory");
        let failure = write_public("/nonexistent/x", b"").unwrap_err();
        assert_eq!(failure.to_string(), "open /nonexistent/x: no such file or directory");
    }
}
