//! Many callers at once.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::fixtures::{NOW, entry};
use super::{Factory, Replica};
use crate::model::JoinToken;
use crate::{Datastore, Revision};

pub async fn one_of_a_thousand_takes_the_token(fresh: Factory) {
    let fresh = fresh();
    for round in 0..3 {
        let name = format!("token-{round}");
        fresh
            .store
            .create_join_token(JoinToken { token: name.clone(), expires_at: NOW + 60 }, NOW)
            .await
            .unwrap();
        let mut takers = JoinSet::new();
        for _ in 0..1000 {
            let (store, name) = (Arc::clone(&fresh.store), name.clone());
            takers.spawn(async move { store.take_join_token(&name).await.unwrap().is_some() });
        }
        let winners = takers.join_all().await.into_iter().filter(|won| *won).count();
        assert_eq!(winners, 1);
    }
}

const WRITERS: usize = 16;
const WRITES: usize = 25;

async fn write(store: Arc<dyn Datastore>, writer: usize) {
    for n in 0..WRITES {
        let name = format!("w{writer}-{n}");
        let one = entry(&name, &format!("/{writer}/{n}"), "/n", &["a:1"]);
        assert!(store.create_entries(vec![one], NOW).await.unwrap()[0].is_ok());
        // Every fifth goes again; some are refused.
        if n % 5 == 0 {
            assert!(store.delete_entry(&name).await.unwrap());
        }
        if n % 7 == 0 {
            let refused = entry(&name, &format!("/{writer}/{n}"), "/n", &[]);
            assert!(store.create_entries(vec![refused], NOW).await.unwrap()[0].is_err());
        }
    }
}

pub async fn no_gaps(fresh: Factory) {
    let fresh = fresh();
    let empty = Replica::of(fresh.store.snapshot().await.unwrap());
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(write(Arc::clone(&fresh.store), writer));
    }
    writers.join_all().await;
    let log = fresh.store.changes_since(Revision(0), usize::MAX).await.unwrap();
    assert_eq!(log.len(), WRITERS * (WRITES + WRITES.div_ceil(5)));
    let mut replica = empty;
    for logged in log {
        replica.apply(logged);
    }
    assert_eq!(replica, Replica::of(fresh.store.snapshot().await.unwrap()));
}

/// A follower that starts in the middle and reads the tail when it is told to ends with what is stored.
pub async fn follower_keeps_up(fresh: Factory) {
    let fresh = fresh();
    let store = Arc::clone(&fresh.store);
    let last = (WRITERS * (WRITES + WRITES.div_ceil(5))) as u64;
    let mut tasks = JoinSet::new();
    for writer in 0..WRITERS {
        tasks.spawn(write(Arc::clone(&fresh.store), writer));
    }
    let mut watch = store.watch_head();
    let mut replica = Replica::of(store.snapshot().await.unwrap());
    while replica.revision.0 < last {
        let tail = store.changes_since(replica.revision, 10).await.unwrap();
        if tail.is_empty() {
            watch.wait_for(|head| *head > replica.revision).await.unwrap();
        }
        for logged in tail {
            replica.apply(logged);
        }
    }
    tasks.join_all().await;
    assert_eq!(replica, Replica::of(store.snapshot().await.unwrap()));
}
