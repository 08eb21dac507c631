//! Real Envoys terminate and originate mutual TLS with what the agent tells them: the files in `examples/envoy`.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use steeple_e2e::{Daemon, Deployment, Subject, connect_uds, free_port};
use steeple_proto::steeple::server::v1::RotateEntriesRequest;
use steeple_proto::steeple::server::v1::rotation_client::RotationClient;

/// The two Envoys, the application behind them, and their ports.
struct Mesh {
    client: u16,
    server: Envoy,
    /// It ends with the mesh.
    #[allow(dead_code, reason = "held")]
    client_envoy: Envoy,
}

struct Envoy {
    daemon: Daemon,
    admin: u16,
}

impl Envoy {
    /// `config` is a file of `examples/envoy`, `changes` what differs here.
    fn start(d: &Deployment, config: &str, changes: &[(&str, String)]) -> Result<Self> {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/envoy").join(config);
        let mut text = std::fs::read_to_string(file)?;
        let socket = d.workload_socket().to_string_lossy().into_owned();
        for (from, to) in changes.iter().chain(&[("/tmp/spire-agent/public/api.sock", socket)]) {
            ensure!(text.contains(from), "{config} does not say {from}");
            text = text.replace(from, to);
        }
        let admin = free_port()?;
        writeln!(
            text,
            "admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {admin}}}}}}}"
        )?;
        let path = d.path(&format!("{admin}-{config}"));
        std::fs::write(&path, text)?;
        let arguments =
            ["-c", &path.to_string_lossy(), "--use-dynamic-base-id", "--concurrency", "1", "-l", "warn"];
        let daemon = Daemon::start(&envoy()?, &arguments, &d.path(&format!("{admin}.log")))?;
        Ok(Self { daemon, admin })
    }

    /// How often a secret was taken over (`update_success`) or refused (`update_rejected`).
    fn secret_stat(&self, secret: &str, what: &str) -> Result<u64> {
        let (_, body) = get(self.admin, &format!("/stats?filter={what}"))?;
        // Envoy sanitizes the names of its counters.
        let name = format!("sds.{}.{what}: ", secret.replace("://", "_"));
        let count = body.lines().find_map(|line| line.strip_prefix(&name));
        Ok(count.with_context(|| format!("no {name} in:\n{body}"))?.trim().parse()?)
    }
}

/// `STEEPLE_ENVOY`, or where `scripts/setup test` puts it.
fn envoy() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("STEEPLE_ENVOY") {
        return Ok(path.into());
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/envoy/envoy");
    ensure!(path.exists(), "no Envoy at {}: `scripts/setup test` installs it", path.display());
    Ok(path)
}

/// An application that says who asked. It ends with the test.
fn application() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(&stream));
        }
    });
    Ok(port)
}

fn answer(stream: &TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut who = String::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line == "\r\n" {
                break;
            }
            if let Some(value) = line.strip_prefix("x-forwarded-client-cert: ") {
                value.trim().clone_into(&mut who);
            }
        }
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{who}", who.len());
        let mut stream = stream;
        stream.write_all(head.as_bytes())?;
    }
}

/// Status and body.
fn get(port: u16, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("no answer: {answer:?}"))?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    // Chunks of the admin interface: the test looks for whole lines only.
    Ok((status, body.to_owned()))
}

impl Mesh {
    fn start(
        d: &Deployment,
        client_changes: &[(&str, String)],
        server_changes: &[(&str, String)],
    ) -> Result<Self> {
        let (tls, client, application) = (free_port()?, free_port()?, application()?);
        let mut changes = vec![("port_value: 9443", format!("port_value: {tls}"))];
        changes.push(("port_value: 8080", format!("port_value: {application}")));
        changes.extend_from_slice(server_changes);
        let server = Envoy::start(d, "server.yaml", &changes)?;
        let mut changes = vec![("port_value: 9443", format!("port_value: {tls}"))];
        changes.push(("port_value: 9080", format!("port_value: {client}")));
        changes.extend_from_slice(client_changes);
        let client_envoy = Envoy::start(d, "client.yaml", &changes)?;
        Ok(Self { client, server, client_envoy })
    }

