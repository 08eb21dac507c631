use futures::StreamExt;
use steeple_spiffe::{
    KeyType, PrivateKey, SpiffeId, TrustDomain,
    x509::{
        CaTemplate, Certificate, DistinguishedName, Issuer, LeafTemplate, SerialNumber, assemble,
        ca_tbs_self_signed, leaf_tbs,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::clock::FakeClock;

const NOW: i64 = 1_800_000_000;

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
            not_before: NOW - 60,
            not_after: NOW + 86_400,
            serial: SerialNumber::random().unwrap(),
        };
        let tbs = ca_tbs_self_signed(&template, algorithm).unwrap();
        let signature = key.sign(algorithm, &tbs).unwrap();
        let certificate = Certificate::from_der(&assemble(&tbs, algorithm, &signature)).unwrap();
        Self { trust_domain, certificate, key }
    }

    fn issue(&self, path: &str) -> LiveIdentity {
        let key = PrivateKey::generate(KeyType::EcP256).unwrap();
        let algorithm = KeyType::EcP256.x509_signature_algorithm();
        let template = LeafTemplate {
            spiffe_id: SpiffeId::from_parts(&self.trust_domain, path).unwrap(),
            public_key: key.public_key(),
            not_before: NOW - 10,
            not_after: NOW + 3_600,
            dns_names: Vec::new(),
            subject: None,
            serial: SerialNumber::random().unwrap(),
        };
        let tbs = leaf_tbs(&template, &Issuer::from_certificate(&self.certificate, algorithm)).unwrap();
        let signature = self.key.sign(algorithm, &tbs).unwrap();
        let leaf = Certificate::from_der(&assemble(&tbs, algorithm, &signature)).unwrap();
        let identity = LiveIdentity::new();
        identity.set(&[leaf], &key).unwrap();
        identity
    }

    fn bundles(&self) -> LiveBundles {
        let bundles = LiveBundles::new();
        bundles.set(&self.trust_domain, vec![self.certificate.clone()]);
        bundles
    }

    fn server_id(&self) -> SpiffeId {
        SpiffeId::from_parts(&self.trust_domain, "/spire/server").unwrap()
    }
}

/// A server of `authority` and a clock for both sides.
struct Fixture {
    authority: Authority,
    clock: FakeClock,
    bundles: LiveBundles,
    identity: LiveIdentity,
    incoming: TlsIncoming,
    servers: Servers,
}

impl Fixture {
    async fn new() -> Self {
        let authority = Authority::new("example.org");
        let (clock, bundles, identity) =
            (FakeClock::new(NOW), authority.bundles(), authority.issue("/spire/server"));
        let tls = ServerTls::new(identity.clone(), bundles.clone(), Arc::new(clock.clone())).unwrap();
        let incoming = tls.incoming(TcpListener::bind("127.0.0.1:0").await.unwrap());
        let servers = Servers::new(&incoming.local_addr().unwrap().to_string());
        Self { authority, clock, bundles, identity, incoming, servers }
    }

    fn client(&self, trust: ServerTrust, identity: LiveIdentity) -> ClientTls {
        ClientTls::new(self.authority.server_id(), trust, identity, Arc::new(self.clock.clone())).unwrap()
    }

    /// Both ends of a connection; the client's error if there is none.
    async fn connect(&mut self, client: &ClientTls) -> std::io::Result<TlsStream> {
        let exchange = async {
            // With TLS 1.3 the client learns that it was refused at its first read.
            let mut io = client.connect(&self.servers).await?;
            io.write_all(b"ping").await?;
            io.read_exact(&mut [0; 4]).await?;
            Ok(())
        };
        let accept = async {
            let mut stream = self.incoming.next().await.unwrap().unwrap();
            let mut ping = [0; 4];
            stream.read_exact(&mut ping).await.unwrap();
            stream.write_all(b"pong").await.unwrap();
            stream.flush().await.unwrap();
            stream
        };
        tokio::pin!(exchange, accept);
        tokio::select! {
            stream = &mut accept => {
                exchange.await?;
                Ok(stream)
            }
            refused = &mut exchange => Err(refused.unwrap_err()),
        }
    }
}

#[tokio::test]
async fn both_sides_are_known() {
    let mut fixture = Fixture::new().await;
    let client =
        fixture.client(ServerTrust::Bundles(fixture.bundles.clone()), fixture.authority.issue("/agent"));
    let stream = fixture.connect(&client).await.unwrap();
    assert_eq!(stream.peer().spiffe_id.as_ref().unwrap().as_str(), "spiffe://example.org/agent");
    assert_eq!(stream.peer().chain.as_ref().unwrap().len(), 1);
    assert!(stream.peer().addr.ip().is_loopback());
}

