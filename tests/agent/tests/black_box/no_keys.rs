//! No private key and no token is anywhere but where it belongs: one deployment does everything that handles them, is
//! killed in every way, and what it leaves is looked through for each of them.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use prost::Message as _;
use steeple_e2e::secrets::Secrets;
use steeple_e2e::{Daemon, Deployment, Subject, Workload, connect_uds};
use steeple_proto::envoy::service::discovery::v3::DiscoveryRequest;
use steeple_proto::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use steeple_proto::spire::api::agent::delegatedidentity::v1 as delegated;
use steeple_proto::workload::{JwtsvidRequest, ValidateJwtsvidRequest, WitsvidRequest, X509svidRequest};

const WIT: &str = "experimental { feature_flags = [\"wit-svid\"] }";

/// Every way to get at keys and tokens, each noted; refusals go to `errors`.
async fn fetch(d: &Deployment, secrets: &mut Secrets, errors: &mut String) -> Result<()> {
    let mut w = d.workload().await?;
    let mut stream = w.api.fetch_x509svid(Workload::request(X509svidRequest {})).await?.into_inner();
    for svid in stream.message().await?.context("no X.509-SVID")?.svids {
        secrets.add_pkcs8("an X.509-SVID's key", &svid.x509_svid_key);
    }
    let ask = || JwtsvidRequest { audience: vec!["a".into()], ..Default::default() };
    for svid in w.api.fetch_jwtsvid(Workload::request(ask())).await?.into_inner().svids {
        secrets.add_token("a JWT-SVID", &svid.svid);
        // Refused, with the token in hand.
        for (audience, token) in [("b", svid.svid.clone()), ("a", format!("{}x", svid.svid))] {
            let ask = ValidateJwtsvidRequest { audience: audience.into(), svid: token };
            let refused = w.api.validate_jwtsvid(Workload::request(ask)).await;
            errors.push_str(&refused.err().context("a bad token is valid")?.to_string());
        }
    }
    let mut stream = w.api.fetch_witsvid(Workload::request(WitsvidRequest::default())).await?.into_inner();
    for svid in stream.message().await?.context("no WIT-SVID")?.svids {
        secrets.add_token("a WIT-SVID", &svid.wit_svid);
        let jwk: serde_json::Value = serde_json::from_str(&svid.wit_svid_key)?;
        let d = jwk["d"].as_str().context("no private key beside a WIT-SVID")?;
        secrets.add_token("a WIT-SVID's key", d);
    }
    let mut sds = SecretDiscoveryServiceClient::new(connect_uds(&d.workload_socket()).await?);
    let unknown = DiscoveryRequest { resource_names: vec!["unknown".into()], ..Default::default() };
    errors
        .push_str(&sds.fetch_secrets(unknown).await.err().context("an unknown secret was had")?.to_string());
    sds.fetch_secrets(DiscoveryRequest::default()).await?;
    let mut delegate = delegated::delegated_identity_client::DelegatedIdentityClient::new(
        connect_uds(&d.admin_socket()).await?,
    );
    let ask = delegated::SubscribeToX509sviDsRequest {
        pid: i32::try_from(std::process::id())?,
        ..Default::default()
    };
    let mut stream = delegate.subscribe_to_x509svi_ds(ask).await?.into_inner();
    for svid in stream.message().await?.context("no delegated SVID")?.x509_svids {
        secrets.add_pkcs8("a delegated key", &svid.x509_svid_key);
    }
    Ok(())
}

/// The keys of a KeyManager "disk".
fn note_keys(file: &Path, secrets: &mut Secrets) -> Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let json: serde_json::Value = serde_json::from_str(&text)?;
    let keys = json["keys"].as_object().context("keys.json has no keys")?;
    ensure!(!keys.is_empty(), "{} is empty", file.display());
    for (name, key) in keys {
        let pem = format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            key.as_str().unwrap_or_default()
        );
        let key = steeple_spiffe::PrivateKey::from_pem(&pem).with_context(|| format!("key {name}"))?;
        secrets.add_pkcs8(&format!("{name} of {}", file.display()), &key.pkcs8_der()?);
    }
    Ok(())
}

