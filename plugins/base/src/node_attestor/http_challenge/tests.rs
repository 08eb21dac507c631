use std::sync::Arc;
use std::time::Duration;

use steeple_plugin::conformance::node_attestor::{Host, Parrot, attest, node_attestor};
use steeple_plugin::{AgentNodeAttestor as _, AttestError, Challenged, Evidence, ServerNodeAttestor as _};
use steeple_spiffe::TrustDomain;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::fetch::{FetchError, Fetcher};
use super::*;

/// The operator named this machine: tests run on it.
const HERE: &str = "^127\\.0\\.0\\.1$";

fn options() -> HttpChallengeOptions {
    HttpChallengeOptions { allowed_dns_patterns: vec![HERE.to_owned()], ..HttpChallengeOptions::default() }
}

fn server(options: &HttpChallengeOptions, attested: &[&str]) -> HttpChallenge {
    let config = HttpChallengeConfig::load(options).unwrap();
    let attested = attested.iter().map(|id| id.parse().unwrap()).collect();
    let host = Host { attested, ..Host::default() };
    HttpChallenge::new(config, TrustDomain::new("example.org").unwrap(), Arc::new(host))
}

fn agent() -> HttpChallengeAgent {
    let config = HttpChallengeAgentConfig::new(Some("127.0.0.1".into()), None, None, None);
    HttpChallengeAgent::new(config.unwrap())
}

const ID: &str = "spiffe://example.org/spire/agent/http_challenge/127.0.0.1";

#[tokio::test]
async fn an_agent_proves_its_name() {
    let server = server(&options(), &[]);
    node_attestor(&agent(), &server, true).await;
    let (outcome, exchange) = attest(&agent(), &server).await;
    let found = outcome.unwrap();
    assert_eq!(found.spiffe_id.as_str(), ID);
    assert_eq!((found.selector_values, found.can_reattest), (vec!["hostname:127.0.0.1".to_owned()], false));
    assert_eq!(exchange.answers, [b"\n"]);
    let payload = String::from_utf8(exchange.payload).unwrap();
    assert!(
        payload.starts_with("{\"hostname\":\"127.0.0.1\",\"agentname\":\"default\",\"port\":"),
        "{payload}"
    );
}

fn payload(hostname: &str, agentname: &str, port: i64) -> Vec<u8> {
    serde_json::to_vec(&Payload { hostname: hostname.into(), agentname: agentname.into(), port }).unwrap()
}

/// Answers, and remembers that it was asked.
#[derive(Default)]
struct Asked(bool);

#[async_trait::async_trait]
impl Challenged for Asked {
    async fn challenge(&mut self, _: Vec<u8>) -> Result<Vec<u8>, AttestError> {
        self.0 = true;
        Ok(b"\n".to_vec())
    }
}

async fn refusal(server: &HttpChallenge, payload: Vec<u8>) -> (AttestError, bool) {
    let mut asked = Asked::default();
    let outcome = server.attest(Evidence { payload, client_ip: None }, &mut asked).await;
    (outcome.unwrap_err(), asked.0)
}

#[tokio::test]
async fn the_first_use_counts() {
    let (error, asked) = refusal(&server(&options(), &[ID]), payload("127.0.0.1", "default", 80)).await;
    assert_eq!(error.to_string(), "attestation data has already been used to attest an agent");
    assert!(matches!(error, AttestError::PermissionDenied(_)));
    assert!(!asked, "nobody is called for it");
    // Where only root can listen, a host may come back.
    for ports in [
        HttpChallengeOptions { required_port: Some(80), ..options() },
        HttpChallengeOptions { allow_non_root_ports: Some(false), ..options() },
    ] {
        let config = HttpChallengeOptions { tofu: Some(false), ..ports };
        let (error, _) = refusal(&server(&config, &[ID]), payload("127.0.0.1", "default", 1)).await;
        assert!(!error.to_string().contains("already been used"), "{error}");
    }
    for ports in [
        HttpChallengeOptions { required_port: Some(1024), ..options() },
        HttpChallengeOptions { allow_non_root_ports: Some(true), ..options() },
        HttpChallengeOptions { required_port: Some(8080), allow_non_root_ports: Some(false), ..options() },
        options(),
    ] {
        let config = HttpChallengeOptions { tofu: Some(false), ..ports };
        assert_eq!(
            HttpChallengeConfig::load(&config).unwrap_err().to_string(),
            "you can not turn off trust on first use (TOFU) when non-root ports are allowed"
        );
    }
    let bad = HttpChallengeOptions { allowed_dns_patterns: vec!["(".into()], ..options() };
    assert!(HttpChallengeConfig::load(&bad).unwrap_err().to_string().contains("cannot compile"));
}

