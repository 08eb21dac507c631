//! Twelve seeded faults: `api explain` names each by its code, and says what is wrong. The same code is in the log and
//! in the details of the status that the workload gets.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use prost::Message as _;
use serde_json::Value;
use steeple_e2e::{Deployment, NODE, Ran, Workload, connect_uds, uid};
use steeple_proto::google::rpc::{ErrorInfo, Status as RpcStatus};
use steeple_proto::spire::api::agent::delegatedidentity::v1::FetchJwtsviDsRequest;
use steeple_proto::spire::api::agent::delegatedidentity::v1::delegated_identity_client::DelegatedIdentityClient;
use steeple_proto::spire::api::types::Selector;
use steeple_proto::workload::X509svidRequest;
use tonic::Code;

/// A machine that is busy with other tests.
const LONG: Duration = Duration::from_secs(40);

/// One answer.
#[derive(Clone, Debug)]
struct Why {
    code: Option<i32>,
    answer: Value,
}

impl Why {
    fn codes(&self) -> Vec<&str> {
        self.answer["reasons"].as_array().into_iter().flatten().filter_map(|r| r["code"].as_str()).collect()
    }

    fn first(&self) -> &str {
        self.codes().first().copied().unwrap_or_default()
    }

    /// What is said under a code.
    fn text(&self, code: &str) -> &str {
        let mut reasons = self.answer["reasons"].as_array().into_iter().flatten();
        reasons.find(|r| r["code"] == code).and_then(|r| r["text"].as_str()).unwrap_or_default()
    }
}

/// Only root may ask about others.
fn is_root() -> bool {
    let root = uid() == 0;
    if !root {
        println!("this test takes root");
    }
    root
}

fn why(d: &Deployment, args: &[&str]) -> Result<Why> {
    let ran = d.agent_api(&[&["api", "explain", "-output", "json"], args].concat());
    let answer = serde_json::from_str(&ran.stdout).with_context(|| format!("no answer: {ran:?}"))?;
    Ok(Why { code: ran.code, answer })
}

fn server_why(d: &Deployment, args: &[&str]) -> Result<Why> {
    let ran = d.server(&[&["explain", "-output", "json"], args].concat());
    let answer = serde_json::from_str(&ran.stdout).with_context(|| format!("no answer: {ran:?}"))?;
    Ok(Why { code: ran.code, answer })
}

fn me() -> String {
    std::process::id().to_string()
}

/// Asks until the verdict begins with `code`: entries take a moment to reach the agent.
fn eventually_why(d: &Deployment, args: &[&str], code: &str) -> Result<Why> {
    let mut last = None;
    let told = d.eventually(code, LONG, || match why(d, args) {
        Ok(answer) => last.insert(answer).first() == code,
        Err(_) => false,
    });
    told.with_context(|| format!("the last answer: {last:#?}"))?;
    last.context("no answer")
}

fn entry(d: &Deployment, id: &str, parent: &str, selectors: &[&str], more: &[&str]) -> Result<()> {
    let spiffe_id = format!("spiffe://example.org/{id}");
    let mut args = vec!["entry", "create", "-entryID", id, "-spiffeID", &spiffe_id, "-parentID", parent];
    args.extend(selectors.iter().flat_map(|selector| ["-selector", selector]));
    args.extend(more);
    d.server_ok(&args).map(drop)
}

fn delete(d: &Deployment, id: &str) -> Result<()> {
    d.server_ok(&["entry", "delete", "-entryID", id]).map(drop)
}

/// The reason in a status' details.
fn reason(status: &tonic::Status) -> Result<String> {
    let details = RpcStatus::decode(status.details())?;
    let any = details.details.first().with_context(|| format!("no details in {status:?}"))?;
    let info = ErrorInfo::decode(&*any.value)?;
    ensure!(info.domain == "steeple" && details.code == status.code() as i32, "{info:?} {details:?}");
    Ok(info.reason)
}

