mod crashes;
mod local;
mod upstream;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use steeple_datastore::model::CaJournal;
use steeple_plugin::conformance::pooled_key;
use steeple_spiffe::x509::{self, Certificate};
use steeple_spiffe::{KeyType, PrivateKey, PublicKey, SpiffeId, TrustDomain, jwt};

use super::*;
use crate::admission::Priority;
use crate::ca::WitConfig;
use crate::ca::{AgentX509Params, DownstreamCaParams, JwtParams, WitParams, WorkloadX509Params};
use crate::fake::{FakeKeys, FakeStore, FakeUpstream, Mood};

fn trust_domain() -> TrustDomain {
    TrustDomain::new("example.org").unwrap()
}

fn id(path: &str) -> SpiffeId {
    SpiffeId::from_parts(&trust_domain(), path).unwrap()
}

/// What survives the engine.
struct World {
    keys: Arc<FakeKeys>,
    store: Arc<FakeStore>,
}

impl World {
    fn new() -> Self {
        let faults = Arc::default();
        Self { keys: Arc::new(FakeKeys::new(Arc::clone(&faults))), store: Arc::new(FakeStore::new(faults)) }
    }

    async fn load(&self, config: &CaConfig, now: i64) -> Result<CaManager, CaError> {
        CaManager::load(config.clone(), Arc::clone(&self.keys) as _, Arc::clone(&self.store) as _, now).await
    }

    async fn load_under(
        &self,
        upstream: &Arc<FakeUpstream>,
        config: &CaConfig,
        now: i64,
    ) -> Result<CaManager, CaError> {
        let plugins = CaPlugins {
            upstream: Some(Arc::clone(upstream) as _),
            ..CaPlugins::new(Arc::clone(&self.keys) as _)
        };
        CaManager::load_with(config.clone(), plugins, Arc::clone(&self.store) as _, now).await
    }

    /// Another server on the same database, with keys of its own.
    fn another(&self) -> Self {
        Self { keys: Arc::new(FakeKeys::default()), store: Arc::clone(&self.store) }
    }

    fn bundle(&self) -> Bundle {
        self.store.bundle(&trust_domain()).unwrap()
    }
}

fn config() -> CaConfig {
    CaConfig::new(trust_domain())
}

fn workload(ttl: i32) -> WorkloadX509Params {
    WorkloadX509Params {
        spiffe_id: id("/workload"),
        public_key: pooled_key(0).public_key(),
        dns_names: Vec::new(),
        ttl,
        subject: None,
        priority: Priority::default(),
    }
}

fn token(ttl: i32) -> JwtParams {
    JwtParams {
        spiffe_id: id("/workload"),
        audience: vec!["audience".to_owned()],
        ttl,
        include_jti: false,
        priority: Priority::default(),
    }
}

const NOW: i64 = 1_800_000_000;

#[tokio::test]
async fn x509_svids_verify_and_have_spires_contents() {
    let world = World::new();
    let ca = world.load(&config(), NOW).await.unwrap();
    assert!(ca.x509_ready());
    let mut params = workload(600);
    params.dns_names = vec!["db.example.org".to_owned(), "db".to_owned()];
    let signed = ca.sign_workload_x509(params, NOW).await.unwrap();
    assert_eq!(signed.chain.len(), 1, "the root is not part of the chain");
    let leaf = Certificate::from_der(&signed.chain[0]).unwrap();
    assert_eq!(
        x509::verify_svid(std::slice::from_ref(&leaf), &world.bundle(), NOW).unwrap(),
        id("/workload")
    );
    assert_eq!((leaf.not_before(), leaf.not_after()), (NOW - 10, NOW + 600));
    assert_eq!((signed.not_before, signed.expires_at), (NOW - 10, NOW + 600));
    assert_eq!(leaf.serial_decimal(), signed.serial);
    assert_eq!(leaf.dns_sans(), ["db.example.org", "db"]);
    assert_eq!(leaf.subject().common_name, "db.example.org");

    let root = &world.bundle().x509_authorities[0].certificate;
    assert_eq!(root.subject().serial_number, root.serial_decimal());
    assert_eq!((root.not_before(), root.not_after()), (NOW - 10, NOW + 24 * 3600));
    assert_eq!(leaf.authority_key_id(), root.subject_key_id());

    let agent = AgentX509Params { spiffe_id: id("/spire/agent/x"), public_key: pooled_key(1).public_key() };
    assert_eq!(ca.sign_agent_x509(agent, NOW).await.unwrap().expires_at, NOW + 3600);
    let server = ca.sign_server_x509(pooled_key(2).public_key(), NOW).await.unwrap();
    let server = Certificate::from_der(&server.chain[0]).unwrap();
    assert_eq!(server.spiffe_id().unwrap(), id("/spire/server"));
}

