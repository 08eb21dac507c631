//! Real Envoys with the files of `examples`, an application behind them, and load.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use steeple_e2e::{Daemon, Deployment, free_port};

/// Where the files under test are.
pub const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");
/// The agent's socket in those files.
const SOCKET: &str = "/tmp/spire-agent/public/api.sock";
/// For what depends on other processes: the machine may be slow.
pub const LONG: Duration = Duration::from_mins(1);

pub struct Envoy {
    pub daemon: Daemon,
    admin: u16,
}

impl Envoy {
    /// `config` is a file of `examples/envoy`, `changes` what differs here. It asks the deployment's agent.
    pub fn start(d: &Deployment, config: &str, changes: &[(&str, String)]) -> Result<Self> {
        let mut changes = changes.to_vec();
        changes.push((SOCKET, d.workload_socket().to_string_lossy().into_owned()));
        Self::with_file(d, &format!("envoy/{config}"), &changes, &[])
    }

    /// `file` is below `examples`; `wrapper` is a command that runs it, if there has to be one.
    pub fn with_file(
        d: &Deployment,
        file: &str,
        changes: &[(&str, String)],
        wrapper: &[&str],
    ) -> Result<Self> {
        let mut text = std::fs::read_to_string(Path::new(EXAMPLES).join(file))?;
        for (from, to) in changes {
            ensure!(text.contains(from), "{file} does not say {from}");
            text = text.replace(from, to);
        }
        let admin = free_port()?;
        writeln!(
            text,
            "admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {admin}}}}}}}"
        )?;
        let path = d.path(&format!("{admin}.yaml"));
        std::fs::write(&path, text)?;
        let (envoy, path) = (envoy()?, path.to_string_lossy().into_owned());
        let mut words = wrapper.to_vec();
        let envoy = envoy.to_string_lossy();
        words.extend([&*envoy, "-c", &path, "--use-dynamic-base-id", "--concurrency", "1", "-l", "warn"]);
        let daemon = Daemon::start(Path::new(words[0]), &words[1..], &d.path(&format!("{admin}.log")))?;
        Ok(Self { daemon, admin })
    }

    /// How often a secret was taken over (`update_success`) or refused (`update_rejected`).
    pub fn secret_stat(&self, secret: &str, what: &str) -> Result<u64> {
        let (_, body) = get(self.admin, &format!("/stats?filter={what}"))?;
        // Envoy sanitizes the names of its counters.
        let name = format!("sds.{}.{what}: ", secret.replace("://", "_").replace(':', "_"));
        let count = body.lines().find_map(|line| line.strip_prefix(&name));
        Ok(count.with_context(|| format!("no {name} in:\n{body}"))?.trim().parse()?)
    }

    /// A secret as the Envoy holds it now.
    pub fn secret(&self, name: &str) -> Result<Value> {
        let (_, body) = get(self.admin, "/config_dump?resource=dynamic_active_secrets")?;
        let dump: Value = serde_json::from_str(&body).with_context(|| body.clone())?;
        let held = dump["configs"].as_array().into_iter().flatten().find(|one| one["name"] == name);
        Ok(held.with_context(|| format!("no secret {name} in {body}"))?["secret"].clone())
    }
}

/// `STEEPLE_ENVOY`, or where `scripts/setup test` puts it.
pub fn envoy() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("STEEPLE_ENVOY") {
        return Ok(path.into());
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/envoy/envoy");
    ensure!(path.exists(), "no Envoy at {}: `scripts/setup test` installs it", path.display());
    Ok(path)
}

/// An application that says who asked (Envoy's `x-forwarded-client-cert`). It ends with the test.
pub fn application() -> Result<u16> {
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
pub fn get(port: u16, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(LONG))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("no answer: {answer:?}"))?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    if head.contains("transfer-encoding: chunked") {
        return Ok((status, dechunked(body)?));
    }
    Ok((status, body.to_owned()))
}

fn dechunked(mut body: &str) -> Result<String> {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16)?;
        if size == 0 {
            break;
        }
        whole.push_str(rest.get(..size).context("a chunk is cut short")?);
        body = rest.get(size + 2..).context("a chunk without an end")?;
    }
    Ok(whole)
}

/// Two Envoys, the application behind them, and where to ask.
pub struct Mesh {
    pub port: u16,
    pub server: Envoy,
    pub client: Envoy,
}

/// Each request to the server's Envoy is a handshake of its own.
fn handshakes() -> (&'static str, String) {
    const CLUSTER: &str = "  - name: web\n    connect_timeout: 1s\n";
    let options = "    typed_extension_protocol_options:\n      \
         envoy.extensions.upstreams.http.v3.HttpProtocolOptions:\n        \
         \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions\n        \
         common_http_protocol_options: {max_requests_per_connection: 1}\n        \
         explicit_http_config: {http_protocol_options: {}}\n";
    (CLUSTER, CLUSTER.replace("1s", "20s") + options)
}

impl Mesh {
    pub fn start(
        client: (&Deployment, &[(&str, String)]),
        server: (&Deployment, &[(&str, String)]),
    ) -> Result<Self> {
        let (tls, port, application) = (free_port()?, free_port()?, application()?);
        let mut changes = vec![("port_value: 9443", format!("port_value: {tls}"))];
        changes.push(("port_value: 8080", format!("port_value: {application}")));
        changes.extend_from_slice(server.1);
        let server = Envoy::start(server.0, "server.yaml", &changes)?;
        let mut changes = vec![("port_value: 9443", format!("port_value: {tls}")), handshakes()];
        changes.push(("port_value: 9080", format!("port_value: {port}")));
        changes.extend_from_slice(client.1);
        let client = Envoy::start(client.0, "client.yaml", &changes)?;
        Ok(Self { port, server, client })
    }

    /// Once both are up: the body of one request.
    pub fn settled(&self, d: &Deployment, status: u16) -> Result<String> {
        let mut last = (0, String::new());
        let settled = d.eventually(&format!("status {status}"), LONG, || {
            last = get(self.port, "/").unwrap_or_else(|error| (0, format!("{error:#}")));
            last.0 == status
        });
        settled.with_context(|| format!("last: {last:?}\nserver's Envoy:\n{}", self.server.daemon.log()))?;
        Ok(last.1)
    }
}

/// Requests without pause until it is [stopped](Load::stop); the first that fails ends it.
pub struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Load {
    pub fn start(port: u16) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..2).map(|_| {
            let (stop, sent) = (stop.clone(), sent.clone());
            std::thread::spawn(move || -> Result<()> {
                while !stop.load(Ordering::Relaxed) {
                    let number = sent.fetch_add(1, Ordering::Relaxed);
                    let (status, body) = get(port, "/").with_context(|| format!("request {number}"))?;
                    if status != 200 {
                        bail!("request {number}: {status} {body}");
                    }
                }
                Ok(())
            })
        });
        Self { threads: threads.collect(), stop, sent }
    }

    pub fn broke_off(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// How many requests there were, if none failed.
    pub fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().map_err(|_| anyhow::anyhow!("the load panicked"))??;
        }
        Ok(self.sent.load(Ordering::Relaxed))
    }
}
