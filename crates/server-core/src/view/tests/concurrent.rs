//! Writers, listeners and a log that is trimmed, all at once: in the end everybody knows what is stored, and on the
//! way nobody sees a revision lower than one before.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tokio::task::JoinSet;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Set(u8, u8, bool),
    Gone(u8),
    Trim,
    /// A listener takes what there is.
    Take(usize),
    Yield,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..12_u8, 0..3_u8, any::<bool>()).prop_map(|(entry, agent, quiet)| Step::Set(entry, agent, quiet)),
        3 => (0..12_u8).prop_map(Step::Gone),
        1 => Just(Step::Trim),
        3 => (0..3_usize).prop_map(Step::Take),
        3 => Just(Step::Yield),
    ]
}

fn agent_path(number: u8) -> String {
    format!("/spire/agent/{number}")
}

/// What a listener makes of deltas.
#[derive(Default)]
struct Known {
    entries: BTreeMap<String, Arc<Entry>>,
    revision: Revision,
}

impl Known {
    fn apply(&mut self, delta: Delta) {
        assert!(delta.revision >= self.revision, "from {:?} to {:?}", self.revision, delta.revision);
        self.revision = delta.revision;
        if delta.snapshot {
            self.entries.clear();
        }
        for id in &delta.removed {
            self.entries.remove(id);
        }
        self.entries.extend(delta.entries.into_iter().map(|entry| (entry.id.clone(), entry)));
    }
}

async fn play(steps: Vec<Step>) {
    let followed = followed().await;
    let mut listeners: Vec<(Subscription, Known)> =
        (0..3).map(|number| (followed.view.subscribe(&id(&agent_path(number))), Known::default())).collect();
    let mut hint = 0;
    for step in steps {
        match step {
            Step::Set(number, agent, quiet) => {
                hint += 1;
                let entry =
                    Entry { hint: hint.to_string(), ..entry(&format!("e{number}"), &agent_path(agent)) };
                let commit = if quiet { FakeStore::commit_quietly } else { FakeStore::commit };
                commit(&followed.store, set(entry)).unwrap();
            }
            Step::Gone(number) => followed.commit(gone(&format!("e{number}"))),
            Step::Trim => followed.store.trim_all(),
            Step::Take(number) => {
                let (subscription, known) = &mut listeners[number];
                if let Some(delta) = subscription.take() {
                    known.apply(delta);
                }
            }
            Step::Yield => tokio::task::yield_now().await,
        }
    }
    followed.settled().await;
    let stored = followed.store.snapshot().await.unwrap();
    for (number, (subscription, known)) in listeners.iter_mut().enumerate() {
        if let Some(delta) = subscription.take() {
            known.apply(delta);
        }
        let parent = id(&agent_path(number as u8));
        let mine = stored.entries.iter().filter(|entry| entry.parent_id == parent);
        let expected: Vec<&Entry> = mine.collect();
        assert_eq!(known.entries.values().map(Arc::as_ref).collect::<Vec<_>>(), expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: crate::fake::cases(200), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn listeners_end_up_with_what_is_stored(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(play(steps));
    }
}

/// Real threads: four writers, eight listeners, a view that is read all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_at_once() {
    const WRITES: usize = 300;
    let followed = followed().await;
    let mut listeners = JoinSet::new();
    for number in 0..8_u8 {
        let mut subscription = followed.view.subscribe(&id(&agent_path(number % 4)));
        let last = format!("last-{}", number % 4);
        listeners.spawn(async move {
            let mut known = Known::default();
            while !known.entries.contains_key(&last) {
                known.apply(subscription.next().await);
            }
            (number, known, subscription)
        });
    }
    let mut writers = JoinSet::new();
    for writer in 0..4_u8 {
        let (store, view) = (Arc::clone(&followed.store), Arc::clone(&followed.view));
        writers.spawn(async move {
            for number in 0..WRITES {
                let entry = entry(&format!("{writer}-{}", number % 7), &agent_path(writer));
                if number % 3 == 2 {
                    store.commit(gone(&entry.id))
                } else {
                    store.commit(set(entry.clone()))
                }
                .unwrap();
                if number % 50 == 0 {
                    // A write through this server is seen by the next read.
                    let head = store.head().await.unwrap();
                    view.wait_for(head).await;
                    assert!(view.revision() >= head);
                }
                tokio::task::yield_now().await;
            }
            store.commit(set(entry(&format!("last-{writer}"), &agent_path(writer)))).unwrap();
        });
    }
    timeout(Duration::from_mins(2), writers.join_all()).await.unwrap();
    let done = timeout(Duration::from_mins(2), listeners.join_all()).await.unwrap();
    followed.settled().await;
    for (number, mut known, mut subscription) in done {
        if let Some(delta) = subscription.take() {
            known.apply(delta);
        }
        let mut stored = followed.view.authorized_entries(&id(&agent_path(number % 4)));
        stored.sort_by(|a, b| a.id.cmp(&b.id));
        assert_eq!(known.entries.into_values().collect::<Vec<_>>(), stored);
    }
}
