//! RFC 5280 path validation of our own, for chains with URI name constraints, which rustls-webpki refuses
//! altogether. The same rules otherwise; constraints on kinds of names other than URI and DNS are refused.

use super::Certificate;
use super::certificate::Constraints;
use super::verify::VerifyError;
use crate::UnixTime;

/// Longest path tried, and how many signatures one validation may cost.
const MAX_DEPTH: usize = 8;
const MAX_SIGNATURES: usize = 100;

/// Whether a certificate may sign others now: in its validity, a CA, and keyCertSign when it limits key usage.
/// Go and RFC 5280 §6.1.4 ask this of intermediates; Go asks it of roots too.
pub(super) fn may_sign(ca: &Certificate, now: UnixTime) -> bool {
    ca.is_ca()
        && ca.key_usage().is_none_or(super::KeyUsage::cert_sign)
        && ca.not_before() <= now
        && now <= ca.not_after()
}

/// Looks for a path from `leaf` to one of `roots`; signers and roots are known to satisfy [`may_sign`].
pub(super) fn verify(
    leaf: &Certificate,
    signers: &[&Certificate],
    roots: &[&Certificate],
    now: UnixTime,
) -> Result<(), VerifyError> {
    check_leaf_now(leaf, now)?;
    let mut search = Search::new(signers, roots, false);
    if search.extend(&mut vec![leaf]) {
        return Ok(());
    }
    Err(search.refusal.unwrap_or(VerifyError::NoAuthority("no chain to an X.509 authority")))
}

/// What holds for a leaf whoever signed it.
fn check_leaf_now(leaf: &Certificate, now: UnixTime) -> Result<(), VerifyError> {
    if now < leaf.not_before() {
        return Err(VerifyError::NotValidNow("not yet valid"));
    }
    if now > leaf.not_after() {
        return Err(VerifyError::NotValidNow("expired"));
    }
    if leaf.extensions().unknown_critical {
        return Err(VerifyError::Path("unhandled critical extension".into()));
    }
    Ok(())
}

/// Every path from `leaf` to a root, leaf first, root last, for certificates of a foreign PKI: no SPIFFE rules, any extended
/// key usage. As in Go a leaf that is one of the roots itself is trusted.
pub fn verify_chains(
    leaf: &Certificate,
    intermediates: &[Certificate],
    roots: &[Certificate],
    now: UnixTime,
) -> Result<Vec<Vec<Certificate>>, VerifyError> {
    let signers: Vec<_> = intermediates.iter().filter(|ca| may_sign(ca, now)).collect();
    let anchors: Vec<_> = roots.iter().filter(|ca| may_sign(ca, now)).collect();
    check_leaf_now(leaf, now)?;
    if roots.contains(leaf) {
        return Ok(vec![vec![leaf.clone()]]);
    }
    let mut search = Search::new(&signers, &anchors, true);
    search.extend(&mut vec![leaf]);
    match search.found {
        Some(found) if !found.is_empty() => Ok(found),
        _ => Err(search.refusal.unwrap_or(VerifyError::NoAuthority("no chain to a trusted certificate"))),
    }
}

struct Search<'a> {
    signers: &'a [&'a Certificate],
    roots: &'a [&'a Certificate],
    signatures_left: usize,
    /// Every path, if all are asked for.
    found: Option<Vec<Vec<Certificate>>>,
    /// Why a path that was complete otherwise was refused.
    refusal: Option<VerifyError>,
}

