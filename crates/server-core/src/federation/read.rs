//! What an endpoint served, judged.

use steeple_spiffe::bundle::{BundleError, Skipped};
use steeple_spiffe::{Bundle, SpiffeId, TrustDomain};

/// Why what was served is not taken for the trust domain's bundle.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ReadError {
    #[error("what the endpoint served is no SPIFFE bundle: it is not UTF-8; check the URL")]
    NotText,
    #[error("what the endpoint served is no SPIFFE bundle: {0}; check the URL")]
    NotABundle(#[source] BundleError),
    #[error(
        "what the endpoint served is the bundle of trust domain \"{found}\", not of \"{expected}\": an X.509 authority in it \
         has that trust domain's ID; check the URL"
    )]
    OtherTrustDomain { found: TrustDomain, expected: TrustDomain },
}

/// A bundle, and what is worth a line in the log.
#[derive(Debug)]
pub struct ReadBundle {
    pub bundle: Bundle,
    /// Entries that cannot be used; the rest can (SPIFFE Trust Domain and Bundle §4.1.3).
    pub skipped: Vec<Skipped>,
    /// An authority has the ID of a trust domain that nobody here has heard of. Some roots carry one that means nothing.
    pub foreign_id: Option<SpiffeId>,
}

/// Reads the document for `trust_domain`. It does not say whose bundle it is, but its authorities may: those of a trust
/// domain that is `known` here as another one are not taken (SPIFFE Federation §4.2, §7.3).
pub fn read_bundle(
    trust_domain: &TrustDomain,
    document: &[u8],
    known: impl Fn(&TrustDomain) -> bool,
) -> Result<ReadBundle, ReadError> {
    let text = std::str::from_utf8(document).map_err(|_| ReadError::NotText)?;
    let (bundle, skipped) =
        Bundle::from_spiffe_json_reporting(trust_domain.clone(), text).map_err(ReadError::NotABundle)?;
    let mut foreign_id = None;
    for authority in &bundle.x509_authorities {
        let ids = authority.certificate.uri_sans();
        for id in ids.iter().filter_map(|uri| SpiffeId::parse(uri).ok()) {
            let found = id.trust_domain();
            if found == *trust_domain {
                continue;
            }
            if known(&found) {
                return Err(ReadError::OtherTrustDomain { found, expected: trust_domain.clone() });
            }
            foreign_id = Some(id);
        }
    }
    Ok(ReadBundle { bundle, skipped, foreign_id })
}

#[cfg(test)]
mod tests {
    use steeple_datastore::conformance::fixtures;

    use super::*;

    /// Its X.509 authority has the ID spiffe://example.org.
    fn document() -> String {
        fixtures::bundle("example.org").to_spiffe_json()
    }

    fn td(name: &str) -> TrustDomain {
        TrustDomain::new(name).unwrap()
    }

    #[test]
    fn a_bundle_is_read() {
        let read = read_bundle(&td("example.org"), document().as_bytes(), |_| true).unwrap();
        assert_eq!(read.bundle.sequence_number, 1);
        assert_eq!((read.bundle.x509_authorities.len(), read.bundle.jwt_authorities.len()), (1, 1));
        assert_eq!((read.skipped.len(), read.foreign_id), (0, None));
    }

    #[test]
    fn f_07_another_trust_domains_bundle_is_not_taken() {
        let read = |known: bool| read_bundle(&td("other.org"), document().as_bytes(), |_| known);
        let refused = ReadError::OtherTrustDomain { found: td("example.org"), expected: td("other.org") };
        assert_eq!(read(true).unwrap_err(), refused);
        let taken = read(false).unwrap();
        assert_eq!(taken.foreign_id.unwrap().as_str(), "spiffe://example.org");
    }

    #[test]
    fn garbage_is_not_taken_and_odd_entries_are_left_out() {
        for garbage in ["", "<html></html>", "{}", "[]", "{\"keys\": 5}", "{\"keys\""] {
            let refused = read_bundle(&td("example.org"), garbage.as_bytes(), |_| false).unwrap_err();
            assert!(matches!(refused, ReadError::NotABundle(_)), "{garbage}: {refused}");
        }
        let refused = read_bundle(&td("example.org"), b"\xff\xfe", |_| false).unwrap_err();
        assert_eq!(refused, ReadError::NotText);
        let odd = "{\"keys\": [{\"use\": \"tomorrow\"}, 7]}";
        let read = read_bundle(&td("example.org"), odd.as_bytes(), |_| false).unwrap();
        assert!(read.bundle.is_empty());
        assert_eq!(read.skipped.len(), 2);
    }
}
