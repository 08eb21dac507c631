//! What the agent finds when it starts, and its keys.

use crate::{Millis, millis};

/// KeyManager ids of the agent's keys, used in turn (SPIRE).
pub const KEY_IDS: [&str; 2] = ["agent-svid-A", "agent-svid-B"];

/// The id under which the next key is made, so that the one in use stays.
pub fn next_key_id(current: Option<&str>) -> &'static str {
    if current == Some(KEY_IDS[0]) { KEY_IDS[1] } else { KEY_IDS[0] }
}

/// What was found on disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Found {
    /// `not_after` of the stored SVID, Unix seconds.
    pub svid_expires_at: Option<i64>,
    /// The key of the stored SVID is in the key manager.
    pub has_its_key: bool,
    /// Any agent key is.
    pub has_keys: bool,
}

/// What to do at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    UseStored,
    /// With what SPIRE logs about it, if anything.
    Attest(Option<&'static str>),
}

/// Decides at start. An SVID that expires within a second counts as expired (SPIRE).
pub fn start(found: Found, now: Millis) -> Start {
    let expired = found.svid_expires_at.is_some_and(|at| now + 1000 >= millis(at));
    match (found.svid_expires_at.is_some(), found.has_its_key) {
        (true, true) if !expired => Start::UseStored,
        (true, true) => {
            Start::Attest(Some("SVID key recovered, but SVID is expired. Generating new keypair"))
        }
        (true, false) if found.has_keys => {
            Start::Attest(Some("SVID recovered, but no SVID key found. Generating new keypair"))
        }
        (true, false) => Start::Attest(Some("SVID recovered, but no keys found. Generating new keypair")),
        (false, _) if found.has_keys => {
            Start::Attest(Some("Keys recovered, but no SVID found. Generating new keypair"))
        }
        (false, _) => Start::Attest(None),
    }
}

/// How far this machine's clock is ahead of the server's (seconds, negative = behind), told from a certificate that the
/// server just issued: it dates them back by ten seconds. `None` while the difference does no harm.
pub fn clock_skew(not_before: i64, now: Millis) -> Option<i64> {
    const BACKDATED: i64 = 10;
    const HARMLESS: i64 = 60;
    let skew = now / 1000 - (not_before + BACKDATED);
    (skew.abs() > HARMLESS).then_some(skew)
}