impl<'a> Search<'a> {
    fn new(signers: &'a [&'a Certificate], roots: &'a [&'a Certificate], all: bool) -> Self {
        let found = all.then(Vec::new);
        Self { signers, roots, signatures_left: MAX_SIGNATURES, found, refusal: None }
    }

    /// Tries every issuer of the last certificate of `chain`, which starts with the leaf.
    fn extend(&mut self, chain: &mut Vec<&'a Certificate>) -> bool {
        let Some(&subject) = chain.last() else { return false };
        let issuers = self.roots.iter().map(|root| (*root, true));
        let issuers: Vec<_> = issuers.chain(self.signers.iter().map(|signer| (*signer, false))).collect();
        for (issuer, is_root) in issuers {
            if issuer.subject_der() != subject.issuer_der() || chain.contains(&issuer) {
                continue;
            }
            if self.signatures_left == 0 {
                return false;
            }
            self.signatures_left -= 1;
            if subject.verify_signature_by(&issuer.public_key()).is_err() {
                continue;
            }
            if let Err(reason) = may_follow(issuer, chain) {
                self.refusal = Some(VerifyError::Path(reason.into()));
                continue;
            }
            if is_root {
                let Some(found) = &mut self.found else { return true };
                found.push(chain.iter().copied().chain([issuer]).cloned().collect());
                continue;
            }
            if chain.len() < MAX_DEPTH {
                chain.push(issuer);
                if self.extend(chain) {
                    return true;
                }
                chain.pop();
            }
        }
        false
    }
}

/// Whether `issuer` allows everything below it: path length, name constraints, no unknown critical extension.
fn may_follow(issuer: &Certificate, below: &[&Certificate]) -> Result<(), &'static str> {
    if issuer.extensions().unknown_critical {
        return Err("unhandled critical extension");
    }
    // Self-issued intermediates do not count (RFC 5280 §6.1.4 (l)); the leaf never does.
    let intermediates = below[1..].iter().filter(|ca| ca.subject_der() != ca.issuer_der()).count();
    if issuer.max_path_len().is_some_and(|max| intermediates > max as usize) {
        return Err("path length constraint violated");
    }
    let Some(constraints) = &issuer.extensions().name_constraints else {
        return Ok(());
    };
    if constraints.others {
        return Err("unsupported kind of name constraint");
    }
    let allowed = below.iter().all(|certificate| {
        certificate.extensions().uris.iter().all(|uri| uri_allowed(constraints, uri))
            && certificate.extensions().dns.iter().all(|name| dns_allowed(constraints, name))
    });
    if allowed { Ok(()) } else { Err("name constraint violated") }
}

/// URI constraints apply to the host (RFC 5280 §4.2.1.10): `.example.org` is any host below, `example.org` the
/// host itself.
fn uri_allowed(constraints: &Constraints, uri: &str) -> bool {
    let Some((_, rest)) = uri.split_once("://") else {
        return !constraints.has_uris();
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let host = host.split(':').next().unwrap_or_default();
    let matches = |constraint: &String| {
        if let Some(parent) = constraint.strip_prefix('.') {
            below(host, parent)
        } else {
            host.eq_ignore_ascii_case(constraint)
        }
    };
    let permitted = constraints.permitted_uris.is_empty()
        || (!host.is_empty() && constraints.permitted_uris.iter().any(matches));
    permitted && !constraints.excluded_uris.iter().any(matches)
}

/// DNS constraints include the name itself and everything below it; empty is everything.
fn dns_allowed(constraints: &Constraints, name: &str) -> bool {
    let matches = |constraint: &String| {
        let base = constraint.strip_prefix('.').unwrap_or(constraint);
        base.is_empty()
            || below(name, base)
            || (!constraint.starts_with('.') && name.eq_ignore_ascii_case(base))
    };
    let permitted = constraints.permitted_dns.is_empty() || constraints.permitted_dns.iter().any(matches);
    permitted && !constraints.excluded_dns.iter().any(matches)
}

/// Whether `name` is a true subdomain of `parent`.
fn below(name: &str, parent: &str) -> bool {
    let Some(at) = name.len().checked_sub(parent.len() + 1) else { return false };
    name.is_char_boundary(at)
        && name.as_bytes()[at] == b'.'
        && at > 0
        && name.get(at + 1..).is_some_and(|tail| tail.eq_ignore_ascii_case(parent))
}
