mod concurrent;

use std::time::Duration;

use steeple_datastore::model::Selector;
use steeple_datastore::{Change, Page, Revision, RotatedAgent};
use tokio::time::timeout;

use super::*;
use crate::fake::FakeStore;

fn trust_domain() -> TrustDomain {
    TrustDomain::new("example.org").unwrap()
}

fn id(path: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://example.org{path}")).unwrap()
}

const AGENT: &str = "/spire/agent/one";

fn entry(entry_id: &str, parent: &str) -> Entry {
    Entry {
        id: entry_id.to_owned(),
        spiffe_id: id(&format!("/w/{entry_id}")),
        parent_id: id(parent),
        selectors: vec![Selector::new("unix", "uid:1")],
        x509_svid_ttl: 0,
        jwt_svid_ttl: 0,
        federates_with: Vec::new(),
        admin: false,
        downstream: false,
        expires_at: 0,
        dns_names: Vec::new(),
        revision_number: 0,
        store_svid: false,
        hint: String::new(),
        created_at: 0,
        additional: None,
    }
}

fn agent(path: &str, serial: &str) -> Agent {
    Agent {
        id: id(path),
        attestation_type: "join_token".to_owned(),
        serial_number: serial.to_owned(),
        expires_at: 100,
        new_serial_number: String::new(),
        new_expires_at: 0,
        can_reattest: false,
        agent_version: String::new(),
        selectors: Vec::new(),
    }
}

fn bundle(name: &str, sequence_number: u64) -> Bundle {
    Bundle { sequence_number, ..Bundle::new(TrustDomain::new(name).unwrap()) }
}

fn set(entry: Entry) -> Change {
    Change::EntrySet(Box::new(entry))
}

fn gone(id: &str) -> Change {
    Change::EntryGone { id: id.to_owned() }
}

fn ids(entries: &[Arc<Entry>]) -> Vec<&str> {
    let mut ids: Vec<&str> = entries.iter().map(|entry| entry.id.as_str()).collect();
    ids.sort_unstable();
    ids
}

/// A store, its view, and a follower that runs until the test ends.
struct Followed {
    store: Arc<FakeStore>,
    view: Arc<View>,
    follower: tokio::task::JoinSet<()>,
}

async fn followed() -> Followed {
    let store = Arc::new(FakeStore::new(Arc::default()));
    store.commit_bundle(bundle("example.org", 1)).unwrap();
    store.commit(set(entry("first", AGENT))).unwrap();
    follow(store).await
}

async fn follow(store: Arc<FakeStore>) -> Followed {
    let (view, following) = View::open(Arc::clone(&store) as _, trust_domain()).await.unwrap();
    let mut follower = tokio::task::JoinSet::new();
    follower.spawn(following.run());
    Followed { store, view, follower }
}

impl Followed {
    fn commit(&self, change: Change) {
        self.store.commit(change).unwrap();
    }

    /// Until the view has seen everything.
    async fn settled(&self) {
        let head = self.store.head().await.unwrap();
        timeout(Duration::from_mins(1), self.view.wait_for(head)).await.unwrap();
    }
}

#[tokio::test]
async fn entries_of_listed_ids() {
    let followed = followed().await;
    followed.commit(set(entry("second", AGENT)));
    followed.settled().await;
    let here = followed.view.position();
    let listed = |ids: &[&str], revision| EntryIds {
        page: Page { items: ids.iter().map(|id| (*id).to_owned()).collect(), next_token: String::new() },
        revision,
        log_id: here.log_id.to_string(),
    };
    let both = listed(&["second", "first"], here.revision);
    let entries = followed.view.entries_at(&both).unwrap();
    assert!(entries.iter().map(|entry| &entry.id).eq(&both.page.items));

    assert!(followed.view.entries_at(&listed(&["second", "none"], here.revision)).is_none());
    assert!(followed.view.entries_at(&listed(&["first"], Revision(here.revision.0 - 1))).is_none());
    assert!(followed.view.entries_at(&listed(&["first"], Revision(here.revision.0 + 1))).is_none());
    assert!(followed.view.entries_at(&EntryIds { log_id: "another".to_owned(), ..both }).is_none());
}

async fn next(subscription: &mut Subscription) -> Delta {
    timeout(Duration::from_mins(1), subscription.next()).await.unwrap()
}

#[tokio::test]
async fn a_subscription_starts_with_everything_and_goes_on_with_changes() {
    let followed = followed().await;
    let mut subscription = followed.view.subscribe(&id(AGENT));
    let delta = next(&mut subscription).await;
    assert!(delta.snapshot);
    assert_eq!(
        (ids(&delta.entries), delta.revision, delta.log_id.as_str()),
        (vec!["first"], Revision(2), "log-1")
    );
    assert_eq!(delta.bundles.len(), 1);
    assert!(subscription.take().is_none());

    followed.commit(set(entry("second", AGENT)));
    let delta = next(&mut subscription).await;
    assert!(!delta.snapshot && delta.removed.is_empty() && delta.bundles.is_empty());
    assert_eq!((ids(&delta.entries), delta.revision), (vec!["second"], Revision(3)));

    followed.commit(gone("first"));
    let delta = next(&mut subscription).await;
    assert_eq!((delta.removed, delta.revision), (vec!["first".to_owned()], Revision(4)));

    // Somebody else's entry.
    followed.commit(set(entry("other", "/spire/agent/two")));
    followed.settled().await;
    assert!(subscription.take().is_none());
    assert_eq!(ids(&followed.view.authorized_entries(&id(AGENT))), ["second"]);
    assert_eq!(followed.view.entry_count(), 2);
}

