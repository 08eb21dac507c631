//! Instructions of what is done for each entry, request or file. Counted by valgrind where it is installed: the same number on
//! a busy machine; without it CPU nanoseconds. `cargo bench -p steeple-bench --bench micro [-- NAME…]`.
//!
//! A run of N and one of 2N operations are counted; their difference has no start-up in it (ADR 0026). Valgrind knows no
//! AVX-512, so what signs and hashes takes other instructions than on the machine itself: compare counts with counts.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unnecessary_wraps,
    reason = "a benchmark prints, and all of them have one type"
)]

use std::hint::black_box;
use std::process::Command;

use anyhow::{Context, Result, bail};
use prost::Message as _;
use steeple_agent_core::{Selector, SelectorSet};
use steeple_datastore::model;
use steeple_proto::workload::{X509svid, X509svidResponse};
use steeple_server_core::index::EntryIndex;
use steeple_spiffe::x509::{
    CertificateRequest, DistinguishedName, Issuer, LeafTemplate, SerialNumber, assemble, csr_tbs, leaf_tbs,
};
use steeple_spiffe::{KeyType, PrivateKey, SpiffeId, TrustDomain};

/// Name, how often in one run, what it is.
type Micro = (&'static str, usize, fn(usize) -> Result<()>);

const ALL: &[Micro] = &[
    ("id-parse", 5000, id_parse),
    ("entry-match", 5000, entry_match),
    ("index-update", 500, index_update),
    ("csr-verify", 20, csr_verify),
    ("certificate-build", 1000, certificate_build),
    ("certificate-sign", 40, certificate_sign),
    ("response-encode", 500, response_encode),
    ("hcl-parse", 40, hcl_parse),
];

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if let [run, name, times] = &args[..]
        && run == "run"
    {
        let (.., micro) = ALL.iter().find(|(known, ..)| known == name).context("no such benchmark")?;
        return micro(times.parse()?);
    }
    let valgrind = Command::new("valgrind").arg("--version").output().is_ok_and(|ran| ran.status.success());
    println!(
        "{:<20} {}",
        "operation",
        if valgrind { "instructions" } else { "CPU ns (valgrind is not installed)" }
    );
    for (name, times, _) in
        ALL.iter().filter(|(name, ..)| args.is_empty() || args.iter().any(|arg| arg == name))
    {
        let count = if valgrind { instructions } else { nanoseconds };
        let (once, twice) = (count(name, *times)?, count(name, 2 * times)?);
        println!("{name:<20} {:.0}", (twice - once) / *times as f64);
    }
    Ok(())
}

fn instructions(name: &str, times: usize) -> Result<f64> {
    let ran = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(["run", name, &times.to_string()])
        .output()?;
    let printed = String::from_utf8_lossy(&ran.stderr).into_owned();
    if !ran.status.success() {
        bail!("{name}: {printed}");
    }
    let collected = printed.lines().find_map(|line| line.split_once("Collected :"));
    collected
        .and_then(|(_, count)| count.trim().parse().ok())
        .with_context(|| format!("no count in {printed}"))
}

fn nanoseconds(name: &str, times: usize) -> Result<f64> {
    let (.., micro) = ALL.iter().find(|(known, ..)| *known == name).context("no such benchmark")?;
    let used = || -> Result<f64> {
        let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat")?;
        Ok(schedstat.split_whitespace().next().context("no schedstat")?.parse()?)
    };
    let begin = used()?;
    micro(times)?;
    Ok(used()? - begin)
}

fn id_parse(times: usize) -> Result<()> {
    for _ in 0..times {
        black_box(SpiffeId::parse(black_box("spiffe://prod.example.org/ns/payments/sa/ledger-writer"))?);
    }
    Ok(())
}

fn entry_match(times: usize) -> Result<()> {
    let set = |texts: &[&str]| texts.iter().map(|text| Selector::new("k8s", text)).collect::<SelectorSet>();
    let entry = set(&["ns:payments", "sa:ledger-writer", "pod-label:app:ledger"]);
    let workload = set(&[
        "ns:payments",
        "sa:ledger-writer",
        "pod-label:app:ledger",
        "pod-label:tier:backend",
        "container-name:ledger",
        "node-name:node-17",
        "pod-name:ledger-7d9f",
        "pod-uid:c0ffee",
        "pod-image-count:2",
        "pod-owner:ReplicaSet:ledger",
    ]);
    for _ in 0..times {
        black_box(black_box(&entry).is_subset_of(black_box(&workload)));
    }
    Ok(())
}

