use proptest::prelude::*;

use super::*;
use crate::entry::tests::entry;

fn delta(revision: u64, snapshot: bool, entries: &[&str], removed: &[&str]) -> Delta {
    Delta {
        revision,
        log_id: "log".into(),
        snapshot,
        entries: entries.iter().map(|id| entry(id, id, &["a"])).collect(),
        removed: removed.iter().map(ToString::to_string).collect(),
        ..Delta::default()
    }
}

fn ids(view: &View) -> Vec<String> {
    let mut ids: Vec<String> = view.entries().map(|e| e.id.to_string()).collect();
    ids.sort();
    ids
}

#[test]
fn a_snapshot_in_parts_comes_into_force_at_once_and_drops_what_it_does_not_name() {
    let mut view = View::default();
    view.apply(delta(5, true, &["a", "b"], &[])).unwrap();
    let first = Delta { more: true, ..delta(9, true, &["b"], &[]) };
    assert!(view.apply(first).unwrap().is_empty());
    assert_eq!(ids(&view), ["a", "b"]);
    assert_eq!(view.revision(), 5);
    let changes = view.apply(delta(9, true, &["c"], &[])).unwrap();
    assert_eq!(ids(&view), ["b", "c"]);
    assert_eq!(view.revision(), 9);
    assert_eq!(changes.removed.len(), 1);
    assert_eq!(changes.entries.len(), 1, "an unchanged entry is not a change");
}

#[test]
fn orders_to_rotate_come_into_force_with_the_view_they_came_with() {
    let mut view = View::default();
    view.apply(delta(5, true, &["a", "b"], &[])).unwrap();
    let rotated = |changes: &Changes| {
        let mut ids: Vec<String> = changes.rotated.iter().map(|entry| entry.id.to_string()).collect();
        ids.sort();
        ids
    };
    let more = Delta { more: true, rotated: vec!["a".into(), "none".into()], ..delta(6, false, &[], &[]) };
    assert!(view.apply(more).unwrap().is_empty());
    let newer = Entry { revision_number: 1, ..entry("a", "a", &["a"]) };
    let last = Delta { entries: vec![newer], ..delta(6, false, &[], &[]) };
    assert_eq!(rotated(&view.apply(last).unwrap()), ["a"], "named and noticed: once");
    let all = Delta { rotate_all: true, ..delta(7, false, &[], &[]) };
    assert_eq!(rotated(&view.apply(all).unwrap()), ["a", "b"]);
}

#[test]
fn a_lost_connection_drops_what_was_staged() {
    let mut view = View::default();
    view.apply(Delta { more: true, ..delta(9, true, &["gone"], &[]) }).unwrap();
    view.connection_lost();
    view.apply(delta(3, true, &["a"], &[])).unwrap();
    assert_eq!(ids(&view), ["a"]);
}

#[test]
fn an_older_view_of_the_same_log_is_refused_and_another_log_needs_a_snapshot() {
    let mut view = View::default();
    view.apply(delta(9, true, &["a"], &[])).unwrap();
    assert_eq!(view.apply(delta(8, true, &["b"], &[])), Err(ViewError::Stale { offered: 8, held: 9 }));
    let other = |snapshot| Delta { log_id: "other".into(), ..delta(1, snapshot, &["b"], &[]) };
    assert!(matches!(view.apply(other(false)), Err(ViewError::OtherLog { .. })));
    assert_eq!(ids(&view), ["a"]);
    view.apply(other(true)).unwrap();
    assert_eq!(ids(&view), ["b"]);
    assert_eq!((view.revision(), view.log_id()), (1, "other"));
}

#[test]
fn removing_and_setting_in_one_message_leaves_the_entry() {
    let mut view = View::default();
    view.apply(delta(1, true, &["a"], &[])).unwrap();
    let changes = view.apply(delta(2, false, &["a"], &["a"])).unwrap();
    assert!(changes.removed.is_empty());
    assert_eq!(ids(&view), ["a"]);
}

proptest! {
    /// Whatever order messages come in, revisions never go back within a log and the entries are those of the last
    /// accepted state.
    #[test]
    fn agrees_with_a_naive_model(messages in prop::collection::vec((0u64..20, any::<bool>(), prop::collection::vec(0u8..6, 0..4), prop::collection::vec(0u8..6, 0..3)), 0..40)) {
        let mut view = View::default();
        let mut model = std::collections::BTreeSet::<String>::new();
        let mut newest = 0;
        for (revision, snapshot, set, gone) in messages {
            let names = |xs: &[u8]| xs.iter().map(|x| format!("e{x}")).collect::<Vec<_>>();
            let (set, gone) = (names(&set), names(&gone));
            let message = delta(
                revision,
                snapshot,
                &set.iter().map(String::as_str).collect::<Vec<_>>(),
                &gone.iter().map(String::as_str).collect::<Vec<_>>(),
            );
            let accepted = view.apply(message).is_ok();
            prop_assert_eq!(accepted, view.revision() == revision && revision >= newest);
            if accepted {
                newest = revision;
                if snapshot {
                    model.clear();
                } else {
                    for id in &gone { model.remove(id); }
                }
                model.extend(set);
            }
            prop_assert_eq!(ids(&view), model.iter().cloned().collect::<Vec<_>>());
        }
    }
}

#[test]
fn who_forgot_everything_still_takes_no_older_view() {
    let mut view = View::default();
    view.apply(delta(5, true, &["a", "b"], &[])).unwrap();
    assert_eq!(view.forget().removed.len(), 2);
    assert_eq!((view.revision(), view.log_id(), view.entry_count()), (0, "", 0));
    assert_eq!(
        view.apply(delta(4, true, &["a"], &[])),
        Err(ViewError::Stale { offered: 4, held: 5 }),
        "a server that lags behind"
    );
    assert!(view.forget().is_empty());
    assert!(view.apply(delta(4, true, &["a"], &[])).is_err());
    view.apply(delta(5, true, &["a"], &[])).unwrap();
    assert_eq!(ids(&view), ["a"]);
    view.forget();
    let other = Delta { log_id: "other".into(), ..delta(1, true, &["c"], &[]) };
    view.apply(other).unwrap();
    assert_eq!(ids(&view), ["c"], "another log counts for itself");
}
