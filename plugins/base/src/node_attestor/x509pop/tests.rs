use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PSS_SHA256, RsaPssSaltLength};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use steeple_plugin::conformance::node_attestor::{Host, Parrot, attest, node_attestor};
use steeple_plugin::{
    AgentAttributes, AgentNodeAttestor as _, AttestError, Challenged, Evidence, ServerNodeAttestor as _,
};
use steeple_runtime::clock::FakeClock;
use steeple_spiffe::{Certificate, TrustDomain};

use super::wire::{Challenge, EcdsaSignature, Payload, Response, RsaSignature};
use super::*;
use crate::node_attestor::bytes::Bytes;
use crate::node_attestor::{ecdsa, nonce};

const NOW: i64 = 1_800_000_000;
const DAY: i64 = 86_400;

struct Ca {
    params: CertificateParams,
    key: KeyPair,
    pem: String,
}

struct Leaf {
    pem: String,
    key: KeyPair,
}

fn time(at: i64) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(at).unwrap()
}

fn ca(name: &str) -> Ca {
    let key = KeyPair::generate().unwrap();
    let params = ca_params(name);
    let pem = params.self_signed(&key).unwrap().pem();
    Ca { params, key, pem }
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = time(NOW - DAY);
    params.not_after = time(NOW + DAY);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params
}

fn issue(ca: &Ca, params: &CertificateParams, key: KeyPair) -> Leaf {
    let issuer = Issuer::from_params(&ca.params, &ca.key);
    Leaf { pem: params.signed_by(&key, &issuer).unwrap().pem(), key }
}

fn node(ca: &Ca) -> Leaf {
    let mut params = params("node-1");
    params.serial_number = Some(vec![0x0a, 0xbc].into());
    issue(ca, &params, KeyPair::generate().unwrap())
}

struct Setup {
    dir: tempfile::TempDir,
}

impl Setup {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn agent(&self, leaf: &Leaf, intermediates: &[&str]) -> X509PopAgent {
        let key = self.file("key.pem", &leaf.key.serialize_pem());
        let certificate = self.file("cert.pem", &leaf.pem);
        let more = if intermediates.is_empty() {
            String::new()
        } else {
            self.file("more.pem", &intermediates.concat())
        };
        X509PopAgent::open(X509PopAgentConfig::new(&key, &certificate, &more, "").unwrap()).unwrap()
    }

    fn server(&self, ca_pem: &str, options: X509PopOptions) -> X509Pop {
        let ca_bundle_path = Some(self.file("ca.pem", ca_pem));
        server(X509PopOptions { ca_bundle_path, ..options }, Host::default())
    }
}

fn server(options: X509PopOptions, host: Host) -> X509Pop {
    let config = X509PopConfig::load(&options).unwrap();
    let trust_domain = TrustDomain::new("example.org").unwrap();
    X509Pop::new(config, trust_domain, Arc::new(host), Arc::new(FakeClock::new(NOW)))
}

fn payload(pems: &[&str]) -> Vec<u8> {
    let ders = pems.iter().flat_map(|pem| Certificate::from_pem(pem).unwrap());
    serde_json::to_vec(&Payload { certificates: ders.map(|c| Bytes(c.der().to_vec())).collect() }).unwrap()
}

async fn refusal(server: &X509Pop, payload: Vec<u8>) -> (String, &'static str) {
    let evidence = Evidence { payload, client_ip: None };
    described(server.attest(evidence, &mut Parrot(b"{}".to_vec())).await)
}

fn described(outcome: Result<AgentAttributes, AttestError>) -> (String, &'static str) {
    let error = outcome.unwrap_err();
    let kind = match error {
        AttestError::InvalidArgument(_) => "InvalidArgument",
        AttestError::PermissionDenied(_) => "PermissionDenied",
        AttestError::Internal(_) => "Internal",
        AttestError::Unavailable(_) => "Unavailable",
    };
    (error.to_string(), kind)
}

#[tokio::test]
async fn every_kind_of_key_proves_itself() {
    let setup = Setup::new();
    let ca = ca("root");
    for algorithm in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ECDSA_P521_SHA512,
        &rcgen::PKCS_RSA_SHA256,
    ] {
        let leaf = issue(&ca, &params("node"), KeyPair::generate_for(algorithm).unwrap());
        let server = setup.server(&ca.pem, X509PopOptions::default());
        node_attestor(&setup.agent(&leaf, &[]), &server, false).await;
    }
}

