//! Five trust domains that federate pairwise: some by file, some by one command each; some endpoints show an SVID, some
//! a certificate of a public authority.
#![allow(clippy::disallowed_methods, reason = "a black box looks at the real clock")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use steeple_e2e::{Deployment, Subject, Workload, connect_uds, free_port, uid};
use steeple_proto::steeple::server::v1::ListStatesRequest;
use steeple_proto::steeple::server::v1::federation_client::FederationClient;
use steeple_proto::workload::{X509svidRequest, X509svidResponse};
use steeple_spiffe::x509::{
    CaTemplate, Certificate, DistinguishedName, Issuer, LeafTemplate, SerialNumber, assemble,
    ca_tbs_self_signed, leaf_tbs,
};
use steeple_spiffe::{KeyType, PrivateKey, SpiffeId, TrustDomain};
use tokio::time::timeout;
use tonic::Streaming;

const NAMES: [&str; 5] = ["example.org", "b.test", "c.test", "d.test", "e.test"];
/// These have their relationships in their files.
const BY_FILE: [usize; 2] = [0, 1];
/// The endpoints of these show a certificate for a host.
const WEB: [usize; 2] = [1, 3];

struct Domain {
    name: &'static str,
    endpoint: u16,
    is_web: bool,
}

impl Domain {
    fn url(&self) -> String {
        format!("https://localhost:{}/", self.endpoint)
    }

    fn server_id(&self) -> String {
        format!("spiffe://{}/spire/server", self.name)
    }

    /// `federation { }`, with relationships to `peers`.
    fn file(&self, peers: &[&Self], web: &Path) -> String {
        let profile = if self.is_web {
            let (cert, key) = (web.join("cert.pem"), web.join("key.pem"));
            format!(
                "profile \"https_web\" {{ serving_cert_file {{ cert_file_path = \"{}\" key_file_path = \"{}\" \
                 file_sync_interval = \"1m\" }} }}",
                cert.display(),
                key.display()
            )
        } else {
            "profile \"https_spiffe\" {}".to_owned()
        };
        let mut text = format!(
            "federation {{\n bundle_endpoint {{ address = \"127.0.0.1\" port = {} refresh_hint = \"60s\" {profile} }}\n",
            self.endpoint
        );
        for peer in peers {
            let profile = if peer.is_web {
                "\"https_web\" {}".to_owned()
            } else {
                format!("\"https_spiffe\" {{ endpoint_spiffe_id = \"{}\" }}", peer.server_id())
            };
            let (name, url) = (peer.name, peer.url());
            let _ = writeln!(
                text,
                " federates_with \"{name}\" {{ bundle_endpoint_url = \"{url}\" bundle_endpoint_profile {profile} }}"
            );
        }
        text + "}"
    }
}

/// What `federation create -data` takes: relationships with everybody else.
fn data(own: &str, domains: &[Domain], bundles: &BTreeMap<&str, String>) -> Value {
    let peers = domains.iter().filter(|peer| peer.name != own).map(|peer| {
        let mut one = json!({ "trustDomain": peer.name, "bundleEndpointURL": peer.url() });
        if peer.is_web {
            one["bundleEndpointProfile"] = "https_web".into();
        } else {
            one["bundleEndpointProfile"] = "https_spiffe".into();
            one["endpointSPIFFEID"] = peer.server_id().into();
            one["trustDomainBundle"] = bundles[peer.name].clone().into();
            one["trustDomainBundleFormat"] = "pem".into();
        }
        one
    });
    json!({ "federationRelationships": peers.collect::<Vec<_>>() })
}

/// A public authority (`ca.pem`), and a certificate for localhost under it.
fn public_pki(dir: &Path) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() as i64;
    let trust_domain = TrustDomain::new("public.example")?;
    let algorithm = KeyType::EcP256.x509_signature_algorithm();
    let (ca_key, key) = (PrivateKey::generate(KeyType::EcP256)?, PrivateKey::generate(KeyType::EcP256)?);
    let template = CaTemplate {
        trust_domain: trust_domain.clone(),
        public_key: ca_key.public_key(),
        subject: DistinguishedName::default_ca(),
        not_before: now - 60,
        not_after: now + 86_400,
        serial: SerialNumber::random()?,
    };
    let tbs = ca_tbs_self_signed(&template, algorithm)?;
    let ca = Certificate::from_der(&assemble(&tbs, algorithm, &ca_key.sign(algorithm, &tbs)?))?;
    let template = LeafTemplate {
        spiffe_id: SpiffeId::from_parts(&trust_domain, "/web")?,
        public_key: key.public_key(),
        not_before: now - 60,
        not_after: now + 3_600,
        dns_names: vec!["localhost".to_owned()],
        subject: None,
        serial: SerialNumber::random()?,
    };
    let tbs = leaf_tbs(&template, &Issuer::from_certificate(&ca, algorithm))?;
    let leaf = Certificate::from_der(&assemble(&tbs, algorithm, &ca_key.sign(algorithm, &tbs)?))?;
    std::fs::write(dir.join("ca.pem"), ca.to_pem())?;
    std::fs::write(dir.join("cert.pem"), leaf.to_pem())?;
    std::fs::write(dir.join("key.pem"), pem("PRIVATE KEY", &key.pkcs8_der()?))?;
    Ok(())
}

