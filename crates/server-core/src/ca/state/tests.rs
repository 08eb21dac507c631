use steeple_plugin::conformance::pooled_key;

use super::*;

fn fresh(ttl: i64) -> State {
    State::new(ttl, vec![Kind::X509, Kind::Jwt], Journal::default(), Default::default())
}

/// Carries effects out as if nothing could fail; returns what was done.
fn settle(state: State, now: i64) -> (State, Vec<String>) {
    settle_from(state, Event::Tick, now)
}

fn settle_from(mut state: State, mut event: Event, now: i64) -> (State, Vec<String>) {
    let mut done = Vec::new();
    loop {
        let (next, effects) = state.step(event, now);
        state = next;
        let mut answer = None;
        for effect in effects {
            let (what, event) = answer_to(effect, now);
            done.push(what);
            answer = event.or(answer);
        }
        match answer {
            Some(answer) => event = answer,
            None => return (state, done),
        }
    }
}

fn answer_to(effect: Effect, now: i64) -> (String, Option<Event>) {
    match effect {
        Effect::GenerateKey { kind, slot } => {
            let key = pooled_key(now.unsigned_abs() as usize + usize::from(kind == Kind::Jwt));
            let event = Event::KeyGenerated { public_key: key.public_key(), kid: format!("kid-{now}") };
            (format!("generate {}", kind.key_id(slot)), Some(event))
        }
        // The state machine needs no real root for a key that only tests use.
        Effect::SignCa { slot, public_key, not_after } => {
            let certificate = crate::fake::root(&public_key, not_after, now);
            let signed = Event::CaSigned { certificate, upstream_chain: Vec::new() };
            (format!("sign {}", Kind::X509.key_id(slot)), Some(signed))
        }
        Effect::Publish(authority) => (format!("publish {}", authority.key_id()), Some(Event::Published)),
        Effect::SaveJournal(_) => ("save".to_owned(), Some(Event::JournalSaved { row: 1 })),
        Effect::Use(authority) => (format!("use {}", authority.key_id()), None),
    }
}

#[test]
fn thresholds_are_spires() {
    const HOUR: i64 = 3600;
    for (lifetime, prepare, activate) in [
        (60, 30, 10),
        (24 * HOUR, 12 * HOUR, 4 * HOUR),
        (42 * DAY, 21 * DAY, 7 * DAY),
        (60 * DAY, 30 * DAY, 7 * DAY),
        (3650 * DAY, 30 * DAY, 7 * DAY),
    ] {
        assert_eq!((preparation_threshold(lifetime), activation_threshold(lifetime)), (prepare, activate));
    }
}

#[test]
fn the_first_authorities_are_published_and_journaled_before_they_sign() {
    let (state, done) = settle(fresh(600), 0);
    assert_eq!(
        done,
        [
            "generate x509-CA-A",
            "sign x509-CA-A",
            "publish x509-CA-A",
            "save",
            "use x509-CA-A",
            "generate JWT-Signer-A",
            "publish JWT-Signer-A",
            "save",
            "use JWT-Signer-A",
        ]
    );
    assert_eq!(state.slots(Kind::X509).current.as_ref().map(|current| current.not_after), Some(600));
    assert!(settle(state, 299).1.is_empty(), "nothing to do before half of the lifetime");
}

#[test]
fn the_next_one_is_prepared_at_half_and_takes_over_at_a_sixth() {
    let (state, _) = settle(fresh(600), 0);
    let (state, done) = settle(state, 300);
    let prepared = [
        "generate x509-CA-B",
        "sign x509-CA-B",
        "publish x509-CA-B",
        "save",
        "generate JWT-Signer-B",
        "publish JWT-Signer-B",
        "save",
    ];
    assert_eq!(done, prepared);
    let (state, done) = settle(state, 499);
    assert!(done.is_empty(), "{done:?}");
    let (state, done) = settle(state, 500);
    assert_eq!(done, ["save", "use x509-CA-B", "save", "use JWT-Signer-B"]);
    assert!(state.slots(Kind::X509).next.is_none());
    let (_, done) = settle(state, 600);
    assert_eq!(done[0], "generate x509-CA-A");
}