#[test]
fn times_are_logged_as_go_prints_them() {
    assert_eq!(go_time(NOW), "2027-01-15 08:00:00 +0000 UTC");
    assert_eq!(go_time(0), "1970-01-01 00:00:00 +0000 UTC");
    assert_eq!(go_time(i64::MAX), i64::MAX.to_string());
}

#[tokio::test]
async fn a_root_has_no_upstream_authority() {
    let world = World::new();
    let ca = world.load(&config(), NOW).await.unwrap();
    let rotation = ca.rotation.lock().await;
    for kind in [Kind::X509, Kind::Jwt] {
        assert_eq!(rotation.state.slots(kind).current.as_ref().unwrap().upstream_id(), "");
    }
}

#[tokio::test]
async fn lifetimes_are_defaulted_and_capped() {
    let world = World::new();
    let ca =
        world.load(&CaConfig { ca_ttl: 1000, default_x509_svid_ttl: 70, ..config() }, NOW).await.unwrap();
    for (ttl, lives) in [(0, 70), (-1, 70), (999, 999), (1000, 1000), (i32::MAX, 1000)] {
        assert_eq!(ca.sign_workload_x509(workload(ttl), NOW).await.unwrap().expires_at, NOW + lives);
    }
    for (ttl, lives) in [(0, 300), (30, 30), (i32::MAX, 1000)] {
        assert_eq!(ca.sign_jwt(token(ttl), NOW).await.unwrap().expires_at, NOW + lives);
    }
    let downstream = DownstreamCaParams { public_key: pooled_key(3).public_key(), ttl: 5000 };
    assert_eq!(ca.sign_downstream_ca(downstream, NOW).await.unwrap().expires_at, NOW + 1000);
    // Nobody rotated, the authority has expired: nothing is signed with it.
    assert!(matches!(ca.sign_workload_x509(workload(1), NOW + 1000).await, Err(CaError::X509NotReady)));
    assert!(matches!(ca.sign_jwt(token(1), NOW + 1000).await, Err(CaError::JwtNotReady)));
}

#[tokio::test]
async fn downstream_authorities_verify() {
    let world = World::new();
    let ca = world.load(&config(), NOW).await.unwrap();
    let key = pooled_key(4);
    let params = DownstreamCaParams { public_key: key.public_key(), ttl: 0 };
    let signed = ca.sign_downstream_ca(params, NOW).await.unwrap();
    let certificate = Certificate::from_der(&signed.chain[0]).unwrap();
    assert!(certificate.is_ca());
    assert_eq!(certificate.subject().organizational_unit, ["DOWNSTREAM-1"]);
    assert_eq!(certificate.spiffe_id().unwrap().as_str(), "spiffe://example.org");
    let root = &world.bundle().x509_authorities[0].certificate;
    certificate.verify_signature_by(&root.public_key()).unwrap();
    assert_eq!(certificate.subject().serial_number, root.subject().serial_number, "the parent's subject");
}

