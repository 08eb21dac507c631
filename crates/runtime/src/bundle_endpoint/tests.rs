use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::ServerName;
use steeple_spiffe::x509::{
    CaTemplate, Certificate, DistinguishedName, Issuer, LeafTemplate, SerialNumber, assemble,
    ca_tbs_self_signed, leaf_tbs,
};
use steeple_spiffe::{KeyType, PrivateKey, SpiffeId, TrustDomain};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::client::fetch_within;
use super::server::Limits;
use super::*;
use crate::clock::{Clock, FakeClock, SystemClock};
use crate::tls::{EndpointTrust, KeyExchange, LiveBundles, LiveIdentity, client_config, server_config};

/// Web certificates are judged by the real clock: wide enough for both.
const FROM: i64 = 1_600_000_000;
const UNTIL: i64 = 4_000_000_000;

fn clock() -> Arc<dyn Clock> {
    Arc::new(FakeClock::new(1_800_000_000))
}

struct Authority {
    trust_domain: TrustDomain,
    certificate: Certificate,
    key: PrivateKey,
}

impl Authority {
    fn new(trust_domain: &str) -> Self {
        let trust_domain = TrustDomain::new(trust_domain).unwrap();
        let key = PrivateKey::generate(KeyType::EcP256).unwrap();
        let algorithm = KeyType::EcP256.x509_signature_algorithm();
        let template = CaTemplate {
            trust_domain: trust_domain.clone(),
            public_key: key.public_key(),
            subject: DistinguishedName::default_ca(),
            not_before: FROM,
            not_after: UNTIL,
            serial: SerialNumber::random().unwrap(),
        };
        let tbs = ca_tbs_self_signed(&template, algorithm).unwrap();
        let signature = key.sign(algorithm, &tbs).unwrap();
        let certificate = Certificate::from_der(&assemble(&tbs, algorithm, &signature)).unwrap();
        Self { trust_domain, certificate, key }
    }

    /// A certificate and its key: an SVID, and good for these hosts.
    fn issue(&self, dns_names: &[&str]) -> (Certificate, PrivateKey) {
        let key = PrivateKey::generate(KeyType::EcP256).unwrap();
        let algorithm = KeyType::EcP256.x509_signature_algorithm();
        let template = LeafTemplate {
            spiffe_id: SpiffeId::from_parts(&self.trust_domain, "/spire/server").unwrap(),
            public_key: key.public_key(),
            not_before: FROM,
            not_after: UNTIL,
            dns_names: dns_names.iter().map(|name| (*name).to_owned()).collect(),
            subject: None,
            serial: SerialNumber::random().unwrap(),
        };
        let tbs = leaf_tbs(&template, &Issuer::from_certificate(&self.certificate, algorithm)).unwrap();
        let signature = self.key.sign(algorithm, &tbs).unwrap();
        (Certificate::from_der(&assemble(&tbs, algorithm, &signature)).unwrap(), key)
    }

    fn identity(&self, dns_names: &[&str]) -> LiveIdentity {
        let (leaf, key) = self.issue(dns_names);
        let identity = LiveIdentity::new();
        identity.set(&[leaf], &key).unwrap();
        identity
    }

    fn web(&self) -> EndpointTrust {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().to_vec().into()).unwrap();
        EndpointTrust::Web(Arc::new(roots))
    }

    fn spiffe(&self, id: &str) -> EndpointTrust {
        let bundles = LiveBundles::new();
        bundles.set(&self.trust_domain, vec![self.certificate.clone()]);
        EndpointTrust::Spiffe { id: id.parse().unwrap(), bundles }
    }
}

const OWN: &str = "spiffe://other.org/spire/server";
const SOON: Duration = Duration::from_secs(5);

