//! A relationship against endpoints that serve what they should not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use steeple_datastore::memory::MemoryStore;
use steeple_datastore::{Datastore, EndpointProfile, FederationRelationship};
use steeple_runtime::bundle_endpoint::{Answer, BundleEndpoint};
use steeple_runtime::clock;
use steeple_runtime::shutdown::Shutdown;
use steeple_runtime::tasks::{OnEnd, TaskGroup};
use steeple_runtime::tls::LiveIdentity;
use steeple_server_core::federation::{Federation, Refreshed, RelationshipState, Target};
use steeple_server_core::view::View;
use steeple_spiffe::x509::{
    CaTemplate, Certificate, DistinguishedName, Issuer, LeafTemplate, SerialNumber, assemble,
    ca_tbs_self_signed, leaf_tbs,
};
use steeple_spiffe::{Bundle, KeyType, PrivateKey, SpiffeId, TrustDomain};
use tokio::net::TcpListener;

use super::Runner;

fn td(name: &str) -> TrustDomain {
    TrustDomain::new(name).unwrap()
}

/// Another trust domain's server: its authority and what its endpoint serves.
struct Peer {
    bundle: Bundle,
    served: Arc<Mutex<Bytes>>,
    url: String,
}

impl Peer {
    async fn new(name: &str, tasks: &TaskGroup) -> Self {
        let now = clock::system().now();
        let (ca_key, key) =
            (PrivateKey::generate(KeyType::EcP256).unwrap(), PrivateKey::generate(KeyType::EcP256).unwrap());
        let algorithm = KeyType::EcP256.x509_signature_algorithm();
        let template = CaTemplate {
            trust_domain: td(name),
            public_key: ca_key.public_key(),
            subject: DistinguishedName::default_ca(),
            not_before: now - 60,
            not_after: now + 3_600,
            serial: SerialNumber::random().unwrap(),
        };
        let tbs = ca_tbs_self_signed(&template, algorithm).unwrap();
        let ca = assemble(&tbs, algorithm, &ca_key.sign(algorithm, &tbs).unwrap());
        let ca = Certificate::from_der(&ca).unwrap();
        let template = LeafTemplate {
            spiffe_id: SpiffeId::from_parts(&td(name), "/spire/server").unwrap(),
            public_key: key.public_key(),
            not_before: now - 60,
            not_after: now + 3_600,
            dns_names: Vec::new(),
            subject: None,
            serial: SerialNumber::random().unwrap(),
        };
        let tbs = leaf_tbs(&template, &Issuer::from_certificate(&ca, algorithm)).unwrap();
        let leaf = assemble(&tbs, algorithm, &ca_key.sign(algorithm, &tbs).unwrap());
        let identity = LiveIdentity::new();
        identity.set(&[Certificate::from_der(&leaf).unwrap()], &key).unwrap();

        let mut bundle = Bundle::new(td(name));
        bundle.add_x509_authority(ca);
        bundle.sequence_number = 5;
        let served = Arc::new(Mutex::new(Bytes::from(bundle.to_spiffe_json())));
        let document = served.clone();
        let answer: Answer = Arc::new(move || Some(document.lock().unwrap().clone()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = BundleEndpoint::new(listener, identity, answer).unwrap();
        let url = format!("https://{}/", endpoint.address().unwrap());
        tasks.spawn_until_shutdown("endpoint", OnEnd::Log, endpoint.serve());
        Self { bundle, served, url }
    }

    fn serve(&self, document: impl Into<Bytes>) {
        *self.served.lock().unwrap() = document.into();
    }

    fn serve_numbered(&self, sequence_number: u64) {
        let bundle = Bundle { sequence_number, refresh_hint: Some(60), ..self.bundle.clone() };
        self.serve(bundle.to_spiffe_json());
    }

    fn profile(&self) -> EndpointProfile {
        let endpoint_spiffe_id = SpiffeId::from_parts(&self.bundle.trust_domain, "/spire/server").unwrap();
        EndpointProfile::HttpsSpiffe { endpoint_spiffe_id }
    }

    fn relationship(&self) -> FederationRelationship {
        FederationRelationship {
            trust_domain: self.bundle.trust_domain.clone(),
            bundle_endpoint_url: self.url.clone(),
            profile: self.profile(),
            bundle: None,
        }
    }
}

struct Home {
    store: Arc<MemoryStore>,
    federation: Federation,
    tasks: TaskGroup,
}

impl Drop for Home {
    fn drop(&mut self) {
        self.tasks.shutdown().request("test is over");
    }
}

impl Home {
    async fn new(statics: BTreeMap<TrustDomain, Target>, tasks: TaskGroup) -> Self {
        let store = Arc::new(MemoryStore::new());
        let shared: Arc<dyn Datastore> = store.clone();
        let (view, follower) = View::open(shared.clone(), td("example.org")).await.unwrap();
        let (federation, orders) = Federation::new();
        let runner = Runner::new(shared, view, clock::system(), statics, orders);
        tasks.spawn_until_shutdown("view", OnEnd::Log, follower.run());
        tasks.spawn_until_shutdown("federation", OnEnd::Log, runner.run());
        Self { store, federation, tasks }
    }

    async fn stored(&self, trust_domain: &TrustDomain) -> Option<Bundle> {
        self.store.fetch_bundle(trust_domain).await.unwrap()
    }

    /// Why a refresh failed.
    async fn refusal(&self, peer: &Peer) -> String {
        match self.federation.refresh(peer.bundle.trust_domain.clone()).await {
            Refreshed::Failed(why) => why,
            other => panic!("{other:?}"),
        }
    }

    fn state(&self, peer: &Peer) -> RelationshipState {
        let states = self.federation.states();
        let found = states.iter().find(|(trust_domain, _)| *trust_domain == peer.bundle.trust_domain);
        found.unwrap().1.clone()
    }
}

fn tasks() -> TaskGroup {
    steeple_runtime::install_crypto_provider();
    TaskGroup::new(Shutdown::new())
}

#[tokio::test]
async fn f_29_a_relationship_waits_for_its_bundle_and_then_keeps_it_fresh() {
    let tasks = tasks();
    let peer = Peer::new("other.org", &tasks).await;
    let home = Home::new(BTreeMap::new(), tasks).await;
    let name = &peer.bundle.trust_domain;
    assert_eq!(home.federation.refresh(name.clone()).await, Refreshed::Unmanaged);
    home.store.create_federation_relationship(peer.relationship(), 0).await.unwrap();
    let why = home.refusal(&peer).await;
    let expected = "can't perform SPIFFE Authentication: local copy of bundle not found: set it with \
                    `spire-server bundle set -id spiffe://other.org`";
    assert_eq!(why, expected);
    let sick = home.state(&peer);
    assert!(sick.failures_in_a_row > 0 && sick.stored.is_none() && sick.last_success == 0, "{sick:?}");
    assert_eq!(sick.last_error.as_deref(), Some(expected));

    // The operator sets it: nobody has to wait for the next try.
    let mut stored = home.store.watch_head();
    home.store.set_bundle(Bundle { sequence_number: 0, ..peer.bundle.clone() }, 0).await.unwrap();
    let fetched = async {
        while home.stored(name).await.is_none_or(|bundle| bundle.sequence_number != 5) {
            stored.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(10), fetched).await.unwrap();
    peer.serve_numbered(6);
    assert_eq!(home.federation.refresh(name.clone()).await, Refreshed::Done);
    assert_eq!(home.stored(name).await.unwrap().sequence_number, 6);
    let well = home.state(&peer);
    assert_eq!((well.failures_in_a_row, well.last_error), (0, None));
    assert_eq!(well.next_attempt, well.last_success + 15);

    assert!(home.store.delete_federation_relationship(name).await.unwrap());
    assert_eq!(home.federation.refresh(name.clone()).await, Refreshed::Unmanaged);
    assert!(home.federation.states().iter().all(|(trust_domain, _)| trust_domain != name));
    assert!(home.stored(name).await.is_some());
}

#[tokio::test]
async fn what_an_endpoint_must_not_serve() {
    let tasks = tasks();
    let peer = Peer::new("other.org", &tasks).await;
    let third = Peer::new("third.org", &tasks).await;
    let home = Home::new(BTreeMap::new(), tasks).await;
    let name = &peer.bundle.trust_domain;
    // Before the relationship: the view knows it by the time of the first refresh.
    home.store.set_bundle(third.bundle.clone(), 0).await.unwrap();
    let with_bundle = FederationRelationship { bundle: Some(peer.bundle.clone()), ..peer.relationship() };
    home.store.create_federation_relationship(with_bundle, 0).await.unwrap();
    assert_eq!(home.federation.refresh(name.clone()).await, Refreshed::Done);
    let before = home.stored(name).await;

    peer.serve_numbered(4);
    let why = home.refusal(&peer).await;
    assert!(
        why.contains("the endpoint serves an older bundle: its sequence number is 4, the stored one's is 5"),
        "{why}"
    );
    peer.serve(third.bundle.to_spiffe_json());
    let why = home.refusal(&peer).await;
    assert!(why.contains("is the bundle of trust domain \"third.org\", not of \"other.org\""), "{why}");
    for garbage in ["", "<html>", "{}", "{\"keys\": {}}"] {
        peer.serve(garbage);
        let why = home.refusal(&peer).await;
        assert!(why.contains("what the endpoint served is no SPIFFE bundle"), "{why}");
    }
    peer.serve(vec![0xff; 10]);
    assert!(home.refusal(&peer).await.contains("it is not UTF-8"));
    peer.serve(vec![b' '; 5 << 20]);
    assert!(home.refusal(&peer).await.contains("the answer is larger than 4 MiB"));
    assert_eq!(home.stored(name).await, before, "what was stored stays");

    // The peer's key is not under its stored bundle any more.
    let mut stolen = third.bundle.clone();
    stolen.trust_domain = name.clone();
    home.store.set_bundle(stolen, 0).await.unwrap();
    let why = home.refusal(&peer).await;
    assert!(why.contains("the endpoint could not be authenticated"), "{why}");
    assert!(home.state(&peer).failures_in_a_row >= 8);

    // What the peer lost, the operator gives back.
    peer.serve_numbered(9);
    home.store.set_bundle(peer.bundle.clone(), 0).await.unwrap();
    assert_eq!(home.federation.refresh(name.clone()).await, Refreshed::Done);
}

/// A relationship of the file wins over one with the same trust domain in the database.
#[tokio::test]
async fn the_file_wins() {
    let tasks = tasks();
    let peer = Peer::new("other.org", &tasks).await;
    let target = Target { url: peer.url.clone(), profile: peer.profile(), is_static: true };
    let statics = BTreeMap::from([(peer.bundle.trust_domain.clone(), target)]);
    let home = Home::new(statics, tasks).await;
    home.store.set_bundle(peer.bundle.clone(), 0).await.unwrap();
    let wrong =
        FederationRelationship { bundle_endpoint_url: "https://127.0.0.1:1".into(), ..peer.relationship() };
    home.store.create_federation_relationship(wrong, 0).await.unwrap();
    let own = FederationRelationship { trust_domain: td("example.org"), ..peer.relationship() };
    home.store.create_federation_relationship(own, 0).await.unwrap();
    assert_eq!(home.federation.refresh(peer.bundle.trust_domain.clone()).await, Refreshed::Done);
    assert!(home.state(&peer).is_static);
    assert_eq!(home.federation.states().len(), 1, "never our own trust domain");
    assert_eq!(home.federation.refresh(td("example.org")).await, Refreshed::Unmanaged);
}