#[tokio::test]
async fn jwt_svids_verify_and_have_spires_claims() {
    let world = World::new();
    let config = CaConfig { jwt_issuer: "https://issuer".to_owned(), ..config() };
    let ca = world.load(&config, NOW).await.unwrap();
    let mut params = token(0);
    params.audience = vec![String::new(), "a".to_owned(), "b".to_owned()];
    params.include_jti = true;
    let signed = ca.sign_jwt(params, NOW).await.unwrap();
    assert_eq!((signed.issued_at, signed.expires_at), (NOW, NOW + 300));
    let svid = jwt::validate(&signed.token, &world.bundle(), &["b".to_owned()], NOW).unwrap();
    assert_eq!(svid.audience, ["a", "b"]);
    assert_eq!(svid.key_id, ca.jwt_authority_id());
    let part = |number: usize| {
        String::from_utf8(URL_SAFE_NO_PAD.decode(signed.token.split('.').nth(number).unwrap()).unwrap())
            .unwrap()
    };
    assert_eq!(
        part(0),
        format!("{{\"alg\":\"ES256\",\"kid\":\"{}\",\"typ\":\"JWT\"}}", svid.key_id.unwrap())
    );
    assert!(part(1).contains("\"iss\":\"https://issuer\"") && part(1).contains("\"jti\":\""), "{}", part(1));
    assert!(!part(1).contains("nbf"));
    assert!(!format!("{signed:?}").contains(&signed.token));

    let mut nobody = token(0);
    nobody.audience = vec![String::new()];
    assert!(matches!(ca.sign_jwt(nobody, NOW).await, Err(CaError::EmptyAudience)));
}

#[tokio::test]
async fn every_key_type_signs() {
    for (ca_key_type, jwt_key_type) in [
        (KeyType::EcP384, KeyType::Rsa2048),
        (KeyType::Rsa2048, KeyType::EcP384),
        (KeyType::EcP256, KeyType::EcP384),
        (KeyType::EcP256, KeyType::Rsa4096),
    ] {
        let world = World::new();
        let wit_config = Some(WitConfig::new(jwt_key_type));
        let config = CaConfig { ca_key_type, jwt_key_type, wit: wit_config, ..config() };
        let ca = world.load(&config, NOW).await.unwrap();
        let of_types = |keys: &[(String, PublicKey)]| {
            keys.iter().all(|(id, key)| {
                key.key_type() == Some(if id.starts_with("x509") { ca_key_type } else { jwt_key_type })
            })
        };
        let keys = world.keys.public_keys().await.unwrap();
        assert!(keys.len() == 3 && of_types(&keys), "{keys:?}");
        let svid = ca.sign_workload_x509(workload(0), NOW).await.unwrap();
        let leaf = Certificate::from_der(&svid.chain[0]).unwrap();
        x509::verify_svid(&[leaf], &world.bundle(), NOW).unwrap();
        let token = ca.sign_jwt(token(0), NOW).await.unwrap().token;
        jwt::validate(&token, &world.bundle(), &["audience".to_owned()], NOW).unwrap();
        ca.sign_wit(wit(0), NOW).await.unwrap();
    }
}

fn wit(ttl: i32) -> WitParams {
    WitParams {
        spiffe_id: id("/workload"),
        public_key: pooled_key(5).public_key(),
        algorithm: steeple_spiffe::SignatureAlgorithm::EcdsaSha256,
        ttl,
        priority: Priority::default(),
    }
}

