//! Samples to mutate: made here, or the test data of the crates.

use steeple_spiffe::bundle::JwtAuthority;
use steeple_spiffe::jwt::{self, Claims, WitClaims};
use steeple_spiffe::x509::{self, CaTemplate, DistinguishedName, SerialNumber};
use steeple_spiffe::{Bundle, Certificate, KeyType, PrivateKey, SpiffeId};

use super::own;

fn lines(samples: &[&str]) -> Vec<Vec<u8>> {
    samples.iter().map(|sample| sample.as_bytes().to_vec()).collect()
}

fn new_key() -> PrivateKey {
    PrivateKey::generate(KeyType::EcP256).expect("a key")
}

fn id() -> SpiffeId {
    SpiffeId::parse("spiffe://example.org/ns/default/sa/web").expect("an ID")
}

pub fn ids() -> Vec<Vec<u8>> {
    lines(&["spiffe://example.org/ns/default/sa/web", "spiffe://example.org", "spiffe://1.2.3.4/a-b_c.d"])
}

pub fn endpoints() -> Vec<Vec<u8>> {
    lines(&["unix:///run/spire/agent.sock", "tcp://127.0.0.1:8000", "unix:/a", "tcp://[::1]:1"])
}

pub fn configs() -> Vec<Vec<u8>> {
    lines(&[
        "agent {\n  data_dir = \"/d\"\n  server_port = \"8081\"\n  sds { default_svid_name = \"x\" }\n}\nplugins {\n  KeyManager \"disk\" { plugin_data { directory = \"/d\" } }\n}\n",
        "a = <<EOF\nx ${y} \\n\nEOF\nb = [1, 0x1f, -2.5e3, true, \"z\"] // c\n/* d */ e \"f\" { g = {} }\n",
        "{\"agent\": {\"server_port\": 8081, \"x\": [1, null, {\"y\": \"\\u0041\"}]}, \"plugins\": {\"KeyManager\": {\"memory\": {}}}}",
    ])
}

/// One self-signed authority.
fn authority() -> Certificate {
    let key = new_key();
    let algorithm = key.key_type().x509_signature_algorithm();
    let template = CaTemplate {
        trust_domain: own(),
        public_key: key.public_key(),
        subject: DistinguishedName::default_ca(),
        not_before: 1,
        not_after: 2_000_000_000,
        serial: SerialNumber::random().expect("a number"),
    };
    let tbs = x509::ca_tbs_self_signed(&template, algorithm).expect("a certificate");
    let signature = key.sign(algorithm, &tbs).expect("a signature");
    Certificate::from_der(&x509::assemble(&tbs, algorithm, &signature)).expect("a certificate")
}

pub fn certificates() -> Vec<Vec<u8>> {
    let one = authority();
    vec![one.der().to_vec(), [one.der(), authority().der()].concat(), one.to_pem().into_bytes()]
}

pub fn requests() -> Vec<Vec<u8>> {
    let key = new_key();
    let algorithm = key.key_type().x509_signature_algorithm();
    let request = |names: &[&str]| {
        let subject = DistinguishedName::default_svid();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let tbs = x509::csr_tbs(&subject, &key.public_key(), &[id().as_str()], &names);
        x509::assemble(&tbs, algorithm, &key.sign(algorithm, &tbs).expect("a signature"))
    };
    vec![request(&[]), request(&["a.example.org", "b"])]
}

pub fn keys() -> Vec<Vec<u8>> {
    let key = new_key();
    vec![
        key.pkcs8_der().expect("DER").to_vec(),
        key.public_key().spki_der().to_vec(),
        key.to_pem().expect("PEM").as_bytes().to_vec(),
    ]
}

pub fn tokens() -> Vec<Vec<u8>> {
    let key = new_key();
    let algorithm = key.key_type().jws_algorithm();
    let sign = |input: String| {
        let signature = key.sign(algorithm, input.as_bytes()).expect("a signature");
        jwt::assemble(&input, algorithm, &signature).expect("a token").into_bytes()
    };
    let claims = Claims::new(&id(), &["a".to_owned(), "b".to_owned()], 0, 300).expect("claims");
    let wit = WitClaims::new(&id(), &new_key().public_key(), algorithm, 0, 300, "").expect("claims");
    vec![
        sign(jwt::signing_input(algorithm, "kid", &claims)),
        sign(jwt::wit_signing_input(algorithm, "kid", &wit)),
    ]
}

pub fn bundles() -> Vec<Vec<u8>> {
    let mut bundle = Bundle::new(own());
    bundle.add_x509_authority(authority());
    let key = |key_id: &str| JwtAuthority {
        key_id: key_id.into(),
        public_key: new_key().public_key(),
        expires_at: 0,
        tainted: false,
    };
    bundle.jwt_authorities.push(key("jwt"));
    bundle.wit_authorities.push(key("wit"));
    bundle.refresh_hint = Some(300);
    bundle.sequence_number = 7;
    let spiffe = bundle.to_spiffe_json();
    let map = format!("{{\"trust_domains\": {{\"example.org\": {spiffe}}}}}");
    vec![spiffe.into_bytes(), bundle.to_jwks_json().into_bytes(), map.into_bytes()]
}

/// Of every runtime: the test data of steeple-runtime.
pub fn cgroups() -> Vec<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/runtime/testdata/cgroups");
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .collect();
    names.sort();
    names.iter().filter_map(|name| std::fs::read(name).ok()).collect()
}

/// The beginning of an HTTP/2 connection, its authority written as clients do: plainly, percent-encoded, empty.
pub fn connections() -> Vec<Vec<u8>> {
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        let length = u8::try_from(payload.len()).expect("a short frame");
        let mut frame = vec![0, 0, length, kind, flags, 0, 0, 0, stream];
        frame.extend(payload);
        frame
    };
    let connection = |authority: &str| {
        let mut headers = vec![0x83, 0x86, 0x04, 2, b'/', b'a', 0x01];
        headers.push(u8::try_from(authority.len()).expect("a short name"));
        headers.extend(authority.as_bytes());
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(4, 0, 0, &[]));
        bytes.extend(frame(1, 4, 1, &headers));
        bytes.extend(frame(0, 1, 1, &[0, 0, 0, 0, 0]));
        bytes
    };
    ["localhost", "%2Frun%2Fspire%2Fagent.sock", "/run/agent.sock", ""].map(connection).to_vec()
}

pub fn agent_data() -> Vec<Vec<u8>> {
    let one = authority();
    let data = steeple_agent_core::agent_data::AgentData {
        svid: vec![one.clone()],
        bundle: vec![one],
        reattestable: true,
        ..Default::default()
    };
    vec![data.to_json().expect("JSON"), b"{}".to_vec(), b"{\"svid\": [], \"bundle\": null}".to_vec()]
}
