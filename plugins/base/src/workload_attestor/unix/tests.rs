use std::fs;
use std::process::{Child, Command, Stdio};

use super::*;

#[derive(Debug)]
struct Process {
    pid: i32,
}

impl Process {
    fn new(pid: u32) -> Self {
        Self { pid: pid as i32 }
    }
}

impl Caller for Process {
    fn pid(&self) -> i32 {
        self.pid
    }
    fn uid(&self) -> u32 {
        rustix::process::geteuid().as_raw()
    }
    fn gid(&self) -> u32 {
        rustix::process::getegid().as_raw()
    }
    fn still_here(&self) -> io::Result<()> {
        Ok(())
    }
}

fn config() -> UnixConfig {
    UnixConfig { proc_dir: PathBuf::from("/proc"), ..UnixConfig::default() }
}

/// A real process that waits for its input to end.
struct Running(Child);

impl Running {
    fn start() -> Self {
        let child = Command::new("/bin/cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        // Spawn returns once exec has happened (or failed).
        Self(child)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn selectors_of_a_real_process() {
    let running = Running::start();
    let caller = Process::new(running.0.id());
    let plain = Unix::new(config()).attest(&caller).await.unwrap();
    let uid = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    assert_eq!(plain[0], format!("uid:{uid}"));
    assert!(plain.contains(&format!("gid:{gid}")));
    assert!(!plain.iter().any(|found| found.starts_with("path:") || found.starts_with("sha256:")));
    if uid == 0 {
        assert_eq!(plain[1], "user:root");
    }

    let discover = UnixConfig { discover_workload_path: true, ..config() };
    let found = Unix::new(discover.clone()).attest(&caller).await.unwrap();
    let path = fs::canonicalize("/bin/cat").unwrap();
    assert!(found.contains(&format!("path:{}", path.display())), "{found:?}");
    let digest = Digests::default().of(File::open(&path).unwrap()).await.unwrap();
    assert_eq!(found.last(), Some(&format!("sha256:{digest}")));

    let no_digest = UnixConfig { workload_size_limit: -1, ..discover.clone() };
    let found = Unix::new(no_digest).attest(&caller).await.unwrap();
    assert!(found.last().unwrap().starts_with("path:"));

    let small = UnixConfig { workload_size_limit: 10, ..discover };
    let error = Unix::new(small).attest(&caller).await.unwrap_err().to_string();
    let size = fs::metadata(&path).unwrap().len();
    let expected = format!("workload /proc/{}/exe exceeds size limit ({size} > 10)", caller.pid);
    assert_eq!(error, format!("SHA256 digest: {expected}"));
}

/// The handle belongs to the process, not to its number.
#[tokio::test]
async fn a_handle_outlives_no_process() {
    let mut running = Running::start();
    let directory = format!("/proc/{}", running.0.id());
    let handle = rustix::fs::open(directory, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    executable_path(&handle).unwrap();
    running.0.kill().unwrap();
    running.0.wait().unwrap();
    let error = executable_path(&handle).unwrap_err();
    assert!(matches!(failed("path lookup", 1, error), WorkloadAttestError::Gone { .. }));
    assert!(open_executable(&handle).await.is_err());
}

/// A process in so many groups that its status is read in several pieces.
#[test]
fn a_long_status_is_read_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let groups: Vec<u32> = (1_000_000..1_002_000).collect();
    let listed = groups.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
    let text = format!("Uid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nGroups:\t{listed}\nNStgid:\t5\n");
    fs::write(dir.path().join("status"), &text).unwrap();
    assert_eq!(read_status(dir.path(), 5).unwrap().groups, groups);
    fs::write(dir.path().join("status"), text.repeat(100)).unwrap();
    assert!(read_status(dir.path(), 5).unwrap_err().to_string().contains("too long"));
}

#[test]
fn effective_ids_and_groups() {
    let text = "Name:\tx\nUid:\t1000\t1001\t1002\t1003\nGid:\t10\t11\t12\t13\nFDSize:\t64\nGroups:\t4 24 27 \nNStgid:\t5\n";
    let status = parse_status(text.as_bytes()).unwrap();
    assert_eq!(status, Status { uid: 1001, gid: 11, groups: vec![4, 24, 27] });
    assert_eq!(
        parse_status(b"Uid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nGroups:\t\n").unwrap().groups,
        Vec::<u32>::new()
    );
    for bad in ["", "Uid:\t0\n", "Uid:\t0\tx\t0\t0\nGid:\t0\t0\t0\t0\n"] {
        assert_eq!(parse_status(bad.as_bytes()), None, "{bad:?}");
    }
}

/// Names come from the files of `etc_dir`, each group its own selector, in SPIRE's order.
#[tokio::test]
async fn all_identity_selectors() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("passwd"), "app:x:1001:11::/:/bin/sh\n").unwrap();
    fs::write(dir.path().join("group"), "apps:x:11:\ncdrom:x:24:app\n").unwrap();
    let process = dir.path().join("77");
    fs::create_dir(&process).unwrap();
    // A name is whatever the program calls itself.
    let status = b"Name:\t\xff\xfe\nUid:\t1000\t1001\t1001\t1001\nGid:\t10\t11\t11\t11\nGroups:\t4 24\n";
    fs::write(process.join("status"), status).unwrap();
    let config = UnixConfig {
        proc_dir: dir.path().to_owned(),
        etc_dir: dir.path().to_owned(),
        ..UnixConfig::default()
    };
    let found = Unix::new(config).attest(&Process::new(77)).await.unwrap();
    let expected = [
        "uid:1001",
        "user:app",
        "gid:11",
        "group:apps",
        "supplementary_gid:4",
        "supplementary_gid:24",
        "supplementary_group:cdrom",
    ];
    assert_eq!(found, expected);
}

#[tokio::test]
async fn no_such_process() {
    let dir = tempfile::tempdir().unwrap();
    let config = UnixConfig { proc_dir: dir.path().to_owned(), ..UnixConfig::default() };
    let error = Unix::new(config).attest(&Process::new(77)).await.unwrap_err();
    assert!(error.to_string().starts_with("failed to get process"), "{error}");
}