/// Refused before anybody is challenged or called.
#[tokio::test]
async fn names_and_ports_are_checked_first() {
    let open = HttpChallengeOptions::default();
    let required = HttpChallengeOptions { required_port: Some(80), ..open.clone() };
    let root = HttpChallengeOptions { allow_non_root_ports: Some(false), ..open.clone() };
    let anchored = HttpChallengeOptions {
        allowed_dns_patterns: vec!["^n[0-9]+\\.example\\.org$".into()],
        ..open.clone()
    };
    let local = "you can not use localhost as a hostname";
    let elsewhere = "the requested hostname is not allowed to connect";
    for (options, hostname, name, port, says) in [
        (&required, "n1", "a", 81, "port 81 is not allowed to be used by this server"),
        (&root, "n1", "a", 1024, "port 1024 is not allowed to be >= 1024"),
        (&open, "n1", "", 80, "agent name is not valid"),
        (&open, "n1", "1a", 80, "agent name is not valid"),
        (&open, "n1", "a/../b", 80, "agent name is not valid"),
        (&open, "n1", "a?b", 80, "agent name is not valid"),
        (&open, "n1", "a23456789012345678901234567890123", 80, "agent name is not valid"),
        (&open, "localhost", "a", 80, local),
        (&open, "LocalHost.", "a", 80, local),
        (&open, "x.localhost", "a", 80, local),
        (&anchored, "n1.example.org.evil.test", "a", 80, elsewhere),
        (&anchored, "evil.test", "a", 80, elsewhere),
        (&open, "", "a", 80, "hostname must be set"),
        (&open, "a/b", "a", 80, "hostname can not contain a slash"),
        (&open, "::1", "a", 80, "hostname can not contain a colon"),
        (&open, "n1", "a", 0, "port is invalid"),
        (&open, "n1", "a", -1, "port is invalid"),
        (&open, "n1", "a", 65536, "port is invalid"),
        (&open, "user@n1", "a", 80, "failed to make spiffe id"),
        (&open, "n1#x", "a", 80, "failed to make spiffe id"),
        (&open, "n1\r\nX-Evil", "a", 80, "failed to make spiffe id"),
        (&open, "..", "a", 80, "failed to make spiffe id"),
    ] {
        let (error, asked) = refusal(&server(options, &[]), payload(hostname, name, port)).await;
        assert!(error.to_string().contains(says), "{hostname:?} {name:?} {port}: {error}");
        assert!(!asked, "{hostname:?}");
    }
}

/// The server's own services and metadata services are nobody's to reach through it.
#[tokio::test]
async fn addresses_that_are_no_agents_are_not_called() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let strict = Fetcher::new(false);
    for host in [
        "127.0.0.1",
        "127.1.2.3",
        "2130706433",
        "0x7f000001",
        "0.0.0.0",
        "0.1.2.3",
        "169.254.169.254",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::",
        "fe80::1",
        "ff02::1",
        "fd00:ec2::254",
    ] {
        let error = strict.fetch(host, port, "/").await.unwrap_err();
        assert!(matches!(error, FetchError::Refused { .. } | FetchError::Lookup { .. }), "{host}: {error}");
    }
    // Naming a host makes loopback possible, but not the others.
    let named = Fetcher::new(true);
    for host in ["0.0.0.0", "169.254.169.254", "fe80::1", "224.0.0.1", "fd00:ec2::254"] {
        assert!(matches!(named.fetch(host, port, "/").await, Err(FetchError::Refused { .. })), "{host}");
    }
    let unasked = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
    assert!(unasked.is_err(), "nothing was connected to");
}

/// Serves raw answers to any number of connections.
async fn answering(answer: &'static [u8]) -> (u16, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await;
            let _ = stream.write_all(answer).await;
        }
    });
    (port, tasks)
}

#[tokio::test]
async fn what_is_no_plain_answer_is_refused() {
    let fetcher = Fetcher::new(true);
    for answer in [
        &b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n"[..],
        b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /x\r\nContent-Length: 1\r\n\r\nx",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 1\r\n\r\nx",
        b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 1\r\n\r\nx",
        b"",
        b"garbage\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort",
    ] {
        let (port, _tasks) = answering(answer).await;
        let error = fetcher.fetch("127.0.0.1", port, "/").await.unwrap_err();
        assert!(matches!(error, FetchError::Answer(_)), "{}: {error}", String::from_utf8_lossy(answer));
    }
    let huge: &'static [u8] = Box::leak(
        format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(100_000)).into_bytes().into_boxed_slice(),
    );
    let (port, _tasks) = answering(huge).await;
    assert!(fetcher.fetch("127.0.0.1", port, "/").await.is_err(), "a head without end");
    // Of an endless body the first bytes are read, no more.
    let long: &'static [u8] = Box::leak(
        format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(1_000_000)).into_bytes().into_boxed_slice(),
    );
    let (port, _tasks) = answering(long).await;
    assert_eq!(fetcher.fetch("127.0.0.1", port, "/").await.unwrap(), "x".repeat(64));
}

