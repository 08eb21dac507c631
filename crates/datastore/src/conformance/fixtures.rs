//! Values to store.

use std::sync::OnceLock;

use steeple_spiffe::bundle::{Bundle, JwtAuthority, X509Authority};
use steeple_spiffe::x509::{CaTemplate, DistinguishedName, SerialNumber, assemble, ca_tbs_self_signed};
use steeple_spiffe::{Certificate, KeyType, PrivateKey, SignatureAlgorithm, SpiffeId, TrustDomain};

use crate::Created;
use crate::model::{Agent, Entry, Selector};

/// The time at which fixtures are stored.
pub const NOW: i64 = 1_800_000_000;

pub fn id(path: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://example.org{path}")).unwrap()
}

pub fn trust_domain(name: &str) -> TrustDomain {
    TrustDomain::new(name).unwrap()
}

/// `kind:value`, several.
pub fn selectors(texts: &[&str]) -> Vec<Selector> {
    texts
        .iter()
        .map(|text| {
            let (kind, value) = text.split_once(':').unwrap();
            Selector::new(kind, value)
        })
        .collect()
}

/// An entry whose id, SPIFFE ID and parent are as given, with these selectors and nothing else.
pub fn entry(entry_id: &str, path: &str, parent: &str, with: &[&str]) -> Entry {
    Entry {
        id: entry_id.into(),
        spiffe_id: id(path),
        parent_id: id(parent),
        selectors: selectors(with),
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
        created_at: NOW,
        additional: None,
    }
}

/// An agent attested by `kind`, expiring an hour after [`NOW`].
pub fn agent(path: &str, kind: &str) -> Agent {
    Agent {
        id: id(path),
        attestation_type: kind.into(),
        serial_number: "1234".into(),
        expires_at: NOW + 3600,
        new_serial_number: String::new(),
        new_expires_at: 0,
        can_reattest: false,
        agent_version: "1.0.0".into(),
        selectors: Vec::new(),
    }
}

/// A CA certificate that ends at `not_after`; the same one for the same arguments.
pub fn authority(number: u32, not_after: i64) -> X509Authority {
    let key = key(number);
    let template = CaTemplate {
        trust_domain: trust_domain("example.org"),
        public_key: key.public_key(),
        subject: DistinguishedName::default_ca(),
        not_before: not_after - 86_400,
        not_after,
        serial: SerialNumber::new(u128::from(number) + 1).unwrap(),
    };
    let algorithm = SignatureAlgorithm::EcdsaSha256;
    let tbs = ca_tbs_self_signed(&template, algorithm).unwrap();
    let signed = signatures(number, not_after, || key.sign(algorithm, &tbs).unwrap());
    X509Authority {
        certificate: Certificate::from_der(&assemble(&tbs, algorithm, &signed)).unwrap(),
        tainted: false,
    }
}

pub fn jwt_authority(number: u32, expires_at: i64) -> JwtAuthority {
    JwtAuthority {
        key_id: format!("key-{number}"),
        public_key: key(number).public_key(),
        expires_at,
        tainted: false,
    }
}

/// One X.509 and one JWT authority.
pub fn bundle(name: &str) -> Bundle {
    let mut bundle = Bundle::new(trust_domain(name));
    bundle.x509_authorities.push(authority(0, NOW + 86_400));
    bundle.jwt_authorities.push(jwt_authority(0, NOW + 86_400));
    bundle.refresh_hint = Some(300);
    bundle.sequence_number = 1;
    bundle
}

/// The entry that a create made.
pub fn made(created: crate::Result<Created>) -> Entry {
    match created {
        Ok(Created::New(entry)) => entry,
        other => panic!("expected a new entry, got {other:?}"),
    }
}

const KEYS: usize = 8;

fn key(number: u32) -> &'static PrivateKey {
    static KEY_POOL: [OnceLock<PrivateKey>; KEYS] = [const { OnceLock::new() }; KEYS];
    KEY_POOL[number as usize % KEYS].get_or_init(|| PrivateKey::generate(KeyType::EcP256).unwrap())
}

/// ECDSA signatures differ each time; the fixture must not.
fn signatures(number: u32, not_after: i64, sign: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
    use std::collections::BTreeMap;
    use std::sync::{Mutex, PoisonError};
    type Made = Mutex<BTreeMap<(u32, i64), Vec<u8>>>;
    static MADE: OnceLock<Made> = OnceLock::new();
    let mut made = MADE.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    made.entry((number, not_after)).or_insert_with(sign).clone()
}
