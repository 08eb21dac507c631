//! What no implementation with these libraries gets below: measured in the same run, on this machine.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::sync::mpsc;

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use steeple_runtime::clock;
use steeple_runtime::tls::{LiveBundles, LiveIdentity, ServerTls};
use steeple_spiffe::x509::{
    CaTemplate, CertificateRequest, DistinguishedName, Issuer, LeafTemplate, SerialNumber, assemble,
    ca_tbs_self_signed, leaf_tbs,
};
use steeple_spiffe::{Certificate, KeyType, PrivateKey, SpiffeId, TrustDomain};
use tokio::net::{TcpListener, UnixListener};
use tokio_stream::wrappers::UnixListenerStream;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::measure::Thread;
use crate::wire::node::{Way, request};

const KEY: KeyType = KeyType::EcP256;
const ROUNDS: usize = 2000;
const CONNECTIONS: usize = 300;

/// CPU microseconds of one operation each, by name.
pub async fn measure() -> Result<BTreeMap<String, f64>> {
    let mut limits = BTreeMap::new();
    // What every process of ours pays before its first key: the library seeds itself.
    let thread = Thread::current()?;
    let begin = thread.cpu()?;
    SerialNumber::random()?;
    limits.insert("first-random-number".into(), (thread.cpu()? - begin) * 1e6);
    signatures(&mut limits)?;
    // As SPIRE's agents do it: the newest key exchange, no session tickets.
    limits.insert("tls-handshake-mutual".into(), handshakes(true).await?);
    limits.insert("tls-handshake".into(), handshakes(false).await?);
    let (new, one) = echo().await?;
    limits.insert("echo-new-connection".into(), new);
    limits.insert("echo-one-connection".into(), one);
    Ok(limits)
}

fn signatures(limits: &mut BTreeMap<String, f64>) -> Result<()> {
    let (ca, node) = (authority()?, PrivateKey::generate(KEY)?);
    let csr = request(&node)?;
    let algorithm = KEY.x509_signature_algorithm();
    let id = SpiffeId::parse("spiffe://example.org/bench/limit")?;
    limits.insert(
        "csr-verify-and-sign".into(),
        of_each(ROUNDS, || {
            let request = CertificateRequest::from_der(black_box(&csr))?;
            request.verify_signature()?;
            let signed = leaf(&ca, &id, &request.public_key())?;
            black_box(signed);
            Ok(())
        })?,
    );
    let text = vec![7; 300];
    let jws = KEY.jws_algorithm();
    limits.insert(
        "jwt-sign".into(),
        of_each(ROUNDS, || {
            black_box(ca.key.sign(jws, black_box(&text))?);
            Ok(())
        })?,
    );
    let (signature, public) = (ca.key.sign(algorithm, &text)?, ca.key.public_key());
    limits.insert(
        "jwt-verify".into(),
        of_each(ROUNDS, || Ok(public.verify(algorithm, &text, black_box(&signature))?))?,
    );
    Ok(())
}

fn of_each(times: usize, mut once: impl FnMut() -> Result<()>) -> Result<f64> {
    once()?;
    let thread = Thread::current()?;
    let begin = thread.cpu()?;
    for _ in 0..times {
        once()?;
    }
    Ok((thread.cpu()? - begin) * 1e6 / times as f64)
}

struct Ca {
    key: PrivateKey,
    issuer: Issuer,
    certificate: Certificate,
}

fn authority() -> Result<Ca> {
    let (key, now, algorithm) =
        (PrivateKey::generate(KEY)?, clock::system().now(), KEY.x509_signature_algorithm());
    let template = CaTemplate {
        trust_domain: TrustDomain::new("example.org")?,
        public_key: key.public_key(),
        subject: DistinguishedName::default_svid(),
        not_before: now - 60,
        not_after: now + 3600,
        serial: SerialNumber::random()?,
    };
    let tbs = ca_tbs_self_signed(&template, algorithm)?;
    let certificate = Certificate::from_der(&assemble(&tbs, algorithm, &key.sign(algorithm, &tbs)?))?;
    Ok(Ca { issuer: Issuer::from_certificate(&certificate, algorithm), key, certificate })
}

