//! Nonces of both sides of a proof of possession.

use aws_lc_rs::rand;

/// Bytes of a nonce (SPIRE).
pub const LEN: usize = 32;

pub fn fresh() -> Result<[u8; LEN], &'static str> {
    let mut nonce = [0; LEN];
    rand::fill(&mut nonce).map_err(|_| "the system gives no random bytes")?;
    Ok(nonce)
}

/// What is signed is a hash of both nonces: neither side alone chooses it.
pub fn both(challenge: &[u8], response: &[u8]) -> Option<[u8; 2 * LEN]> {
    let mut out = [0; 2 * LEN];
    if challenge.len() != LEN || response.len() != LEN {
        return None;
    }
    out[..LEN].copy_from_slice(challenge);
    out[LEN..].copy_from_slice(response);
    Some(out)
}