#[tokio::test]
async fn id_and_selectors_are_spires() {
    let setup = Setup::new();
    let root = ca("root");
    let middle_key = KeyPair::generate().unwrap();
    let middle_params = ca_params("middle");
    let middle_pem =
        middle_params.signed_by(&middle_key, &Issuer::from_params(&root.params, &root.key)).unwrap().pem();
    let middle = Ca { params: middle_params, key: middle_key, pem: middle_pem };
    let mut params = params("node-1");
    params.serial_number = Some(vec![0x0a, 0xbc].into());
    for uri in [
        "x509pop://example.org/zone/eu/1",
        "x509pop://example.org/lonely",
        "x509pop://other.org/zone/us",
        "x509pop://example.org/role/d%62",
    ] {
        params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
    }
    let leaf = issue(&middle, &params, KeyPair::generate().unwrap());
    let fingerprint = |pem: &str| fields::fingerprint(&Certificate::from_pem(pem).unwrap()[0]);
    let agent = setup.agent(&leaf, &[&middle.pem, &root.pem]);
    let (outcome, exchange) = attest(&agent, &setup.server(&root.pem, X509PopOptions::default())).await;
    let found = outcome.unwrap();
    assert_eq!(
        found.spiffe_id.as_str(),
        format!("spiffe://example.org/spire/agent/x509pop/{}", fingerprint(&leaf.pem))
    );
    assert_eq!(
        found.selector_values,
        [
            "subject:cn:node-1".to_owned(),
            format!("ca:fingerprint:{}", fingerprint(&middle.pem)),
            format!("ca:fingerprint:{}", fingerprint(&root.pem)),
            "serialnumber:0abc".to_owned(),
            "san:role:db".to_owned(),
            "san:zone:eu/1".to_owned(),
        ]
    );
    assert!(found.can_reattest);
    assert!(exchange.challenges[0].starts_with(b"{\"rsa_signature\":null,\"ecdsa_signature\":{\"nonce\":\""));
    let template = "/{{ .PluginName }}/{{ .Subject.CommonName }}/{{ .SerialNumberHex }}/{{ .TrustDomain }}/{{ .URISanSelectors.role }}";
    let options = X509PopOptions { agent_path_template: Some(template.into()), ..X509PopOptions::default() };
    let found = attest(&agent, &setup.server(&root.pem, options)).await.0.unwrap();
    assert_eq!(
        found.spiffe_id.as_str(),
        "spiffe://example.org/spire/agent/x509pop/node-1/0abc/example.org/db"
    );
}

