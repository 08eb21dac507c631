//! CSRs and keys appear in logs as hashes only.

use std::fmt::Write;

/// Lower-case hex of the SHA-256; empty for nothing (SPIRE).
pub fn sha256_hex(data: &[u8]) -> String {
    if data.is_empty() {
        return String::new();
    }
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, data);
    digest.as_ref().iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
