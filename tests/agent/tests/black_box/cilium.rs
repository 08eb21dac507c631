//! Cilium's mutual authentication without Cilium: its node agent's and its operator's published behaviour, replayed call
//! by call. Runs on SPIRE's programs, too.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use prost::Message as _;
use steeple_e2e::{Deployment, Subject, connect_uds, free_port, uid};
use steeple_proto::spire::agent::debug::v1::GetInfoRequest;
use steeple_proto::spire::agent::debug::v1::debug_client::DebugClient;
use steeple_proto::spire::api::agent::delegatedidentity::v1 as api;
use steeple_proto::spire::api::server::entry::v1::list_entries_request::Filter;
use steeple_proto::spire::api::types::selector_match::MatchBehavior;
use steeple_proto::spire::api::types::{Selector, SelectorMatch};
use tonic::{Code, Status};

use crate::cilium_agent::{self, CiliumAgent, mutual_auth, selector};
use crate::cilium_operator::{CiliumOperator, identity, service_account, status};
use crate::envoy::cpu;
use crate::envoys::LONG;

/// Identities of a large cluster. The figure that counts is for 5,000.
fn many() -> u32 {
    std::env::var("STEEPLE_CILIUM_IDENTITIES").ok().and_then(|n| n.parse().ok()).unwrap_or(5000)
}

fn openssl(args: &[&str]) -> Result<()> {
    let ran = Command::new("openssl").args(args).output().context("openssl")?;
    ensure!(ran.status.success(), "openssl {}: {}", args.join(" "), String::from_utf8_lossy(&ran.stderr));
    Ok(())
}

/// A trust domain as Cilium's chart installs it, with x509pop for k8s_psat and Unix selectors for those of Kubernetes:
/// node alias → workloads → identities below a *workload*.
fn cluster() -> Result<Deployment> {
    let operator = "admin_ids = [\n  \"spiffe://example.org/cilium-operator\",\n]\nca_subject = {\n  \
         country = [\"US\"],\n  organization = [\"SPIRE\"],\n  common_name = \"Cilium SPIRE CA\",\n}";
    let mut d = Deployment::builder()
        .disk_keys()
        .quiet()
        .server_options(operator)
        .agent_options("authorized_delegates = [\n  \"spiffe://example.org/cilium-agent\",\n]")
        .prepare()?;
    let f = |name: &str| d.path(name).to_string_lossy().into_owned();
    let extensions = "[ca]\nbasicConstraints=critical,CA:true\nkeyUsage=critical,keyCertSign\n\
        [leaf]\nkeyUsage=critical,digitalSignature\n";
    std::fs::write(f("ext"), extensions)?;
    for (name, section) in [("ca", "ca"), ("node", "leaf")] {
        let (key, csr, pem) =
            (f(&format!("{name}.key")), f(&format!("{name}.csr")), f(&format!("{name}.pem")));
        let curve = "ec_paramgen_curve:P-256";
        openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", curve, "-out", &key])?;
        openssl(&["req", "-new", "-key", &key, "-subj", &format!("/CN={name}"), "-out", &csr])?;
        let (ext, ca, ca_key) = (f("ext"), f("ca.pem"), f("ca.key"));
        let mut args = vec!["x509", "-req", "-in", &csr, "-days", "2", "-out", &pem, "-extfile", &ext];
        args.extend(["-extensions", section, "-set_serial", "7"]);
        if name == "ca" {
            args.extend(["-signkey", &key]);
        } else {
            args.extend(["-CA", &ca, "-CAkey", &ca_key]);
        }
        openssl(&args)?;
    }
    let token = "NodeAttestor \"join_token\" { plugin_data {} }";
    let attestors = [
        ("server.conf", format!("ca_bundle_path = \"{}\"", f("ca.pem"))),
        (
            "agent.conf",
            format!("private_key_path = \"{}\" certificate_path = \"{}\"", f("node.key"), f("node.pem")),
        ),
    ];
    for (file, data) in attestors {
        let config = std::fs::read_to_string(f(file))?;
        let block = format!("NodeAttestor \"x509pop\" {{ plugin_data {{ {data} }} }}");
        ensure!(config.contains(token), "{config}");
        std::fs::write(f(file), config.replace(token, &block))?;
    }
    d.start_server()?;
    d.start_agent_with(&[])?;
    Ok(d)
}

