//! What becomes of an agent that is banned, evicted, expired, or meets a server that was set up anew: it goes on by
//! itself where SPIRE's exits, and exits as SPIRE's where that is asked for.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use steeple_e2e::{Deployment, Subject, Workload, free_port};
use steeple_proto::workload::{X509svidRequest, X509svidResponse};
use steeple_spiffe::Certificate;
use tonic::{Code, Streaming};

const JOIN_TOKEN: &str = "NodeAttestor \"join_token\" { plugin_data {} }";
/// SPIRE overlooks it.
const EXITS: &str = "experimental { recover_in_process = false }";
/// A slow machine needs a while; a failure is told at once.
const LONG: Duration = Duration::from_secs(90);

/// A node certificate, and both configurations with x509pop: that agent may attest again and again.
fn with_x509pop(d: &Deployment) -> Result<()> {
    let f = |name: &str| d.path(name).to_string_lossy().into_owned();
    std::fs::write(
        d.path("ext"),
        "basicConstraints=critical,CA:false\nkeyUsage=critical,digitalSignature\n",
    )?;
    for (name, more) in [("ca", vec!["-x509", "-days", "2"]), ("node", vec![])] {
        let out = f(&format!("{name}.{}", if more.is_empty() { "csr" } else { "pem" }));
        let (key, subject) = (f(&format!("{name}.key")), format!("/CN={name}"));
        let mut args = vec!["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        args.extend(["-keyout", &key, "-subj", &subject, "-out", &out]);
        args.extend(more);
        openssl(&args)?;
    }
    let (csr, out, ext) = (f("node.csr"), f("node.pem"), f("ext"));
    let (ca, ca_key) = (f("ca.pem"), f("ca.key"));
    openssl(&[
        "x509",
        "-req",
        "-in",
        &csr,
        "-CA",
        &ca,
        "-CAkey",
        &ca_key,
        "-days",
        "2",
        "-out",
        &out,
        "-extfile",
        &ext,
        "-set_serial",
        "7",
    ])?;
    let server = format!("ca_bundle_path = \"{ca}\"");
    let agent = format!("private_key_path = \"{}\" certificate_path = \"{out}\"", f("node.key"));
    for (file, data, keep) in [("server.conf", server, JOIN_TOKEN), ("agent.conf", agent, "")] {
        let config = std::fs::read_to_string(d.path(file))?;
        let block = format!("{keep}\n  NodeAttestor \"x509pop\" {{ plugin_data {{ {data} }} }}");
        std::fs::write(d.path(file), config.replace(JOIN_TOKEN, &block))?;
    }
    Ok(())
}

fn openssl(args: &[&str]) -> Result<()> {
    let ran = Command::new("openssl").args(args).output().context("openssl does not start")?;
    ensure!(ran.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&ran.stderr));
    Ok(())
}

/// The path of the only agent's ID.
fn agent_path(d: &Deployment) -> Result<String> {
    let listed: Value = serde_json::from_str(&d.server_ok(&["agent", "list", "-output", "json"])?)?;
    Ok(listed["agents"][0]["id"]["path"].as_str().context("no agent")?.to_owned())
}

/// Registers this process under the agent itself.
fn entry(d: &Deployment, parent: &str) -> Result<()> {
    let selector = format!("unix:uid:{}", steeple_e2e::uid());
    let parent = format!("spiffe://example.org{parent}");
    let id = "spiffe://example.org/me";
    d.server_ok(&["entry", "create", "-spiffeID", id, "-parentID", &parent, "-selector", &selector])?;
    Ok(())
}

async fn stream(d: &Deployment) -> Result<Streaming<X509svidResponse>> {
    let mut workload = d.workload().await?;
    Ok(workload.api.fetch_x509svid(Workload::request(X509svidRequest {})).await?.into_inner())
}