    /// Once both are up: status and body of one request.
    fn settled(&mut self, d: &Deployment, status: u16) -> Result<String> {
        let mut last = String::new();
        let port = self.client;
        let settled =
            d.eventually(&format!("status {status}"), Duration::from_secs(20), || match get(port, "/") {
                Ok((got, body)) => {
                    last = format!("{got} {body}");
                    got == status
                }
                Err(error) => {
                    last = format!("{error:#}");
                    false
                }
            });
        settled.with_context(|| format!("last: {last}\nserver's Envoy:\n{}", self.server.daemon.log()))?;
        Ok(last)
    }
}

fn entries(d: &Deployment) -> Result<()> {
    d.entry_for_me("web", "/web")?;
    d.entry_for_me("client", "/client")?;
    Ok(())
}

#[test]
fn envoys_speak_mutual_tls_and_let_in_whom_they_should() -> Result<()> {
    let d = Deployment::builder().start_with_agent()?;
    entries(&d)?;
    d.entry_for_me("other", "/other")?;
    let mut mesh = Mesh::start(&d, &[], &[])?;
    let body = mesh.settled(&d, 200)?;
    ensure!(body.contains("URI=spiffe://example.org/client"), "{body}");

    // Authenticated, but not the one that may.
    let other = [("name: spiffe://example.org/client", "name: spiffe://example.org/other".to_owned())];
    let mut stranger = Mesh::start(&d, &other, &[])?;
    stranger.settled(&d, 403)?;

    // The server is not the one that the client wants: no connection at all.
    let elsewhere = [("name: spiffe://example.org/web", "name: spiffe://example.org/other".to_owned())];
    let mut impostor = Mesh::start(&d, &[], &elsewhere)?;
    impostor.settled(&d, 503)?;
    Ok(())
}

#[test]
fn an_envoy_without_the_spiffe_validator_is_served_plain_authorities() -> Result<()> {
    let d = Deployment::builder().start_with_agent()?;
    entries(&d)?;
    let metadata = "metadata: {disable_spiffe_cert_validation: true}";
    let plain = |node: &'static str| (node, format!("{}, {metadata}}}", node.trim_end_matches('}')));
    let mut mesh = Mesh::start(
        &d,
        &[plain("node: {id: client, cluster: client}")],
        &[plain("node: {id: server, cluster: web}"), ("name: ALL", "name: ROOTCA".to_owned())],
    )?;
    let body = mesh.settled(&d, 200)?;
    ensure!(body.contains("URI=spiffe://example.org/client"), "{body}");
    Ok(())
}

/// How often certificates rotate under load; the whole issue's figure is 1,000.
fn rotations() -> u64 {
    std::env::var("STEEPLE_ENVOY_ROTATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(100)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotations_under_load_fail_no_request() -> Result<()> {
    let d = Deployment::builder().quiet().start_with_agent()?;
    if d.subject() == Subject::Spire {
        // Rotation on demand is Steeple's own.
        return Ok(());
    }
    entries(&d)?;
    let mut mesh = Mesh::start(&d, &[], &[])?;
    mesh.settled(&d, 200)?;

    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let load = {
        let (stop, sent, port) = (stop.clone(), sent.clone(), mesh.client);
        std::thread::spawn(move || -> Result<()> {
            while !stop.load(Ordering::Relaxed) {
                let (status, body) = get(port, "/")?;
                if status != 200 {
                    bail!("request {}: {status} {body}", sent.load(Ordering::Relaxed));
                }
                sent.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        })
    };
    let mut server = RotationClient::new(connect_uds(&d.server_socket()).await?);
    let updates = |mesh: &Mesh| mesh.server.secret_stat("spiffe://example.org/web", "update_success");
    let mut seen = updates(&mesh)?;
    let first = seen;
    for n in 0..rotations() {
        let ids = vec!["web".to_owned(), "client".to_owned()];
        let answer = server.rotate_entries(RotateEntriesRequest { ids }).await?.into_inner();
        ensure!(answer.results.iter().all(|result| result.code == 0), "{answer:?}");
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let now = updates(&mesh)?;
            if now > seen {
                seen = now;
                break;
            }
            ensure!(Instant::now() < end, "rotation {n} did not reach the Envoy");
            ensure!(!load.is_finished(), "the load broke off at rotation {n}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    load.join().map_err(|_| anyhow::anyhow!("the load panicked"))??;
    let sent = sent.load(Ordering::Relaxed);
    println!("{} rotations, {sent} requests, none failed", seen - first);
    ensure!(sent >= rotations(), "hardly any load: {sent} requests");
    ensure!(mesh.server.secret_stat("spiffe://example.org/web", "update_rejected")? == 0);
    Ok(())
}