#[tokio::test]
async fn forged_and_expired_certificates_are_refused() {
    let setup = Setup::new();
    let (ca, other) = (ca("root"), ca("root"));
    let server = setup.server(&ca.pem, X509PopOptions::default());
    let stranger = node(&other);
    let (text, kind) = refusal(&server, payload(&[&stranger.pem])).await;
    assert_eq!(kind, "PermissionDenied");
    assert_eq!(text, "certificate verification failed: x509: certificate signed by unknown authority");
    // The other CA sent along does not help, nor does one's own leaf as a CA.
    assert_eq!(refusal(&server, payload(&[&stranger.pem, &other.pem])).await.1, "PermissionDenied");
    let good = node(&ca);
    let forger = Ca { params: params("node-1"), key: good.key, pem: good.pem };
    let forged = node(&forger);
    assert_eq!(refusal(&server, payload(&[&forged.pem, &forger.pem])).await.1, "PermissionDenied");
    for (from, until) in [(NOW - DAY, NOW - 1), (NOW + 1, NOW + DAY)] {
        let mut params = params("node");
        (params.not_before, params.not_after) = (time(from), time(until));
        let (text, kind) =
            refusal(&server, payload(&[&issue(&ca, &params, KeyPair::generate().unwrap()).pem])).await;
        assert_eq!(kind, "PermissionDenied");
        assert!(text.contains("x509: certificate has expired or is not yet valid"), "{text}");
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_for_signing_is_refused() {
    let setup = Setup::new();
    let ca = ca("root");
    let server = setup.server(&ca.pem, X509PopOptions::default());
    for usages in [vec![], vec![KeyUsagePurpose::KeyEncipherment]] {
        let mut params = params("node");
        params.key_usages = usages;
        let leaf = issue(&ca, &params, KeyPair::generate().unwrap());
        assert_eq!(
            refusal(&server, payload(&[&leaf.pem])).await,
            (
                "unable to generate challenge: certificate not intended for digital signature use".to_owned(),
                "Internal"
            )
        );
    }
    let ed25519 = issue(&ca, &params("node"), KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap());
    assert!(refusal(&server, payload(&[&ed25519.pem])).await.0.contains("unsupported public key type"));
}

#[tokio::test]
async fn what_a_stranger_may_make_us_calculate_is_bounded() {
    let setup = Setup::new();
    let ca = ca("root");
    let leaf = node(&ca);
    let server = setup.server(&ca.pem, X509PopOptions::default());
    let many = [leaf.pem.as_str(), &ca.pem, &ca.pem, &ca.pem, &ca.pem, &ca.pem];
    assert_eq!(
        refusal(&server, payload(&many)).await,
        ("too many intermediate certificates".to_owned(), "InvalidArgument")
    );
    let rsa = issue(&ca, &params("node"), KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap());
    let options = || X509PopOptions { max_rsa_key_size: Some(2047), ..X509PopOptions::default() };
    let server = setup.server(&ca.pem, options());
    assert_eq!(
        refusal(&server, payload(&[&rsa.pem])).await,
        ("leaf certificate key size too large".to_owned(), "InvalidArgument")
    );
    assert_eq!(
        refusal(&server, payload(&[&leaf.pem, &rsa.pem])).await,
        ("intermediate certificate 0 key size too large".to_owned(), "InvalidArgument")
    );
    assert_eq!(refusal(&server, payload(&[])).await.0, "no certificate to attest");
    let nonsense = serde_json::to_vec(&Payload { certificates: vec![Bytes(vec![1, 2, 3])] }).unwrap();
    let (text, kind) = refusal(&server, nonsense).await;
    assert!(text.starts_with("unable to parse leaf certificate: "), "{text}");
    assert_eq!(kind, "InvalidArgument");
    let (text, kind) = refusal(&server, b"{\"certificates\":[\"!\"]}".to_vec()).await;
    assert!(text.starts_with("failed to unmarshal data: "), "{text}");
    assert_eq!(kind, "InvalidArgument");
}

/// Signs whatever is asked with this key, and says what it is told to say.
struct Signer<'a> {
    key: &'a KeyPair,
    nonce: Vec<u8>,
    twist: fn(Response) -> Response,
}

#[async_trait::async_trait]
impl Challenged for Signer<'_> {
    async fn challenge(&mut self, challenge: Vec<u8>) -> Result<Vec<u8>, AttestError> {
        let challenge: Challenge = serde_json::from_slice(&challenge).unwrap();
        let asked = challenge.ecdsa_signature.unwrap().nonce.0;
        let signed = [asked.as_slice(), &self.nonce].concat();
        let der = rcgen::SigningKey::sign(self.key, &signed).unwrap();
        let (r, s) = ecdsa::from_der(&der).unwrap();
        let signature =
            EcdsaSignature { nonce: Bytes(self.nonce.clone()), r: Bytes(r.to_vec()), s: Bytes(s.to_vec()) };
        let response = Response { rsa_signature: None, ecdsa_signature: Some(signature) };
        Ok(serde_json::to_vec(&(self.twist)(response)).unwrap())
    }
}

#[tokio::test]
async fn only_the_certificates_key_answers() {
    let setup = Setup::new();
    let ca = ca("root");
    let (leaf, other) = (node(&ca), node(&ca));
    let server = setup.server(&ca.pem, X509PopOptions::default());
    let try_with = |key: &'static KeyPair, nonce: usize, twist: fn(Response) -> Response| {
        let payload = payload(&[&leaf.pem]);
        let server = &server;
        async move {
            let mut signer = Signer { key, nonce: vec![7; nonce], twist };
            server.attest(Evidence { payload, client_ip: None }, &mut signer).await
        }
    };
    let own: &'static KeyPair = Box::leak(Box::new(KeyPair::from_pem(&leaf.key.serialize_pem()).unwrap()));
    let others: &'static KeyPair =
        Box::leak(Box::new(KeyPair::from_pem(&other.key.serialize_pem()).unwrap()));
    try_with(own, 32, |response| response).await.unwrap();
    let failed = "challenge response verification failed: ";
    for (outcome, says) in [
        (try_with(others, 32, |response| response).await, "ECDSA signature verify failed"),
        (try_with(own, 31, |response| response).await, "invalid response nonce"),
        (try_with(own, 0, |response| response).await, "invalid response nonce"),
        (
            try_with(own, 32, |mut response| {
                response.ecdsa_signature.as_mut().unwrap().nonce.0[0] ^= 1;
                response
            })
            .await,
            "ECDSA signature verify failed",
        ),
        (
            try_with(own, 32, |mut response| {
                response.ecdsa_signature.as_mut().unwrap().r = Bytes(Vec::new());
                response
            })
            .await,
            "ECDSA signature verify failed",
        ),
        (
            try_with(own, 32, |_| Response {
                rsa_signature: Some(RsaSignature {
                    nonce: Bytes(vec![7; 32]),
                    signature: Bytes(vec![1; 256]),
                }),
                ecdsa_signature: None,
            })
            .await,
            "expecting ECDSA response",
        ),
    ] {
        assert_eq!(described(outcome), (format!("{failed}{says}"), "PermissionDenied"));
    }
}

