//! What users write on the command line, as the API takes it.

use steeple_cli::{Context as _, Failure};
use steeple_config::{GoDuration, go_quote};
use steeple_proto::spire::api::types;
use steeple_spiffe::SpiffeId;

/// A SPIFFE ID in its message form.
pub fn spiffe_id(text: &str) -> Result<types::Spiffeid, Failure> {
    let id: SpiffeId = text.parse()?;
    Ok(types::Spiffeid { trust_domain: id.trust_domain().name().to_owned(), path: id.path().to_owned() })
}

/// A SPIFFE ID for a filter; no text is no filter.
pub fn filter_id(what: &str, text: &str) -> Result<Option<types::Spiffeid>, Failure> {
    if text.is_empty() {
        return Ok(None);
    }
    spiffe_id(text).map(Some).context(format!("error parsing {what} {}", go_quote(text)))
}

/// `type:value`; the value may hold further colons.
pub fn selector(text: &str) -> Result<types::Selector, Failure> {
    match text.split_once(':') {
        Some((kind, value)) => Ok(types::Selector { r#type: kind.to_owned(), value: value.to_owned() }),
        None => Err(Failure::new(format!("selector \"{text}\" must be formatted as type:value"))),
    }
}

pub fn selectors(texts: &[String]) -> Result<Vec<types::Selector>, Failure> {
    texts.iter().map(|text| selector(text)).collect()
}

/// Seconds as the API's int32. `what` names the flag in the message.
pub fn ttl(what: &str, seconds: i64) -> Result<i32, Failure> {
    i32::try_from(seconds).map_err(|_| {
        Failure::new(format!("invalid value for {what}: overflow converting int({seconds}) to int32"))
    })
}

/// A duration in whole seconds, rounded up.
pub fn ttl_rounded_up(ttl: GoDuration) -> Result<i32, Failure> {
    const SECOND: i64 = 1_000_000_000;
    let seconds = ttl.nanos().saturating_add(SECOND - 1) / SECOND;
    let shown = GoDuration::from_nanos(seconds);
    i32::try_from(seconds).map_err(|_| {
        Failure::new(format!("invalid value for TTL: overflow converting time.Duration({shown}) to int32"))
    })
}

/// How a filter's items must relate to an entry's or an agent's. The numbers are those of both match messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    Exact = 0,
    Subset = 1,
    Superset = 2,
    Any = 3,
}

impl Match {
    pub const DEFAULT: &str = "superset";
    pub const ABOUT: &str = "How to match: exact, any, superset or subset";

    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "exact" => Some(Self::Exact),
            "subset" => Some(Self::Subset),
            "superset" => Some(Self::Superset),
            "any" => Some(Self::Any),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_split_at_the_first_colon() {
        let k8s = selector("k8s:ns:default").unwrap();
        assert_eq!((k8s.r#type.as_str(), k8s.value.as_str()), ("k8s", "ns:default"));
        assert_eq!(
            selector("uid").unwrap_err().to_string(),
            "selector \"uid\" must be formatted as type:value"
        );
    }

    #[test]
    fn ttls() {
        assert_eq!(ttl("X509 SVID TTL", 3600), Ok(3600));
        assert_eq!(
            ttl("X509 SVID TTL", 1 << 31).unwrap_err().to_string(),
            "invalid value for X509 SVID TTL: overflow converting int(2147483648) to int32"
        );
        for (text, seconds) in [("0s", 0), ("1s", 1), ("1.1s", 2), ("5m", 300), ("-1s", 0)] {
            assert_eq!(ttl_rounded_up(text.parse().unwrap()), Ok(seconds), "{text}");
        }
        assert!(ttl_rounded_up("2000000h".parse().unwrap()).is_err());
    }

    #[test]
    fn filters() {
        assert_eq!(filter_id("parent ID", ""), Ok(None));
        let failure = filter_id("parent ID", "nope").unwrap_err();
        assert!(failure.to_string().starts_with("error parsing parent ID \"nope\": "), "{failure}");
    }
}
