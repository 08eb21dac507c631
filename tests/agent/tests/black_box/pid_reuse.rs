//! A process that dies and whose number passes to another never gets the other's SVID; one that keeps calling exec is
//! told as one program or the other, never as a mixture. Needs root: numbers are dealt out in a PID namespace.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use steeple_e2e::Deployment;

/// Set in the namespace, where this program runs again.
const INSIDE: &str = "STEEPLE_IN_PID_NAMESPACE";
/// How often, 500 by default; 10,000 take minutes.
const TRIES: &str = "STEEPLE_PID_REUSE_TRIES";
const ATTACKER: u32 = 61001;
const VICTIM: u32 = 61002;

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/black_box").join(name)
}

/// Runs a test of this program again as the first process of a PID namespace.
fn in_namespace(test: &str) -> Result<()> {
    let output = Command::new("unshare")
        .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(std::env::current_exe()?)
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .context("unshare")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    Ok(())
}

fn inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

fn python(arguments: &[&str]) -> Result<serde_json::Value> {
    let output = Command::new("python3").args(arguments).output().context("python3")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

#[test]
fn a_reused_pid_never_gets_the_svid_of_who_has_it_now() -> Result<()> {
    if !inside() {
        return in_namespace("pid_reuse::a_reused_pid_never_gets_the_svid_of_who_has_it_now");
    }
    let d = Deployment::builder().quiet().start_with_agent()?;
    d.entry("attacker", "/attacker", &format!("unix:uid:{ATTACKER}"), &[])?;
    d.entry("victim", "/victim", &format!("unix:uid:{VICTIM}"), &[])?;
    let tries = std::env::var(TRIES).unwrap_or_else(|_| "500".to_owned());
    let socket = d.workload_socket().to_string_lossy().into_owned();
    let script = script("pid_reuse.py").to_string_lossy().into_owned();
    let run = |tries: &str| {
        let (attacker, victim) = (ATTACKER.to_string(), VICTIM.to_string());
        python(&[&script, &socket, tries, &attacker, &victim])
    };
    // Alive, each gets its own: the agent knows both entries.
    d.eventually("both have an SVID", Duration::from_mins(1), || {
        run("0").is_ok_and(|told| told["attacker"] == "/attacker" && told["victim"] == "/victim")
    })?;
    let told = run(&tries)?;
    println!("{told}");
    let count = |name: &str| told[name].as_u64().unwrap_or_default();
    let tries: u64 = tries.parse()?;
    ensure!(count("stolen") == 0, "{told}");
    // Others in the namespace may have taken a number now and then.
    ensure!(count("reused") * 10 >= tries * 9, "{told}");
    ensure!(count("refused") + count("closed") > 0, "{told}");
    ensure!(told["attacker"] == "/attacker" && told["victim"] == "/victim", "{told}");
    Ok(())
}

#[test]
fn who_keeps_calling_exec_is_one_program_or_the_other() -> Result<()> {
    let attestor = "WorkloadAttestor \"unix\" { plugin_data { discover_workload_path = true } }";
    let d = Deployment::builder().quiet().workload_attestor(attestor).start_with_agent()?;
    let shell = std::fs::read("/bin/sh")?;
    let mut digests = Vec::new();
    for (name, end) in [("one", "1"), ("two", "2")] {
        let path = d.path(name);
        // What stands behind an executable does not change it.
        std::fs::write(&path, [&shell[..], end.as_bytes()].concat())?;
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let sum = Command::new("sha256sum").arg(&path).output()?;
        let sum = String::from_utf8(sum.stdout)?;
        digests.push((path.to_string_lossy().into_owned(), sum[..64].to_owned()));
    }
    let [(one, one_sum), (two, two_sum)] = &digests[..] else { unreachable!() };
    for (id, path, sum) in
        [("one", one, one_sum), ("two", two, two_sum), ("mixed-a", one, two_sum), ("mixed-b", two, one_sum)]
    {
        let digest = format!("unix:sha256:{sum}");
        d.entry(id, &format!("/{id}"), &format!("unix:path:{path}"), &["-selector", &digest])?;
    }
    let socket = d.workload_socket().to_string_lossy().into_owned();
    let script = script("exec_loop.py").to_string_lossy().into_owned();
    let run = |tries| python(&[&script, &socket, one, two, tries]);
    d.eventually("the entries are known", Duration::from_mins(1), || {
        run("20").is_ok_and(|told| told["one"] != 0 || told["two"] != 0)
    })?;
    let told = run("200")?;
    println!("{told}");
    ensure!(told["mixed"] == 0, "{told}");
    ensure!(told["one"] != 0 && told["two"] != 0, "{told}");
    Ok(())
}
