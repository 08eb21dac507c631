//! Ends servers and removes their folder when the test process ends, however it ends.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

/// Reads until our end of its pipe is closed, then kills what is named in `pids` and removes the folder. It ignores the signals that a
/// terminal sends to all, and holds no lock that a killed test could leave.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
cat >/dev/null
for pid in $(cat "$1/pids" 2>/dev/null); do
  kids=$(cat "/proc/$pid/task/$pid/children" 2>/dev/null)
  grep -qsF "$1" "/proc/$pid/cmdline" && kill -KILL $pid $kids 2>/dev/null
done
for again in 1 2 3 4 5; do rm -rf "$1" 2>/dev/null && break; sleep 0.2; done
"#;

/// A folder in `/tmp` for one server and the process that cleans it up.
#[derive(Debug)]
pub(crate) struct Keeper {
    dir: PathBuf,
    script: Child,
}

impl Keeper {
    pub fn new(name: &str) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix(&format!("steeple-{name}-")).tempdir_in("/tmp")?.keep();
        // Servers run as another user when we are root; their own folders inside are closed.
        std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o755))?;
        let script = Command::new("sh")
            .args(["-c", SCRIPT, "keeper"])
            .arg(&dir)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("sh does not start")?;
        Ok(Self { dir, script })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// One more process to kill. A pid is only killed while its command line names the folder.
    pub fn watch(&self, pid: u32) -> Result<()> {
        let mut file = File::options().create(true).append(true).open(self.dir.join("pids"))?;
        Ok(writeln!(file, "{pid}")?)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.script.stdin.take());
        self.script.wait().ok();
    }
}

/// `program` as a user that databases accept: they refuse to run as root.
pub(crate) fn unprivileged(program: &Path) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", "--"]).arg(program);
    command
}

/// A folder that [`unprivileged`] programs own.
pub(crate) fn private_dir(path: &Path) -> Result<()> {
    std::fs::create_dir(path)?;
    own(path)?;
    Ok(std::fs::set_permissions(path, PermissionsExt::from_mode(0o700))?)
}

/// Gives a file to the user of [`unprivileged`] programs.
pub(crate) fn own(path: &Path) -> Result<()> {
    const NOBODY: u32 = 65534;
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY))?;
    }
    Ok(())
}