/// Asks until there is an SVID.
async fn served(d: &Deployment) -> Result<(Streaming<X509svidResponse>, X509svidResponse)> {
    let asking = async {
        loop {
            if let Ok(mut stream) = stream(d).await
                && let Ok(Some(answer)) = stream.message().await
            {
                break (stream, answer);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let log = || d.agent.as_ref().map(steeple_e2e::Daemon::log).unwrap_or_default();
    tokio::time::timeout(LONG, asking).await.with_context(|| format!("no SVID: {}", log()))
}

async fn refused(mut stream: Streaming<X509svidResponse>) -> Result<()> {
    let ending = async {
        loop {
            if let Err(status) = stream.message().await {
                break status;
            }
        }
    };
    let status = tokio::time::timeout(LONG, ending).await.context("the stream goes on")?;
    ensure!(
        (status.code(), status.message()) == (Code::PermissionDenied, "no identity issued"),
        "{status:?}"
    );
    Ok(())
}

/// Status and details of the health check.
fn ready(port: u16) -> Result<(u16, Value)> {
    let (status, body) = get(port, "/ready")?;
    Ok((status, serde_json::from_str(&body)?))
}

fn get(port: u16, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("no answer: {answer:?}"))?;
    Ok((head.split(' ').nth(1).context("no status")?.parse()?, body.to_owned()))
}

fn observed(health: u16, metrics: u16) -> String {
    format!(
        "health_checks {{ listener_enabled = true bind_address = \"127.0.0.1\" bind_port = \"{health}\" }}\n\
         telemetry {{ Prometheus {{ host = \"127.0.0.1\" port = {metrics} }} }}\n"
    )
}

/// The state that metrics tell.
fn state(metrics: u16) -> Result<String> {
    let (_, body) = get(metrics, "/metrics")?;
    let current = body.lines().find_map(|line| {
        let labels = line.strip_prefix("spire_agent_agent_state{")?.strip_suffix("\"} 1")?;
        Some(labels.rsplit_once("state=\"")?.1.to_owned())
    });
    current.context("no state")
}

fn stands(d: &Deployment, metrics: u16, wanted: &str) -> Result<()> {
    d.eventually(&format!("state {wanted}"), LONG, || state(metrics).is_ok_and(|now| now == wanted))
        .with_context(|| {
            format!(
                "{:?}; {}",
                state(metrics),
                d.agent.as_ref().map(steeple_e2e::Daemon::log).unwrap_or_default()
            )
        })
}

/// What a file of SPIRE's form keeps under any key.
fn holds(path: &Path, part: &str) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| text.contains(part))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_banned_agent_drops_everything_and_comes_back_without_a_restart() -> Result<()> {
    let (health, metrics) = (free_port()?, free_port()?);
    let mut d = Deployment::builder().disk_keys().agent_blocks(&observed(health, metrics)).prepare()?;
    if d.subject() == Subject::Spire {
        return Ok(());
    }
    with_x509pop(&d)?;
    d.start_server()?;
    d.start_agent_with(&[])?;
    let path = agent_path(&d)?;
    entry(&d, &path)?;
    let (stream, _) = served(&d).await?;
    let pid = d.agent.as_ref().context("no agent")?.pid();
    let (keys, data) = (d.path("agent/keys.json"), d.path("agent/agent-data.json"));
    let file: Value = serde_json::from_str(&std::fs::read_to_string(&keys)?)?;
    let secret = file["keys"].as_object().and_then(|keys| keys.values().next()?.as_str().map(str::to_owned));
    let secret = secret.with_context(|| format!("{file}"))?;
    ensure!(state(metrics)? == "ready");

    let id = format!("spiffe://example.org{path}");
    d.server_ok(&["agent", "ban", "-spiffeID", &id])?;
    refused(stream).await?;
    stands(&d, metrics, "banned")?;
    d.eventually("no agent SVID on disk", LONG, || holds(&data, "\"svid\":[]"))?;
    d.eventually("no key on disk", LONG, || keys.exists() && !holds(&keys, &secret))?;
    d.eventually("not ready", LONG, || {
        ready(health)
            .is_ok_and(|(code, body)| code == 500 && body.to_string().contains("\"state\":\"banned\""))
    })?;
    ensure!(get(health, "/live")?.0 == 200, "restarting it would not help");
    let again = d.agent_api(&["api", "fetch", "x509", "-timeout", "4s"]);
    ensure!(again.code != Some(0), "{again:?}");

    // The operator deletes the record; nobody touches the agent.
    d.server_ok(&["agent", "evict", "-spiffeID", &id])?;
    served(&d).await?;
    stands(&d, metrics, "ready")?;
    let agent = d.agent.as_mut().context("no agent")?;
    ensure!(agent.ended().is_none() && agent.pid() == pid);
    let log = agent.log();
    let changes: Vec<&str> = log.lines().filter(|line| line.contains("Agent state changed")).collect();
    ensure!(changes.len() == 3, "one line a change: {changes:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_evicted_agent_attests_again_if_it_can_and_takes_a_new_token_if_not() -> Result<()> {
    let metrics = free_port()?;
    let telemetry = format!("telemetry {{ Prometheus {{ host = \"127.0.0.1\" port = {metrics} }} }}\n");
    let mut d = Deployment::builder().agent_blocks(&telemetry).prepare()?;
    if d.subject() == Subject::Spire {
        return Ok(());
    }
    let file = d.path("token");
    d.start_server()?;
    std::fs::write(&file, d.join_token()?)?;
    d.start_agent_with(&["-joinTokenFile", &file.to_string_lossy()])?;
    d.entry_for_me("me", "/me")?;
    let (stream, _) = served(&d).await?;
    d.server_ok(&["agent", "evict", "-spiffeID", &format!("spiffe://example.org{}", agent_path(&d)?)])?;
    refused(stream).await?;
    stands(&d, metrics, "evicted")?;
    std::fs::write(&file, d.join_token()?)?;
    served(&d).await?;
    stands(&d, metrics, "ready")?;

    let mut d = Deployment::builder().prepare()?;
    with_x509pop(&d)?;
    d.start_server()?;
    d.start_agent_with(&[])?;
    let path = agent_path(&d)?;
    entry(&d, &path)?;
    let (_stream, _) = served(&d).await?;
    d.server_ok(&["agent", "evict", "-spiffeID", &format!("spiffe://example.org{path}")])?;
    d.eventually("it attests again", LONG, || agent_path(&d).is_ok_and(|now| now == path))?;
    served(&d).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_outlives_a_server_that_is_away_for_longer_than_its_svid() -> Result<()> {
    let (health, metrics) = (free_port()?, free_port()?);
    let builder = Deployment::builder().server_options("agent_ttl = \"15s\"");
    let mut d = builder.agent_blocks(&observed(health, metrics)).prepare()?;
    if d.subject() == Subject::Spire {
        return Ok(());
    }
    with_x509pop(&d)?;
    // The authority must survive its server.
    let config = std::fs::read_to_string(d.path("server.conf"))?;
    let keys = format!(
        "KeyManager \"disk\" {{ plugin_data {{ keys_path = \"{}\" }} }}",
        d.path("server/keys.json").display()
    );
    std::fs::write(d.path("server.conf"), config.replace("KeyManager \"memory\" { plugin_data {} }", &keys))?;
    d.start_server()?;
    d.start_agent_with(&[])?;
    let path = agent_path(&d)?;
    entry(&d, &path)?;
    let (mut open, _) = served(&d).await?;
    d.server.take().context("no server")?.kill();
    stands(&d, metrics, "expired")?;
    let (_, first) = served(&d).await.context("what is valid is served on")?;
    d.start_server()?;
    stands(&d, metrics, "ready")?;
    entry_is_followed(&d, &path, &mut open).await?;
    ensure!(!first.svids.is_empty());
    d.eventually("ready again", LONG, || ready(health).is_ok_and(|(code, _)| code == 200))?;
    Ok(())
}

/// A new entry reaches the stream that was open all the time.
async fn entry_is_followed(
    d: &Deployment,
    parent: &str,
    open: &mut Streaming<X509svidResponse>,
) -> Result<()> {
    let selector = format!("unix:uid:{}", steeple_e2e::uid());
    let parent = format!("spiffe://example.org{parent}");
    let id = "spiffe://example.org/later";
    d.server_ok(&["entry", "create", "-spiffeID", id, "-parentID", &parent, "-selector", &selector])?;
    let following = async {
        while let Some(answer) = open.message().await? {
            if answer.svids.iter().any(|svid| svid.spiffe_id == id) {
                return Ok(());
            }
        }
        bail!("the stream ended")
    };
    tokio::time::timeout(LONG, following).await.context("the stream hears nothing")?
}

/// The server loses all of its data: another authority.
fn set_up_anew(d: &mut Deployment) -> Result<()> {
    d.server.take().context("no server")?.terminate()?;
    std::fs::remove_dir_all(d.path("server"))?;
    std::fs::create_dir(d.path("server"))?;
    d.start_server()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_set_up_anew_is_taken_up_with_its_new_bundle() -> Result<()> {
    let metrics = free_port()?;
    let telemetry = format!("telemetry {{ Prometheus {{ host = \"127.0.0.1\" port = {metrics} }} }}\n");
    let options = "rebootstrap_mode = \"auto\"\nrebootstrap_delay = \"3s\"";
    let mut d = Deployment::builder().agent_options(options).agent_blocks(&telemetry).prepare()?;
    if d.subject() == Subject::Spire {
        return Ok(());
    }
    with_x509pop(&d)?;
    d.start_server()?;
    d.start_agent_with(&[])?;
    let path = agent_path(&d)?;
    entry(&d, &path)?;
    let (mut open, first) = served(&d).await?;
    set_up_anew(&mut d)?;
    entry(&d, &path)?;
    let roots = Certificate::from_pem(&std::fs::read_to_string(d.path("bundle.pem"))?)?;
    let following = async {
        while let Some(answer) = open.message().await? {
            let Some(svid) = answer.svids.first() else { continue };
            let chain = Certificate::many_from_der(&svid.x509_svid)?;
            if roots.iter().any(|root| chain[0].verify_signature_by(&root.public_key()).is_ok()) {
                return Ok(svid.spiffe_id.clone());
            }
        }
        bail!("the stream ended")
    };
    let log = || d.agent.as_ref().map(steeple_e2e::Daemon::log).unwrap_or_default();
    let id =
        tokio::time::timeout(LONG, following).await.with_context(|| format!("nothing new: {}", log()))??;
    ensure!(id == first.svids[0].spiffe_id, "{id}");
    stands(&d, metrics, "ready")?;
    ensure!(log().contains("rebootstrapping"), "{}", log());
    Ok(())
}

/// Runs on SPIRE's agent, too.
#[test]
fn where_spires_exits_are_asked_for_a_server_set_up_anew_ends_the_agent_and_the_next_start_takes_it_up()
-> Result<()> {
    let options = format!("rebootstrap_mode = \"auto\"\nrebootstrap_delay = \"1s\"\n{EXITS}");
    let mut d = Deployment::builder().agent_options(&options).disk_keys().prepare()?;
    with_x509pop(&d)?;
    d.start_server()?;
    d.start_agent_with(&[])?;
    set_up_anew(&mut d)?;
    let agent = d.agent.as_mut().context("no agent")?;
    let status = agent.wait(LONG)?;
    let log = agent.log();
    ensure!(!status.success() && log.contains("shutting down for rebootstrapping"), "{status} {log}");
    d.start_agent_with(&[])?;
    ensure!(agent_path(&d)?.starts_with("/spire/agent/x509pop/"));
    Ok(())
}

/// Runs on SPIRE's agent, too.
#[test]
fn rebootstrap_mode_always_does_not_run_with_a_join_token() -> Result<()> {
    let always = "rebootstrap_mode = \"always\"";
    let mut d = Deployment::builder().agent_options(always).disk_keys().start()?;
    let mut agent = if d.subject() == Subject::Spire {
        // It looks at what is stored, which is nothing yet when it starts for the first time.
        d.start_agent()?;
        d.agent.take().context("no agent")?.terminate()?;
        d.spawn_agent(&[])?
    } else {
        d.spawn_agent(&["-joinToken", &d.join_token()?])?
    };
    let status = agent.wait(LONG)?;
    let log = agent.log();
    ensure!(!status.success() && log.contains("you have requested rebootstrap support"), "{status} {log}");
    Ok(())
}

/// Runs on SPIRE's agent, too.
#[test]
fn another_agents_workload_api_gives_the_first_bundle() -> Result<()> {
    let mut d =
        Deployment::builder().agent_options("allow_unauthenticated_verifiers = true").start_with_agent()?;
    let config = std::fs::read_to_string(d.path("agent.conf"))?;
    let from = format!("trust_bundle_spiffe_workload_api = \"unix://{}\"", d.workload_socket().display());
    let path = format!("trust_bundle_path = \"{}\"", d.path("bundle.pem").display());
    ensure!(config.contains(&path), "{config}");
    let second = config
        .replace("/public/api.sock", "/second/api.sock")
        .replace("/admin/admin.sock", "/second-admin/admin.sock")
        .replace("/agent\"", "/second-data\"")
        .replace(&path, &from);
    std::fs::write(d.path("second.conf"), second)?;
    let (config, token) = (d.path("second.conf"), d.join_token()?);
    let args = ["run", "-config", &config.to_string_lossy(), "-joinToken", &token];
    let mut agent = steeple_e2e::Daemon::start(&d.program("spire-agent"), &args, &d.path("second.log"))?;
    let up = d.eventually("the second agent", LONG, || {
        d.server_ok(&["agent", "count"]).is_ok_and(|count| count.starts_with("2 "))
    });
    up.with_context(|| agent.log())?;
    agent.kill();
    d.agent.take();
    Ok(())
}