const AGENT_ALIAS: &str = "spiffe://example.org/ns/cilium-spire/sa/spire-agent";

fn register(d: &Deployment, path: &str, more: &[&str]) -> Result<()> {
    let (id, me) = (format!("spiffe://example.org{path}"), format!("unix:uid:{}", uid()));
    let mut args = vec!["entry", "create", "-spiffeID", &id];
    if more.is_empty() {
        args.extend(["-parentID", AGENT_ALIAS, "-selector", &me]);
    }
    args.extend(more);
    d.server_ok(&args)?;
    Ok(())
}

fn refusal<T: std::fmt::Debug>(answer: Result<T, Status>) -> Result<(Code, String)> {
    match answer {
        Ok(answer) => anyhow::bail!("answered {answer:?}"),
        Err(status) => Ok((status.code(), status.message().to_owned())),
    }
}

/// The first message, or the refusal in its place.
async fn first(
    d: &Deployment,
    asked: api::SubscribeToX509sviDsRequest,
) -> Result<Result<api::SubscribeToX509sviDsResponse, Status>> {
    let mut client = cilium_agent::client(&d.admin_socket()).await?;
    Ok(match client.subscribe_to_x509svi_ds(asked).await {
        Ok(stream) => stream.into_inner().message().await.map(Option::unwrap_or_default),
        Err(status) => Err(status),
    })
}

