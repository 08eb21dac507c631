//! From what the peer showed, our bundles and the clock to what is wrong.

use std::collections::BTreeMap;

use steeple_cli::{Failure, go};
use steeple_runtime::reason::Reason;
use steeple_runtime::tls::{Probe, ProbeFailure};
use steeple_spiffe::x509::{VerifyError, check_leaf, verify_svid};
use steeple_spiffe::{Certificate, SpiffeId, TrustDomain, UnixTime};

use crate::commands::api::svids::{Federated, Svid};

/// What we have.
#[derive(Debug)]
pub struct Known {
    pub id: SpiffeId,
    /// Leaf first.
    pub chain: Vec<Certificate>,
    pub bundles: BTreeMap<TrustDomain, Vec<Certificate>>,
    pub now: UnixTime,
}

/// One thing that is wrong, or that nothing is.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    pub reason: Reason,
    pub text: String,
}

/// Clocks of one cluster differ by less than this, seconds.
const SKEW: i64 = 600;

impl Known {
    pub fn new(own: &Svid, federated: &Federated, now: UnixTime) -> Result<Self, Failure> {
        let id: SpiffeId = own.id.parse()?;
        let mut bundles = BTreeMap::from([(id.trust_domain(), own.bundle.clone())]);
        for (name, authorities) in federated {
            bundles.insert(TrustDomain::new(name)?, authorities.clone());
        }
        Ok(Self { id, chain: own.chain.clone(), bundles, now })
    }
}

/// The peer's certificates as far as they can be read.
pub fn chain(probed: &Probe) -> Vec<Certificate> {
    probed.chain.iter().map_while(|der| Certificate::from_der(der).ok()).collect()
}

/// Hexadecimal; `(none)` without one.
pub fn key_id(id: Option<Vec<u8>>) -> String {
    let hex = |text: String, byte: &u8| text + &format!("{byte:02x}");
    id.map_or_else(|| "(none)".to_owned(), |id| id.iter().fold(String::new(), hex))
}

/// The worst first.
pub fn judge(probed: &Probe, known: &Known, expected: Option<&SpiffeId>) -> Vec<Finding> {
    let mut findings = Vec::new();
    match &probed.failure {
        Some(ProbeFailure::Connect(error)) => {
            return vec![finding(Reason::ConnectFailed, format!("{error}."))];
        }
        Some(ProbeFailure::NotTls(error)) => {
            return vec![finding(Reason::NotTls, format!("The answer is no TLS: {error}."))];
        }
        _ => {}
    }
    let ours = known.chain.first();
    if let Some(leaf) = ours.filter(|leaf| leaf.not_after() <= known.now) {
        let text = format!("Our SVID {} is over since {}.", known.id, go::rfc3339_utc(leaf.not_after()));
        findings.push(finding(Reason::OwnSvidExpired, text));
    }
    let chain = chain(probed);
    if chain.len() < probed.chain.len() {
        let text =
            format!("Certificate {} of the peer's {} cannot be read.", chain.len() + 1, probed.chain.len());
        findings.push(finding(Reason::BadChain, text));
    } else if !chain.is_empty() {
        certificates(&chain, known, expected, &mut findings);
    }
    match &probed.failure {
        Some(ProbeFailure::Alert(alert)) => {
            findings.push(finding(Reason::PeerRejectedUs, rejected(alert, known)));
        }
        Some(ProbeFailure::Handshake(error)) => {
            let what = if chain.is_empty() {
                "before the peer showed a certificate"
            } else {
                "after the peer showed its certificate"
            };
            findings.push(finding(Reason::HandshakeFailed, format!("The handshake ended {what}: {error}.")));
        }
        _ => {}
    }
    if findings.is_empty() {
        let peer = chain.first().and_then(|leaf| leaf.spiffe_id().ok()).map(|id| id.to_string());
        let text = format!("{} and {} authenticated each other.", known.id, peer.unwrap_or_default());
        findings.push(finding(Reason::MtlsOk, text));
    }
    findings
}