/// An entry comes to an index of 10,000 and goes.
fn index_update(times: usize) -> Result<()> {
    let trust_domain = TrustDomain::new("example.org")?;
    let mut index = EntryIndex::new(trust_domain.clone());
    for n in 0..10_000 {
        index.set_entry(entry(&trust_domain, n)?);
    }
    let one = entry(&trust_domain, 10_000)?;
    for _ in 0..times {
        black_box(index.set_entry(one.clone()));
        black_box(index.remove_entry(&one.id));
    }
    Ok(())
}

fn entry(trust_domain: &TrustDomain, n: usize) -> Result<model::Entry> {
    let selector = |kind: &str, value: String| model::Selector { kind: kind.into(), value };
    Ok(model::Entry {
        id: format!("entry-{n}"),
        spiffe_id: SpiffeId::from_parts(trust_domain, &format!("/workload/{n}"))?,
        parent_id: SpiffeId::from_parts(trust_domain, &format!("/node/{}", n % 100))?,
        selectors: vec![selector("unix", format!("uid:{n}")), selector("unix", format!("gid:{}", n % 1000))],
        x509_svid_ttl: 0,
        jwt_svid_ttl: 0,
        federates_with: Vec::new(),
        admin: false,
        downstream: false,
        expires_at: 0,
        dns_names: Vec::new(),
        revision_number: 0,
        store_svid: false,
        hint: String::new(),
        created_at: 0,
        additional: None,
    })
}

fn csr_verify(times: usize) -> Result<()> {
    let key = PrivateKey::generate(KeyType::EcP256)?;
    let algorithm = KeyType::EcP256.x509_signature_algorithm();
    let tbs = csr_tbs(&DistinguishedName::default_svid(), &key.public_key(), &[], &[]);
    let csr = assemble(&tbs, algorithm, &key.sign(algorithm, &tbs)?);
    for _ in 0..times {
        CertificateRequest::from_der(black_box(&csr))?.verify_signature()?;
    }
    Ok(())
}

fn template() -> Result<(LeafTemplate, Issuer, PrivateKey)> {
    let key = PrivateKey::generate(KeyType::EcP256)?;
    let template = LeafTemplate {
        spiffe_id: SpiffeId::parse("spiffe://prod.example.org/ns/payments/sa/ledger-writer")?,
        public_key: key.public_key(),
        not_before: 1_700_000_000,
        not_after: 1_700_003_600,
        dns_names: Vec::new(),
        subject: None,
        serial: SerialNumber::new(u128::MAX / 3).context("zero")?,
    };
    let issuer = Issuer {
        subject_der: DistinguishedName::default_svid().to_der(),
        key_id: vec![7; 20],
        algorithm: KeyType::EcP256.x509_signature_algorithm(),
    };
    Ok((template, issuer, key))
}

fn certificate_build(times: usize) -> Result<()> {
    let (template, issuer, _) = template()?;
    for _ in 0..times {
        black_box(leaf_tbs(black_box(&template), &issuer)?);
    }
    Ok(())
}

fn certificate_sign(times: usize) -> Result<()> {
    let (template, issuer, key) = template()?;
    for _ in 0..times {
        let tbs = leaf_tbs(black_box(&template), &issuer)?;
        black_box(assemble(&tbs, issuer.algorithm, &key.sign(issuer.algorithm, &tbs)?));
    }
    Ok(())
}

fn response_encode(times: usize) -> Result<()> {
    let svid = X509svid {
        spiffe_id: "spiffe://prod.example.org/ns/payments/sa/ledger-writer".into(),
        x509_svid: vec![1; 700],
        x509_svid_key: vec![2; 138],
        bundle: vec![3; 900],
        hint: String::new(),
    };
    let response = X509svidResponse { svids: vec![svid; 10], ..X509svidResponse::default() };
    for _ in 0..times {
        black_box(black_box(&response).encode_to_vec());
    }
    Ok(())
}

fn hcl_parse(times: usize) -> Result<()> {
    const FILE: &str = r#"server {
  bind_address = "0.0.0.0"
  bind_port = "8081"
  trust_domain = "prod.example.org"
  data_dir = "/run/spire/data"
  log_level = "INFO"
  ca_ttl = "24h"
  default_x509_svid_ttl = "1h"
  ca_subject { country = ["US"] organization = ["SPIFFE"] common_name = "" }
  ratelimit { attestation = true signing = true }
}
plugins {
  DataStore "sql" { plugin_data { database_type = "sqlite3" connection_string = "/run/spire/data/datastore.sqlite3" } }
  KeyManager "disk" { plugin_data { keys_path = "/run/spire/data/keys.json" } }
  NodeAttestor "k8s_psat" { plugin_data { clusters = { "prod" = { service_account_allow_list = ["spire:spire-agent"] } } } }
}
health_checks { listener_enabled = true bind_port = "8080" live_path = "/live" ready_path = "/ready" }
"#;
    for _ in 0..times {
        black_box(steeple_config::parse("server.conf", black_box(FILE))?);
    }
    Ok(())
}
