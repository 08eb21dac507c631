use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use steeple_agent_core::cache::Svid;
use steeple_agent_core::entry::{Entry, Selector};
use steeple_agent_core::jwt_cache::{Found, JwtKey, Token};
use steeple_agent_core::rotation::RotationPolicy;
use steeple_agent_core::snapshot::KeptSvid;
use steeple_agent_core::view::Delta;
use steeple_agent_core::{CacheConfig, Millis};
use steeple_runtime::clock::FakeClock;
use steeple_spiffe::Bundle;
use tempfile::TempDir;
use zeroize::Zeroizing;

use super::*;

const NOW: i64 = 1_000_000;
const HOUR: i64 = 3600;
/// What must not be found in the file.
const KEY: &[u8] = b"this is the private key of ";
const TOKEN: &str = "this.is.the.bearer.token";

fn id(path: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://example.org/{path}")).unwrap()
}

fn agent() -> SpiffeId {
    id("spire/agent/join_token/one")
}

fn domain() -> TrustDomain {
    TrustDomain::new("example.org").unwrap()
}

fn state() -> AgentState {
    let config = CacheConfig {
        trust_domain: domain(),
        max_size: 1000,
        max_bytes: usize::MAX,
        rotation: RotationPolicy::default(),
        seed: 7,
    };
    AgentState::new(config, 100, Arc::new(FakeClock::new(NOW)))
}

fn sealed_as(dir: &Path, mode: SealingMode, trust_domain: TrustDomain) -> Arc<Sealed> {
    let key = SealingKeyConfig { mode, path: None, credentials: None, file_allowed: true };
    let config = SealedConfig { data_dir: dir.to_owned(), trust_domain, key };
    Sealed::open(config, Arc::new(FakeClock::new(NOW))).unwrap().unwrap()
}

fn sealed(dir: &Path) -> Arc<Sealed> {
    sealed_as(dir, SealingMode::File, domain())
}

fn entry(name: &str) -> Entry {
    Entry {
        id: name.into(),
        spiffe_id: id(name),
        selectors: [Selector::new("unix", "uid:1"), Selector::new("k8s", "a:b:c")].into_iter().collect(),
        x509_svid_ttl: 5,
        jwt_svid_ttl: 6,
        federates_with: vec![TrustDomain::new("other.org").unwrap()],
        dns_names: vec!["a.example".into()],
        hint: format!("hint {name}"),
        expires_at: 0,
        revision_number: 3,
        created_at: 4,
        admin: true,
        downstream: true,
        store_svid: false,
        disable_x509_svid_prefetch: true,
        jwt_svid_include_jti: true,
    }
}

fn kept(name: &str) -> KeptSvid {
    let svid = Svid {
        chain: bytes::Bytes::from(format!("chain of {name}")),
        key: Zeroizing::new([KEY, name.as_bytes()].concat()),
        not_before: NOW,
        not_after: NOW + HOUR,
        authority_key_id: Box::from(&b"ca"[..]),
    };
    KeptSvid { spiffe_id: id(name), svid, due: (NOW + 700) * 1000, stale: false }
}

fn token() -> Token {
    Token { token: TOKEN.into(), key_id: "kid".into(), issued_at: NOW * 1000, expires_at: (NOW + 300) * 1000 }
}

fn jwt_key() -> JwtKey {
    JwtKey::new(id("1"), vec!["b".into(), "a".into()])
}

/// A state of two entries with SVIDs, one of them with a token.
fn filled() -> AgentState {
    let state = state();
    let mut snapshot = Snapshot { revision: 7, log_id: "log".into(), ..Snapshot::default() };
    for name in ["1", "2"] {
        snapshot.entries.insert(name.into(), entry(name));
        snapshot.svids.insert(name.into(), kept(name));
    }
    snapshot.tokens.insert(jwt_key(), token());
    for name in ["example.org", "other.org"] {
        let trust_domain = TrustDomain::new(name).unwrap();
        snapshot.bundles.insert(trust_domain.clone(), Bundle::new(trust_domain));
    }
    put_in_force(&state, snapshot);
    state
}

/// What a new process finds.
fn restart(dir: &Path) -> Option<AgentState> {
    let state = state();
    sealed(dir).restore(&state, Some(&agent())).map(|_| state)
}