/// Go makes salts as long as the key allows.
#[tokio::test]
async fn rsa_answers_with_gos_salt_count() {
    struct Go(aws_lc_rs::signature::RsaKeyPair);
    #[async_trait::async_trait]
    impl Challenged for Go {
        async fn challenge(&mut self, challenge: Vec<u8>) -> Result<Vec<u8>, AttestError> {
            static FORM: aws_lc_rs::signature::RsaSignatureEncoding =
                RSA_PSS_SHA256.with_pss_salt_length(RsaPssSaltLength::Max);
            let challenge: Challenge = serde_json::from_slice(&challenge).unwrap();
            let signed = nonce::both(&challenge.rsa_signature.unwrap().nonce.0, &[9; 32]).unwrap();
            let mut signature = vec![0; self.0.public_modulus_len()];
            self.0.sign(&FORM, &SystemRandom::new(), &signed, &mut signature).unwrap();
            let rsa_signature = Some(RsaSignature { nonce: Bytes(vec![9; 32]), signature: Bytes(signature) });
            Ok(serde_json::to_vec(&Response { rsa_signature, ecdsa_signature: None }).unwrap())
        }
    }
    let setup = Setup::new();
    let ca = ca("root");
    let leaf = issue(&ca, &params("node"), KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap());
    let server = setup.server(&ca.pem, X509PopOptions::default());
    let key = aws_lc_rs::signature::RsaKeyPair::from_pkcs8(&leaf.key.serialize_der()).unwrap();
    let evidence = Evidence { payload: payload(&[&leaf.pem]), client_ip: None };
    server.attest(evidence, &mut Go(key)).await.unwrap();
}

#[tokio::test]
async fn an_svid_of_this_trust_domain_is_exchanged() {
    let setup = Setup::new();
    let (ca, foreign) = (ca("own"), ca("foreign"));
    let spiffe = || X509PopOptions { mode: Some("spiffe".into()), ..X509PopOptions::default() };
    let host = || Host { authorities: Certificate::from_pem(&ca.pem).unwrap(), ..Host::default() };
    let svid = |ca: &Ca, uri: &str| {
        let mut params = params("");
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        issue(ca, &params, KeyPair::generate().unwrap())
    };
    let good = svid(&ca, "spiffe://example.org/spire-exchange/rack/7");
    let found = attest(&setup.agent(&good, &[]), &server(spiffe(), host())).await.0.unwrap();
    assert_eq!(found.spiffe_id.as_str(), "spiffe://example.org/spire/agent/x509pop/rack/7");
    let options = X509PopOptions { svid_prefix: Some("/nodes".into()), ..spiffe() };
    let other_prefix = svid(&ca, "spiffe://example.org/nodes/7");
    let found = attest(&setup.agent(&other_prefix, &[]), &server(options, host())).await.0.unwrap();
    assert_eq!(found.spiffe_id.as_str(), "spiffe://example.org/spire/agent/x509pop/7");
    for (leaf, says) in [
        (other_prefix, "x509 cert doesnt match SVID prefix"),
        (svid(&ca, "spiffe://example.org/spire/agent/x"), "x509 cert doesnt match SVID prefix"),
        (svid(&ca, "spiffe://other.org/spire-exchange/x"), "valid SVID x509 cert not found"),
        (svid(&ca, "https://example.org/spire-exchange/x"), "valid SVID x509 cert not found"),
        (
            svid(&foreign, "spiffe://example.org/spire-exchange/x"),
            "certificate verification failed: x509: certificate signed by unknown authority",
        ),
    ] {
        let outcome = attest(&setup.agent(&leaf, &[]), &server(spiffe(), host())).await.0;
        assert_eq!(described(outcome), (says.to_owned(), "PermissionDenied"));
    }
}

