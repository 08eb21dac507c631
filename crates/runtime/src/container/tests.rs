use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// One file of testdata/cgroups: `# what it is`, `key: value` lines, `[cgroup]`, perhaps `[mountinfo]`.
struct Sample {
    name: String,
    keys: BTreeMap<String, String>,
    cgroup: String,
    mountinfo: Option<String>,
}

fn samples() -> Vec<Sample> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/cgroups");
    let mut samples: Vec<Sample> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let (head, rest) = text.split_once("[cgroup]\n").unwrap();
            let (cgroup, mountinfo) = match rest.split_once("[mountinfo]\n") {
                Some((cgroup, mountinfo)) => (cgroup, Some(mountinfo.to_owned())),
                None => (rest, None),
            };
            let keys =
                head.lines().filter_map(|line| line.split_once(": ").filter(|_| !line.starts_with('#')));
            Sample {
                name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
                keys: keys.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
                cgroup: cgroup.to_owned(),
                mountinfo,
            }
        })
        .collect();
    samples.sort_by(|a, b| a.name.cmp(&b.name));
    samples
}

fn located(sample: &Sample, want: Want) -> Result<Option<Place>, PlaceError> {
    match Place::from_cgroup(&sample.cgroup, want)? {
        Some(place) => Ok(Some(place)),
        None => sample.mountinfo.as_deref().map_or(Ok(None), |text| Place::from_mountinfo(text, want)),
    }
}

fn shown(found: &Result<Option<Place>, PlaceError>, want: Want) -> String {
    match (found, want) {
        (Ok(None), _) => "none".to_owned(),
        (Ok(Some(place)), Want::Container) => place.container_id.clone(),
        (Ok(Some(place)), Want::Pod) => {
            format!("{} {}", place.pod_uid.as_deref().unwrap_or("-"), place.container_id)
        }
        (Err(PlaceError::Containers(..) | PlaceError::Pods(..)), _) => "conflict".to_owned(),
        (Err(_), _) => "malformed".to_owned(),
    }
}

#[test]
fn every_sample_of_the_corpus_is_told_as_it_says() {
    let samples = samples();
    assert!(samples.len() >= 100, "{}", samples.len());
    let mut wrong = Vec::new();
    for sample in &samples {
        for (key, want) in [("docker", Want::Container), ("pod", Want::Pod)] {
            let found = shown(&located(sample, want), want);
            if found != sample.keys[key] {
                wrong.push(format!("{} {key}: {found}, not {}", sample.name, sample.keys[key]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_claim_holds_only_in_the_same_cgroup() {
    let id = "a".repeat(64);
    let other = "b".repeat(64);
    let claim = |cgroup: &str| Place::from_cgroup(cgroup, Want::Container).unwrap().unwrap();
    let init = format!("2:memory:/docker/{id}\n0::/\n");
    assert!(claim(&init).holds(&init));
    // Below it, on either side.
    assert!(claim(&format!("2:memory:/docker/{id}/worker\n0::/\n")).holds(&init));
    assert!(claim(&init).holds(&format!("2:memory:/docker/{id}/init.scope\n0::/\n")));
    for forged in [
        format!("2:memory:/docker/{other}/{id}\n0::/\n"),
        format!("2:memory:/user.slice/user-1000.slice/docker-{id}.scope\n"),
        // Another hierarchy, or one more that names it.
        format!("1:pids:/docker/{id}\n"),
        format!("2:memory:/docker/{id}\n1:pids:/docker/{id}\n"),
        format!("2:memory:/docker/{id}.scope\n"),
    ] {
        assert!(!claim(&forged).holds(&init), "{forged}");
    }
    assert!(!claim(&init).holds("hello"));
    assert!(!claim(&init).holds(&format!("2:memory:/docker/{id}0\n")));
}

#[test]
fn this_process_can_be_looked_at_until_it_ends() {
    let me = Process::open(std::process::id() as i32).unwrap();
    assert!(!cgroups(&me.cgroup().unwrap()).unwrap().is_empty());
    cgroup_mounts(&me.mountinfo().unwrap()).unwrap();
    let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let handle = Process::open(child.id() as i32).unwrap();
    assert!(me.shares_mounts(&handle).unwrap());
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(handle.cgroup().unwrap_err().raw_os_error(), Some(libc::ESRCH));
    assert!(Process::open(0).is_err());
    assert!(Process::open(-1).is_err());
}

/// What the slow, plain reading of the rule says: words of 64 digits, from the last segment on.
fn naive(path: &str) -> Option<String> {
    path.split('/').rev().find_map(|segment| {
        let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
        let mut ids = segment.split(word).filter(|word| word.len() == 64);
        ids.find(|word| word.chars().all(|c| c.is_ascii_hexdigit())).map(str::to_owned)
    })
}

fn segment() -> impl Strategy<Value = String> {
    prop_oneof![
        "[0-9a-f]{64}",
        "[0-9a-fA-F]{62,66}",
        "docker-[0-9a-f]{64}\\.scope",
        "[a-z._:-]{0,3}[0-9a-f]{64}[a-z._:-]{0,3}",
        "pod[0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12}(\\.slice)?",
        "docker",
        "\\PC{0,12}",
    ]
    .prop_map(|text: String| text.replace(['/', '\n', '\r'], ""))
    .prop_filter("the kernel's", |text| text != "..")
}

proptest! {
    #[test]
    fn any_bytes_are_told_or_refused(cgroup in "\\PC{0,300}", mounts in "[ -~\\n]{0,300}") {
        for want in [Want::Container, Want::Pod] {
            if let Ok(Some(place)) = Place::from_cgroup(&cgroup, want) {
                prop_assert!(place.holds(&cgroup));
            }
            let _ = Place::from_mountinfo(&mounts, want);
        }
    }

    #[test]
    fn a_path_is_told_as_the_plain_rule_says(segments in prop::collection::vec(segment(), 0..6)) {
        let path = format!("/{}", segments.join("/"));
        let text = format!("0::{path}\n");
        let found = Place::from_cgroup(&text, Want::Container).unwrap();
        prop_assert_eq!(found.as_ref().map(|place| place.container_id.clone()), naive(&path));
        if let Some(place) = found {
            prop_assert!(path.starts_with(&place.anchors[0].path));
            prop_assert!(place.holds(&text));
            // Nobody else's path holds the claim.
            let elsewhere = format!("0::/elsewhere{path}\n");
            prop_assert!(!place.holds(&elsewhere));
        }
    }
}