#[tokio::test]
async fn a_slow_listener_gets_the_newest_state() {
    let followed = followed().await;
    let mut subscription = followed.view.subscribe(&id(AGENT));
    next(&mut subscription).await;
    for hint in 0..100 {
        followed.commit(set(Entry { hint: hint.to_string(), ..entry("first", AGENT) }));
        followed.commit(set(entry("passing", AGENT)));
        followed.commit(gone("passing"));
    }
    followed.settled().await;
    let delta = subscription.take().unwrap();
    assert_eq!((delta.entries.len(), delta.entries[0].hint.as_str()), (1, "99"));
    assert_eq!((delta.removed, delta.revision), (vec!["passing".to_owned()], Revision(302)));
    assert!(subscription.take().is_none());
}

#[tokio::test]
async fn too_many_changes_become_the_complete_view() {
    let followed = followed().await;
    let mut subscription = followed.view.subscribe(&id(AGENT));
    next(&mut subscription).await;
    for number in 0..5000 {
        followed.commit(set(entry(&number.to_string(), AGENT)));
    }
    followed.settled().await;
    let delta = subscription.take().unwrap();
    assert!(delta.snapshot);
    assert_eq!((delta.entries.len(), delta.bundles.len()), (5001, 1));
}

#[tokio::test]
async fn bundles_come_with_the_entries_that_federate() {
    let followed = followed().await;
    let other = TrustDomain::new("other.org").unwrap();
    followed.store.commit_bundle(bundle("other.org", 1)).unwrap();
    followed.settled().await;
    let mut subscription = followed.view.subscribe(&id(AGENT));
    assert_eq!(next(&mut subscription).await.bundles.len(), 1, "the own one only");

    followed.commit(set(Entry { federates_with: vec![other.clone()], ..entry("first", AGENT) }));
    let delta = next(&mut subscription).await;
    assert_eq!((delta.entries.len(), delta.bundles.len(), &delta.bundles[0].trust_domain), (1, 1, &other));
    let mut complete = followed.view.subscribe(&id(AGENT));
    assert_eq!(next(&mut complete).await.bundles.len(), 2);
    followed.store.commit_bundle(bundle("other.org", 2)).unwrap();
    assert_eq!(next(&mut subscription).await.bundles[0].sequence_number, 2);
    followed.store.commit_bundle(bundle("example.org", 5)).unwrap();
    assert_eq!(next(&mut subscription).await.bundles[0].sequence_number, 5);
    assert_eq!(followed.view.bundle(&trust_domain()).unwrap().sequence_number, 5);
    assert_eq!(followed.view.watch_bundles().borrow().len(), 2);

    followed.commit(set(entry("first", AGENT)));
    let delta = next(&mut subscription).await;
    assert_eq!((delta.entries.len(), delta.removed_bundles), (1, vec![other.clone()]));
    followed.store.commit_bundle(bundle("other.org", 3)).unwrap();
    followed.settled().await;
    assert!(subscription.take().is_none(), "no entry federates with it any more");

    followed.commit(Change::BundleGone { trust_domain: other.clone() });
    followed.settled().await;
    assert!(followed.view.bundle(&other).is_none());
}

