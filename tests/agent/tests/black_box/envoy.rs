//! Real Envoys terminate and originate mutual TLS with what the agent tells them: the files in `examples/envoy`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use steeple_e2e::{Daemon, Deployment, Subject, connect_uds, uid};
use steeple_proto::envoy::service::discovery::v3::DiscoveryRequest;
use steeple_proto::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use steeple_proto::steeple::server::v1::RotateEntriesRequest;
use steeple_proto::steeple::server::v1::rotation_client::RotationClient;

use crate::envoys::{LONG, Load, Mesh};

const WEB: &str = "spiffe://example.org/web";
const CLIENT: &str = "spiffe://example.org/client";

fn entries(d: &Deployment) -> Result<()> {
    d.entry_for_me("web", "/web")?;
    d.entry_for_me("client", "/client")?;
    Ok(())
}

fn changes(list: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    list.iter().map(|(from, to)| (*from, (*to).to_owned())).collect()
}

#[test]
fn envoys_speak_mutual_tls_and_let_in_whom_they_should() -> Result<()> {
    let d = Deployment::builder().start_with_agent()?;
    entries(&d)?;
    d.entry_for_me("other", "/other")?;
    let mesh = Mesh::start((&d, &[]), (&d, &[]))?;
    let body = mesh.settled(&d, 200)?;
    ensure!(body.contains("URI=spiffe://example.org/client"), "{body}");
    for (envoy, name) in [(&mesh.client, "ROOTCA"), (&mesh.server, "ALL")] {
        let context = &envoy.secret(name)?["validation_context"];
        ensure!(
            context["custom_validator_config"]["name"] == "envoy.tls.cert_validator.spiffe",
            "{name}: {context}"
        );
    }

    // Authenticated, but not the one that may.
    let other = changes(&[("name: spiffe://example.org/client", "name: spiffe://example.org/other")]);
    let stranger = Mesh::start((&d, &other), (&d, &[]))?;
    stranger.settled(&d, 403)?;

    // The server is not the one that the client wants: no connection at all.
    let elsewhere = changes(&[("name: spiffe://example.org/web", "name: spiffe://example.org/other")]);
    let impostor = Mesh::start((&d, &[]), (&d, &elsewhere))?;
    impostor.settled(&d, 503)?;
    Ok(())
}

/// The change of an example that makes an Envoy ask for plain authorities; Istio's is a string, others' a boolean.
fn without_validator(node: &'static str, value: &str) -> (&'static str, String) {
    let metadata = format!("metadata: {{disable_spiffe_cert_validation: {value}}}");
    (node, format!("{}, {metadata}}}", node.trim_end_matches('}')))
}

const CLIENT_NODE: &str = "node: {id: client, cluster: client}";
const SERVER_NODE: &str = "node: {id: server, cluster: web}";