fn held(state: &AgentState) -> BTreeSet<(String, Vec<u8>, Millis)> {
    let cache = state.cache();
    cache.svids().map(|held| (held.entry.id.to_string(), held.svid.key.to_vec(), held.due)).collect()
}

fn change(state: &AgentState, revision: u64, delta: Delta) {
    let delta = Delta { revision, log_id: "log".into(), ..delta };
    let changes = state.view().apply(delta).unwrap();
    state.apply(&changes);
}

fn names(dir: &TempDir) -> BTreeSet<String> {
    let entries = fs::read_dir(dir.path()).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn another_process_goes_on_with_everything_that_was_held() {
    let dir = TempDir::new().unwrap();
    let before = filled();
    sealed(dir.path()).write(&before, &agent()).unwrap();
    let after = restart(dir.path()).unwrap();
    assert_eq!(after.view().revision(), 7);
    assert_eq!(after.view().log_id(), "log");
    for name in ["1", "2"] {
        assert_eq!(after.view().entry(name), before.view().entry(name));
        assert_eq!(**after.view().entry(name).unwrap(), entry(name));
    }
    assert_eq!(after.view().bundle_count(), 2);
    assert_eq!(held(&after).len(), 2);
    assert_eq!(held(&after).first().unwrap().1, [KEY, b"1"].concat());
    assert!(held(&after).iter().all(|(_, _, due)| *due <= (NOW + 700) * 1000));
    let Found::Fresh(found) = after.jwt().find(&jwt_key(), NOW * 1000) else { panic!("no token") };
    assert_eq!((&*found.token, &*found.key_id, found.expires_at), (TOKEN, "kid", (NOW + 300) * 1000));
}

#[test]
fn changes_are_appended_and_what_went_is_gone() {
    let dir = TempDir::new().unwrap();
    let (state, sealed) = (filled(), sealed(dir.path()));
    sealed.write(&state, &agent()).unwrap();
    let base = fs::read(&sealed.path).unwrap();
    change(&state, 8, Delta { removed: vec!["1".into()], entries: vec![entry("3")], ..Delta::default() });
    state.jwt().drop_signed_by(&["kid"]);
    sealed.write(&state, &agent()).unwrap();
    let grown = fs::read(&sealed.path).unwrap();
    assert!(grown.starts_with(&base) && grown.len() > base.len());
    sealed.write(&state, &agent()).unwrap();
    assert_eq!(fs::read(&sealed.path).unwrap(), grown, "nothing changed");
    let after = restart(dir.path()).unwrap();
    assert_eq!(after.view().revision(), 8);
    assert_eq!(after.svid_counts(), (1, 0));
    assert!(after.view().entry("1").is_none() && after.view().entry("3").is_some());
}

#[test]
fn a_file_that_is_always_changed_does_not_grow_without_end() {
    let dir = TempDir::new().unwrap();
    let (state, sealed) = (filled(), sealed(dir.path()));
    let mut largest = 0;
    for revision in 8..400 {
        let many = Entry { hint: "x".repeat(4000), created_at: revision, ..entry("3") };
        change(&state, revision as u64, Delta { entries: vec![many], ..Delta::default() });
        sealed.write(&state, &agent()).unwrap();
        largest = largest.max(fs::metadata(&sealed.path).unwrap().len());
    }
    assert!((200_000..400_000).contains(&largest), "{largest}");
    assert_eq!(restart(dir.path()).unwrap().view().revision(), 399);
}

#[test]
fn the_raw_file_shows_no_secret_and_only_its_owner_may_read_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = TempDir::new().unwrap();
    let sealed = sealed(dir.path());
    sealed.write(&filled(), &agent()).unwrap();
    let raw = fs::read(&sealed.path).unwrap();
    for secret in [KEY, TOKEN.as_bytes(), b"chain of", b"hint 1", b"other.org"] {
        assert!(!raw.windows(secret.len()).any(|window| window == secret));
    }
    for name in [FILE, "agent-state.key"] {
        let mode = fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn a_file_cut_anywhere_gives_what_was_complete_or_is_moved_aside() {
    let dir = TempDir::new().unwrap();
    let (state, sealed) = (filled(), sealed(dir.path()));
    sealed.write(&state, &agent()).unwrap();
    let base = fs::read(&sealed.path).unwrap().len();
    change(&state, 8, Delta { removed: vec!["1".into()], ..Delta::default() });
    sealed.write(&state, &agent()).unwrap();
    let whole = fs::read(&sealed.path).unwrap();
    for length in 0..=whole.len() {
        fs::write(&sealed.path, &whole[..length]).unwrap();
        let revision = restart(dir.path()).map(|state| state.view().revision());
        let expected = match length {
            length if length < base => None,
            length if length < whole.len() => Some(7),
            _ => Some(8),
        };
        assert_eq!(revision, expected, "{length} of {}", whole.len());
        let files = names(&dir);
        let aside = files.iter().filter(|name| name.contains(".sealed.bad-")).count();
        assert_eq!((aside, files.contains(FILE)), (1, expected.is_some()), "{length}: {files:?}");
    }
}

#[test]
fn a_changed_bit_anywhere_is_noticed() {
    let dir = TempDir::new().unwrap();
    let (state, sealed) = (filled(), sealed(dir.path()));
    sealed.write(&state, &agent()).unwrap();
    let base = fs::read(&sealed.path).unwrap().len();
    change(&state, 8, Delta { removed: vec!["1".into()], ..Delta::default() });
    sealed.write(&state, &agent()).unwrap();
    let whole = fs::read(&sealed.path).unwrap();
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 1 << (at % 8);
        fs::write(&sealed.path, &changed).unwrap();
        let revision = restart(dir.path()).map(|state| state.view().revision());
        // The length of what was appended last may say more than there is: as after a crash.
        let as_torn = (base..base + 4).contains(&at) && revision == Some(7);
        assert!(revision.is_none() || as_torn, "byte {at}");
    }
}

#[test]
fn frames_do_not_change_places() {
    let dir = TempDir::new().unwrap();
    let (state, sealed) = (filled(), sealed(dir.path()));
    let mut ends = Vec::new();
    for revision in 8..11 {
        change(&state, revision, Delta { entries: vec![entry(&revision.to_string())], ..Delta::default() });
        sealed.write(&state, &agent()).unwrap();
        ends.push(fs::read(&sealed.path).unwrap().len());
    }
    let whole = fs::read(&sealed.path).unwrap();
    let (base, first, second) = (&whole[..ends[0]], &whole[ends[0]..ends[1]], &whole[ends[1]..ends[2]]);
    for forged in [[base, second].concat(), [base, second, first].concat(), [base, first, first].concat()] {
        fs::write(&sealed.path, forged).unwrap();
        assert!(restart(dir.path()).is_none());
    }
}

#[test]
fn what_is_not_this_agents_is_moved_aside_and_named() {
    let why = |state: &AgentState, sealed: &Sealed, agent: Option<&SpiffeId>| {
        let error = sealed.read(&sealed.key(), agent).unwrap_err().to_string();
        assert!(sealed.restore(state, agent).is_none());
        assert!(!sealed.path.exists());
        error
    };
    let dir = TempDir::new().unwrap();
    let ours = sealed(dir.path());
    ours.write(&filled(), &agent()).unwrap();
    let raw = fs::read(&ours.path).unwrap();
    let again = || fs::write(&ours.path, &raw).unwrap();

    let other = id("spire/agent/join_token/two");
    let error = why(&state(), &ours, Some(&other));
    assert!(error.contains("agent") && error.contains("join_token/one"), "{error}");
    again();
    let error = why(&state(), &ours, None);
    assert!(error.contains("agent-data.json"), "{error}");
    again();
    let foreign = sealed_as(dir.path(), SealingMode::File, TrustDomain::new("foreign.org").unwrap());
    let error = why(&state(), &foreign, Some(&agent()));
    assert!(error.contains("trust domain") && error.contains("foreign.org"), "{error}");

    // A copy of the disk, and another machine's key.
    let elsewhere = TempDir::new().unwrap();
    drop(sealed(elsewhere.path()));
    let stranger = sealed(elsewhere.path());
    fs::write(&stranger.path, &raw).unwrap();
    let error = why(&state(), &stranger, Some(&agent()));
    assert_eq!(error, "not sealed with this key, or changed since");
    assert_eq!(names(&elsewhere).len(), 2, "the key and what was moved aside");

    // Only the newest is kept aside, and the right one is still good.
    assert_eq!(names(&dir).iter().filter(|name| name.contains(".bad-")).count(), 1);
    again();
    assert!(restart(dir.path()).is_some());
}

#[test]
fn a_key_that_is_gone_takes_the_state_with_it_and_leaves_nothing_behind() {
    let dir = TempDir::new().unwrap();
    sealed(dir.path()).write(&filled(), &agent()).unwrap();
    fs::remove_file(dir.path().join("agent-state.key")).unwrap();
    assert!(restart(dir.path()).is_none());
    assert_eq!(names(&dir), BTreeSet::from(["agent-state.key".to_owned()]));
}

#[test]
fn forgetting_removes_file_and_key_and_nothing_empty_is_written() {
    let dir = TempDir::new().unwrap();
    let (state, sealed) = (filled(), sealed(dir.path()));
    sealed.write(&state, &agent()).unwrap();
    let copy = fs::read(&sealed.path).unwrap();
    state.forget();
    sealed.forget();
    assert!(!sealed.path.exists());
    sealed.write(&state, &agent()).unwrap();
    assert!(!sealed.path.exists(), "there is nothing to keep");
    fs::write(&sealed.path, copy).unwrap();
    assert!(restart(dir.path()).is_none(), "the key is another one now");
}

#[test]
fn switched_off_it_leaves_nothing_behind() {
    let dir = TempDir::new().unwrap();
    sealed(dir.path()).write(&filled(), &agent()).unwrap();
    let key = SealingKeyConfig { mode: SealingMode::Off, path: None, credentials: None, file_allowed: true };
    let config = SealedConfig { data_dir: dir.path().to_owned(), trust_domain: domain(), key };
    assert!(Sealed::open(config, Arc::new(FakeClock::new(NOW))).unwrap().is_none());
    assert_eq!(names(&dir), BTreeSet::new());
}

#[test]
fn a_disk_that_cannot_be_written_is_tried_again_ever_more_rarely_and_then_everything_is_there() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    let (state, sealed) = (filled(), sealed(&data));
    fs::rename(&data, dir.path().join("away")).unwrap();
    let waits: Vec<Duration> = (0..9).map(|_| sealed.write(&state, &agent()).unwrap_err()).collect();
    assert_eq!(waits[..3], [2, 4, 8].map(Duration::from_secs));
    assert_eq!(waits[8], Duration::from_mins(1));
    fs::rename(dir.path().join("away"), &data).unwrap();
    sealed.write(&state, &agent()).unwrap();
    assert_eq!(restart(&data).unwrap().svid_counts(), (2, 1));
}

