//! SPIRE's warnings about lifetimes that a CA rotation may cut short (spire.md §1.2, "TTL sanity").

use steeple_config::GoDuration;
use steeple_server_core::ca::CaConfig;

/// An SVID never lives longer than this, whatever the CA's lifetime.
const MAX_SVID_TTL: i64 = 7 * 24 * 3600;
/// A CA signs for at most this part of its lifetime's end.
const CA_PARTS: i64 = 6;

pub(super) fn check(ca: &CaConfig, agent_ttl_given: bool, warnings: &mut Vec<String>) {
    let mut checks = vec![
        ("default_x509_svid_ttl", ca.default_x509_svid_ttl),
        ("default_jwt_svid_ttl", ca.default_jwt_svid_ttl),
    ];
    if agent_ttl_given {
        checks.push(("agent_ttl", ca.agent_ttl));
    }
    warnings.extend(checks.into_iter().filter_map(|(name, ttl)| warning(name, ttl, ca.ca_ttl)));
}

fn warning(name: &str, ttl: i64, ca_ttl: i64) -> Option<String> {
    let fits = (ca_ttl / CA_PARTS).min(MAX_SVID_TTL);
    if ttl <= fits {
        return None;
    }
    let guarantee = format!("to guarantee the full {name} lifetime when CA rotations are scheduled.");
    Some(if ttl < MAX_SVID_TTL {
        format!(
            "{name} is too high for the configured ca_ttl value. SVIDs with shorter lifetimes may be issued. \
             Please set {name} to {} or less, or the ca_ttl to {} or more, {guarantee}",
            print(fits),
            print(ttl * CA_PARTS)
        )
    } else if ca_ttl < MAX_SVID_TTL * CA_PARTS {
        format!(
            "{name} is too high and the ca_ttl is too low. SVIDs with shorter lifetimes may be issued. \
             Please set {name} to {} or less, and the ca_ttl to {} or more, {guarantee}",
            print(MAX_SVID_TTL),
            print(MAX_SVID_TTL * CA_PARTS)
        )
    } else {
        format!(
            "{name} is too high. SVIDs with shorter lifetimes may be issued. \
             Please set {name} to {} or less {guarantee}",
            print(fits)
        )
    })
}

/// `4h`, not `4h0m0s`.
fn print(seconds: i64) -> String {
    let text = GoDuration::from_secs(seconds).to_string();
    let text = if text.ends_with("m0s") { &text[..text.len() - 2] } else { &text };
    if text.ends_with("h0m") { text[..text.len() - 2].to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_lifetimes_are_silent_and_long_ones_say_what_to_do() {
        assert_eq!(warning("agent_ttl", 4 * 3600, 24 * 3600), None);
        let text = warning("agent_ttl", 5 * 3600, 24 * 3600).unwrap();
        assert!(text.contains("Please set agent_ttl to 4h or less, or the ca_ttl to 30h or more"), "{text}");
        let text = warning("agent_ttl", 8 * 24 * 3600, 24 * 3600).unwrap();
        assert!(text.contains("to 168h or less, and the ca_ttl to 1008h or more"), "{text}");
        let text = warning("agent_ttl", 8 * 24 * 3600, 2_000 * 3600).unwrap();
        assert!(text.contains("agent_ttl is too high. ") && text.contains("to 168h or less to"), "{text}");
    }
}