#[tokio::test]
async fn wit_svids_have_keys_of_their_own() {
    let world = World::new();
    let off = world.load(&config(), NOW).await.unwrap();
    assert!(matches!(off.sign_wit(wit(0), NOW).await, Err(CaError::WitDisabled)));
    assert!(world.bundle().wit_authorities.is_empty());
    let wit_config = WitConfig { issuer: "issuer".to_owned(), ..WitConfig::new(KeyType::EcP384) };
    let config = CaConfig { wit: Some(wit_config), ca_ttl: 7200, ..config() };
    let ca = world.load(&config, NOW).await.unwrap();
    let bundle = world.bundle();
    let [authority] = &bundle.wit_authorities[..] else { panic!("{:?}", bundle.wit_authorities) };
    assert_eq!(Some(authority.key_id.clone()), ca.wit_authority_id());
    assert!(!bundle.jwt_authorities.iter().any(|jwt| jwt.key_id == authority.key_id));
    assert!(!bundle.to_jwks_json().contains(&authority.key_id), "never among the keys of JWT-SVIDs");

    let signed = ca.sign_wit(wit(0), NOW).await.unwrap();
    assert_eq!((signed.issued_at, signed.expires_at), (NOW, NOW + 3600));
    let (input, signature) = signed.token.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let algorithm = steeple_spiffe::SignatureAlgorithm::EcdsaSha384;
    authority.public_key.verify_jws(algorithm, input.as_bytes(), &signature).unwrap();
    let part = |n: usize| -> serde_json::Value {
        let part = URL_SAFE_NO_PAD.decode(signed.token.split('.').nth(n).unwrap()).unwrap();
        serde_json::from_slice(&part).unwrap()
    };
    assert_eq!(part(0), serde_json::json!({"alg": "ES384", "kid": authority.key_id, "typ": "wit+jwt"}));
    assert_eq!(
        (&part(1)["iss"], &part(1)["sub"]),
        (&"issuer".into(), &"spiffe://example.org/workload".into())
    );
    assert_eq!(part(1)["cnf"]["jwk"]["alg"], "ES256");
    // Capped by the key's life; another algorithm than the key's is refused.
    assert_eq!(ca.sign_wit(wit(9000), NOW).await.unwrap().expires_at, NOW + 7200);
    let mut other = wit(0);
    other.algorithm = steeple_spiffe::SignatureAlgorithm::RsaPkcs1Sha256;
    assert!(matches!(ca.sign_wit(other, NOW).await, Err(CaError::Wit(_))));
    let mut foreign = wit(0);
    foreign.spiffe_id = SpiffeId::parse("spiffe://other.org/x").unwrap();
    assert!(matches!(ca.sign_wit(foreign, NOW).await, Err(CaError::InvalidWitId(_))));
    // The journal keeps them, and they rotate.
    let again = world.load(&config, NOW + 10).await.unwrap();
    assert_eq!(again.wit_authority_id(), ca.wit_authority_id());
    again.rotate(NOW + 3600).await.unwrap();
    assert_eq!(world.bundle().wit_authorities.len(), 2);
    again.rotate(NOW + 7000).await.unwrap();
    assert_ne!(again.wit_authority_id(), ca.wit_authority_id());
}

#[tokio::test]
async fn without_jwt_svids() {
    let world = World::new();
    let ca = world.load(&CaConfig { disable_jwt_svids: true, ..config() }, NOW).await.unwrap();
    assert!(world.bundle().jwt_authorities.is_empty());
    assert!(matches!(ca.sign_jwt(token(0), NOW).await, Err(CaError::JwtDisabled)));
    ca.sign_workload_x509(workload(0), NOW).await.unwrap();
}

