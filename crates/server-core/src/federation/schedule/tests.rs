use super::*;

const NOW: i64 = 1_800_000_000;

fn td(name: &str) -> TrustDomain {
    TrustDomain::new(name).unwrap()
}

fn web(url: &str) -> Target {
    Target { url: url.to_owned(), profile: EndpointProfile::HttpsWeb, is_static: false }
}

fn spiffe(endpoint: &str) -> Target {
    let endpoint_spiffe_id = endpoint.parse().unwrap();
    Target {
        url: "https://x".to_owned(),
        profile: EndpointProfile::HttpsSpiffe { endpoint_spiffe_id },
        is_static: true,
    }
}

fn targets<const N: usize>(all: [(&str, Target); N]) -> BTreeMap<TrustDomain, Target> {
    all.into_iter().map(|(name, target)| (td(name), target)).collect()
}

fn stored(refresh_hint: Option<i64>) -> Attempt {
    Attempt { stored: Some(Facts { sequence_number: 1, refresh_hint }), error: None }
}

fn failed(stored: Option<Facts>) -> Attempt {
    Attempt { stored, error: Some("down".to_owned()) }
}

fn names(due: Vec<(TrustDomain, Target)>) -> Vec<String> {
    due.into_iter().map(|(trust_domain, _)| trust_domain.name().to_owned()).collect()
}

#[test]
fn f_09_relationships_come_change_and_go() {
    let mut schedule = Schedule::new();
    let moved = schedule.set_targets(targets([("a", web("1")), ("b", web("2"))]), NOW);
    assert_eq!(moved, [(td("a"), Moved::Managed(web("1"))), (td("b"), Moved::Managed(web("2")))]);
    assert_eq!(schedule.next(), Some(NOW));
    assert_eq!(names(schedule.start_due(NOW)), ["a", "b"]);
    assert_eq!((schedule.next(), schedule.start_due(NOW).len()), (None, 0), "all are under way");
    assert_eq!(schedule.finished(&td("b"), stored(None), NOW), Some(NOW + 300));

    let moved = schedule.set_targets(targets([("b", web("3"))]), NOW + 1);
    assert_eq!(moved, [(td("a"), Moved::Unmanaged), (td("b"), Moved::Updated(web("3")))]);
    assert_eq!(schedule.finished(&td("a"), stored(None), NOW + 1), None, "it has ended meanwhile");
    assert_eq!(names(schedule.start_due(NOW + 1)), ["b"], "a changed one is asked at once");
    assert_eq!(schedule.set_targets(targets([("b", web("3"))]), NOW + 1), []);
    assert!(!schedule.demand(&td("a"), NOW));
}

#[test]
fn an_order_while_asking_is_carried_out_afterwards() {
    let mut schedule = Schedule::new();
    schedule.set_targets(targets([("a", web("1"))]), NOW);
    assert_eq!(schedule.start_due(NOW).len(), 1);
    assert!(schedule.demand(&td("a"), NOW));
    assert_eq!(schedule.start_due(NOW).len(), 0, "one attempt at a time");
    assert_eq!(schedule.finished(&td("a"), stored(None), NOW + 5), Some(NOW + 5));
    assert_eq!(schedule.start_due(NOW + 5).len(), 1);
    assert_eq!(schedule.finished(&td("a"), stored(None), NOW + 6), Some(NOW + 306));
    assert!(schedule.demand(&td("a"), NOW + 7));
    assert_eq!(schedule.start_due(NOW + 7).len(), 1);
}

/// SPIRE's intervals, where it has one.
#[test]
fn b_18_intervals() {
    let facts = |refresh_hint| Some(Facts { sequence_number: 0, refresh_hint });
    for (stored, failures, expected) in [
        (None, 0, 60),
        (None, 1, 60),
        (None, 100, 60),
        (facts(None), 0, 300),
        (facts(Some(0)), 0, 300),
        (facts(Some(-5)), 0, 300),
        (facts(Some(1)), 0, 15),
        (facts(Some(60)), 0, 15),
        (facts(Some(300)), 0, 75),
        (facts(Some(300)), 1, 75),
        (facts(Some(300)), 2, 150),
        (facts(Some(300)), 3, 300),
        (facts(Some(300)), u64::MAX, 300),
        (facts(Some(3600)), 0, 900),
        (facts(Some(3600)), 9, 900),
        (facts(Some(i64::MAX)), 0, LONGEST_INTERVAL),
        (facts(Some(i64::MAX)), u64::MAX, LONGEST_INTERVAL),
    ] {
        assert_eq!(interval(stored, failures), expected, "{stored:?} after {failures} failures");
    }
}

#[test]
fn f_04_polls_follow_the_hint_and_health_is_kept() {
    let mut schedule = Schedule::new();
    schedule.set_targets(targets([("a", spiffe("spiffe://a/spire/server"))]), NOW);
    let state = |schedule: &Schedule| schedule.states()[0].1.clone();
    schedule.start_due(NOW);
    schedule.finished(&td("a"), failed(None), NOW + 1);
    schedule.start_due(NOW + 61);
    schedule.finished(&td("a"), failed(None), NOW + 62);
    let sick = RelationshipState {
        is_static: true,
        last_attempt: NOW + 61,
        last_success: 0,
        next_attempt: NOW + 122,
        last_error: Some("down".to_owned()),
        failures_in_a_row: 2,
        stored: None,
    };
    assert_eq!(state(&schedule), sick);
    schedule.start_due(NOW + 122);
    schedule.finished(&td("a"), stored(Some(300)), NOW + 123);
    let facts = Some(Facts { sequence_number: 1, refresh_hint: Some(300) });
    let well = RelationshipState {
        last_attempt: NOW + 122,
        last_success: NOW + 123,
        next_attempt: NOW + 198,
        last_error: None,
        failures_in_a_row: 0,
        stored: facts,
        ..sick
    };
    assert_eq!(state(&schedule), well);
}

/// `bundle set` of the endpoint's trust domain is what a failing relationship may wait for.
#[test]
fn a_bundle_wakes_those_that_fail() {
    let mut schedule = Schedule::new();
    schedule.set_targets(
        targets([
            ("a", spiffe("spiffe://b/spire/server")),
            ("c", spiffe("spiffe://b/spire/server")),
            ("d", web("x")),
        ]),
        NOW,
    );
    schedule.start_due(NOW);
    schedule.finished(&td("a"), failed(None), NOW);
    schedule.finished(&td("c"), stored(None), NOW);
    schedule.finished(&td("d"), failed(None), NOW);
    schedule.bundle_changed(&td("b"), NOW + 1);
    assert_eq!(names(schedule.start_due(NOW + 1)), ["a"], "the one that works is left alone");
    // It comes while it is asked for: only a failure is repeated.
    schedule.bundle_changed(&td("b"), NOW + 1);
    assert_eq!(schedule.finished(&td("a"), stored(None), NOW + 2), Some(NOW + 302));
    schedule.bundle_changed(&td("d"), NOW + 1);
    assert_eq!(names(schedule.start_due(NOW + 1)), ["d"]);
    schedule.bundle_changed(&td("d"), NOW + 1);
    assert_eq!(schedule.finished(&td("d"), failed(None), NOW + 2), Some(NOW + 2));
}