fn pem(label: &str, der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in der.chunks(48) {
        for chunk in line.chunks(3) {
            let bits =
                chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
            for at in 0..4 {
                let digit = ALPHABET[(bits >> (18 - 6 * at)) as usize & 63];
                text.push(if at <= chunk.len() { char::from(digit) } else { '=' });
            }
        }
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}

/// The peer's bundle as a server has it, the hint left out: an endpoint tells its own.
fn bundle_of(server: &Deployment, trust_domain: &str) -> Option<Value> {
    let id = format!("spiffe://{trust_domain}");
    let ran = server.server(&["bundle", "list", "-id", &id, "-format", "spiffe"]);
    keys(&ran.stdout)
}

fn keys(document: &str) -> Option<Value> {
    let mut document: Value = serde_json::from_str(document).ok()?;
    let keys = document.get_mut("keys")?.as_array_mut()?;
    // SPIRE writes JWT keys in any order.
    keys.sort_by_key(ToString::to_string);
    Some(Value::Array(keys.clone()))
}

fn own_bundle(server: &Deployment) -> Result<Value> {
    keys(&server.server_ok(&["bundle", "show", "-format", "spiffe"])?).context("no bundle")
}

async fn next(stream: &mut Streaming<X509svidResponse>) -> Result<X509svidResponse> {
    timeout(Duration::from_secs(20), stream.message()).await.context("no message")??.context("stream ended")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_trust_domains_federate_pairwise() -> Result<()> {
    let web = tempfile::Builder::new().prefix("e2e-web").tempdir_in("/tmp")?;
    public_pki(web.path())?;
    let mut domains = Vec::new();
    for (at, name) in NAMES.into_iter().enumerate() {
        domains.push(Domain { name, endpoint: free_port()?, is_web: WEB.contains(&at) });
    }
    let mut servers = Vec::new();
    for (at, domain) in domains.iter().enumerate() {
        let peers: Vec<&Domain> =
            domains.iter().filter(|peer| BY_FILE.contains(&at) && peer.name != domain.name).collect();
        let server = Deployment::builder()
            .trust_domain(domain.name)
            .server_env("SSL_CERT_FILE", &web.path().join("ca.pem").to_string_lossy())
            .server_options(&domain.file(&peers, web.path()))
            .start()?;
        servers.push(server);
    }

    // What has to be known beforehand: the bundles of those whose endpoints show an SVID.
    let mut bundles = BTreeMap::new();
    for (domain, server) in domains.iter().zip(&servers) {
        bundles.insert(domain.name, server.server_ok(&["bundle", "show"])?);
    }
    for (at, server) in servers.iter().enumerate() {
        if BY_FILE.contains(&at) {
            for peer in domains.iter().filter(|peer| peer.name != NAMES[at] && !peer.is_web) {
                let path = server.path("peer.pem").to_string_lossy().into_owned();
                std::fs::write(&path, &bundles[peer.name])?;
                server.server_ok(&[
                    "bundle",
                    "set",
                    "-id",
                    &format!("spiffe://{}", peer.name),
                    "-path",
                    &path,
                ])?;
            }
        } else {
            let path = server.path("peers.json").to_string_lossy().into_owned();
            std::fs::write(&path, data(NAMES[at], &domains, &bundles).to_string())?;
            server.server_ok(&["federation", "create", "-data", &path])?;
        }
    }
    for server in &servers[2..] {
        let listed = server.server_ok(&["federation", "list"])?;
        ensure!(listed.starts_with("Found 4 federation relationships"), "{listed}");
    }
    // They had nobody to ask when the first ones started, and the next regular try is a minute away; SPIRE does not
    // notice the bundles that were set either.
    let is_spire = servers[0].subject_of("spire-server") == Subject::Spire;
    for at in BY_FILE {
        for peer in domains.iter().filter(|peer| (peer.is_web || is_spire) && peer.name != NAMES[at]) {
            servers[at].server_ok(&["federation", "refresh", "-id", &format!("spiffe://{}", peer.name)])?;
        }
    }
    everybody_knows_everybody(&domains, &servers)?;
    if !is_spire {
        health_is_shown(&servers).await?;
    }
    workloads_get_what_changes(&mut servers).await?;
    relationships_end(&servers)
}

fn everybody_knows_everybody(domains: &[Domain], servers: &[Deployment]) -> Result<()> {
    for server in servers {
        for (peer, theirs) in domains.iter().zip(servers) {
            if server.path("") == theirs.path("") {
                continue;
            }
            let wanted = own_bundle(theirs)?;
            let what = format!("{}'s bundle at {}", peer.name, server.path("").display());
            server.eventually(&what, Duration::from_secs(20), || {
                bundle_of(server, peer.name).as_ref() == Some(&wanted)
            })?;
        }
    }
    Ok(())
}

async fn health_is_shown(servers: &[Deployment]) -> Result<()> {
    for (at, server) in servers.iter().enumerate() {
        let mut client = FederationClient::new(connect_uds(&server.server_socket()).await?);
        let states = client.list_states(ListStatesRequest {}).await?.into_inner().states;
        ensure!(states.len() == 4, "{states:?}");
        for state in states {
            ensure!(state.r#static == BY_FILE.contains(&at), "{state:?}");
            ensure!(state.last_success > 0 && state.last_error.is_empty(), "{state:?}");
            ensure!(state.refresh_hint == 60 && state.next_attempt == state.last_success + 15, "{state:?}");
        }
    }
    Ok(())
}

/// A workload that federates with all gets their bundles, and what rotates there.
async fn workloads_get_what_changes(servers: &mut [Deployment]) -> Result<()> {
    servers[0].start_agent()?;
    let home = &servers[0];
    let mut flags = Vec::new();
    for name in &NAMES[1..] {
        flags.extend(["-federatesWith".to_owned(), format!("spiffe://{name}")]);
    }
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    home.entry("federated", "/me", &format!("unix:uid:{}", uid()), &flags)?;
    let unknown = ["-federatesWith", "spiffe://nobody.test"];
    ensure!(home.entry("unknown", "/other", "unix:uid:1", &unknown).is_err(), "a bundle has to be there");
    home.eventually("entry reaches the agent", Duration::from_secs(20), || {
        home.agent_api(&["api", "fetch"]).code == Some(0)
    })?;
    let mut workload = home.workload().await?;
    let mut stream = workload.api.fetch_x509svid(Workload::request(X509svidRequest {})).await?.into_inner();
    let first = next(&mut stream).await?;
    let mut names: Vec<&str> = first.federated_bundles.keys().map(String::as_str).collect();
    names.sort_unstable();
    ensure!(
        names == ["spiffe://b.test", "spiffe://c.test", "spiffe://d.test", "spiffe://e.test"],
        "{names:?}"
    );

    servers[2].server_ok(&["localauthority", "x509", "prepare"])?;
    let wanted = own_bundle(&servers[2])?;
    for server in [&servers[0], &servers[4]] {
        server.server_ok(&["federation", "refresh", "-id", "spiffe://c.test"])?;
        ensure!(bundle_of(server, "c.test") == Some(wanted.clone()), "a refresh fetches");
    }
    for _ in 0..5 {
        let update = next(&mut stream).await?;
        if Certificate::many_from_der(&update.federated_bundles["spiffe://c.test"])?.len() == 2 {
            return Ok(());
        }
    }
    anyhow::bail!("the new authority did not reach the workload")
}

fn relationships_end(servers: &[Deployment]) -> Result<()> {
    let server = &servers[3];
    server.server_ok(&["federation", "delete", "-id", "spiffe://e.test"])?;
    let listed = server.server_ok(&["federation", "list"])?;
    ensure!(listed.starts_with("Found 3 federation relationships"), "{listed}");
    let ran = server.server(&["federation", "refresh", "-id", "spiffe://e.test"]);
    ensure!(ran.stderr.contains("there is no federation relationship with trust domain"), "{ran:?}");
    ensure!(bundle_of(server, "e.test").is_some(), "the bundle stays until it is deleted");
    // A relationship of the file is not the API's to end.
    let ran = servers[0].server(&["federation", "delete", "-id", "spiffe://e.test"]);
    ensure!(ran.stderr.contains("federation relationship not found"), "{ran:?}");
    Ok(())
}