/// What it was told of a bundle is a list of authorities.
fn plain(mesh: &Mesh, client: &str, server: &str) -> Result<()> {
    for (envoy, name) in [(&mesh.client, client), (&mesh.server, server)] {
        let context = &envoy.secret(name)?["validation_context"];
        ensure!(context["trusted_ca"]["inline_bytes"].is_string(), "{name}: {context}");
        ensure!(context.get("custom_validator_config").is_none(), "{name}: {context}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_envoy_without_the_spiffe_validator_is_served_plain_authorities() -> Result<()> {
    let d = Deployment::builder().start_with_agent()?;
    entries(&d)?;
    let own_bundle = ("name: ALL", "name: ROOTCA".to_owned());
    let client = [without_validator(CLIENT_NODE, "true")];
    let server = [without_validator(SERVER_NODE, "\"true\""), own_bundle.clone()];
    let mesh = Mesh::start((&d, &client), (&d, &server))?;
    let body = mesh.settled(&d, 200)?;
    ensure!(body.contains("URI=spiffe://example.org/client"), "{body}");
    plain(&mesh, "ROOTCA", "ROOTCA")?;
    rotate_under_load(&d, &mesh, 5).await?;

    let configured = "sds { disable_spiffe_cert_validation = true }";
    let d = Deployment::builder().agent_options(configured).start_with_agent()?;
    entries(&d)?;
    let mesh = Mesh::start((&d, &[]), (&d, &[own_bundle]))?;
    mesh.settled(&d, 200)?;
    plain(&mesh, "ROOTCA", "ROOTCA")?;
    rotate_under_load(&d, &mesh, 5).await?;
    Ok(())
}

/// How often certificates rotate under load; the whole issue's figure is 1,000.
fn rotations() -> u64 {
    std::env::var("STEEPLE_ENVOY_ROTATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(100)
}

/// Answers how many requests there were meanwhile.
async fn rotate_under_load(d: &Deployment, mesh: &Mesh, rotations: u64) -> Result<u64> {
    if d.subject() == Subject::Spire {
        // Rotation on demand is Steeple's own.
        return Ok(0);
    }
    let load = Load::start(mesh.port);
    let mut server = RotationClient::new(connect_uds(&d.server_socket()).await?);
    let updates = || -> Result<[u64; 2]> {
        Ok([
            mesh.server.secret_stat(WEB, "update_success")?,
            mesh.client.secret_stat(CLIENT, "update_success")?,
        ])
    };
    let mut seen = updates()?;
    for n in 0..rotations {
        let ids = vec!["web".to_owned(), "client".to_owned()];
        let answer = server.rotate_entries(RotateEntriesRequest { ids }).await?.into_inner();
        ensure!(answer.results.iter().all(|result| result.code == 0), "{answer:?}");
        let end = Instant::now() + LONG;
        loop {
            let now = updates()?;
            if now[0] > seen[0] && now[1] > seen[1] {
                seen = now;
                break;
            }
            ensure!(Instant::now() < end, "rotation {n} did not reach the Envoys");
            if load.broke_off() {
                load.stop().with_context(|| format!("at rotation {n}"))?;
                unreachable!("a load that broke off tells why");
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    let sent = load.stop()?;
    for (envoy, secret) in [(&mesh.server, WEB), (&mesh.client, CLIENT)] {
        ensure!(envoy.secret_stat(secret, "update_rejected")? == 0, "{secret}");
    }
    Ok(sent)
}

/// User and system time of a process so far.
pub fn cpu(daemon: Option<&Daemon>) -> Result<Duration> {
    let pid = daemon.context("not started")?.pid();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().context("no name")?.split_whitespace().collect();
    let ticks = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Duration::from_millis(ticks * 10))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotations_under_load_fail_no_request() -> Result<()> {
    let d = Deployment::builder().quiet().start_with_agent()?;
    entries(&d)?;
    let mesh = Mesh::start((&d, &[]), (&d, &[]))?;
    mesh.settled(&d, 200)?;
    let (before, started) = (cpu(d.agent.as_ref())?, Instant::now());
    let sent = rotate_under_load(&d, &mesh, rotations()).await?;
    let took = started.elapsed();
    let cpu = cpu(d.agent.as_ref())?.saturating_sub(before);
    println!(
        "{} rotations of two SVIDs, {sent} requests, each a handshake: none failed; {took:?}, the agent's CPU {cpu:?}",
        rotations()
    );
    if d.subject() == Subject::Spire {
        return Ok(());
    }
    ensure!(sent >= rotations(), "hardly any load: {sent} requests");
    new_authority_under_load(&d, &mesh)
}

/// The trust domain gets another authority and loses its first one.
fn new_authority_under_load(d: &Deployment, mesh: &Mesh) -> Result<()> {
    let load = Load::start(mesh.port);
    let bundles = |n: u64| {
        d.eventually("both know the authorities", LONG, || {
            let told = |envoy: &crate::envoys::Envoy, name| envoy.secret_stat(name, "update_success");
            told(&mesh.client, "ROOTCA").unwrap_or(0) >= n && told(&mesh.server, "ALL").unwrap_or(0) >= n
        })
    };
    let serial = || -> Result<String> { Ok(mesh.server.secret(WEB)?["tls_certificate"].to_string()) };
    d.server_ok(&["localauthority", "x509", "prepare"])?;
    bundles(2)?;
    let (old, before) = (authority(d, "old")?, serial()?);
    d.server_ok(&["localauthority", "x509", "activate", "-authorityID", &authority(d, "prepared")?])?;
    d.server_ok(&["localauthority", "x509", "taint", "-authorityID", &old])?;
    d.eventually("an SVID of the new authority", LONG, || serial().is_ok_and(|now| now != before))?;
    let before = mesh.client.secret_stat("ROOTCA", "update_success")?;
    let client = |d: &Deployment| d.agent_api(&["api", "fetch", "x509"]).code == Some(0);
    ensure!(client(d), "the agent answers");
    d.server_ok(&["localauthority", "x509", "revoke", "-authorityID", &old])?;
    bundles(before + 1)?;
    let sent = load.sent();
    d.eventually("requests go on", LONG, || load.sent() > sent + 20 || load.broke_off())?;
    load.stop()?;
    Ok(())
}

/// `old` is the one active before the prepared one is activated.
fn authority(d: &Deployment, which: &str) -> Result<String> {
    let shown = d.server_ok(&["localauthority", "x509", "show", "-output", "json"])?;
    let shown: serde_json::Value = serde_json::from_str(&shown)?;
    let slot = if which == "old" { "active" } else { which };
    Ok(shown[slot]["authority_id"].as_str().with_context(|| shown.to_string())?.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_alone_are_enough_for_an_envoy() -> Result<()> {
    let d = Deployment::builder().start_with_agent()?;
    if d.subject() == Subject::Spire {
        // DeltaSecrets is Steeple's own.
        return Ok(());
    }
    let delta = changes(&[("api_type: GRPC", "api_type: DELTA_GRPC")]);
    // The entries come later: the names are told as missing, then sent.
    let mesh = Mesh::start((&d, &delta), (&d, &delta))?;
    d.eventually("the bundle comes", LONG, || {
        mesh.client.secret_stat("ROOTCA", "update_success").is_ok_and(|n| n > 0)
    })?;
    entries(&d)?;
    mesh.settled(&d, 200)?;
    rotate_under_load(&d, &mesh, 10).await?;
    Ok(())
}

/// Envoy itself has no use for FetchSecrets (its `REST` is JSON over HTTP, which SPIRE does not serve either).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_can_be_fetched_once() -> Result<()> {
    let d = Deployment::builder().start_with_agent()?;
    entries(&d)?;
    d.eventually("the entry is served", LONG, || d.agent_api(&["api", "fetch", "x509"]).code == Some(0))?;
    let mut client = SecretDiscoveryServiceClient::new(connect_uds(&d.workload_socket()).await?);
    let asked = DiscoveryRequest {
        resource_names: vec![WEB.into(), CLIENT.into(), "ROOTCA".into()],
        ..DiscoveryRequest::default()
    };
    let answer = client.fetch_secrets(asked).await?.into_inner();
    ensure!(answer.resources.len() == 3, "{} secrets", answer.resources.len());
    Ok(())
}

/// An Envoy goes on with what it has while the agent is away, and hears of changes once it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_may_restart_under_load() -> Result<()> {
    let mut d = Deployment::builder().disk_keys().start_with_agent()?;
    entries(&d)?;
    let mesh = Mesh::start((&d, &[]), (&d, &[]))?;
    mesh.settled(&d, 200)?;
    let load = Load::start(mesh.port);
    let mut agent = d.agent.take().context("started")?;
    agent.kill();
    let sent = load.sent();
    d.eventually("requests go on", LONG, || load.sent() > sent + 20 || load.broke_off())?;
    d.start_agent_with(&[])?;
    load.stop()?;
    rotate_under_load(&d, &mesh, 2).await?;
    Ok(())
}

/// Two trust domains, one with Istio's names of secrets. What one knows of the other comes after the Envoys do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoys_of_two_trust_domains_speak_mutual_tls() -> Result<()> {
    let istio = "sds { default_bundle_name = \"null\" default_all_bundles_name = \"ROOTCA\" }";
    let home = Deployment::builder().agent_options(istio).start_with_agent()?;
    let away = Deployment::builder().trust_domain("away.test").start_with_agent()?;
    home.entry_for_me("client", "/client")?;
    away.entry_for_me("web", "/web")?;
    let client = changes(&[
        ("name: spiffe://example.org/client", "name: default"),
        ("exact: spiffe://example.org/web", "exact: spiffe://away.test/web"),
    ]);
    let server = changes(&[("name: spiffe://example.org/web", "name: spiffe://away.test/web")]);
    let mesh = Mesh::start((&home, &client), (&away, &server))?;
    mesh.settled(&home, 503)?;

    tell(&away, &home, "away.test")?;
    tell(&home, &away, "example.org")?;
    federate(&home, ("client", "spiffe://example.org/client"), "spiffe://away.test")?;
    federate(&away, ("web", "spiffe://away.test/web"), "spiffe://example.org")?;
    let body = mesh.settled(&home, 200)?;
    ensure!(body.contains("URI=spiffe://example.org/client"), "{body}");
    let trusted = mesh.client.secret("ROOTCA")?["validation_context"]["custom_validator_config"].to_string();
    ensure!(trusted.contains("away.test") && trusted.contains("example.org"), "{trusted}");

    // Without the validator each asks for the other's bundle by its name.
    let mut client = client;
    client.push(("name: ROOTCA", "name: spiffe://away.test".to_owned()));
    client.push(without_validator(CLIENT_NODE, "true"));
    let mut server = server;
    server.push(("name: ALL", "name: spiffe://example.org".to_owned()));
    server.push(without_validator(SERVER_NODE, "true"));
    let without = Mesh::start((&home, &client), (&away, &server))?;
    without.settled(&home, 200)?;
    plain(&without, "spiffe://away.test", "spiffe://example.org")?;

    // The other side's authority rotates.
    let loads = [Load::start(mesh.port), Load::start(without.port)];
    let taken = || mesh.client.secret_stat("ROOTCA", "update_success").unwrap_or(0);
    let taken_plain = || without.client.secret_stat("spiffe://away.test", "update_success").unwrap_or(0);
    let before = (taken(), taken_plain());
    away.server_ok(&["localauthority", "x509", "prepare"])?;
    tell(&away, &home, "away.test")?;
    home.eventually("the new authority", LONG, || taken() > before.0 && taken_plain() > before.1)?;
    let old = authority(&away, "old")?;
    away.server_ok(&["localauthority", "x509", "activate", "-authorityID", &authority(&away, "prepared")?])?;
    let held = || mesh.server.secret("spiffe://away.test/web").map(|secret| secret.to_string());
    let before = held()?;
    away.server_ok(&["localauthority", "x509", "taint", "-authorityID", &old])?;
    away.eventually("an SVID of the new authority", LONG, || held().is_ok_and(|now| now != before))?;
    for load in loads {
        load.stop()?;
    }
    Ok(())
}

/// `to` learns `from`'s bundle.
fn tell(from: &Deployment, to: &Deployment, name: &str) -> Result<()> {
    let path = to.path("peer.json").to_string_lossy().into_owned();
    std::fs::write(&path, from.server_ok(&["bundle", "show", "-format", "spiffe"])?)?;
    let id = format!("spiffe://{name}");
    to.server_ok(&["bundle", "set", "-id", &id, "-format", "spiffe", "-path", &path])?;
    Ok(())
}

fn federate(d: &Deployment, (entry, id): (&str, &str), with: &str) -> Result<()> {
    let node = format!("{}/node", id.rsplit_once('/').context("no path")?.0);
    let selector = format!("unix:uid:{}", uid());
    d.server_ok(&[
        "entry",
        "update",
        "-entryID",
        entry,
        "-spiffeID",
        id,
        "-parentID",
        &node,
        "-selector",
        &selector,
        "-federatesWith",
        with,
    ])?;
    Ok(())
}

/// Istio's proxies also ask for files' names (`file-root:…`); what is not served must not hurt the rest.
#[test]
fn a_name_that_is_not_served_hurts_no_other() -> Result<()> {
    let d = Deployment::builder().start_with_agent()?;
    entries(&d)?;
    let extra = "  - name: files\n    connect_timeout: 1s\n    transport_socket:\n      \
         name: envoy.transport_sockets.tls\n      typed_config:\n        \
         \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext\n        \
         common_tls_context:\n          validation_context_sds_secret_config:\n            \
         name: file-root:system\n            sds_config:\n              resource_api_version: V3\n              \
         initial_fetch_timeout: 1s\n              \
         api_config_source: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: spire_agent}}]}\n";
    let cluster = "  - name: spire_agent\n";
    let client = [(cluster, format!("{extra}{cluster}"))];
    let mesh = Mesh::start((&d, &client), (&d, &[]))?;
    mesh.settled(&d, 200)?;
    let refused = || mesh.client.secret_stat("file-root:system", "update_success");
    ensure!(refused()? == 0);
    let log = || std::fs::read_to_string(d.path("agent.log")).unwrap_or_default();
    let words = "workload is not authorized for the requested identities";
    d.eventually("the refusal is logged", LONG, || {
        log().contains(words) && log().contains("file-root:system")
    })?;
    mesh.settled(&d, 200)?;
    Ok(())
}
