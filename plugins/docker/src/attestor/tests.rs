use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::*;
use crate::config::DockerOptions;
use crate::engine::tests::{Does, Fake, ID, container, fake, ok};

fn attestor(engine: &Fake) -> Docker {
    let socket = format!("unix://{}", engine.engine.socket.display());
    let options = DockerOptions { docker_socket_path: Some(socket), ..DockerOptions::default() };
    Docker::new(DockerConfig::new(options).unwrap())
}

/// A claim that this process is where it is: no real container is needed.
fn here() -> (Process, Place) {
    let me = Process::open(std::process::id() as i32).unwrap();
    let (hierarchy, path) = {
        let text = me.cgroup().unwrap();
        let lines = cgroups(&text).unwrap();
        (lines[0].hierarchy.to_owned(), lines[0].path.trim_end_matches('/').to_owned())
    };
    let anchors = vec![steeple_runtime::container::Anchor { hierarchy, path }];
    (me, Place { container_id: ID.to_owned(), pod_uid: None, anchors })
}

fn me() -> i32 {
    std::process::id() as i32
}

#[tokio::test]
async fn selectors_are_spires() {
    let engine = fake(Does::Says(ok(&container(ID, me()))));
    let (process, place) = here();
    for proof in [Proof::Cgroup, Proof::Mounts] {
        let mut found = attestor(&engine).ask(&process, &place, proof).await.unwrap();
        found.sort();
        assert_eq!(
            found,
            [
                "env:A=1",
                "env:B=x=y",
                "image_config_digest:sha256:77",
                "image_id:nginx:1",
                "label:a:b:c",
                "label:app:web"
            ]
        );
    }
}

#[tokio::test]
async fn a_claim_that_the_containers_first_process_does_not_confirm_is_not_believed() {
    let engine = fake(Does::Says(ok(&container(ID, me()))));
    let (process, mut place) = here();
    place.anchors[0].path.push_str("/elsewhere");
    let refused = attestor(&engine).ask(&process, &place, Proof::Cgroup).await;
    assert!(matches!(refused, Err(Failure::Elsewhere { .. })), "{refused:?}");
    // A number that no process has.
    let engine = fake(Does::Says(ok(&container(ID, i32::MAX))));
    let refused = attestor(&engine).ask(&process, &place, Proof::Mounts).await;
    assert!(matches!(refused, Err(Failure::NoInit { .. })), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_hangs_or_drips_is_given_up_and_not_asked_by_all() {
    for does in [Does::Hangs, Does::Drips(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{".to_vec())] {
        let engine = fake(does);
        let attestor = attestor(&engine);
        let (process, place) = here();
        let late = attestor.ask(&process, &place, Proof::Mounts).await.unwrap_err();
        assert!(matches!(late, Failure::Unanswered { source: Unanswered::Late(_), .. }), "{late}");
        // From now on one call at a time finds out whether it answers again; the others hear at once.
        let mut trying = Box::pin(attestor.ask(&process, &place, Proof::Mounts));
        assert!(futures::poll!(&mut trying).is_pending());
        let asked = engine.asked.load(Ordering::SeqCst);
        for _ in 0..100 {
            let refused = attestor.ask(&process, &place, Proof::Mounts).await.unwrap_err();
            assert!(matches!(refused.of(1), WorkloadAttestError::StillSilent(_)));
        }
        assert!(engine.asked.load(Ordering::SeqCst) <= asked + 1);
        assert!(trying.await.is_err());
    }
}

#[tokio::test]
async fn who_is_in_no_container_asks_no_engine() {
    let engine = fake(Does::Hangs);
    let attestor = attestor(&engine);
    let me = Process::open(me()).unwrap();
    if attestor.place(&me, 1).unwrap().is_none() {
        assert_eq!(engine.asked.load(Ordering::SeqCst), 0);
    }
}

/// The runtime's corpus says too which engine each container belongs to.
#[test]
fn every_sample_of_the_corpus_goes_to_its_engine() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../crates/runtime/testdata/cgroups");
    let mut told = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let (head, rest) = text.split_once("[cgroup]\n").unwrap();
        let keys: BTreeMap<&str, &str> = head.lines().filter_map(|line| line.split_once(": ")).collect();
        let (cgroup, mounts) = rest.split_once("[mountinfo]\n").unwrap_or((rest, ""));
        let found = match Place::from_cgroup(cgroup, Want::Container) {
            Ok(None) => Place::from_mountinfo(mounts, Want::Container),
            found => found,
        };
        let owner = found.ok().flatten().map(|place| match Owner::of(&place) {
            Owner::Docker => "docker".to_owned(),
            Owner::Podman => "podman".to_owned(),
            Owner::RootlessPodman(uid) => format!("podman {uid}"),
        });
        assert_eq!(owner.as_deref(), keys.get("engine").copied(), "{}", path.display());
        told += usize::from(owner.is_some());
    }
    assert!(told >= 50, "{told}");
}

#[test]
fn engines_of_users_are_asked_only_where_the_operator_said_so() {
    let (_, mut place) = here();
    place.anchors[0].path = format!("/user.slice/user-1000.slice/user@1000.service/libpod-{ID}.scope");
    let refused =
        Docker::new(DockerConfig::new(DockerOptions::default()).unwrap()).engine(&place).unwrap_err();
    assert!(refused.to_string().contains("podman_socket_path_template"), "{refused}");
    let options = DockerOptions {
        podman_socket_path_template: Some("unix:///run/user/%d/podman/podman.sock".into()),
        ..DockerOptions::default()
    };
    let engine = Docker::new(DockerConfig::new(options).unwrap()).engine(&place).unwrap();
    assert_eq!(engine.socket, Path::new("/run/user/1000/podman/podman.sock"));
    assert_eq!(engine.user, Some(1000));
}