/// An agent that may leave a core file, if it lets one be made.
fn agent_with_cores(d: &Deployment, flags: &str) -> Result<Daemon> {
    let command = format!(
        "ulimit -c unlimited; cd {}; exec {} run -config {} {flags}",
        d.path("agent").display(),
        d.program("spire-agent").display(),
        d.path("agent.conf").display()
    );
    let agent = Daemon::start(Path::new("/bin/sh"), &["-c", &command], &d.path("agent.log"))?;
    d.eventually("the agent to serve", Duration::from_mins(1), || {
        d.agent_api(&["api", "fetch", "x509"]).code == Some(0)
    })?;
    Ok(agent)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_behind_holds_no_key_and_no_token() -> Result<()> {
    let d = Deployment::builder()
        .disk_keys()
        .server_options(WIT)
        .agent_options(WIT)
        .agent_options("authorized_delegates = [\"spiffe://example.org/me\"]")
        .start()?;
    if d.subject() == Subject::Spire {
        return Ok(());
    }
    let outcome = everything(&d).await;
    outcome.with_context(|| std::fs::read_to_string(d.path("agent.log")).unwrap_or_default())
}

async fn everything(d: &Deployment) -> Result<()> {
    let (mut secrets, mut errors) = (Secrets::default(), String::new());
    d.entry_for_me("me", "/me")?;
    let token = d.join_token()?;
    let agent = agent_with_cores(d, &format!("-joinToken {token}"))?;
    fetch(d, &mut secrets, &mut errors).await?;
    note_keys(&d.path("server/keys.json"), &mut secrets)?;
    note_keys(&d.path("agent/keys.json"), &mut secrets)?;

    let crashed = end(agent, "ABRT")?;
    ensure!(!crashed.core_dumped(), "the agent's memory, with its keys, is in a core file");
    let agent = agent_with_cores(d, "")?;
    fetch(d, &mut secrets, &mut errors).await?;
    end(agent, "KILL")?;
    let agent = agent_with_cores(d, "")?;
    fetch(d, &mut secrets, &mut errors).await?;
    end(agent, "TERM")?;

    std::fs::write(d.path("errors"), &errors)?;
    // A join token is none once it is used: it is the agent's name from then on (SPIRE).
    let found = secrets.found_under(&d.path("."))?;
    ensure!(found.is_empty(), "where none may be: {found:#?}");

    // And it would have been found.
    let pem = std::fs::read(d.path("agent/keys.json"))?;
    std::fs::write(d.path("agent/planted"), &pem)?;
    ensure!(!secrets.found_under(&d.path("agent"))?.is_empty(), "a planted key is not found");
    std::fs::remove_file(d.path("agent/planted"))?;
    Ok(())
}

fn end(mut daemon: Daemon, signal: &str) -> Result<std::process::ExitStatus> {
    let pid = daemon.pid().to_string();
    Command::new("kill").args([&format!("-{signal}"), &pid]).status()?;
    daemon.wait(Duration::from_mins(1))
}

/// The memory of a daemon is closed to others of the same user, and a core file of it cannot be.
#[test]
fn memory_stays_private() -> Result<()> {
    let d = Deployment::builder().start_with_agent()?;
    if d.subject() == Subject::Spire {
        return Ok(());
    }
    for daemon in [&d.server, &d.agent] {
        let pid = daemon.as_ref().context("not running")?.pid();
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits"))?;
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).context("no limit")?;
        let values: Vec<&str> = core.split_whitespace().skip(4).take(2).collect();
        assert_eq!(values, ["0", "0"], "{core}");
    }
    Ok(())
}

/// One undecoded message for those who look at bytes.
#[test]
fn a_response_with_a_key_is_noticed() -> Result<()> {
    let key = steeple_spiffe::PrivateKey::generate(steeple_spiffe::KeyType::EcP256)?;
    let der = key.pkcs8_der()?.to_vec();
    let response = steeple_proto::workload::X509svid { x509_svid_key: der, ..Default::default() };
    assert!(steeple_e2e::secrets::private_key_in(&response.encode_to_vec())?.is_some());
    Ok(())
}
