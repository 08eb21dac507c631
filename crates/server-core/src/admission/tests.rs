use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

#[tokio::test]
async fn the_most_urgent_goes_first() {
    let admission = Admission::new(1);
    let held = admission.acquire(Priority::Prefetch).await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut calls = Vec::new();
    for priority in [Priority::Prefetch, Priority::Expiring, Priority::Waiting] {
        let (admission, order) = (admission.clone(), Arc::clone(&order));
        calls.push(Box::pin(async move {
            let _permit = admission.acquire(priority).await;
            order.lock().unwrap().push(priority);
        }));
    }
    let mut all = Box::pin(futures::future::join_all(calls));
    assert!(futures::poll!(&mut all).is_pending());
    assert_eq!(admission.waiting(), 3);
    drop(held);
    all.await;
    assert_eq!(*order.lock().unwrap(), [Priority::Waiting, Priority::Expiring, Priority::Prefetch]);
}

#[tokio::test]
async fn callers_that_leave_do_not_keep_a_place() {
    let admission = Admission::new(1);
    let held = admission.acquire(Priority::Waiting).await;
    let mut left = Box::pin(admission.acquire(Priority::Waiting));
    assert!(futures::poll!(&mut left).is_pending());
    let mut granted_then_left = Box::pin(admission.acquire(Priority::Waiting));
    assert!(futures::poll!(&mut granted_then_left).is_pending());
    drop(left);
    drop(held);
    drop(granted_then_left);
    assert_eq!(admission.waiting(), 0);
    let _permit = admission.acquire(Priority::Waiting).await;
}

#[tokio::test]
async fn urgent_calls_do_not_starve_the_others() {
    let admission = Admission::new(1);
    let held = admission.acquire(Priority::Waiting).await;
    let before = AtomicUsize::new(0);
    let prefetch = async {
        let _permit = admission.acquire(Priority::Prefetch).await;
        before.load(Ordering::Relaxed)
    };
    let urgent = futures::future::join_all((0..100).map(|_| async {
        let _permit = admission.acquire(Priority::Waiting).await;
        before.fetch_add(1, Ordering::Relaxed);
    }));
    let mut both = Box::pin(futures::future::join(prefetch, urgent));
    assert!(futures::poll!(&mut both).is_pending());
    drop(held);
    let (served_before, _) = both.await;
    assert!(served_before < FAIR_EVERY as usize, "{served_before} urgent calls went first");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_than_the_places_at_once_and_none_is_lost() {
    let admission = Admission::new(3);
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut calls = tokio::task::JoinSet::new();
    for i in 0..500_usize {
        let (admission, now, most) = (admission.clone(), Arc::clone(&now), Arc::clone(&most));
        calls.spawn(async move {
            let priority = [Priority::Waiting, Priority::Expiring, Priority::Prefetch][i % 3];
            let _permit = admission.acquire(priority).await;
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            now.fetch_sub(1, Ordering::SeqCst);
        });
    }
    assert_eq!(calls.join_all().await.len(), 500);
    assert!(most.load(Ordering::SeqCst) <= 3);
    assert_eq!(admission.waiting(), 0);
    for _ in 0..3 {
        std::mem::forget(admission.acquire(Priority::Waiting).await);
    }
    assert!(futures::poll!(Box::pin(admission.acquire(Priority::Waiting))).is_pending());
}

#[test]
fn metadata_values() {
    assert_eq!(Priority::from_metadata(Some("waiting")), Priority::Waiting);
    assert_eq!(Priority::from_metadata(Some("expiring")), Priority::Expiring);
    assert_eq!(Priority::from_metadata(Some("prefetch")), Priority::Prefetch);
    for other in [None, Some(""), Some("Prefetch"), Some("urgent")] {
        assert_eq!(Priority::from_metadata(other), Priority::Waiting, "{other:?}");
    }
}