/// What `fetch` makes of a server of `authority` that answers each request with `script`, in pieces.
async fn fetched(
    authority: &Authority,
    trust: EndpointTrust,
    script: &[&[u8]],
    deadline: Duration,
) -> Result<Vec<u8>, FetchError> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
    let acceptor = TlsAcceptor::from(Arc::new(
        server_config(authority.identity(&["localhost"]), KeyExchange::Any).unwrap(),
    ));
    let serving = async {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut tls) = acceptor.accept(stream).await else { continue };
            let mut request = [0; 4096];
            if tls.read(&mut request).await.is_err() {
                continue;
            }
            for piece in script {
                if tls.write_all(piece).await.is_err() {
                    break;
                }
            }
            let _ = tls.flush().await;
            if script.last().is_none_or(|piece| !piece.is_empty()) {
                let _ = tls.shutdown().await;
            } else {
                // Says no more and does not hang up.
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        answer = fetch_within(&url, trust, clock(), deadline) => answer,
        () = serving => unreachable!(),
    }
}

fn answer(head: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

#[tokio::test]
async fn f_10_both_profiles_fetch() {
    let authority = Authority::new("other.org");
    let good = answer("200 OK", "{}");
    for trust in [authority.web(), authority.spiffe(OWN)] {
        assert_eq!(fetched(&authority, trust, &[&good], SOON).await.unwrap(), b"{}");
    }
}

#[tokio::test]
async fn f_28_an_endpoint_that_is_not_the_one_is_refused() {
    let (authority, another) = (Authority::new("other.org"), Authority::new("other.org"));
    let good = answer("200 OK", "{}");
    let cases = [
        (another.spiffe(OWN), "could not verify leaf certificate"),
        (
            authority.spiffe("spiffe://other.org/somebody"),
            "unexpected ID \"spiffe://other.org/spire/server\"",
        ),
        (Authority::new("third.org").spiffe("spiffe://third.org/spire/server"), "could not get X509 bundle"),
        (another.web(), "maybe use https_spiffe instead of https_web"),
    ];
    for (trust, expected) in cases {
        let refused = fetched(&authority, trust, &[&good], SOON).await.unwrap_err();
        assert!(matches!(refused, FetchError::Tls { .. }), "{refused:?}");
        let text = refused.to_string();
        assert!(
            text.contains("the endpoint could not be authenticated: ") && text.contains(expected),
            "{text}"
        );
    }
}

#[tokio::test]
async fn f_19_redirects_are_not_followed() {
    let authority = Authority::new("other.org");
    for (status, to) in [
        ("301 Moved", "http://localhost/"),
        ("302 Found", "https://elsewhere.org/"),
        ("307 X", "/bundle"),
        ("308 X", ""),
    ] {
        let redirect = format!("HTTP/1.1 {status}\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n");
        let refused = fetched(&authority, authority.web(), &[redirect.as_bytes()], SOON).await.unwrap_err();
        let text = refused.to_string();
        assert!(matches!(refused, FetchError::Redirect { .. }), "{refused:?}");
        assert!(text.contains(&format!("redirects to {to:?} (status {}", &status[..3])), "{text}");
    }
}

#[tokio::test]
async fn plain_http_is_not_asked() {
    let authority = Authority::new("other.org");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://localhost:{}/", listener.local_addr().unwrap().port());
    for url in [url.as_str(), "https://", "nonsense"] {
        let refused = fetch(url, authority.web(), clock()).await.unwrap_err();
        assert!(matches!(refused, FetchError::Url { .. }), "{refused:?}");
    }
    let asked = tokio::time::timeout(Duration::from_millis(20), listener.accept()).await;
    assert!(asked.is_err(), "nobody connects");
}

#[tokio::test]
async fn a_failing_endpoint_is_quoted() {
    let authority = Authority::new("other.org");
    let long = format!("\n  database\x07 is down {}", "x".repeat(5_000));
    let response = answer("500 Internal Server Error", &long);
    let refused = fetched(&authority, authority.web(), &[&response], SOON).await.unwrap_err();
    let FetchError::Status { status: 500, body, .. } = refused else { panic!("{refused:?}") };
    assert!(body.starts_with("database  is down x") && body.len() < 1_024, "{body}");
    let empty = answer("404 Not Found", "");
    let refused = fetched(&authority, authority.web(), &[&empty], SOON).await.unwrap_err();
    assert!(refused.to_string().ends_with("unexpected status 404 fetching bundle: "), "{refused}");
}

/// 100 MB that are announced are not read at all, and those that are not announced no further than the limit.
#[tokio::test]
async fn a_huge_answer_is_refused_early() {
    let authority = Authority::new("other.org");
    let announced = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n";
    let started = SystemClock.monotonic();
    let refused = fetched(&authority, authority.web(), &[announced, b""], SOON).await.unwrap_err();
    assert!(matches!(refused, FetchError::TooLarge { .. }), "{refused:?}");
    assert!(SystemClock.monotonic().saturating_sub(started) < SOON, "it does not wait for them");
    let mut endless: Vec<&[u8]> = vec![b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"];
    let megabyte = vec![b' '; 1 << 20];
    endless.extend(std::iter::repeat_n(megabyte.as_slice(), 6));
    let refused = fetched(&authority, authority.web(), &endless, SOON).await.unwrap_err();
    assert!(matches!(refused, FetchError::TooLarge { .. }), "{refused:?}");
}

#[tokio::test]
async fn a_broken_or_slow_answer_is_given_up() {
    let authority = Authority::new("other.org");
    let cut: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{";
    let refused = fetched(&authority, authority.web(), &[cut], SOON).await.unwrap_err();
    assert!(matches!(refused, FetchError::Broken { .. }), "{refused:?}");
    let refused = fetched(&authority, authority.web(), &[b"no HTTP"], SOON).await.unwrap_err();
    assert!(matches!(refused, FetchError::Broken { .. }), "{refused:?}");
    let soon = Duration::from_millis(100);
    for dribble in [&[b"" as &[u8]] as &[&[u8]], &[cut, b""]] {
        let refused = fetched(&authority, authority.web(), dribble, soon).await.unwrap_err();
        assert!(matches!(refused, FetchError::Deadline { .. }), "{refused:?}");
    }
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let refused = fetch(&format!("https://{closed}"), authority.web(), clock()).await.unwrap_err();
    assert!(matches!(refused, FetchError::Connect { .. }), "{refused:?}");
    assert!(refused.to_string().contains("Connection refused"), "{refused}");
}

/// The head and body that an endpoint answers a request with.
async fn asked(address: SocketAddr, authority: &Authority, request: &str) -> (String, String) {
    let connector = TlsConnector::from(Arc::new(client_config(authority.spiffe(OWN), clock()).unwrap()));
    let stream = TcpStream::connect(address).await.unwrap();
    let mut tls = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
    tls.write_all(format!("{request}\r\nHost: localhost\r\n\r\n").as_bytes()).await.unwrap();
    let mut text = Vec::new();
    // An end without TLS's goodbye is an end.
    let _ = tls.read_to_end(&mut text).await;
    let text = String::from_utf8(text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.to_ascii_lowercase(), body.to_owned())
}

#[tokio::test]
async fn f_16_what_the_endpoint_answers() {
    let authority = Authority::new("other.org");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let document: Arc<std::sync::Mutex<Option<&'static str>>> = Arc::default();
    let served = document.clone();
    let serve: Answer = Arc::new(move || served.lock().unwrap().map(|text| text.as_bytes().into()));
    let endpoint = BundleEndpoint::new(listener, authority.identity(&[]), serve).unwrap();
    let address = endpoint.address().unwrap();
    let asking = async {
        let (head, body) = asked(address, &authority, "GET / HTTP/1.1").await;
        assert!(head.starts_with("http/1.1 500 "), "{head}");
        assert_eq!(body, "500 unable to retrieve local bundle\n");
        *document.lock().unwrap() = Some("{\"keys\": []}");
        for path in ["/", "/?x=1"] {
            let (head, body) = asked(address, &authority, &format!("GET {path} HTTP/1.1")).await;
            assert!(
                head.starts_with("http/1.1 200 ") && head.contains("content-type: application/json"),
                "{head}"
            );
            assert_eq!(body, "{\"keys\": []}");
        }
        let (head, body) = asked(address, &authority, "GET /bundle HTTP/1.1").await;
        assert!(head.starts_with("http/1.1 404 ") && head.contains("text/plain; charset=utf-8"), "{head}");
        assert_eq!(body, "404 page not found\n");
        for request in ["POST / HTTP/1.1", "PUT /x HTTP/1.1"] {
            let (head, body) = asked(address, &authority, request).await;
            assert!(head.starts_with("http/1.1 405 ") && head.contains("nosniff"), "{head}");
            assert_eq!(body, "405 method not allowed\n");
        }
    };
    tokio::select! {
        () = asking => {}
        () = endpoint.serve() => unreachable!(),
    }
}

/// Callers that say nothing, or say it slowly, are dropped and make room.
#[tokio::test]
async fn slow_callers_are_dropped() {
    let authority = Authority::new("other.org");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let limits =
        Limits { headers: Duration::from_millis(30), connection: Duration::from_millis(60), connections: 3 };
    let serve: Answer = Arc::new(|| Some("{}".into()));
    let endpoint = BundleEndpoint::new(listener, authority.identity(&[]), serve).unwrap().with_limits(limits);
    let address = endpoint.address().unwrap();
    let asking = async {
        // No handshake.
        let mut silent = Vec::new();
        for _ in 0..3 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        assert_eq!(asked(address, &authority, "GET / HTTP/1.1").await.1, "{}");
        for mut stream in silent {
            assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
        }
        // No end of the headers.
        let connector = TlsConnector::from(Arc::new(client_config(authority.spiffe(OWN), clock()).unwrap()));
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let mut tls = connector.connect(name, stream).await.unwrap();
        tls.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        let mut rest = Vec::new();
        let _ = tls.read_to_end(&mut rest).await;
        assert!(!String::from_utf8_lossy(&rest).contains("200"), "no answer to half a question");
    };
    tokio::select! {
        () = asking => {}
        () = endpoint.serve() => unreachable!(),
    }
}

struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, certificate: &str, key: &str) {
        std::fs::write(self.path("cert.pem"), certificate).unwrap();
        std::fs::write(self.path("key.pem"), key).unwrap();
    }

    fn load(&self) -> Result<CertificateFiles, FilesError> {
        CertificateFiles::load(self.path("cert.pem"), self.path("key.pem"))
    }
}

fn key_pem(key: &PrivateKey) -> String {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(&*key.pkcs8_der().unwrap());
    format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n")
}

#[test]
fn certificate_files_are_loaded_again_and_bad_ones_are_not_taken() {
    let authority = Authority::new("other.org");
    let files = Files { dir: tempfile::tempdir().unwrap() };
    assert!(matches!(files.load(), Err(FilesError::Unreadable { .. })));
    let (first, first_key) = authority.issue(&["a.org"]);
    let (second, second_key) = authority.issue(&["b.org"]);
    files.write("", &key_pem(&first_key));
    assert!(matches!(files.load(), Err(FilesError::Certificates { .. })));
    files.write(&first.to_pem(), "nonsense");
    assert!(matches!(files.load(), Err(FilesError::Key { .. })));
    files.write(&first.to_pem(), &key_pem(&second_key));
    let mismatch = files.load().unwrap_err();
    assert!(mismatch.to_string().contains("do not belong together"), "{mismatch}");

    files.write(&first.to_pem(), &key_pem(&first_key));
    let mut loaded = files.load().unwrap();
    let identity = loaded.identity();
    let presented = || identity.certified().unwrap().cert[0].to_vec();
    assert_eq!(presented(), first.der());
    assert!(matches!(loaded.reload(), Reload::Unchanged));

    // One half is there before the other.
    std::fs::write(files.path("cert.pem"), format!("{}\n", second.to_pem())).unwrap();
    assert!(matches!(loaded.reload(), Reload::Kept(FilesError::Unusable { .. })));
    assert_eq!(presented(), first.der(), "what worked is kept");
    std::fs::write(files.path("key.pem"), format!("{}\n\n", key_pem(&second_key))).unwrap();
    assert!(matches!(loaded.reload(), Reload::Loaded));
    assert_eq!(presented(), second.der());
    std::fs::remove_file(files.path("key.pem")).unwrap();
    assert!(matches!(loaded.reload(), Reload::Kept(FilesError::Unreadable { .. })));
    assert_eq!(presented(), second.der());
}