#[test]
fn after_a_long_sleep_it_ends_with_fresh_authorities() {
    let (state, _) = settle(fresh(600), 0);
    let (state, _) = settle(state, 300);
    let (state, done) = settle(state, 100_000);
    assert_eq!(done.iter().filter(|what| what.starts_with("use")).count(), 2, "{done:?}");
    for kind in [Kind::X509, Kind::Jwt] {
        assert_eq!(state.slots(kind).current.as_ref().map(|current| current.not_after), Some(100_600));
    }
}

#[test]
fn without_jwt_no_key_is_made() {
    let state = State::new(600, vec![Kind::X509], Journal::default(), Default::default());
    assert!(!settle(state, 0).1.iter().any(|what| what.contains("JWT")));
}

#[test]
fn what_does_not_fit_changes_nothing() {
    let (state, _) = settle(fresh(600), 0);
    let (state, effects) = state.step(Event::Published, 1);
    assert!(effects.is_empty());
    let (state, effects) = state.step(Event::Tick, 300);
    assert!(matches!(effects[..], [Effect::GenerateKey { .. }]));
    let (state, effects) = state.step(Event::JournalSaved { row: 9 }, 301);
    assert!(effects.is_empty());
    let (state, _) = state.step(Event::Failed, 301);
    let (state, effects) = state.step(Event::Tick, 302);
    assert!(matches!(effects[..], [Effect::GenerateKey { kind: Kind::X509, .. }]), "tried again");
    let (_, effects) = state.step(Event::Tick, 303);
    assert!(
        matches!(effects[..], [Effect::GenerateKey { kind: Kind::X509, .. }]),
        "also what was never answered"
    );
}

#[test]
fn one_kind_that_fails_does_not_keep_the_other_from_its_turn() {
    let (state, _) = settle(fresh(600), 0);
    let (state, effects) = state.step(Event::Tick, 300);
    assert!(matches!(effects[..], [Effect::GenerateKey { kind: Kind::X509, .. }]));
    let (state, effects) = state.step(Event::Failed, 300);
    assert!(matches!(effects[..], [Effect::GenerateKey { kind: Kind::Jwt, .. }]));
    let (state, effects) = state.step(Event::Failed, 300);
    assert!(effects.is_empty(), "until the next rotation");
    assert_eq!(settle(state, 310).1.len(), 7);
    // Without an X.509 authority nothing could be recorded.
    let (state, _) = fresh(600).step(Event::Tick, 0);
    assert!(state.step(Event::Failed, 0).1.is_empty());
}

#[test]
fn a_journal_that_could_not_be_saved_is_saved_before_anything_else() {
    let (state, _) = settle(fresh(600), 0);
    let (state, _) = settle(state, 300);
    let (state, effects) = state.step(Event::Tick, 500);
    assert!(matches!(effects[..], [Effect::SaveJournal(_)]));
    let (state, _) = state.step(Event::Failed, 500);
    let (_, done) = settle(state, 510);
    assert_eq!(done, ["save", "use x509-CA-B", "save", "use JWT-Signer-B"]);
}

#[test]
fn the_journal_keeps_ten_of_each_and_those_in_use() {
    let (mut state, _) = settle(fresh(600), 0);
    for rotation in 1..30 {
        state = settle(state, rotation * 300).0;
        for kind in [Kind::X509, Kind::Jwt] {
            assert!(state.journal().len(kind) <= 10);
            let signs = state.slots(kind).current.as_ref().map(|current| current.id.clone());
            if kind == Kind::X509 {
                assert_eq!(state.journal().active_x509(), signs.as_deref());
            }
        }
    }
    assert_eq!(state.journal().len(Kind::Jwt), 10);
}

const X509: [&str; 4] = ["generate x509-CA-B", "sign x509-CA-B", "publish x509-CA-B", "save"];

