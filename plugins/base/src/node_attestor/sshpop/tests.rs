//! Keys and certificates are made by OpenSSH itself.

use std::process::Command;
use std::sync::Arc;

use steeple_plugin::conformance::node_attestor::{Parrot, attest, node_attestor};
use steeple_plugin::{
    AgentNodeAttestor as _, AttestError, Attestation, Challenged, Evidence, ServerNodeAttestor as _,
};
use steeple_runtime::clock::FakeClock;
use steeple_spiffe::TrustDomain;

use super::certificate::Certificate;
use super::key::blob_of_line;
use super::*;

/// 2027-01-15; certificates below are good from 2026 to 2028 unless said otherwise.
const NOW: i64 = 1_800_000_000;

struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    /// A CA and a host with a certificate.
    fn new(ca_type: &str, host_type: &str, sign: &[&str]) -> Self {
        let host = Self { dir: tempfile::tempdir().unwrap() };
        host.key("ca", ca_type);
        host.key("host", host_type);
        host.sign("ca", "host", sign);
        host
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    fn key(&self, name: &str, kind: &str) {
        let (kind, bits) = kind.split_once('-').unwrap_or((kind, "256"));
        keygen(&["-q", "-t", kind, "-b", bits, "-N", "", "-f", &self.path(name)]);
    }

    fn sign(&self, ca: &str, host: &str, options: &[&str]) {
        let (ca, key) = (self.path(ca), self.path(&format!("{host}.pub")));
        let common = ["-q", "-s", ca.as_str(), "-I", "id", "-V", "20260101:20280101"];
        keygen(&[&common, options, &[key.as_str()]].concat());
    }

    fn public(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(&format!("{name}.pub"))).unwrap()
    }

    fn agent(&self) -> SshPopAgent {
        SshPopAgent::open(&self.agent_config("host")).unwrap()
    }

    fn agent_config(&self, name: &str) -> SshPopAgentConfig {
        SshPopAgentConfig {
            host_key_path: self.path(name).into(),
            host_cert_path: self.path(&format!("{name}-cert.pub")).into(),
        }
    }

    fn certificate(&self) -> Vec<u8> {
        blob_of_line(&std::fs::read_to_string(self.path("host-cert.pub")).unwrap()).unwrap()
    }

    fn server(&self) -> SshPop {
        self.server_with(SshPopOptions::default(), NOW)
    }

    fn server_with(&self, options: SshPopOptions, now: i64) -> SshPop {
        let options = SshPopOptions { cert_authorities: Some(vec![self.public("ca")]), ..options };
        let config = SshPopConfig::load(&options).unwrap();
        SshPop::new(config, TrustDomain::new("example.org").unwrap(), Arc::new(FakeClock::new(now)))
    }
}

fn keygen(args: &[&str]) {
    let ran = Command::new("ssh-keygen").args(args).output().unwrap();
    assert!(ran.status.success(), "{args:?}: {}", String::from_utf8_lossy(&ran.stderr));
}

const GOOD: &[&str] = &["-h", "-n", "node-1.example.org,alias"];

#[tokio::test]
async fn every_kind_of_key_proves_itself() {
    for (ca, host) in [
        ("ed25519", "rsa-2048"),
        ("rsa-2048", "ed25519"),
        ("ecdsa-256", "ecdsa-384"),
        ("ecdsa-384", "ecdsa-521"),
        ("ecdsa-521", "ecdsa-256"),
    ] {
        let host = Host::new(ca, host, GOOD);
        node_attestor(&host.agent(), &host.server(), false).await;
    }
}

#[tokio::test]
async fn older_key_files_are_read() {
    for (kind, form) in
        [("rsa-2048", "PEM"), ("rsa-2048", "PKCS8"), ("ecdsa-256", "PEM"), ("ecdsa-384", "PKCS8")]
    {
        let host = Host::new("ed25519", kind, GOOD);
        keygen(&["-q", "-p", "-N", "", "-m", form, "-f", &host.path("host")]);
        attest(&host.agent(), &host.server()).await.0.unwrap();
    }
}