async fn eventually_refused(d: &Deployment, wanted: &str) -> Result<()> {
    let end = Instant::now() + LONG;
    loop {
        let (code, message) = refusal(first(d, mutual_auth()).await?)?;
        ensure!(code == Code::PermissionDenied, "{code:?} {message}");
        if message == wanted {
            return Ok(());
        }
        ensure!(Instant::now() < end, "not told {wanted:?} but {message:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// From a node without entries to a delegate whose set is empty.
async fn the_delegate_is_let_in_step_by_step(d: &Deployment) -> Result<()> {
    eventually_refused(d, "no identity issued").await?;
    register(
        d,
        "/ns/cilium-spire/sa/spire-agent",
        &["-node", "-parentID", "spiffe://example.org/spire/server", "-selector", "x509pop:subject:cn:node"],
    )?;
    register(d, "/cilium-operator", &[])?;
    eventually_refused(d, "caller not configured as an authorized delegate").await?;
    register(d, "/cilium-agent", &[])?;
    let mut agent = CiliumAgent::new(d.admin_socket(), "example.org");
    agent.until("an empty first message", LONG, |agent| agent.messages == 1).await?;
    ensure!(agent.svids.is_empty(), "{:?}", agent.svids.keys());

    let mut client = cilium_agent::client(&d.admin_socket()).await?;
    let one = vec![selector("cilium", "mutual-auth")];
    let both = "must provide either selectors or non-zero PID, but not both";
    let parse = "could not parse provided selectors";
    let bad = |kind: &str, value: &str| (vec![selector(kind, value)], 0, parse);
    let table: [(Vec<Selector>, i32, &str); 5] =
        [(one.clone(), 1, both), (vec![], 0, both), bad("", "x"), bad("a:b", "x"), bad("cilium", "")];
    for (selectors, pid, message) in table {
        let wanted = (Code::InvalidArgument, message.to_owned());
        let asked = api::SubscribeToX509sviDsRequest { selectors: selectors.clone(), pid };
        ensure!(refusal(first(d, asked).await?)? == wanted, "{message}");
        let asked = api::FetchJwtsviDsRequest { audience: vec!["a".into()], selectors, pid };
        ensure!(refusal(client.fetch_jwtsvi_ds(asked).await)? == wanted, "{message}");
    }
    let asked = api::FetchJwtsviDsRequest { audience: vec![], selectors: one.clone(), pid: 0 };
    let answer = refusal(client.fetch_jwtsvi_ds(asked).await)?;
    ensure!(answer == (Code::InvalidArgument, "audience must be specified".into()), "{answer:?}");
    let asked = api::FetchJwtsviDsRequest { audience: vec!["a".into()], selectors: one, pid: 0 };
    let answer = refusal(client.fetch_jwtsvi_ds(asked).await)?;
    ensure!(answer == (Code::PermissionDenied, "no identity issued".into()), "{answer:?}");
    let gone = api::SubscribeToX509sviDsRequest { selectors: vec![], pid: i32::MAX };
    let answer = refusal(first(d, gone).await?)?;
    ensure!(answer == (Code::Unavailable, "workload attestation failed".into()), "{answer:?}");
    Ok(())
}

/// The operator's calls, in its order, and what it tolerates.
async fn the_operator_registers(operator: &mut CiliumOperator) -> Result<()> {
    ensure!(operator.list_all().await?.is_empty(), "nothing yet");
    operator.delete(7).await?;
    operator.upsert(7).await?;
    operator.upsert(7).await?;
    let again = operator.create(vec![identity(7)]).await?;
    let entry = again[0].entry.clone().context("the entry that is there comes with the refusal")?;
    ensure!(status(again[0].status.clone()) == (6, "similar entry already exists".into()), "{again:?}");
    ensure!(operator.list_of(7).await?[0].id == entry.id && !entry.id.is_empty());
    let updated = operator.update(vec![identity(7)]).await?;
    ensure!(matches!(updated[0].0, 3 | 5), "told for the entry, not the call: {updated:?}");

    // More selectors are another entry.
    let mut wider = identity(8);
    wider.selectors.push(selector("cilium", "other"));
    let made = operator.create(vec![wider]).await?[0].entry.clone().context("made")?;
    ensure!(operator.list_of(8).await?.is_empty(), "an exact match");
    ensure!(operator.list_all().await?.len() == 1);
    let nobody = operator.delete_ids(vec!["nobody".into(), String::new()]).await?;
    ensure!(nobody == [(5, "entry not found".into()), (3, "missing entry ID".into())], "{nobody:?}");
    ensure!(operator.delete_ids(vec![made.id]).await?[0].0 == 0);
    let nothing = SelectorMatch { selectors: vec![], r#match: MatchBehavior::MatchExact.into() };
    let filter = Filter { by_selectors: Some(nothing), ..Filter::default() };
    let answer = refusal(operator.list(filter).await)?;
    let words = "malformed selectors filter: empty selector set";
    ensure!(answer == (Code::InvalidArgument, words.into()), "{answer:?}");
    Ok(())
}

/// What a Go peer would demand: both EKUs, one URI SAN, a chain that verifies; then a handshake of two node agents.
fn peers_accept(d: &Deployment, agent: &CiliumAgent) -> Result<()> {
    let f = |name: &str| d.path(name).to_string_lossy().into_owned();
    let pool: String = agent.authorities.iter().map(steeple_spiffe::Certificate::to_pem).collect();
    std::fs::write(f("pool.pem"), pool)?;
    for number in [7, 9] {
        let (chain, key) = agent.certificate(number)?;
        let leaf = chain.iter().find(|one| !one.is_ca()).context("no leaf")?;
        let id = format!("spiffe://example.org/identity/{number}");
        ensure!(leaf.uri_sans() == [id], "{:?}", leaf.uri_sans());
        let pem: String = chain.iter().map(steeple_spiffe::Certificate::to_pem).collect();
        std::fs::write(f(&format!("{number}.pem")), pem)?;
        std::fs::write(f(&format!("{number}.der")), key)?;
        let (pem, pool) = (f(&format!("{number}.pem")), f("pool.pem"));
        for purpose in ["sslserver", "sslclient"] {
            openssl(&["verify", "-purpose", purpose, "-CAfile", &pool, "-untrusted", &pem, &pem])?;
        }
    }
    let port = free_port()?;
    let (accept, pool) = (format!("127.0.0.1:{port}"), f("pool.pem"));
    let shows = |number: u32| (f(&format!("{number}.pem")), f(&format!("{number}.der")));
    let (pem, key) = shows(7);
    let server = Command::new("openssl")
        .args(["s_server", "-accept", &accept, "-tls1_3", "-rev", "-naccept", "1", "-CAfile", &pool])
        .args(["-cert", &pem, "-cert_chain", &pem, "-key", &key, "-keyform", "DER", "-Verify", "3"])
        .arg("-verify_return_error")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut server = Ended(server);
    d.eventually("openssl listens", LONG, || {
        Command::new("ss")
            .args(["-ltnH", &format!("sport = :{port}")])
            .output()
            .is_ok_and(|ran| !ran.stdout.is_empty())
    })?;
    let (pem, key) = shows(9);
    let mut client = Command::new("openssl")
        .args(["s_client", "-connect", &accept, "-servername", "7.example.org", "-tls1_3", "-quiet"])
        .args(["-CAfile", &pool, "-cert", &pem, "-cert_chain", &pem, "-key", &key, "-keyform", "DER"])
        .arg("-verify_return_error")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    client.stdin.take().context("stdin")?.write_all(b"neddih\nCLOSE\n")?;
    let client = client.wait_with_output()?;
    let (said, why) = (String::from_utf8_lossy(&client.stdout), String::from_utf8_lossy(&client.stderr));
    ensure!(said.contains("hidden"), "{said}\n{why}");
    server.0.kill().ok();
    Ok(())
}

/// A process that ends with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// The trust domain's authority is replaced: full sets throughout, nothing disappears.
async fn the_authority_is_replaced(d: &Deployment, agent: &mut CiliumAgent) -> Result<()> {
    let ids = || -> Result<serde_json::Value> {
        Ok(serde_json::from_str(&d.server_ok(&["localauthority", "x509", "show", "-output", "json"])?)?)
    };
    d.server_ok(&["localauthority", "x509", "prepare"])?;
    agent.until("two authorities", LONG, |agent| agent.authorities.len() == 2).await?;
    let shown = ids()?;
    let id = |slot: &str| shown[slot]["authority_id"].as_str().unwrap_or_default().to_owned();
    let (old, new) = (id("active"), id("prepared"));
    agent.rotated.clear();
    d.server_ok(&["localauthority", "x509", "activate", "-authorityID", &new])?;
    d.server_ok(&["localauthority", "x509", "taint", "-authorityID", &old])?;
    let count = agent.svids.len();
    agent.until("every SVID again", LONG, |agent| agent.rotated.len() >= count).await?;
    d.server_ok(&["localauthority", "x509", "revoke", "-authorityID", &old])?;
    agent.until("one authority", LONG, |agent| agent.authorities.len() == 1).await?;
    ensure!(agent.deleted.is_empty(), "nothing was to be missing meanwhile: {:?}", agent.deleted);
    Ok(())
}

/// When anything in the folder was last written.
fn written(dir: &Path) -> Option<std::time::SystemTime> {
    let files = std::fs::read_dir(dir).ok()?;
    files.flatten().filter_map(|file| file.metadata().ok()?.modified().ok()).max()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cilium_gets_what_it_asks_for() -> Result<()> {
    let mut d = cluster()?;
    the_delegate_is_let_in_step_by_step(&d).await?;
    let mut operator = CiliumOperator::connect(&d).await?;
    let mut agent = CiliumAgent::new(d.admin_socket(), "example.org");
    agent.until("the first message", LONG, |agent| agent.messages == 1).await?;
    the_operator_registers(&mut operator).await?;
    agent.until("one identity", LONG, |agent| agent.svids.len() == 1).await?;
    agent.deleted.clear();
    let some: Vec<_> = (7..27).map(identity).collect();
    operator.upsert_batch(&some).await?;
    agent.until("twenty identities", LONG, |agent| agent.svids.len() == 20).await?;
    peers_accept(&d, &agent)?;
    if d.subject() == Subject::Steeple {
        // SPIRE's agent signs again what is tainted, but has told a delegate nothing of it within a minute.
        the_authority_is_replaced(&d, &mut agent).await?;
        peers_accept(&d, &agent)?;
    }

    let more: Vec<_> = (7..307).map(identity).collect();
    operator.upsert_batch(&more).await?;
    agent.until("300 identities", LONG, |agent| agent.svids.len() == 300).await?;
    operator.delete(9).await?;
    agent.until("one less", LONG, |agent| agent.svids.len() == 299).await?;
    ensure!(agent.deleted == ["spiffe://example.org/identity/9"], "{:?}", agent.deleted);
    ensure!(agent.certificate(9).is_err());
    ensure!(operator.delete_batch(|number| number == 11).await? == 1);
    agent.until("another one less", LONG, |agent| agent.svids.len() == 298).await?;
    agent.deleted.clear();

    // What it keeps on its disk is a moment behind; it has nothing more to write after a while.
    let quiet = || written(&d.path("agent")).and_then(|at| at.elapsed().ok()) > Some(Duration::from_secs(3));
    d.eventually("everything is on the agent's disk", LONG, quiet)?;

    // The client comes back by itself, and the first thing it hears is everything.
    d.agent.take().context("started")?.kill();
    let errors = agent.errors.len();
    agent.until("it notices", LONG, |agent| agent.errors.len() > errors + 1).await?;
    let messages = agent.messages;
    d.start_agent_with(&[])?;
    agent.until("it is back", LONG, |agent| agent.messages > messages && agent.svids.len() == 298).await?;
    // Removals of the last moment may be told again; what is registered is never missing.
    let removed = ["spiffe://example.org/identity/11", "spiffe://example.org/identity/9"];
    ensure!(agent.deleted.iter().all(|id| removed.contains(&&**id)), "{:?}", agent.deleted);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_identities_come_in_one_message() -> Result<()> {
    let d = cluster()?;
    register(
        &d,
        "/ns/cilium-spire/sa/spire-agent",
        &["-node", "-parentID", "spiffe://example.org/spire/server", "-selector", "x509pop:subject:cn:node"],
    )?;
    register(&d, "/cilium-operator", &[])?;
    register(&d, "/cilium-agent", &[])?;
    let mut operator = CiliumOperator::connect(&d).await?;
    let mut agent = CiliumAgent::new(d.admin_socket(), "example.org");
    agent.until("the first message", LONG, |agent| agent.messages == 1).await?;
    let all: Vec<_> = (0..many()).map(identity).collect();
    let count = all.len();
    let (long, started) = (Duration::from_mins(5), Instant::now());
    let (created, heard) = tokio::join!(
        operator.upsert_batch(&all),
        agent.until("all of them", long, |agent| agent.svids.len() == count)
    );
    created?;
    heard?;
    let took = started.elapsed();
    ensure!(agent.deleted.is_empty(), "{} disappeared meanwhile", agent.deleted.len());
    println!(
        "{count} identities: {took:?} and {} messages until all were there, the largest {} bytes",
        agent.messages, agent.largest
    );

    // The first stream goes on: what nobody holds may be dropped from the cache and signed again.
    let (before, started) = (cpu(d.agent.as_ref())?, Instant::now());
    let message = first(&d, mutual_auth()).await??;
    let (took, cpu) = (started.elapsed(), cpu(d.agent.as_ref())?.saturating_sub(before));
    println!("one message of {}: {took:?}, the agent's CPU {cpu:?}", message.x509_svids.len());
    ensure!(message.x509_svids.len() == count);
    ensure!(message.encoded_len() <= 20 << 20, "{} bytes", message.encoded_len());
    // The time on the wall is the machine's; what the agent spends is ours.
    ensure!(cpu < Duration::from_secs(1), "{cpu:?}");
    Ok(())
}

/// Other users of the API: by pid (containerd's plugin, HA agents), tokens, ztunnel's selectors, and what none may have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delegates_of_other_kinds_are_served() -> Result<()> {
    let d = cluster()?;
    register(
        &d,
        "/ns/cilium-spire/sa/spire-agent",
        &["-node", "-parentID", "spiffe://example.org/spire/server", "-selector", "x509pop:subject:cn:node"],
    )?;
    for path in ["/cilium-agent", "/cilium-operator", "/ztunnel"] {
        register(&d, path, &[])?;
    }
    let other = ["-parentID", AGENT_ALIAS, "-selector", "unix:uid:12345"];
    register(&d, "/app", &other)?;
    register(&d, "/admin", &[&other[..], &["-admin"]].concat())?;
    register(&d, "/downstream", &[&other[..], &["-downstream"]].concat())?;
    let mut operator = CiliumOperator::connect(&d).await?;
    operator.upsert_batch(&[service_account("shop", "cart"), service_account("shop", "till")]).await?;
    let mut debug = DebugClient::new(connect_uds(&d.admin_socket()).await?);
    debug.get_info(GetInfoRequest {}).await?;

    let by = |selectors: Vec<Selector>, pid: i32| api::SubscribeToX509sviDsRequest { selectors, pid };
    let cart = vec![selector("k8s", "ns:shop"), selector("k8s", "sa:cart"), selector("k8s", "node:n1")];
    let child = Ended(Command::new("sleep").arg("600").uid(12345).spawn()?);
    let pid = i32::try_from(child.0.id())?;
    let nobody = Ended(Command::new("sleep").arg("600").uid(12346).spawn()?);
    for (asked, path) in [(by(cart.clone(), 0), "/ns/shop/sa/cart"), (by(vec![], pid), "/app")] {
        let mut client = cilium_agent::client(&d.admin_socket()).await?;
        let mut stream = tokio::time::timeout(LONG, async {
            loop {
                match client.subscribe_to_x509svi_ds(asked.clone()).await {
                    Ok(stream) => break stream.into_inner(),
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        })
        .await?;
        let mut paths = Vec::new();
        while paths != [path] {
            let message = tokio::time::timeout(LONG, stream.message()).await??.context("ended")?;
            paths =
                message.x509_svids.into_iter().filter_map(|svid| Some(svid.x509_svid?.id?.path)).collect();
            ensure!(!paths.iter().any(|path| path == "/admin" || path == "/downstream"), "{paths:?}");
        }
    }
    let empty = first(&d, by(vec![], i32::try_from(nobody.0.id())?)).await??;
    ensure!(empty.x509_svids.is_empty(), "a process without entry");

    let mut client = cilium_agent::client(&d.admin_socket()).await?;
    let tokens = api::FetchJwtsviDsRequest { audience: vec!["a".into()], selectors: vec![], pid };
    let tokens = client.fetch_jwtsvi_ds(tokens).await?.into_inner().svids;
    let [token] = &tokens[..] else { anyhow::bail!("{} tokens", tokens.len()) };
    ensure!(token.id.as_ref().is_some_and(|id| id.path == "/app") && token.expires_at > token.issued_at);
    let mut bundles =
        client.subscribe_to_jwt_bundles(api::SubscribeToJwtBundlesRequest {}).await?.into_inner();
    let first = bundles.message().await?.context("ended")?.bundles;
    let own: serde_json::Value = serde_json::from_slice(&first["spiffe://example.org"])?;
    ensure!(
        own["keys"].as_array().is_some_and(|keys| keys.len() == 1 && keys[0].get("x5c").is_none()),
        "{own}"
    );
    Ok(())
}

/// The address of the admin socket must not be below the workloads' folder, which gets mounted into pods.
#[test]
fn the_admin_socket_stays_out_of_the_workloads_folder() -> Result<()> {
    let mut d = Deployment::builder().start()?;
    let config = std::fs::read_to_string(d.path("agent.conf"))?;
    let below = config.replace("/admin/admin.sock", "/public/admin/admin.sock");
    ensure!(below != config);
    std::fs::write(d.path("agent.conf"), below)?;
    let token = d.join_token()?;
    let mut agent = d.spawn_agent(&["-joinToken", &token])?;
    let ended = agent.wait(LONG)?;
    ensure!(!ended.success() && agent.log().contains("admin socket"), "{}", agent.log());
    ensure!(!Path::new(&d.path("public/admin/admin.sock")).exists());
    d.server.take();
    Ok(())
}