#[test]
fn an_agent_that_became_another_one_seals_as_that() {
    let dir = TempDir::new().unwrap();
    let (state, sealed) = (filled(), sealed(dir.path()));
    sealed.write(&state, &id("spire/agent/join_token/before")).unwrap();
    sealed.write(&state, &agent()).unwrap();
    assert!(restart(dir.path()).is_some());
}

/// More than fits one frame.
#[test]
fn ten_thousand_identities_are_restored() {
    let dir = TempDir::new().unwrap();
    let state = AgentState::new(
        CacheConfig {
            trust_domain: domain(),
            max_size: 20_000,
            max_bytes: usize::MAX,
            rotation: RotationPolicy::default(),
            seed: 7,
        },
        100,
        Arc::new(FakeClock::new(NOW)),
    );
    let mut snapshot = Snapshot { revision: 7, ..Snapshot::default() };
    for number in 0..10_000 {
        let name = number.to_string();
        snapshot.entries.insert(name.as_str().into(), entry(&name));
        snapshot.svids.insert(name.as_str().into(), kept(&name));
    }
    put_in_force(&state, snapshot);
    sealed(dir.path()).write(&state, &agent()).unwrap();
    let sealed = sealed(dir.path());
    let read = sealed.read(&sealed.key(), Some(&agent())).unwrap().unwrap();
    assert_eq!((read.entries.len(), read.svids.len(), read.revision), (10_000, 10_000, 7));
}