#[tokio::test]
async fn the_id_is_spires() {
    let host = Host::new("ed25519", "ed25519", GOOD);
    let (outcome, exchange) = attest(&host.agent(), &host.server()).await;
    let found = outcome.unwrap();
    let fingerprint = Certificate::from_blob(&host.certificate()).unwrap().fingerprint();
    assert_eq!(found.spiffe_id.as_str(), format!("spiffe://example.org/spire/agent/sshpop/{fingerprint}"));
    assert_eq!((found.selector_values.len(), found.can_reattest), (0, true));
    assert!(exchange.payload.starts_with(b"{\"Certificate\":\""));
    assert!(exchange.challenges[0].starts_with(b"{\"Nonce\":\""));
    let answer = String::from_utf8(exchange.answers[0].clone()).unwrap();
    assert!(answer.contains("\"Signature\":{\"Format\":\"ssh-ed25519\",\"Blob\":\""), "{answer}");
    assert!(answer.contains("\"Rest\":null"), "{answer}");
    for (template, domain, path) in [
        ("/{{ .PluginName }}/{{ .Hostname }}", Some("example.org"), "/sshpop/node-1"),
        ("/{{ .PluginName }}/{{ .Hostname }}", None, "/sshpop/node-1.example.org"),
        ("/static/{{ index .ValidPrincipals 1 }}", None, "/static/alias"),
        ("/{{ .KeyId }}/{{ .Serial }}", None, "/id/0"),
    ] {
        let options = SshPopOptions {
            agent_path_template: Some(template.to_owned()),
            canonical_domain: domain.map(ToOwned::to_owned),
            ..SshPopOptions::default()
        };
        let found = attest(&host.agent(), &host.server_with(options, NOW)).await.0.unwrap();
        assert_eq!(found.spiffe_id.as_str(), format!("spiffe://example.org/spire/agent{path}"));
    }
    let options = SshPopOptions { canonical_domain: Some("other.org".into()), ..SshPopOptions::default() };
    let error = attest(&host.agent(), &host.server_with(options, NOW)).await.0.unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed to decanonicalize hostname: cert principal is not in domain \".other.org\""
    );
}

async fn refusal(host: &Host, now: i64) -> String {
    let server = host.server_with(SshPopOptions::default(), now);
    let outcome = attest(&host.agent(), &server).await.0;
    let Err(AttestError::Internal(text)) = outcome else { panic!("{outcome:?}") };
    text
}

#[tokio::test]
async fn forged_and_expired_certificates_are_refused() {
    let good = Host::new("ed25519", "ed25519", GOOD);
    let checked = "failed to check host key: ssh: ";
    assert_eq!(refusal(&good, NOW + 10 * 366 * 86_400).await, format!("{checked}cert has expired"));
    assert_eq!(refusal(&good, 1_700_000_000).await, format!("{checked}cert is not yet valid"));
    let user = Host::new("ed25519", "ed25519", &["-n", "node"]);
    assert_eq!(refusal(&user, NOW).await, format!("{checked}certificate presented as a host key has type 1"));
    let nobody = Host::new("ed25519", "ed25519", &["-h"]);
    assert_eq!(refusal(&nobody, NOW).await, "cert has no valid principals");
    let critical =
        Host::new("ed25519", "ed25519", &["-h", "-n", "node", "-O", "critical:what@example.org=x"]);
    assert_eq!(
        refusal(&critical, NOW).await,
        format!("{checked}unsupported critical option \"what@example.org\" in certificate")
    );
    // Another CA of the same kind.
    good.key("other", "ed25519");
    good.sign("other", "host", GOOD);
    assert_eq!(
        refusal(&good, NOW).await,
        format!("{checked}no authorities for hostname: node-1.example.org:22")
    );
    // SHA-1 vouches for nobody.
    let old = Host::new("rsa-2048", "ed25519", &[GOOD, &["-t", "ssh-rsa"]].concat());
    assert!(refusal(&old, NOW).await.contains("SHA-1"));
}

/// A certificate of a trusted CA, changed afterwards: no byte of it may differ.
#[tokio::test]
async fn a_tampered_certificate_is_refused() {
    let host = Host::new("ed25519", "ed25519", GOOD);
    let (server, blob) = (host.server(), host.certificate());
    for at in 0..blob.len() {
        let mut forged = blob.clone();
        forged[at] ^= 1;
        let payload = serde_json::to_vec(&messages::Payload { certificate: bytes(forged) }).unwrap();
        let evidence = Evidence { payload, client_ip: None };
        let mut begun = host.agent().begin().await.unwrap();
        let outcome = server.attest(evidence, &mut Through(begun.as_mut())).await;
        assert!(outcome.is_err(), "byte {at} changed");
    }
    for len in 0..blob.len() {
        assert!(Certificate::from_blob(&blob[..len]).is_err(), "cut at {len}");
    }
    assert!(Certificate::from_blob(&[blob.as_slice(), b"x"].concat()).is_err());
}

