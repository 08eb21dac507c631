//! PEM as Go's encoding/pem writes and reads it: 64 columns, unknown blocks skipped by the caller. Texts in
//! between are wiped, because blocks may be private keys.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// One PEM block.
pub(crate) fn encode(label: &str, der: &[u8]) -> String {
    let body = Zeroizing::new(STANDARD.encode(der));
    let mut out = String::with_capacity(body.len() + body.len() / 64 + 2 * label.len() + 34);
    out.push_str("-----BEGIN ");
    out.push_str(label);
    out.push_str("-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, next) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = next;
    }
    out.push_str("-----END ");
    out.push_str(label);
    out.push_str("-----\n");
    out
}

/// All PEM blocks of a text as (label, DER). Text between blocks is skipped; a block that is cut off or
/// holds no base64 is an error, named by its position.
pub(crate) fn decode_all(text: &str) -> Result<Vec<(String, Vec<u8>)>, usize> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        let Some(label) = line.strip_prefix("-----BEGIN ").and_then(|l| l.strip_suffix("-----")) else {
            continue;
        };
        let end = format!("-----END {label}-----");
        let mut body = Zeroizing::new(String::with_capacity(text.len()));
        loop {
            match lines.next() {
                Some(line) if line == end => break,
                // RFC 1421 headers, as old OpenSSL wrote them.
                Some(line) if line.contains(':') => {}
                Some(line) => body.push_str(line),
                None => return Err(blocks.len()),
            }
        }
        let der = STANDARD.decode(body.as_bytes()).map_err(|_| blocks.len())?;
        blocks.push((label.to_owned(), der));
    }
    Ok(blocks)
}