fn certificates(
    chain: &[Certificate],
    known: &Known,
    expected: Option<&SpiffeId>,
    findings: &mut Vec<Finding>,
) {
    let Some(leaf) = chain.first() else { return };
    let id = match check_leaf(leaf) {
        Ok(id) => id,
        Err(error) => {
            let names = [leaf.dns_sans(), leaf.uri_sans()].concat().join(", ");
            let names = if names.is_empty() { leaf.subject_string() } else { names };
            findings.push(finding(
                Reason::NoSpiffeId,
                format!("The certificate of {names} is no X.509-SVID: {error}."),
            ));
            return;
        }
    };
    validity(leaf, &id, known, findings);
    match known.bundles.get(&id.trust_domain()) {
        None => {
            let text = format!(
                "{id} is of trust domain {}, with which {} does not federate.",
                id.trust_domain(),
                known.id
            );
            findings.push(finding(Reason::ForeignTrustDomain, text));
        }
        Some(bundle) => authority(chain, &id, bundle, known, findings),
    }
    if let Some(expected) = expected.filter(|expected| **expected != id) {
        findings.push(finding(Reason::WrongSpiffeId, format!("The peer is {id}; expected was {expected}.")));
    }
}

fn validity(leaf: &Certificate, id: &SpiffeId, known: &Known, findings: &mut Vec<Finding>) {
    let now = known.now;
    let at = go::rfc3339_utc(now);
    if leaf.not_after() <= now {
        let since = now - leaf.not_after();
        let whose = if since < SKEW { "; a clock may be wrong" } else { "" };
        let text =
            format!("{id} is over since {}, it is {at} here{whose}.", go::rfc3339_utc(leaf.not_after()));
        findings.push(finding(Reason::CertificateExpired, text));
    } else if leaf.not_before() > now {
        let behind = go::seconds(leaf.not_before() - now);
        let text = format!(
            "{id} is valid from {} on, it is {at} here: this clock is at least {behind} behind the peer's server.",
            go::rfc3339_utc(leaf.not_before())
        );
        findings.push(finding(Reason::CertificateNotYetValid, text));
    }
}

/// Whether the chain leads to the bundle, whatever the clock says of the leaf.
fn authority(
    chain: &[Certificate],
    id: &SpiffeId,
    bundle: &[Certificate],
    known: &Known,
    findings: &mut Vec<Finding>,
) {
    let Some((leaf, last)) = chain.first().zip(chain.last()) else { return };
    let at = known.now.clamp(leaf.not_before(), leaf.not_after() - 1);
    let source = (id.trust_domain(), bundle.to_vec());
    let Err(error) = verify_svid(chain, &source, at) else { return };
    let offered = last.authority_key_id();
    let known_ids: Vec<Option<Vec<u8>>> = bundle.iter().map(Certificate::subject_key_id).collect();
    if let Some(authority) = bundle.iter().find(|one| offered.is_some() && one.subject_key_id() == offered) {
        let text = if authority.not_after() <= at {
            format!(
                "The authority {} that signed {id} ended at {}.",
                key_id(offered),
                go::rfc3339_utc(authority.not_after())
            )
        } else {
            format!("The chain of {id} does not hold: {error}.")
        };
        findings.push(finding(Reason::BadChain, text));
        return;
    }
    let reason = if matches!(error, VerifyError::EmptyChain | VerifyError::Leaf(_)) {
        Reason::BadChain
    } else {
        Reason::UnknownAuthority
    };
    let ids: Vec<String> = known_ids.into_iter().map(key_id).collect();
    let text = format!(
        "{id} was signed by authority {}; the bundle of {} has {}.",
        key_id(offered),
        id.trust_domain(),
        ids.join(", ")
    );
    findings.push(finding(reason, text));
}

fn rejected(alert: &str, known: &Known) -> String {
    let why = match alert {
        "unknown_ca" => {
            let signed_by = key_id(known.chain.last().and_then(Certificate::authority_key_id));
            format!("it does not know the authority {signed_by} that signed {}", known.id)
        }
        "certificate_expired" => format!("it holds {} for expired: compare the clocks", known.id),
        "certificate_required" => "it got no certificate from us".to_owned(),
        "access_denied" => format!("it does not allow {}", known.id),
        "protocol_version" | "insufficient_security" | "handshake_failure" | "no_application_protocol" => {
            "the two have no TLS version, key exchange or protocol in common".to_owned()
        }
        _ => format!("it does not accept {}", known.id),
    };
    format!("The peer answered with alert {alert}: {why}.")
}

fn finding(reason: Reason, text: String) -> Finding {
    Finding { reason, text }
}

#[cfg(test)]
mod tests;