#[tokio::test]
async fn the_clients_address_can_be_part_of_the_proof() {
    let setup = Setup::new();
    let ca = ca("root");
    let mut params = params("node");
    params.subject_alt_names = vec![SanType::IpAddress([192, 0, 2, 7].into())];
    let leaf = issue(&ca, &params, KeyPair::generate().unwrap());
    let options = X509PopOptions { verify_client_ip: true, ..X509PopOptions::default() };
    let server = setup.server(&ca.pem, options);
    let agent = setup.agent(&leaf, &[]);
    for (client_ip, want) in [
        (Some([192, 0, 2, 7].into()), None),
        (
            Some([192, 0, 2, 8].into()),
            Some(("client IP 192.0.2.8 does not match any certificate IP SAN", "PermissionDenied")),
        ),
        (None, Some(("client IP not available for verification", "Internal"))),
    ] {
        let mut begun = agent.begin().await.unwrap();
        let evidence = Evidence { payload: begun.payload(), client_ip };
        let mut answering = steeple_plugin::conformance::node_attestor::Answering {
            agent: begun.as_mut(),
            exchange: steeple_plugin::conformance::node_attestor::Exchange::default(),
        };
        let outcome = server.attest(evidence, &mut answering).await;
        match want {
            None => assert!(outcome.is_ok(), "{outcome:?}"),
            Some((text, kind)) => assert_eq!(described(outcome), (text.to_owned(), kind)),
        }
    }
}

#[test]
fn mistakes_in_options_are_named() {
    let setup = Setup::new();
    let ca = setup.file("ca.pem", &ca("root").pem);
    let good = || X509PopOptions { ca_bundle_path: Some(ca.clone()), ..X509PopOptions::default() };
    assert!(X509PopConfig::load(&good()).is_ok());
    let empty = setup.file("empty.pem", "");
    for (options, says) in [
        (X509PopOptions::default(), "one of ca_bundle_path or ca_bundle_paths must be configured"),
        (X509PopOptions { ca_bundle_paths: vec![ca.clone()], ..good() }, "only one of ca_bundle_path"),
        (X509PopOptions { mode: Some("other".into()), ..good() }, "mode can only be either"),
        (X509PopOptions { mode: Some("spiffe".into()), ..good() }, "you can not use ca_bundle_path"),
        (X509PopOptions { ca_bundle_path: Some("/does/not/exist".into()), ..good() }, "/does/not/exist"),
        (X509PopOptions { ca_bundle_path: Some(empty), ..good() }, "empty.pem"),
        (X509PopOptions { max_intermediates: Some(0), ..good() }, "max_intermediates must be greater than 0"),
        (X509PopOptions { max_rsa_key_size: Some(-1), ..good() }, "max_rsa_key_size must be greater than 0"),
        (X509PopOptions { agent_path_template: Some("/{{ .Nope }}".into()), ..good() }, "Nope"),
        (
            X509PopOptions { agent_path_template: Some("/{{ nope }}".into()), ..good() },
            "\"nope\" not defined",
        ),
    ] {
        let error = X509PopConfig::load(&options).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    for (key, certificate, says) in [("", "/c", "private_key_path"), ("/k", "", "certificate_path")] {
        let error = X509PopAgentConfig::new(key, certificate, "", "").unwrap_err().to_string();
        assert_eq!(error, format!("{says} is required"));
    }
    assert!(X509PopAgentConfig::new("", "", "", "ftp://x").is_err());
    assert!(X509PopAgentConfig::new("", "", "", "unix:///run/api.sock").is_ok());
}

#[test]
fn a_key_of_another_certificate_is_found_at_start() {
    let setup = Setup::new();
    let ca = ca("root");
    let key = setup.file("key.pem", &node(&ca).key.serialize_pem());
    let certificate = setup.file("cert.pem", &node(&ca).pem);
    let opened = X509PopAgent::open(X509PopAgentConfig::new(&key, &certificate, "", "").unwrap());
    let error = opened.unwrap_err().to_string();
    assert!(error.starts_with("unable to load keypair: ") && error.contains("is not the key of"), "{error}");
}