#[tokio::test]
async fn an_evicted_or_banned_agent_is_told() {
    let followed = followed().await;
    followed.commit(Change::AgentSet(Box::new(agent(AGENT, "1"))));
    followed.settled().await;
    let mut subscription = followed.view.subscribe(&id(AGENT));
    assert!(!next(&mut subscription).await.denied);
    followed.commit(Change::AgentSet(Box::new(agent(AGENT, "2"))));
    followed.settled().await;
    assert!(subscription.take().is_none(), "a renewal is none of its business");
    followed.commit(Change::AgentSet(Box::new(agent(AGENT, ""))));
    assert!(next(&mut subscription).await.denied);
    let mut late = followed.view.subscribe(&id(AGENT));
    assert!(next(&mut late).await.denied, "banned just before it subscribed");
    followed.commit(Change::AgentSet(Box::new(agent(AGENT, "3"))));
    followed.commit(Change::AgentGone { id: id(AGENT) });
    assert!(next(&mut subscription).await.denied);
    assert!(followed.view.agent(&id(AGENT)).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_nobody_tells_of_is_found() {
    let followed = followed().await;
    let mut subscription = followed.view.subscribe(&id(AGENT));
    next(&mut subscription).await;
    followed.store.commit_quietly(set(entry("quiet", AGENT))).unwrap();
    assert_eq!(ids(&next(&mut subscription).await.entries), ["quiet"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_told_of_is_asked_for_until_it_is_there() {
    let followed = followed().await;
    followed.settled().await;
    let mut subscription = followed.view.subscribe(&id(AGENT));
    next(&mut subscription).await;
    followed.store.tell(Revision(3));
    tokio::time::sleep(Duration::from_secs(2)).await;
    followed.store.commit_quietly(set(entry("late", AGENT))).unwrap();
    let delta = timeout(Duration::from_secs(2), next(&mut subscription)).await.unwrap();
    assert_eq!(ids(&delta.entries), ["late"]);
}

#[tokio::test(start_paused = true)]
async fn a_truncated_log_makes_nothing_vanish() {
    let followed = followed().await;
    followed.commit(set(entry("second", AGENT)));
    followed.settled().await;
    let mut subscription = followed.view.subscribe(&id(AGENT));
    next(&mut subscription).await;
    // Several revisions that the log holds no more when the follower gets to look.
    followed.store.commit_quietly(set(entry("third", AGENT))).unwrap();
    followed.store.commit_quietly(gone("second")).unwrap();
    followed.store.trim_all();
    let delta = next(&mut subscription).await;
    assert!(!delta.snapshot, "the same log: only what differs");
    assert_eq!((ids(&delta.entries), delta.removed), (vec!["third"], vec!["second".to_owned()]));
    assert_eq!(delta.revision, Revision(5));
}

#[tokio::test(start_paused = true)]
async fn a_replaced_log_starts_over() {
    let followed = followed().await;
    let mut subscription = followed.view.subscribe(&id(AGENT));
    next(&mut subscription).await;
    let waiting = followed.view.wait_for(Revision(1000));
    followed.store.restore("log-2", 1);
    let delta = next(&mut subscription).await;
    assert!(delta.snapshot);
    assert_eq!(
        (delta.log_id.as_str(), delta.revision, ids(&delta.entries)),
        ("log-2", Revision(1), vec!["first"])
    );
    timeout(Duration::from_secs(1), waiting)
        .await
        .expect("revisions of a log that is gone are not waited for");
}

#[tokio::test(start_paused = true)]
async fn the_view_never_goes_back() {
    let followed = followed().await;
    followed.commit(set(entry("second", AGENT)));
    followed.settled().await;
    // The same log, but a copy that lags behind.
    followed.store.restore("log-1", 1);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(followed.view.revision(), Revision(3));
    assert_eq!(followed.view.entry_count(), 2);
    assert_eq!(followed.follower.len(), 1, "the follower goes on");
}

#[tokio::test]
async fn after_the_last_subscription_nothing_is_tracked() {
    let followed = followed().await;
    let (one, two) = (followed.view.subscribe(&id(AGENT)), followed.view.subscribe(&id(AGENT)));
    drop(one);
    let mut two = two;
    next(&mut two).await;
    followed.commit(set(entry("second", AGENT)));
    assert_eq!(ids(&next(&mut two).await.entries), ["second"], "the other one goes on");
    drop(two);
    let mut three = followed.view.subscribe(&id(AGENT));
    assert_eq!(next(&mut three).await.entries.len(), 2);
}

#[tokio::test]
async fn rotations_are_told_to_whom_they_concern() {
    let followed = followed().await;
    followed.commit(Change::AgentSet(Box::new(agent("/agent", "1"))));
    followed.commit(set(entry("e", "/agent")));
    followed.settled().await;
    let mut mine = followed.view.subscribe(&id("/agent"));
    let mut theirs = followed.view.subscribe(&id("/other"));
    assert!(next(&mut mine).await.rotated.is_empty());
    next(&mut theirs).await;

    let rotated = Entry { revision_number: 1, ..entry("e", "/agent") };
    followed.commit(Change::EntryRotated(Box::new(rotated)));
    let delta = next(&mut mine).await;
    assert_eq!((delta.rotated, delta.rotate_agent), (vec!["e".to_owned()], false));
    assert_eq!(delta.entries[0].revision_number, 1);
    let order = RotatedAgent { id: id("/agent"), ordered_at: 77 };
    followed.commit(Change::AgentRotated(order));
    let delta = next(&mut mine).await;
    assert!(delta.rotate_agent && delta.rotated.is_empty() && delta.entries.is_empty());
    assert_eq!(followed.view.rotation_order(&id("/agent")), Some(77));
    assert!(theirs.take().is_none());
    assert!(mine.take().is_none(), "an order is told once");
}

#[tokio::test]
async fn changed_relationships_are_told() {
    let followed = followed().await;
    let mut relationships = followed.view.watch_relationships();
    relationships.borrow_and_update();
    followed.commit(Change::Other);
    followed.settled().await;
    assert!(!relationships.has_changed().unwrap());
    followed.commit(Change::Federation { trust_domain: trust_domain() });
    relationships.changed().await.unwrap();
}