#[tokio::test]
async fn a_wrong_nonce_is_refused_and_nothing_else_is_told() {
    let server = server(&options(), &[]);
    let (port, _tasks) = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nguess").await;
    let (error, _) = refusal(&server, payload("127.0.0.1", "default", port.into())).await;
    assert_eq!(
        error.to_string(),
        "challenge verification failed: expected nonce was not found in HTTP response"
    );
    // Closed, open and silent, or speaking something else: to the caller it is all the same.
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    };
    let (other, _tasks) = answering(b"SSH-2.0-OpenSSH_9.2\r\n").await;
    for port in [closed, other] {
        let (error, _) = refusal(&server, payload("127.0.0.1", "default", port.into())).await;
        assert_eq!(
            error.to_string(),
            format!(
                "challenge verification failed: the challenge could not be fetched from 127.0.0.1:{port}; the server's log says why"
            )
        );
        assert!(matches!(error, AttestError::PermissionDenied(_)));
    }
}

/// Hosts that answer a byte now and then, or never: a call ends in time, and calls wait for their turn, so many at once.
#[tokio::test]
async fn slow_answers_end_in_time_and_hold_a_bounded_number_of_calls() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = JoinSet::new();
    let (seen, mut count) = tokio::sync::mpsc::unbounded_channel();
    tasks.spawn(async move {
        let mut drips = JoinSet::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = seen.send(());
            drips.spawn(async move {
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                let mut rest = b"HTTP/1.1 200 OK\r\nX: ".iter().chain(std::iter::repeat(&b'x'));
                while let Some(byte) = rest.next()
                    && stream.write_all(&[*byte]).await.is_ok()
                {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
        }
    });
    // So many at once, however slow this machine is: none of them ends by itself.
    let fetcher = Fetcher::new(true).within(Duration::from_mins(10));
    let mut calls = JoinSet::new();
    for _ in 0..100 {
        let fetcher = fetcher.clone();
        calls.spawn(async move { fetcher.fetch("127.0.0.1", port, "/").await });
    }
    for _ in 0..32 {
        count.recv().await.unwrap();
    }
    let hurried = fetcher.clone().within(Duration::from_millis(100));
    let busy = hurried.fetch("127.0.0.1", port, "/").await.unwrap_err();
    assert!(matches!(busy, FetchError::Busy), "{busy}");
    assert!(count.try_recv().is_err(), "32 at once, no more");
    calls.shutdown().await;
    // An answer that drips ends with the deadline.
    let hurried = Fetcher::new(true).within(Duration::from_millis(100));
    let late = hurried.fetch("127.0.0.1", port, "/").await.unwrap_err();
    assert!(matches!(late, FetchError::Late), "{late}");
}

#[tokio::test]
async fn the_port_is_free_when_the_attestation_is_over() {
    let begun = agent().begin().await.unwrap();
    let sent: Payload = serde_json::from_slice(&begun.payload()).unwrap();
    let at = ("127.0.0.1", u16::try_from(sent.port).unwrap());
    // Before the challenge there is nothing to see.
    let mut stream = TcpStream::connect(at).await.unwrap();
    let path = path_of("default");
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    drop(begun);
    tokio::task::yield_now().await;
    assert!(TcpListener::bind(at).await.is_ok());
}

#[tokio::test]
async fn options_of_the_agent() {
    let config =
        |port, advertised| HttpChallengeAgentConfig::new(None, Some("rack7".into()), port, advertised);
    let agent = HttpChallengeAgent::new(config(None, Some(80)).unwrap());
    let sent: Payload = serde_json::from_slice(&agent.begin().await.unwrap().payload()).unwrap();
    assert_eq!((sent.agentname.as_str(), sent.port), ("rack7", 80));
    assert!(!sent.hostname.is_empty(), "the machine's own");
    assert!(config(Some(70_000), None).is_err() && config(None, Some(-1)).is_err());
    // What does not fit is an answer, not a panic.
    let mut begun = agent.begin().await.unwrap();
    assert!(begun.respond(b"garbage".to_vec()).await.is_err());
    let _ = Parrot(Vec::new());
}
