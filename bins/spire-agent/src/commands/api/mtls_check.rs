//! `api mtls-check ADDR`: does a handshake with a peer, and says why it fails (Steeple's own).

mod judge;

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::json;
use steeple_cli::{Api, ClientCommand, Failure, Output, Session, go, session};
use steeple_config::{Flag, FlagSet};
use steeple_proto::workload::{X509svidRequest, X509svidResponse};
use steeple_runtime::clock::{Clock as _, SystemClock};
use steeple_runtime::reason::Reason;
use steeple_runtime::tls::{LiveIdentity, Probe, probe};
use steeple_spiffe::{Certificate, SpiffeId};

use super::client;
use super::svids::{self, Svid};
use judge::{Finding, Known, judge};

pub struct MtlsCheck {
    address: Flag<String>,
    expected: Flag<String>,
    shown: Flag<String>,
}

/// The address may stand before the flags.
pub fn command(args: &[String]) -> u8 {
    let mut args = args.to_vec();
    if args.first().is_some_and(|first| !first.starts_with('-')) {
        args.insert(0, "-address".to_owned());
    }
    session::run::<MtlsCheck>(&args)
}

/// A peer that does not answer at all.
const PATIENCE: Duration = Duration::from_secs(5);

impl ClientCommand for MtlsCheck {
    const NAME: &'static str = "api mtls-check";
    const API: Api = Api::Workload;

    fn flags(flags: &mut FlagSet) -> Self {
        Self {
            address: flags.string("address", "", "host:port of the peer; may stand first without the flag"),
            expected: flags.string("spiffeID", "", "SPIFFE ID that the peer must have"),
            shown: flags.string("as", "", "SPIFFE ID of the SVID to show, if not the first"),
        }
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let address = self.address.get();
        if !address.contains(':') {
            return Err(Failure::new("the peer's address (host:port) is required"));
        }
        let expected = self.expected.get();
        let expected: Option<SpiffeId> = (!expected.is_empty()).then(|| expected.parse()).transpose()?;
        let answer = fetch(session).await?;
        let (svids, federated) = svids::parse(&answer)?;
        let own = self.own(&svids)?;
        let identity = LiveIdentity::new();
        identity.set(&own.chain, &own.key)?;
        let probed = probe(&address, identity, PATIENCE).await;
        let known = Known::new(own, &federated, SystemClock.now())?;
        let findings = judge(&probed, &known, expected.as_ref());
        match session.output {
            Output::Json => session.print_json(vec![to_json(&address, &probed, &known, &findings)])?,
            Output::Pretty => session.io.print(&pretty(&address, &probed, &known, &findings))?,
        }
        match findings.first() {
            Some(first) if first.reason == Reason::MtlsOk => Ok(()),
            _ => Err(Failure::new("the handshake fails")),
        }
    }
}

impl MtlsCheck {
    fn own<'a>(&self, svids: &'a [Svid]) -> Result<&'a Svid, Failure> {
        let wanted = self.shown.get();
        let found = svids.iter().find(|svid| wanted.is_empty() || svid.id == wanted);
        found.ok_or_else(|| Failure::new(format!("the agent gave no SVID of {wanted}")))
    }
}

async fn fetch(session: &Session) -> Result<X509svidResponse, Failure> {
    let mut client = client(&session.channel);
    let request = session.workload_request(X509svidRequest {});
    let first =
        session.within(async { client.fetch_x509svid(request).await?.into_inner().message().await }).await?;
    first.ok_or_else(|| Failure::new("EOF"))
}

fn pretty(address: &str, probed: &Probe, known: &Known, findings: &[Finding]) -> String {
    let mut text = String::new();
    for Finding { reason, text: said } in findings {
        let _ = writeln!(text, "{reason}: {said}");
        if !reason.advice().is_empty() {
            let _ = writeln!(text, "  {}", reason.advice());
        }
    }
    let _ = writeln!(text, "\nPeer        {address}");
    if let (Some(version), Some(suite)) = (&probed.version, &probed.cipher_suite) {
        let exchange = probed.key_exchange.as_deref().unwrap_or("none");
        let _ = writeln!(text, "  TLS       {version}, {suite}, {exchange}");
    }
    for (i, certificate) in judge::chain(probed).iter().enumerate() {
        push_certificate(&mut text, if i == 0 { "leaf" } else { "above" }, certificate);
    }
    let _ = writeln!(text, "Us          {}", known.id);
    for (i, certificate) in known.chain.iter().enumerate() {
        push_certificate(&mut text, if i == 0 { "leaf" } else { "above" }, certificate);
    }
    for (trust_domain, authorities) in &known.bundles {
        let _ = writeln!(text, "Bundle      {trust_domain}");
        for authority in authorities {
            let _ = writeln!(
                text,
                "  authority {} until {}",
                judge::key_id(authority.subject_key_id()),
                go::rfc3339_utc(authority.not_after())
            );
        }
    }
    let _ = writeln!(text, "Clock       {}", go::rfc3339_utc(known.now));
    text
}

fn push_certificate(text: &mut String, label: &str, certificate: &Certificate) {
    let id = certificate.uri_sans().join(", ");
    let (from, to) = (go::rfc3339_utc(certificate.not_before()), go::rfc3339_utc(certificate.not_after()));
    let _ = writeln!(text, "  {label:<9} {}", if id.is_empty() { certificate.subject_string() } else { id });
    let _ = writeln!(text, "            {from} to {to}");
    let _ = writeln!(text, "            signed by {}", judge::key_id(certificate.authority_key_id()));
}

fn to_json(address: &str, probed: &Probe, known: &Known, findings: &[Finding]) -> serde_json::Value {
    let certificate = |certificate: &Certificate| {
        json!({
            "uri_sans": certificate.uri_sans(),
            "dns_sans": certificate.dns_sans(),
            "subject": certificate.subject_string(),
            "not_before": certificate.not_before(),
            "not_after": certificate.not_after(),
            "authority_key_id": judge::key_id(certificate.authority_key_id()),
        })
    };
    let told = |finding: &Finding| {
        let Finding { reason, text } = finding;
        json!({"code": reason.code(), "text": text, "what_to_do": reason.advice()})
    };
    let authorities = |bundle: &Vec<Certificate>| -> Vec<_> {
        let one = |authority: &Certificate| {
            json!({
                "key_id": judge::key_id(authority.subject_key_id()), "not_after": authority.not_after(),
            })
        };
        bundle.iter().map(one).collect()
    };
    let bundles: serde_json::Map<_, _> =
        known.bundles.iter().map(|(td, bundle)| (td.name().to_owned(), authorities(bundle).into())).collect();
    json!({
        "address": address,
        "ok": findings.iter().all(|finding| finding.reason == Reason::MtlsOk),
        "reasons": findings.iter().map(told).collect::<Vec<_>>(),
        "peer": {
            "version": probed.version, "cipher_suite": probed.cipher_suite, "key_exchange": probed.key_exchange,
            "chain": judge::chain(probed).iter().map(certificate).collect::<Vec<_>>(),
        },
        "own": {"spiffe_id": known.id.to_string(), "chain": known.chain.iter().map(certificate).collect::<Vec<_>>()},
        "bundles": bundles,
        "now": known.now,
    })
}