fn bytes(bytes: Vec<u8>) -> crate::node_attestor::bytes::Bytes {
    crate::node_attestor::bytes::Bytes(bytes)
}

struct Through<'a>(&'a mut dyn Attestation);

#[async_trait::async_trait]
impl Challenged for Through<'_> {
    async fn challenge(&mut self, challenge: Vec<u8>) -> Result<Vec<u8>, AttestError> {
        self.0.respond(challenge).await
    }
}

#[tokio::test]
async fn only_the_hosts_key_answers() {
    let (host, other) = (Host::new("ed25519", "ed25519", GOOD), Host::new("ed25519", "ed25519", GOOD));
    let payload = host.agent().begin().await.unwrap().payload();
    let mut thief = other.agent().begin().await.unwrap();
    let evidence = Evidence { payload: payload.clone(), client_ip: None };
    let error = host.server().attest(evidence, &mut Through(thief.as_mut())).await.unwrap_err();
    assert_eq!(error.to_string(), "failed to verify signature: ssh: signature does not verify");
    for (answer, says) in [
        ("{}", "failed to combine nonces: invalid response nonce size"),
        ("{\"Nonce\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"}", "failed to verify signature"),
        ("[", "failed to unmarshal challenge response"),
        (
            "{\"Nonce\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\",\"Signature\":{\"Format\":\"ssh-rsa\",\"Blob\":\"AAAA\"}}",
            "does not go with the key",
        ),
    ] {
        let evidence = Evidence { payload: payload.clone(), client_ip: None };
        let error = host.server().attest(evidence, &mut Parrot(answer.into())).await.unwrap_err();
        assert!(error.to_string().contains(says), "{answer}: {error}");
    }
}

#[test]
fn mistakes_in_options_are_named() {
    let host = Host::new("ed25519", "ed25519", GOOD);
    let file = |name: &str, text: &str| {
        let path = host.path(name);
        std::fs::write(&path, text).unwrap();
        Some(path)
    };
    let with_path = |path| SshPopOptions { cert_authorities_path: path, ..SshPopOptions::default() };
    let commented = format!("# ours\n\ncert-authority,no-pty {}\n", host.public("ca"));
    assert!(SshPopConfig::load(&with_path(file("good", &commented))).is_ok());
    let lines = |lines: &[&str]| SshPopOptions {
        cert_authorities: Some(lines.iter().map(ToString::to_string).collect()),
        ..SshPopOptions::default()
    };
    for (options, says) in [
        (SshPopOptions::default(), "missing required config value"),
        (lines(&[]), "must provide at least one cert authority"),
        (lines(&["nonsense"]), "failed to parse public key \"nonsense\""),
        (with_path(Some("/does/not/exist".into())), "/does/not/exist"),
        (with_path(file("empty", "\n")), "no data found in file"),
    ] {
        let error = SshPopConfig::load(&options).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    let bad =
        SshPopOptions { agent_path_template: Some("/{{ .Nope }}".into()), ..lines(&[&host.public("ca")]) };
    assert!(SshPopConfig::load(&bad).unwrap_err().to_string().contains("Nope"));
    // The agent's files.
    host.key("stranger", "ed25519");
    let mut config = host.agent_config("host");
    config.host_key_path = host.path("stranger").into();
    let error = SshPopAgent::open(&config).err().unwrap().to_string();
    assert!(error.contains("it is not of the key in"), "{error}");
    config.host_key_path = "/does/not/exist".into();
    let error = SshPopAgent::open(&config).err().unwrap().to_string();
    assert!(error.contains("failed to read host key file: /does/not/exist"), "{error}");
    keygen(&["-q", "-p", "-N", "secret", "-f", &host.path("host")]);
    let error = SshPopAgent::open(&host.agent_config("host")).err().unwrap().to_string();
    assert!(error.contains("passphrase"), "{error}");
    let mut config = host.agent_config("host");
    config.host_cert_path = host.path("host.pub").into();
    config.host_key_path = host.path("ca").into();
    let error = SshPopAgent::open(&config).err().unwrap().to_string();
    assert!(error.contains("pubkey isn't a certificate"), "{error}");
}