#[tokio::test]
async fn a_client_without_a_certificate_is_nobody() {
    let mut fixture = Fixture::new().await;
    let client = fixture.client(ServerTrust::Bundles(fixture.bundles.clone()), LiveIdentity::new());
    let stream = fixture.connect(&client).await.unwrap();
    assert!(stream.peer().spiffe_id.is_none() && stream.peer().chain.is_none());
}

#[tokio::test]
async fn strangers_are_refused() {
    let mut fixture = Fixture::new().await;
    let stranger = Authority::new("example.org").issue("/agent");
    let client = fixture.client(ServerTrust::Bundles(fixture.bundles.clone()), stranger);
    fixture.connect(&client).await.unwrap_err();

    let foreign = Authority::new("other.org").issue("/agent");
    let client = fixture.client(ServerTrust::Bundles(fixture.bundles.clone()), foreign);
    fixture.connect(&client).await.unwrap_err();
}

#[tokio::test]
async fn bundles_and_clock_are_those_of_the_moment() {
    let mut fixture = Fixture::new().await;
    let agent = fixture.authority.issue("/agent");
    let client = fixture.client(ServerTrust::Bundles(fixture.authority.bundles()), agent);
    fixture.bundles.set(&fixture.authority.trust_domain.clone(), Vec::new());
    fixture.connect(&client).await.unwrap_err();
    let root = fixture.authority.certificate.clone();
    fixture.bundles.set(&fixture.authority.trust_domain.clone(), vec![root]);
    fixture.connect(&client).await.unwrap();
    fixture.clock.set(NOW + 7_200);
    fixture.connect(&client).await.unwrap_err();
}

#[tokio::test]
async fn a_server_of_another_trust_domain_or_id_is_refused() {
    let fixture = Fixture::new().await;
    let clock = Arc::new(fixture.clock.clone());
    for (authority, path) in
        [(Authority::new("other.org"), "/spire/server"), (Authority::new("example.org"), "/workload")]
    {
        let bundles = authority.bundles();
        let tls = ServerTls::new(authority.issue(path), LiveBundles::new(), clock.clone()).unwrap();
        let mut incoming = tls.incoming(TcpListener::bind("127.0.0.1:0").await.unwrap());
        let servers = Servers::new(&incoming.local_addr().unwrap().to_string());
        let client = fixture.client(ServerTrust::Bundles(bundles), LiveIdentity::new());
        let error = tokio::select! {
            connected = client.connect(&servers) => connected.unwrap_err(),
            _ = incoming.next() => panic!("accepted"),
        };
        assert!(error.to_string().contains("unexpected ID"), "{error}");
        // Insecure bootstrap trusts any signer, but not any ID.
        let client = fixture.client(ServerTrust::InsecureBootstrap, LiveIdentity::new());
        tokio::select! {
            connected = client.connect(&servers) => drop(connected.unwrap_err()),
            _ = incoming.next() => panic!("accepted"),
        }
    }
}

#[tokio::test]
async fn insecure_bootstrap_trusts_any_signer() {
    let mut fixture = Fixture::new().await;
    let client = fixture.client(ServerTrust::InsecureBootstrap, LiveIdentity::new());
    fixture.connect(&client).await.unwrap();
}

#[tokio::test]
async fn a_new_identity_serves_the_next_connection() {
    let mut fixture = Fixture::new().await;
    let client = fixture.client(ServerTrust::Bundles(fixture.bundles.clone()), LiveIdentity::new());
    fixture.connect(&client).await.unwrap();
    fixture.identity.clear();
    fixture.connect(&client).await.unwrap_err();
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let root = fixture.authority.certificate.clone();
    assert!(matches!(fixture.identity.set(&[root], &key), Err(IdentityError::Mismatch(_))));
    assert!(matches!(fixture.identity.set(&[], &key), Err(IdentityError::NoCertificates)));
}

#[tokio::test]
async fn a_dawdler_holds_nobody_up() {
    let mut fixture = Fixture::new().await;
    let mut dawdlers = Vec::new();
    for _ in 0..16 {
        dawdlers.push(TcpStream::connect(fixture.servers.first()).await.unwrap());
    }
    let mut nonsense = TcpStream::connect(fixture.servers.first()).await.unwrap();
    nonsense.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let client = fixture.client(ServerTrust::Bundles(fixture.bundles.clone()), LiveIdentity::new());
    fixture.connect(&client).await.unwrap();
}