/// A server's own SPIRE database and key file: the same CA and keys go on signing.
#[tokio::test]
async fn spires_journal_and_keys_go_on() {
    let world = World::new();
    let keys: serde_json::Value =
        serde_json::from_str(include_str!("../../../testdata/spire-server-keys.json")).unwrap();
    for (id, key) in keys["keys"].as_object().unwrap() {
        let pkcs8 = STANDARD.decode(key.as_str().unwrap()).unwrap();
        world.keys.add(id, PrivateKey::from_pkcs8_der(&pkcs8).unwrap());
    }
    let active = "5ca6b7bb08c2c38df17c9a211a2b0406c7213566";
    let journal = CaJournal {
        id: 1,
        data: include_bytes!("../../../testdata/spire-ca-journal.bin").to_vec(),
        active_x509_authority_id: active.to_owned(),
        active_jwt_authority_id: String::new(),
    };
    world.store.add_journal(journal.clone());
    let bundle =
        Bundle::from_spiffe_json(trust_domain(), include_str!("../../../testdata/spire-bundle.json"))
            .unwrap();
    world.store.commit_bundle(bundle.clone()).unwrap();

    let ca = world.load(&config(), NOW).await.unwrap();
    assert_eq!(ca.x509_authority_id().as_deref(), Some(active));
    assert_eq!(ca.jwt_authority_id().as_deref(), Some("DwdVKNDwypQ3HpGOTOwG9O9bcl2gtaDy"));
    assert_eq!(world.bundle(), bundle, "nothing new is published");
    assert_eq!(world.store.journals(), std::slice::from_ref(&journal), "nothing is written");
    assert_eq!(Journal::decode(&journal).unwrap().encode(), journal, "what is not touched stays as it was");
    let svid = ca.sign_workload_x509(workload(0), NOW).await.unwrap();
    x509::verify_svid(&[Certificate::from_der(&svid.chain[0]).unwrap()], &bundle, NOW).unwrap();
    let token = ca.sign_jwt(token(0), NOW).await.unwrap().token;
    jwt::validate(&token, &bundle, &["audience".to_owned()], NOW).unwrap();

    // Its ten years end: the prepared JWT key takes over, a new CA gets SPIRE's other slot.
    let late = 2_110_804_249 - 100;
    ca.rotate(late).await.unwrap();
    assert_ne!(ca.x509_authority_id().as_deref(), Some(active));
    assert!(world.keys.public_keys().await.unwrap().iter().any(|(id, _)| id == "x509-CA-B"));
}

#[tokio::test]
async fn journals_of_others_and_lost_keys_are_not_used() {
    let world = World::new();
    let first = world.load(&config(), NOW).await.unwrap();
    // Another server on the same database, with keys of its own.
    let other = World { keys: Arc::new(FakeKeys::default()), store: Arc::clone(&world.store) };
    let second = other.load(&config(), NOW).await.unwrap();
    assert_ne!(first.x509_authority_id(), second.x509_authority_id());
    assert_eq!(world.store.journals().len(), 2);
    assert_eq!(world.bundle().x509_authorities.len(), 2);
    let again = world.load(&config(), NOW).await.unwrap();
    assert_eq!(again.x509_authority_id(), first.x509_authority_id());

    // An authority that verifiers cannot know does not sign.
    let mut bundle = world.bundle();
    bundle.x509_authorities.clear();
    world.store.commit_bundle(bundle).unwrap();
    let again = world.load(&config(), NOW).await.unwrap();
    assert_ne!(again.x509_authority_id(), first.x509_authority_id());
    assert_eq!(world.bundle().x509_authorities.len(), 1);
}

#[tokio::test]
async fn the_bundle_can_be_watched_and_is_pruned() {
    let world = World::new();
    let ca = world.load(&CaConfig { ca_ttl: 3600, ..config() }, NOW).await.unwrap();
    let mut watched = ca.watch_bundle();
    assert_eq!(**watched.borrow_and_update(), world.bundle());
    ca.rotate(NOW + 1800).await.unwrap();
    assert!(watched.has_changed().unwrap());
    assert_eq!(watched.borrow_and_update().x509_authorities.len(), 2);
    ca.rotate(NOW + 3600 + 24 * 3600 - 1).await.unwrap();
    let had = watched.borrow_and_update().x509_authorities.len();
    ca.rotate(NOW + 3600 + 36 * 3600).await.unwrap();
    assert!(watched.borrow_and_update().x509_authorities.len() < had + 1, "what expired a day ago is gone");
}

#[tokio::test]
async fn a_key_that_still_signs_is_not_replaced() {
    let world = World::new();
    let ca = world.load(&CaConfig { ca_ttl: 600, ..config() }, NOW).await.unwrap();
    let in_flight = ca.x509_signer(NOW).unwrap();
    ca.rotate(NOW + 300).await.unwrap();
    ca.rotate(NOW + 500).await.unwrap();
    let refused = ca.rotate(NOW + 600).await.unwrap_err();
    assert!(matches!(&refused, CaError::KeyInUse(key) if key == "x509-CA-A"), "{refused}");
    ca.sign_workload_x509(workload(0), NOW + 600).await.unwrap();
    drop(in_flight);
    ca.rotate(NOW + 610).await.unwrap();
}
