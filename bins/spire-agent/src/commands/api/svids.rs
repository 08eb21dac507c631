//! X.509-SVIDs as the Workload API sends them, checked, and as they are shown.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use steeple_cli::{Context as _, Failure, go};
use steeple_config::go_quote;
use steeple_proto::workload::{X509svid, X509svidResponse};
use steeple_spiffe::x509::verify_svid;
use steeple_spiffe::{Certificate, PrivateKey, SpiffeId, UnixTime};

/// The bundles of other trust domains by the name they are shown under.
pub type Federated = BTreeMap<String, Vec<Certificate>>;

pub struct Svid {
    pub id: String,
    pub hint: String,
    /// Leaf first.
    pub chain: Vec<Certificate>,
    pub key: PrivateKey,
    pub bundle: Vec<Certificate>,
}

/// What the agent answered, read as far as a workload needs it.
pub fn parse(answer: &X509svidResponse) -> Result<(Vec<Svid>, Federated), Failure> {
    if answer.svids.is_empty() {
        return Err(Failure::new("workload response contains no svids"));
    }
    let mut federated = Federated::new();
    for (trust_domain, der) in &answer.federated_bundles {
        let quoted = go_quote(trust_domain);
        let certificates = Certificate::many_from_der(der)
            .context(format!("failed to parse bundle for federated domain {quoted}"))?;
        if certificates.is_empty() {
            return Err(Failure::new(format!("no certificates in bundle for federated domain {quoted}")));
        }
        federated.insert(trust_domain.clone(), certificates);
    }
    let svids = answer.svids.iter().enumerate().map(|(i, svid)| {
        let id = go_quote(&svid.spiffe_id);
        parse_one(svid).context(format!("failed to parse svid entry {i} for spiffe id {id}"))
    });
    Ok((svids.collect::<Result<_, _>>()?, federated))
}

fn parse_one(svid: &X509svid) -> Result<Svid, Failure> {
    let chain = Certificate::many_from_der(&svid.x509_svid)?;
    if chain.is_empty() {
        return Err(Failure::new("no certificates found"));
    }
    let key = PrivateKey::from_pkcs8_der(&svid.x509_svid_key).context("failed to parse private key")?;
    let bundle = Certificate::many_from_der(&svid.bundle).context("failed to parse trust bundle")?;
    if bundle.is_empty() {
        return Err(Failure::new("no certificates in trust bundle"));
    }
    Ok(Svid { id: svid.spiffe_id.clone(), hint: svid.hint.clone(), chain, key, bundle })
}

/// Each SVID must be valid under the bundle it came with.
pub fn verify(svids: &[Svid], now: UnixTime) -> Result<(), Failure> {
    for svid in svids {
        let id: SpiffeId = svid.id.parse()?;
        let bundle = (id.trust_domain(), svid.bundle.clone());
        let verified = verify_svid(&svid.chain, &bundle, now);
        let id = go_quote(&svid.id);
        verified.context(format!("{id} SVID failed verification against bundle: x509svid"))?;
    }
    Ok(())
}

/// The SVIDs and how long they took.
pub fn pretty(svids: &[Svid], federated: &Federated, nanos: i128) -> String {
    let plural = if svids.len() == 1 { "" } else { "s" };
    let mut text = format!("Received {} svid{plural} after {}\n", svids.len(), go::nanos(nanos));
    for svid in svids {
        let _ = write!(text, "\nSPIFFE ID:\t\t{}\n", svid.id);
        if !svid.hint.is_empty() {
            let _ = writeln!(text, "Hint:\t\t\t{}", svid.hint);
        }
        for (i, certificate) in svid.chain.iter().enumerate() {
            let label = if i == 0 { "SVID".to_owned() } else { format!("Intermediate #{i}") };
            push_validity(&mut text, &label, certificate);
        }
        for (i, ca) in svid.bundle.iter().enumerate() {
            push_validity(&mut text, &format!("CA #{}", i + 1), ca);
        }
        for (trust_domain, bundle) in federated {
            for (i, ca) in bundle.iter().enumerate() {
                push_validity(&mut text, &format!("[{trust_domain}] CA #{}", i + 1), ca);
            }
        }
    }
    text.push('\n');
    text
}

fn push_validity(text: &mut String, label: &str, certificate: &Certificate) {
    let (after, until) = (go::time_utc(certificate.not_before()), go::time_utc(certificate.not_after()));
    let _ = write!(text, "{label} Valid After:\t{after}\n{label} Valid Until:\t{until}\n");
}

#[cfg(test)]
mod tests;