#[tokio::test]
async fn a_handshake_has_a_deadline() {
    let fixture = Fixture::new().await;
    let tls =
        ServerTls::new(fixture.identity.clone(), fixture.bundles.clone(), Arc::new(fixture.clock.clone()))
            .unwrap()
            .with_deadline(std::time::Duration::from_millis(5));
    let mut incoming = tls.incoming(TcpListener::bind("127.0.0.1:0").await.unwrap());
    let mut dawdler = TcpStream::connect(incoming.local_addr().unwrap()).await.unwrap();
    let mut byte = [0];
    tokio::select! {
        end = dawdler.read(&mut byte) => assert_eq!(end.unwrap(), 0),
        _ = incoming.next() => panic!("accepted"),
    }
}

#[tokio::test]
async fn the_key_exchange_is_hybrid_and_old_versions_are_refused() {
    let mut fixture = Fixture::new().await;
    let client = fixture.client(ServerTrust::Bundles(fixture.bundles.clone()), LiveIdentity::new());
    let io = tokio::select! {
        io = client.connect(&fixture.servers) => io.unwrap(),
        _ = async { loop { fixture.incoming.next().await; } } => unreachable!(),
    };
    let connection = io.get_ref().1;
    let group = connection.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
    assert_eq!(connection.alpn_protocol(), Some(ALPN_H2));
    assert_eq!(connection.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
}

#[tokio::test]
async fn grpc_over_it() {
    let fixture = Fixture::new().await;
    let (_reporter, service) = tonic_health::server::health_reporter();
    let client =
        fixture.client(ServerTrust::Bundles(fixture.bundles.clone()), fixture.authority.issue("/agent"));
    let mut health = tonic_health::pb::health_client::HealthClient::new(
        client.channel(&Arc::new(fixture.servers)).unwrap(),
    );
    let serving = crate::grpc::tcp_server().add_service(service).serve_with_incoming(fixture.incoming);
    let asking = health.check(tonic_health::pb::HealthCheckRequest::default());
    tokio::select! {
        served = serving => panic!("{served:?}"),
        answer = asking => assert_eq!(answer.unwrap().into_inner().status, 1),
    }
}

#[tokio::test]
async fn who_asks_for_post_quantum_key_exchange_refuses_peers_without_it() {
    let mut classical = aws_lc_rs::default_provider();
    classical.kx_groups = vec![aws_lc_rs::kx_group::X25519, aws_lc_rs::kx_group::SECP256R1];
    let classical = Arc::new(classical);
    let authority = Authority::new("example.org");
    let clock: Arc<dyn crate::clock::Clock> = Arc::new(FakeClock::new(NOW));
    let (bundles, identity) = (authority.bundles(), authority.issue("/spire/server"));
    let client = |exchange| {
        let trust = ServerTrust::Bundles(bundles.clone());
        let id = authority.server_id();
        ClientTls::with_key_exchange(exchange, id, trust, LiveIdentity::new(), clock.clone()).unwrap()
    };

    // A server that has classical key exchanges only.
    let mut config = rustls::ServerConfig::builder_with_provider(classical.clone())
        .with_protocol_versions(VERSIONS)
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(server::Presented(identity.clone())));
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let servers = Servers::new(&listener.local_addr().unwrap().to_string());
    let serving = async {
        loop {
            drop(acceptor.accept(listener.accept().await.unwrap().0).await);
        }
    };
    let hybrid = client(KeyExchange::PostQuantum);
    let refused = tokio::select! {
        connected = hybrid.connect(&servers) => connected.unwrap_err().to_string(),
        () = serving => unreachable!(),
    };
    assert!(refused.contains("require_pq_kem asks for one"), "{refused}");

    // Our server that takes hybrid ones only: with one client it agrees, to the other it says why not.
    let identity = authority.issue("/spire/server");
    let tls =
        ServerTls::with_key_exchange(KeyExchange::PostQuantum, identity, bundles.clone(), clock.clone());
    let mut incoming = tls.unwrap().incoming(TcpListener::bind("127.0.0.1:0").await.unwrap());
    let servers = Servers::new(&incoming.local_addr().unwrap().to_string());
    let connected = tokio::select! {
        connected = hybrid.connect(&servers) => connected,
        _ = async { loop { incoming.next().await; } } => unreachable!(),
    };
    connected.unwrap();
    let mut plain = client(KeyExchange::Any);
    plain.use_provider_for_tests(classical);
    let refused = tokio::select! {
        connected = plain.connect(&servers) => connected.unwrap_err().to_string(),
        _ = async { loop { incoming.next().await; } } => unreachable!(),
    };
    assert!(refused.contains("require_pq_kem takes hybrid post-quantum ones only"), "{refused}");
}