/// What a workload is told that asks for an X.509-SVID.
async fn refusal(d: &Deployment) -> Result<tonic::Status> {
    let mut workload = d.workload().await?;
    let stream = workload.api.fetch_x509svid(Workload::request(X509svidRequest {})).await;
    let refused = match stream {
        Err(status) => Err(status),
        Ok(stream) => stream.into_inner().message().await,
    };
    match refused {
        Err(status) => Ok(status),
        Ok(answer) => bail!("not refused: {} SVIDs", answer.map_or(0, |answer| answer.svids.len())),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_entries_are_named() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let d = Deployment::builder().start_with_agent()?;
    let pid = me();
    let this = ["-pid", pid.as_str()];

    let none = why(&d, &this)?;
    ensure!((none.first(), none.code) == ("NO_ENTRY", Some(1)), "{none:?}");

    // 1: wrong parent.
    entry(&d, "wrong-parent", "spiffe://example.org/elsewhere", &["unix:uid:0"], &[])?;
    let told = eventually_why(&d, &this, "PARENT_NOT_REACHED")?;
    let text = told.text("PARENT_NOT_REACHED");
    for part in
        ["Entry wrong-parent (spiffe://example.org/wrong-parent)", "spiffe://example.org/elsewhere", NODE]
    {
        ensure!(text.contains(part), "{part} is not in {text}");
    }
    ensure!(told.code == Some(1), "{told:?}");
    let told = server_why(&d, &["-entryID", "wrong-parent"])?;
    ensure!((told.first(), told.code) == ("PARENT_NOT_REACHED", Some(1)), "{told:?}");
    delete(&d, "wrong-parent")?;

    // 2: a missing selector, named.
    entry(&d, "missing", NODE, &["unix:uid:0", "unix:path:/usr/bin/web"], &[])?;
    let told = eventually_why(&d, &this, "SELECTOR_MISSING")?;
    ensure!(
        told.text("SELECTOR_MISSING")
            == "Entry missing (spiffe://example.org/missing) asks for unix:path:/usr/bin/web, which the workload lacks.",
        "{told:?}"
    );
    ensure!(
        told.answer["near_misses"][0]["missing_selectors"] == serde_json::json!(["unix:path:/usr/bin/web"]),
        "{told:?}"
    );
    let refused = refusal(&d).await?;
    ensure!(
        (refused.code(), refused.message()) == (Code::PermissionDenied, "no identity issued"),
        "{refused:?}"
    );
    ensure!(reason(&refused)? == "SELECTOR_MISSING", "{refused:?}");
    let log = d.agent.as_ref().context("no agent")?.log();
    let line =
        log.lines().find(|line| line.contains("No identity issued")).context("no line of the refusal")?;
    ensure!(line.contains("reason=SELECTOR_MISSING") && !line.contains("unix:"), "{line}");
    let told = server_why(&d, &["-entryID", "missing", "-selector", "unix:uid:0"])?;
    ensure!((told.first(), told.code) == ("SELECTOR_MISSING", Some(1)), "{told:?}");
    delete(&d, "missing")?;

    // 3: one typo.
    entry(&d, "typo", NODE, &["unix:user:rooot"], &[])?;
    let told = eventually_why(&d, &this, "SELECTOR_TYPO")?;
    ensure!(
        told.text("SELECTOR_TYPO")
            == "Entry typo (spiffe://example.org/typo) asks for unix:user:rooot, the workload has unix:user:root.",
        "{told:?}"
    );
    ensure!(told.answer["near_misses"][0]["instead"] == "unix:user:root", "{told:?}");
    delete(&d, "typo")?;

    // 4: an attestor that this agent does not run.
    entry(&d, "disabled", NODE, &["unix:uid:0", "nomad:job:web"], &[])?;
    let told = eventually_why(&d, &this, "ATTESTOR_DISABLED")?;
    ensure!(
        told.text("ATTESTOR_DISABLED").contains("nomad:job:web, and this agent runs no attestor \"nomad\""),
        "{told:?}"
    );
    delete(&d, "disabled")?;

    // 5: an expired entry, before and after it is pruned.
    entry(&d, "expired", NODE, &["unix:uid:0"], &["-entryExpiry", "1700000000"])?;
    let told = eventually_why(&d, &this, "ENTRY_EXPIRED")?;
    ensure!(
        told.text("ENTRY_EXPIRED").contains("Entry expired")
            && told.text("ENTRY_EXPIRED").contains("2023-11-14"),
        "{told:?}"
    );
    delete(&d, "expired")?;
    let gone = || why(&d, &this).is_ok_and(|told| told.code == Some(1) && told.first() == "ENTRY_EXPIRED");
    d.eventually("the pruned entry is remembered", LONG, gone)?;

    // 6: a TTL that the authority clamps.
    entry(&d, "clamped", NODE, &["unix:uid:0"], &["-x509SVIDTTL", "864000"])?;
    eventually_why(&d, &this, "ISSUED")?;
    let told = why(&d, &this)?;
    ensure!(told.codes() == ["ISSUED", "TTL_CLAMPED"] && told.code == Some(0), "{told:?}");
    ensure!(told.text("TTL_CLAMPED").contains("instead of 864000 s"), "{told:?}");
    let matched = &told.answer["matched"][0];
    ensure!(matched["svid_expires_at"] == matched["authority_expires_at"], "{matched}");
    let chain = matched["chain"].as_array().context("no chain")?;
    ensure!(chain.len() == 2 && chain[0] == NODE, "{matched}");
    let number =
        |field: &str| matched[field].as_str().and_then(|text| text.parse::<i64>().ok()).unwrap_or_default();
    ensure!(number("svid_issued_at") < number("rotates_at"), "{matched}");
    ensure!(number("rotates_at") < number("svid_expires_at"), "{matched}");
    let attestor = &told.answer["attestors"][0];
    ensure!(attestor["name"] == "unix" && attestor["error"] == "", "{attestor}");
    ensure!(told.answer["server"]["answered"] == true, "{told:?}");
    ensure!(told.answer["server"]["revision"] == told.answer["agent"]["revision"], "{told:?}");
    let told = server_why(&d, &["-entryID", "clamped", "-selector", "unix:uid:0"])?;
    ensure!(told.codes() == ["ISSUED", "TTL_CLAMPED"] && told.code == Some(0), "{told:?}");

    // 7: an identity of another trust domain.
    let told = why(&d, &["-spiffeID", "spiffe://elsewhere.org/web"])?;
    ensure!((told.first(), told.code) == ("FOREIGN_TRUST_DOMAIN", Some(1)), "{told:?}");
    ensure!(told.text("FOREIGN_TRUST_DOMAIN").contains("elsewhere.org"), "{told:?}");
    // The same answer in words.
    let ran = d.agent_api(&["api", "explain", "-pid", &pid]);
    ensure!(
        ran.code == Some(0)
            && ran.stdout.starts_with("ISSUED: The agent holds spiffe://example.org/clamped."),
        "{ran:?}"
    );
    ensure!(ran.stdout.contains("\nAttestor    unix (") && ran.stdout.contains("  rotates   "), "{ran:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_entry_through_a_delegate_and_a_banned_agent_are_named() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let options = "authorized_delegates = [\"spiffe://example.org/delegate\"]";
    let d = Deployment::builder().agent_options(options).start_with_agent()?;
    entry(&d, "delegate", NODE, &["unix:uid:0"], &[])?;
    entry(&d, "admin", NODE, &["k8s:sa:admin"], &["-admin"])?;
    let told = eventually_why(&d, &["-selector", "k8s:sa:admin"], "ISSUED")?;
    ensure!(told.codes().contains(&"DELEGATE_WITHHELD"), "{told:?}");
    ensure!(
        told.text("DELEGATE_WITHHELD").contains("Entry admin (spiffe://example.org/admin) has `admin`"),
        "{told:?}"
    );
    let mut delegate = DelegatedIdentityClient::new(connect_uds(&d.admin_socket()).await?);
    let selectors = vec![Selector { r#type: "k8s".into(), value: "sa:admin".into() }];
    let request =
        FetchJwtsviDsRequest { audience: vec!["x".into()], selectors, ..FetchJwtsviDsRequest::default() };
    let refused = match delegate.fetch_jwtsvi_ds(request).await {
        Err(refused) => refused,
        Ok(answer) => bail!("handed out: {} SVIDs", answer.into_inner().svids.len()),
    };
    ensure!(
        (refused.code(), refused.message()) == (Code::PermissionDenied, "no identity issued"),
        "{refused:?}"
    );
    ensure!(reason(&refused)? == "DELEGATE_WITHHELD", "{refused:?}");

    let listed = d.server_ok(&["agent", "list", "-output", "json"])?;
    let listed: Value = serde_json::from_str(&listed)?;
    let path = listed["agents"][0]["id"]["path"].as_str().context("no agent")?;
    let agent = format!("spiffe://example.org{path}");
    let told = server_why(&d, &["-agentID", &agent, "-entryID", "admin"])?;
    ensure!(told.first() == "ISSUED", "{told:?}");
    ensure!(told.answer["entries"][0]["chain"] == serde_json::json!([NODE, agent]), "{told:?}");
    d.server_ok(&["agent", "ban", "-spiffeID", &agent])?;
    let pid = me();
    let told = eventually_why(&d, &["-pid", &pid], "AGENT_BANNED")?;
    ensure!(told.code == Some(1), "{told:?}");
    ensure!(reason(&refusal(&d).await?)? == "AGENT_BANNED");
    let told = server_why(&d, &["-agentID", &agent])?;
    ensure!((told.first(), told.code) == ("AGENT_BANNED", Some(1)), "{told:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attestor_that_fails_is_named() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    // The agent asks itself for its health: the limit is above its size.
    let limit = Deployment::builder().prepare()?.program("spire-agent").metadata()?.len();
    let unix = format!(
        "WorkloadAttestor \"unix\" {{ plugin_data {{ discover_workload_path = true workload_size_limit = {limit} }} }}"
    );
    let d = Deployment::builder().workload_attestor(&unix).start_with_agent()?;
    entry(&d, "web", NODE, &["unix:uid:0"], &[])?;
    let program = d.path("large");
    std::fs::copy("/bin/sleep", &program)?;
    std::fs::File::options().write(true).open(&program)?.set_len(limit + 1)?;
    let workload = Ended(Command::new(&program).arg("600").spawn()?);
    let pid = workload.0.id().to_string();
    let told = eventually_why(&d, &["-pid", &pid], "ATTESTATION_FAILED")?;
    ensure!(told.text("ATTESTATION_FAILED").contains("unix: "), "{told:?}");
    ensure!(!told.answer["attestors"][0]["error"].as_str().unwrap_or_default().is_empty(), "{told:?}");
    eventually_codes(&d, &["-pid", &pid], &["ATTESTATION_FAILED", "ATTESTOR_FAILED"])?;
    drop(workload);
    let told = eventually_why(&d, &["-pid", &pid], "CALLER_GONE")?;
    ensure!(told.codes() == ["CALLER_GONE"] && told.code == Some(1), "{told:?}");
    Ok(())
}

/// It is killed with its owner.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn eventually_codes(d: &Deployment, args: &[&str], codes: &[&str]) -> Result<()> {
    let mut last = None;
    let told = d.eventually("all codes", LONG, || {
        why(d, args).is_ok_and(|answer| last.insert(answer).codes() == codes)
    });
    told.with_context(|| format!("the last answer: {last:#?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_behind_or_away_is_named() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let mut d = Deployment::builder().disk_keys().start_with_agent()?;
    let nobody = ["-selector", "unix:uid:4242"];
    // 8: the server's whole folder is put back to an older state: what is written there never reaches the agent.
    let files = ["datastore.sqlite3", "datastore.sqlite3-wal", "datastore.sqlite3-steeple"];
    let (server, kept) = (d.path("server"), d.path("kept"));
    std::fs::create_dir(&kept)?;
    d.server.as_mut().context("no server")?.terminate()?;
    for file in files.iter().filter(|file| server.join(file).exists()) {
        std::fs::copy(server.join(file), kept.join(file))?;
    }
    d.start_server()?;
    let one = |i: usize| {
        serde_json::json!({
            "spiffe_id": format!("spiffe://example.org/later-{i}"), "parent_id": NODE,
            "selectors": [{"type": "unix", "value": "uid:7"}],
        })
    };
    let later = serde_json::json!({"entries": (0..60).map(one).collect::<Vec<_>>()});
    std::fs::write(d.path("later.json"), later.to_string())?;
    d.server_ok(&["entry", "create", "-data", &d.path("later.json").to_string_lossy()])?;
    eventually_why(&d, &["-selector", "unix:uid:7"], "ISSUED")?;
    d.server.as_mut().context("no server")?.terminate()?;
    for leftover in ["datastore.sqlite3-wal", "datastore.sqlite3-shm"] {
        let _ = std::fs::remove_file(server.join(leftover));
    }
    for file in files.iter().filter(|file| kept.join(file).exists()) {
        std::fs::copy(kept.join(file), server.join(file))?;
    }
    d.start_server()?;
    let told = eventually_why(&d, &nobody, "SERVER_STALE")?;
    let (ours, theirs) = (&told.answer["agent"]["revision"], &told.answer["server"]["revision"]);
    let number = |value: &Value| value.as_str().and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
    ensure!(number(theirs) < number(ours), "{told:?}");
    // 9: it does not answer at all.
    d.server.as_mut().context("no server")?.kill();
    let told = eventually_why(&d, &nobody, "SERVER_UNREACHABLE")?;
    ensure!(told.codes() == ["SERVER_UNREACHABLE", "NO_ENTRY"] && told.code == Some(1), "{told:?}");
    ensure!(told.answer["server"]["answered"] == false, "{told:?}");
    // What the agent holds is explained all the same.
    let told = why(&d, &["-selector", "unix:uid:7"])?;
    ensure!(told.first() == "ISSUED" && told.code == Some(0), "{told:?}");
    Ok(())
}

/// Runs a command of the agent as another user.
fn as_nobody(d: &Deployment, args: &[&str]) -> Result<Ran> {
    let socket = d.workload_socket().to_string_lossy().into_owned();
    let done = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(d.path("spire-agent"))
        .args(args)
        .args(["-socketPath", &socket])
        .stdin(Stdio::null())
        .output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Ran { code: done.status.code(), stdout: text(&done.stdout), stderr: text(&done.stderr) })
}

#[test]
fn others_than_root_are_told_of_themselves_only() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let d = Deployment::builder().start_with_agent()?;
    // Where everybody may run it.
    std::fs::copy(d.program("spire-agent"), d.path("spire-agent"))?;
    let nobody = "unix:uid:65534";
    entry(&d, "mine", NODE, &[nobody, "unix:path:/usr/bin/web"], &[])?;
    entry(&d, "secret", NODE, &["unix:uid:0", "unix:path:/usr/bin/vault"], &[])?;
    entry(&d, "almost", NODE, &["unix:uid:65535"], &[])?;
    eventually_why(&d, &["-selector", nobody], "SELECTOR_TYPO")?;
    let pid = me();
    for others in [&["-pid", pid.as_str()][..], &["-selector", "unix:uid:0"]] {
        let refused = as_nobody(&d, &[&["api", "explain"], others].concat())?;
        ensure!(refused.code == Some(1) && refused.stdout.is_empty(), "{refused:?}");
        ensure!(refused.stderr.contains("code = PermissionDenied"), "{refused:?}");
    }
    for own in [&[][..], &["-spiffeID", "spiffe://example.org/mine"]] {
        let told = as_nobody(&d, &[&["api", "explain", "-output", "json"], own].concat())?;
        let answer: Value = serde_json::from_str(&told.stdout).with_context(|| format!("{told:?}"))?;
        ensure!(answer["reasons"][0]["code"] == "SELECTOR_MISSING", "{answer}");
        ensure!(answer["selectors"][0] == "unix:gid:65534", "{answer}");
        // What it has nearly earned, and nothing else.
        ensure!(answer["near_misses"].as_array().is_some_and(|near| near.len() == 1), "{answer}");
        ensure!(answer["near_misses"][0]["entry_id"] == "mine", "{answer}");
        ensure!(!told.stdout.contains("secret") && !told.stdout.contains("almost"), "{answer}");
    }
    Ok(())
}

/// Says something on each connection, or nothing.
fn listener(says: Option<&'static [u8]>) -> Result<String> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            if let Some(says) = says {
                let _ = std::io::Write::write_all(&mut stream, says);
            }
        }
    });
    Ok(address)
}

#[test]
fn mtls_check_says_why_a_handshake_fails() -> Result<()> {
    let d = Deployment::builder().start_with_agent()?;
    d.entry_for_me("me", "/me")?;
    let server = format!("127.0.0.1:{}", d.port());
    let check = |args: &[&str]| -> Result<Why> {
        let ran = d.agent_api(&[&["api", "mtls-check", args[0], "-output", "json"], &args[1..]].concat());
        let answer = serde_json::from_str(&ran.stdout).with_context(|| format!("no answer: {ran:?}"))?;
        Ok(Why { code: ran.code, answer })
    };
    let id = "spiffe://example.org/spire/server";
    let mut last = None;
    let good = || check(&[&server, "-spiffeID", id]).is_ok_and(|told| last.insert(told).first() == "MTLS_OK");
    d.eventually("a good handshake", LONG, good).with_context(|| format!("{last:#?}"))?;
    let told = last.context("no answer")?;
    ensure!(told.code == Some(0) && told.answer["ok"] == true, "{told:?}");
    ensure!(told.answer["peer"]["version"] == "TLSv1_3", "{told:?}");
    ensure!(told.answer["peer"]["key_exchange"] == "X25519MLKEM768", "{told:?}");
    ensure!(told.answer["peer"]["chain"][0]["uri_sans"][0] == id, "{told:?}");

    let told = check(&[&server, "-spiffeID", "spiffe://example.org/other"])?;
    ensure!((told.first(), told.code) == ("WRONG_SPIFFE_ID", Some(1)), "{told:?}");
    let closed = format!("127.0.0.1:{}", steeple_e2e::free_port()?);
    let told = check(&[&closed])?;
    ensure!((told.first(), told.code) == ("CONNECT_FAILED", Some(1)), "{told:?}");
    let told = check(&[&listener(Some(b"SSH-2.0-OpenSSH_9.9\r\n"))?])?;
    ensure!((told.first(), told.code) == ("NOT_TLS", Some(1)), "{told:?}");
    let told = check(&[&listener(None)?])?;
    ensure!((told.first(), told.code) == ("HANDSHAKE_FAILED", Some(1)), "{told:?}");

    // Another trust domain, and one of the same name that knows nothing of ours: it refuses us, too.
    let foreign = Deployment::builder().trust_domain("foreign.org").start()?;
    let told = check(&[&format!("127.0.0.1:{}", foreign.port())])?;
    ensure!(told.codes() == ["FOREIGN_TRUST_DOMAIN", "PEER_REJECTED_US"] && told.code == Some(1), "{told:?}");
    let namesake = Deployment::builder().start()?;
    let told = check(&[&format!("127.0.0.1:{}", namesake.port())])?;
    ensure!(told.codes() == ["UNKNOWN_AUTHORITY", "PEER_REJECTED_US"] && told.code == Some(1), "{told:?}");
    // In words.
    let ran = d.agent_api(&["api", "mtls-check", &server]);
    ensure!(
        ran.code == Some(0) && ran.stdout.starts_with("MTLS_OK: spiffe://example.org/me and "),
        "{ran:?}"
    );
    let ran = d.agent_api(&["api", "mtls-check"]);
    ensure!(
        ran.code == Some(1) && ran.stderr.contains("the peer's address (host:port) is required"),
        "{ran:?}"
    );
    Ok(())
}
