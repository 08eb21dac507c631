//! The `systemd` attestor on a real bus. What answers there in systemd's name is `systemd_on_bus.py`: a systemd of its
//! own would take over the machine's cgroups.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use steeple_e2e::{Daemon, Deployment};

const PATIENCE: Duration = Duration::from_mins(1);

/// The paths of the SPIFFE IDs that this program gets when it asks.
fn fetched(d: &Deployment, program: &Path) -> Vec<String> {
    let socket = d.workload_socket();
    let fetch = ["api", "fetch", "x509", "-output", "json", "-timeout", "60s", "-socketPath"];
    let Ok(output) = Command::new(program).args(fetch).arg(socket).output() else { return Vec::new() };
    let printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let answer = printed.get(0).unwrap_or(&printed);
    let svids = answer["svids"].as_array().cloned().unwrap_or_default();
    let ids = svids.iter().filter_map(|svid| svid["spiffe_id"].as_str());
    let mut paths: Vec<String> = ids.map(|id| id.replace("spiffe://example.org", "")).collect();
    paths.sort();
    paths
}

#[test]
fn a_unit_is_known_over_a_real_bus_and_one_that_hangs_holds_nobody() -> Result<()> {
    let dir = tempfile::Builder::new().prefix("bus").tempdir_in("/tmp")?;
    let address = format!("unix:path={}", dir.path().join("bus").display());
    let config = dir.path().join("bus.conf");
    std::fs::write(
        &config,
        format!(
            "<busconfig><listen>{address}</listen><auth>EXTERNAL</auth><policy context='default'>
             <allow send_destination='*' eavesdrop='true'/><allow eavesdrop='true'/><allow own='*'/></policy></busconfig>"
        ),
    )?;
    let config = format!("--config-file={}", config.display());
    let mut bus =
        Daemon::start(Path::new("dbus-daemon"), &["--nofork", &config], &dir.path().join("bus.log"))?;
    let end = Instant::now() + PATIENCE;
    while !dir.path().join("bus").exists() {
        ensure!(Instant::now() < end && bus.ended().is_none(), "dbus-daemon: {}", bus.log());
        std::thread::sleep(Duration::from_millis(20));
    }

    // The agent is told where the bus is; a program of its own is the workload.
    let bin = std::env::var("STEEPLE_BIN_DIR")?;
    let real = Path::new(&bin).canonicalize()?;
    let wrapped = dir.path().join("bin");
    std::fs::create_dir(&wrapped)?;
    std::os::unix::fs::symlink(real.join("spire-server"), wrapped.join("spire-server"))?;
    let script =
        format!("#!/bin/sh\nDBUS_SYSTEM_BUS_ADDRESS={address} exec {}/spire-agent \"$@\"\n", real.display());
    std::fs::write(wrapped.join("spire-agent"), script)?;
    std::fs::set_permissions(wrapped.join("spire-agent"), std::fs::Permissions::from_mode(0o755))?;
    let web = dir.path().join("web");
    std::fs::copy(real.join("spire-agent"), &web)?;

    let player = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/black_box/systemd_on_bus.py");
    let fragment = "/lib/systemd/system/web.service";
    let arguments = [&*player.to_string_lossy(), &address, "web.service", fragment, &web.to_string_lossy()];
    // Debian's own: the libraries of D-Bus are installed for it.
    let mut systemd =
        Daemon::start(Path::new("/usr/bin/python3"), &arguments, &dir.path().join("systemd.log"))?;
    while !systemd.log().contains("ready") {
        ensure!(Instant::now() < end && systemd.ended().is_none(), "{}", systemd.log());
        std::thread::sleep(Duration::from_millis(20));
    }

    let d = Deployment::builder()
        .bin_dir(&wrapped)
        .workload_attestor(
            "WorkloadAttestor \"systemd\" { plugin_data {} } WorkloadAttestor \"unix\" { plugin_data {} }",
        )
        .start_with_agent()?;
    let more = ["-selector", &format!("systemd:fragment_path:{fragment}")];
    d.entry("web", "/web", "systemd:id:web.service", &more)?;
    d.entry("other", "/other", "systemd:id:other.service", &[])?;
    d.entry("uid", "/uid", "unix:uid:0", &[])?;
    d.eventually("the unit has its SVID", PATIENCE, || fetched(&d, &web) == ["/uid", "/web"])?;
    // In no unit.
    ensure!(
        fetched(&d, &real.join("spire-agent")) == ["/uid"],
        "{:?}",
        fetched(&d, &real.join("spire-agent"))
    );

    let signal = |name: &str| Command::new("kill").args([name, &systemd.pid().to_string()]).status();
    signal("-STOP")?;
    let hanging = fetched(&d, &web);
    signal("-CONT")?;
    ensure!(hanging == ["/uid"], "{hanging:?}");
    d.eventually("it answers again", PATIENCE, || fetched(&d, &web) == ["/uid", "/web"])?;
    let log = d.agent.as_ref().map(Daemon::log).unwrap_or_default();
    ensure!(log.contains("no answer within 3 s"), "{log}");
    bus.kill();
    ensure!(fetched(&d, &web) == ["/uid"], "a bus that is gone holds nobody");
    Ok(())
}