fn leaf(ca: &Ca, id: &SpiffeId, public_key: &steeple_spiffe::PublicKey) -> Result<Vec<u8>> {
    let now = clock::system().now();
    let template = LeafTemplate {
        spiffe_id: id.clone(),
        public_key: public_key.clone(),
        not_before: now - 60,
        not_after: now + 3600,
        dns_names: Vec::new(),
        subject: None,
        serial: SerialNumber::random()?,
    };
    let tbs = leaf_tbs(&template, &ca.issuer)?;
    Ok(assemble(&tbs, ca.issuer.algorithm, &ca.key.sign(ca.issuer.algorithm, &tbs)?))
}

/// A server's thread: serves until its runtime is dropped, and tells its CPU when asked.
struct ServerThread {
    thread: Thread,
    _end: tokio::sync::oneshot::Sender<()>,
}

impl ServerThread {
    /// `serve` runs on a thread and a runtime of its own.
    fn start<F: Future<Output = Result<()>>>(serve: impl FnOnce() -> F + Send + 'static) -> Result<Self> {
        let (told, hears) = mpsc::channel();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        std::thread::spawn(move || {
            let run = || -> Result<()> {
                told.send(Thread::current()?)?;
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(async {
                    tokio::select! { served = serve() => served, _ = ended => Ok(()) }
                })
            };
            // The client sees what went wrong.
            drop(run());
        });
        Ok(Self { thread: hears.recv()?, _end: end })
    }
}

/// The server's half of a TLS handshake; `mutual`: with a client certificate, which is checked.
async fn handshakes(mutual: bool) -> Result<f64> {
    let trust_domain = TrustDomain::new("example.org")?;
    let ca = authority()?;
    let identity = |path: &str| -> Result<LiveIdentity> {
        let key = PrivateKey::generate(KEY)?;
        let id = SpiffeId::from_parts(&trust_domain, path)?;
        let certificate = Certificate::from_der(&leaf(&ca, &id, &key.public_key())?)?;
        let identity = LiveIdentity::new();
        identity.set(&[certificate], &key)?;
        Ok(identity)
    };
    let (server, client) = (identity("/spire/server")?, identity("/spire/agent/bench")?);
    let bundles = LiveBundles::new();
    bundles.set(&trust_domain, vec![ca.certificate.clone()]);
    let (address, hears) = mpsc::channel();
    let thread = ServerThread::start(move || async move {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        address.send(listener.local_addr()?)?;
        let mut incoming = ServerTls::new(server, bundles, clock::system())?.incoming(listener);
        while let Some(connection) = incoming.next().await {
            drop(connection);
        }
        Ok(())
    })?;
    let way = Way::new(&hears.recv()?.to_string(), "example.org", vec![ca.certificate])?;
    let (tls, servers) = (way.tls(if mutual { client } else { LiveIdentity::new() })?, way.servers());
    tls.connect(&servers).await?;
    let begin = thread.thread.cpu()?;
    for _ in 0..CONNECTIONS {
        tls.connect(&servers).await?;
    }
    Ok((thread.thread.cpu()? - begin) * 1e6 / CONNECTIONS as f64)
}

/// The server's half of a unary gRPC call over a Unix socket: with a connection of its own, and on an open one.
async fn echo() -> Result<(f64, f64)> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("echo.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path)?;
    listener.set_nonblocking(true)?;
    let thread = ServerThread::start(move || async move {
        let (_, service) = tonic_health::server::health_reporter();
        let incoming = UnixListenerStream::new(UnixListener::from_std(listener)?);
        Ok(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming).await?)
    })?;
    call(&path).await?;
    let begin = thread.thread.cpu()?;
    for _ in 0..CONNECTIONS {
        call(&path).await?;
    }
    let new = (thread.thread.cpu()? - begin) * 1e6 / CONNECTIONS as f64;
    let mut client = HealthClient::new(steeple_e2e::connect_uds(&path).await?);
    client.check(HealthCheckRequest::default()).await?;
    let begin = thread.thread.cpu()?;
    for _ in 0..ROUNDS {
        client.check(HealthCheckRequest::default()).await?;
    }
    let one = (thread.thread.cpu()? - begin) * 1e6 / ROUNDS as f64;
    ensure!(new > one, "a new connection costs less than none: {new} and {one} µs");
    Ok((new, one))
}

async fn call(path: &Path) -> Result<()> {
    let mut client = HealthClient::new(steeple_e2e::connect_uds(path).await?);
    client.check(HealthCheckRequest::default()).await.context("health")?;
    Ok(())
}