#[test]
fn an_operator_may_prepare_and_activate_at_any_time() {
    let (state, _) = settle(fresh(600), 0);
    let first = state.slots(Kind::X509).current.clone().unwrap();
    let (state, done) = settle_from(state, Event::Prepare(Kind::X509), 10);
    assert_eq!(done, X509);
    let prepared = state.slots(Kind::X509).next.clone().unwrap();
    // Again: the one that waits is replaced, its key with it.
    let (state, done) = settle_from(state, Event::Prepare(Kind::X509), 20);
    assert_eq!(done, X509);
    assert_ne!(state.slots(Kind::X509).next.as_ref().unwrap().id, prepared.id);
    let (state, done) = settle_from(state, Event::Activate(Kind::X509), 30);
    assert_eq!(done, ["save", "use x509-CA-B"]);
    let slots = state.slots(Kind::X509);
    assert_eq!(slots.old.as_ref().unwrap().id, first.id);
    assert!(slots.next.is_none());
    // There is nothing to activate now.
    let (state, done) = settle_from(state, Event::Activate(Kind::X509), 40);
    assert!(done.is_empty(), "{done:?}");
    // The next one takes the old one's slot, whose place ends with that.
    let (state, done) = settle_from(state, Event::Prepare(Kind::X509), 50);
    assert_eq!(done[0], "generate x509-CA-A");
    assert!(state.slots(Kind::X509).old.is_none());
    let (_, done) = settle_from(state, Event::Prepare(Kind::Jwt), 60);
    assert_eq!(done, ["generate JWT-Signer-B", "publish JWT-Signer-B", "save"]);
}

#[test]
fn an_order_that_fails_is_not_carried_out_later() {
    let (state, _) = settle(fresh(600), 0);
    let (state, effects) = state.step(Event::Prepare(Kind::X509), 10);
    assert!(matches!(effects[..], [Effect::GenerateKey { kind: Kind::X509, .. }]));
    let (state, effects) = state.step(Event::Failed, 10);
    assert!(effects.is_empty());
    assert!(settle(state, 20).1.is_empty());
}

#[test]
fn a_distrusted_authority_is_replaced_whatever_the_time() {
    let (state, _) = settle(fresh(600), 0);
    let id = |state: &State, kind| state.slots(kind).current.as_ref().unwrap().id.clone();
    let mut state = state;
    for (now, kind, key) in [(10, Kind::X509, "x509-CA-B"), (20, Kind::Jwt, "JWT-Signer-B")] {
        let before = id(&state, kind);
        state.distrust([before.clone()].into());
        let (next, done) = settle(state, now);
        state = next;
        assert_eq!(done[0], format!("generate {key}"));
        assert_eq!(done.last().unwrap(), &format!("use {key}"));
        assert_ne!(id(&state, kind), before);
        assert!(settle(state.clone(), now + 1).1.is_empty(), "once is enough");
    }
    // A prepared one that is trusted takes over at once; one that is not is made anew.
    let (state, _) = settle_from(state, Event::Prepare(Kind::X509), 30);
    let next = state.slots(Kind::X509).next.clone().unwrap();
    let mut trusted = state.clone();
    trusted.distrust([id(&state, Kind::X509)].into());
    assert_eq!(settle(trusted, 40).1, ["save", "use x509-CA-A"]);
    let mut neither = state.clone();
    neither.distrust([id(&state, Kind::X509), next.id].into());
    assert_eq!(settle(neither, 40).1[0], "generate x509-CA-A");
}

#[test]
fn a_clock_that_went_back_gets_an_authority_that_is_valid_now() {
    let (state, _) = settle(fresh(600), 10_000);
    // Within what certificates are dated back, nothing happens.
    assert!(settle(state.clone(), 9_990).1.is_empty());
    let (state, done) = settle(state, 5_000);
    assert_eq!(done, [&X509[..], &["save", "use x509-CA-B"]].concat());
    assert_eq!(state.slots(Kind::X509).current.as_ref().unwrap().not_after, 5_600);
    assert!(settle(state, 5_010).1.is_empty());
}
