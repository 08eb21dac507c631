//! CSRs and keys appear in logs as hashes only.

use std::fmt::Write;

/// Lower-case hex of the SHA-256; empty for nothing (SPIRE).
pub fn sha256_hex(data: &[u8]) -> String {
    if data.is_empty() {
        return String::new();
    }
    hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, data).as_ref())
}

/// Lower case, two digits a byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
