//! Workloads in containers of real engines: Docker and Podman, by the host's view of cgroups and by that of version 2.
//! Needs root, as engines do.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use steeple_e2e::{Daemon, Deployment, Ran, Subject};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_mins(1);

/// Runs the engine's daemon in a place of its own, without network and without what is configured on this machine.
struct Engine {
    kind: Kind,
    dir: TempDir,
    daemon: Daemon,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Docker,
    /// In a mount namespace whose /sys/fs/cgroup is version 2 alone.
    DockerOnV2,
    Podman,
}

/// Hides what is mounted for version 1, then runs the rest.
const V2: &str = "umount -l /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec \"$0\" \"$@\"";

impl Engine {
    fn start(kind: Kind) -> Result<Self> {
        // Sockets below it have long names.
        let dir = tempfile::Builder::new().prefix("eng").tempdir_in("/tmp")?;
        let at = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
        let socket = format!("unix://{}", at("s"));
        let (program, arguments) = match kind {
            Kind::Docker | Kind::DockerOnV2 => {
                let (data, exec, pid) = (at("data"), at("exec"), at("pid"));
                let config = at("daemon.json");
                std::fs::write(&config, "{}")?;
                let options = [
                    "--data-root",
                    &data,
                    "--exec-root",
                    &exec,
                    "--pidfile",
                    &pid,
                    "-H",
                    &socket,
                    "--iptables=false",
                    "--bridge=none",
                    "--config-file",
                    &config,
                ];
                let dockerd = ["dockerd"].iter().chain(&options).map(ToString::to_string);
                match kind {
                    Kind::DockerOnV2 => (
                        "unshare",
                        ["-m", "sh", "-c", V2]
                            .map(str::to_owned)
                            .into_iter()
                            .chain(dockerd)
                            .collect::<Vec<_>>(),
                    ),
                    _ => ("dockerd", dockerd.skip(1).collect()),
                }
            }
            Kind::Podman => {
                let mut arguments = podman_options(dir.path());
                arguments.extend(["system", "service", "-t", "0", &socket].map(str::to_owned));
                ("podman", arguments)
            }
        };
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let log = dir.path().join("log");
        let daemon = Daemon::start(Path::new(program), &arguments, &log)
            .with_context(|| format!("{program}: `scripts/setup test` installs it"))?;
        let mut engine = Self { kind, dir, daemon };
        let end = Instant::now() + PATIENCE;
        while engine.run(&["version"]).code != Some(0) || !engine.dir.path().join("s").exists() {
            ensure!(
                Instant::now() < end && engine.daemon.ended().is_none(),
                "{kind:?} does not start:\n{}",
                engine.daemon.log()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        engine.import()?;
        Ok(engine)
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    /// A command of the engine.
    fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = match self.kind {
            Kind::Docker | Kind::DockerOnV2 => {
                let mut docker = Command::new("docker");
                docker.arg("-H").arg(format!("unix://{}", self.socket().display()));
                docker
            }
            Kind::Podman => {
                let mut podman = Command::new("podman");
                podman.args(podman_options(self.dir.path()));
                podman
            }
        };
        match command.args(arguments).output() {
            Ok(output) => Ran {
                code: output.status.code(),
                stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
                stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            },
            Err(error) => Ran { code: None, stdout: String::new(), stderr: error.to_string() },
        }
    }

    fn ok(&self, arguments: &[&str]) -> Result<String> {
        let ran = self.run(arguments);
        ensure!(
            ran.code == Some(0),
            "{:?} {}: {ran:?}\n{}",
            self.kind,
            arguments.join(" "),
            self.daemon.log()
        );
        Ok(ran.stdout.trim().to_owned())
    }

    /// An image with busybox and nothing else.
    fn import(&self) -> Result<()> {
        let root = self.dir.path().join("rootfs");
        std::fs::create_dir_all(root.join("bin"))?;
        std::fs::create_dir_all(root.join("tmp"))?;
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].iter().find(|path| Path::new(path).exists());
        std::fs::copy(
            busybox.context("no busybox: `scripts/setup test` installs it")?,
            root.join("bin/busybox"),
        )?;
        std::os::unix::fs::symlink("busybox", root.join("bin/sh"))?;
        std::os::unix::fs::symlink("busybox", root.join("bin/sleep"))?;
        let tar = self.dir.path().join("rootfs.tar").to_string_lossy().into_owned();
        let packed = Command::new("tar").args(["-C", &root.to_string_lossy(), "-cf", &tar, "."]).status()?;
        ensure!(packed.success(), "tar");
        self.ok(&["import", &tar, IMAGE])?;
        Ok(())
    }

    /// Starts a container that sleeps, with the agent's socket and program in it. Answers its ID.
    fn container(&self, d: &Deployment, options: &[&str]) -> Result<String> {
        let socket = format!("{}:/spire:ro", d.path("public").display());
        let program = format!("{}:/spire-agent:ro", d.program("spire-agent").canonicalize()?.display());
        let mut arguments = vec!["run", "-d", "--network", "none", "-v", &socket, "-v", &program];
        // The program may need the host's libraries.
        let libraries: Vec<String> = ["/lib", "/lib64", "/usr/lib"]
            .iter()
            .filter(|dir| Path::new(dir).exists())
            .map(|dir| format!("{dir}:{dir}:ro"))
            .collect();
        for library in &libraries {
            arguments.extend(["-v", library]);
        }
        if self.kind == Kind::Podman {
            arguments.extend(["--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096"]);
        }
        arguments.extend(options);
        arguments.extend([IMAGE, "/bin/sleep", "600"]);
        self.ok(&arguments)
    }

    /// The SPIFFE IDs' paths that a process in the container gets, sorted; empty for "no identity issued".
    fn fetched_in(&self, container: &str) -> Result<Vec<String>> {
        let fetch =
            ["exec", container, "/spire-agent", "api", "fetch", "x509", "-socketPath", "/spire/api.sock"];
        let ran = self.run(&[&fetch[..], &["-timeout", "60s", "-output", "json"]].concat());
        paths(&ran)
    }
}

impl Drop for Engine {
    /// An engine that is just killed leaves its helpers and mounts.
    fn drop(&mut self) {
        if let Ok(ids) = self.ok(&["ps", "-aq"]) {
            for id in ids.split_whitespace() {
                self.run(&["rm", "-f", id]);
            }
        }
        let _ = signal("TERM", self.daemon.pid());
        let _ = self.daemon.wait(PATIENCE);
    }
}

const IMAGE: &str = "localhost/steeple/busybox:1";

fn podman_options(dir: &Path) -> Vec<String> {
    let at = |name: &str| dir.join(name).to_string_lossy().into_owned();
    let (root, run) = (at("root"), at("run"));
    let options = [
        "--root",
        &root,
        "--runroot",
        &run,
        "--runtime",
        "runc",
        "--cgroup-manager",
        "cgroupfs",
        "--events-backend",
        "file",
        "--storage-driver",
        "vfs",
    ];
    options.map(str::to_owned).to_vec()
}

fn signal(name: &str, pid: u32) -> Result<()> {
    let sent = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status()?;
    ensure!(sent.success(), "kill -{name} {pid}");
    Ok(())
}

/// Of what `api fetch x509 -output json` printed.
fn paths(ran: &Ran) -> Result<Vec<String>> {
    if ran.code != Some(0) {
        let said = format!("{}{}", ran.stdout, ran.stderr);
        ensure!(said.contains("no identity issued"), "{ran:?}");
        return Ok(Vec::new());
    }
    // SPIRE prints a list of answers.
    let printed: serde_json::Value = serde_json::from_str(&ran.stdout)?;
    let answer = printed.get(0).unwrap_or(&printed);
    let svids = answer["svids"].as_array().with_context(|| format!("no svids: {}", ran.stdout))?;
    let ids = svids.iter().filter_map(|svid| svid["spiffe_id"].as_str());
    let mut paths: Vec<String> =
        ids.map(|id| id.trim_start_matches("spiffe://example.org").to_owned()).collect();
    paths.sort();
    Ok(paths)
}

fn deployment(engine: &Engine) -> Result<Deployment> {
    let option = match engine.kind {
        Kind::Docker | Kind::DockerOnV2 => "docker_socket_path",
        Kind::Podman => "podman_socket_path",
    };
    let socket = engine.socket();
    Deployment::builder()
        .workload_attestor(&format!(
            "WorkloadAttestor \"unix\" {{ plugin_data {{}} }}
             WorkloadAttestor \"docker\" {{ plugin_data {{ {option} = \"unix://{}\" verbose_container_locator_logs = true }} }}",
            socket.display()
        ))
        .start_with_agent()
}

/// One entry for each kind of selector, and one that no container has.
fn register(d: &Deployment, engine: &Engine) -> Result<()> {
    let digest = engine.ok(&["image", "inspect", IMAGE, "--format", "{{.Id}}"])?;
    let digest = digest.trim_start_matches("sha256:");
    d.entry("label", "/label", "docker:label:app:web", &[])?;
    d.entry("env", "/env", "docker:env:TIER=gold", &[])?;
    d.entry("image", "/image", &format!("docker:image_id:{IMAGE}"), &[])?;
    d.entry("digest", "/digest", &format!("docker:image_config_digest:sha256:{digest}"), &[])?;
    d.entry("both", "/both", "docker:label:app:web", &["-selector", "unix:uid:0"])?;
    d.entry("other", "/other", "docker:label:app:db", &[])?;
    Ok(())
}

/// Entries reach the agent within its own time.
fn fetched(d: &Deployment, engine: &Engine, container: &str, wanted: &[&str]) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        let found = engine.fetched_in(container)?;
        if found == wanted {
            return Ok(());
        }
        let log = || d.agent.as_ref().map(Daemon::log).unwrap_or_default();
        ensure!(
            Instant::now() < end,
            "{:?}: {found:?}, not {wanted:?}; the agent's log:\n{}",
            engine.kind,
            log()
        );
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn containers_are_known(kind: Kind) -> Result<()> {
    let engine = Engine::start(kind)?;
    let d = deployment(&engine)?;
    register(&d, &engine)?;
    let web = engine.container(&d, &["--label", "app=web", "-e", "TIER=gold"])?;
    let plain = engine.container(&d, &[])?;
    fetched(&d, &engine, &web, &["/both", "/digest", "/env", "/image", "/label"])?;
    fetched(&d, &engine, &plain, &["/digest", "/image"])?;
    // A process of the host is in no container.
    let host = d.agent_api(&["api", "fetch", "x509", "-output", "json"]);
    ensure!(paths(&host)?.is_empty(), "{host:?}");
    if d.subject() == Subject::Steeple {
        nobody_becomes_a_container_by_a_name(&d, kind, &web)?;
        if kind == Kind::Docker {
            an_engine_that_hangs_holds_only_its_containers(&d, &engine, &web)?;
        }
    }
    Ok(())
}

/// Whoever may make cgroups may give one the name of a container. SPIRE believes it.
fn nobody_becomes_a_container_by_a_name(d: &Deployment, kind: Kind, id: &str) -> Result<()> {
    let prefix = if kind == Kind::Podman { "libpod" } else { "docker" };
    let unified = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
    let unified = unified.iter().find(|dir| Path::new(dir).join("cgroup.procs").exists());
    let cgroup =
        Path::new(unified.context("no cgroup version 2")?).join(format!("steeple-test/{prefix}-{id}.scope"));
    std::fs::create_dir_all(&cgroup)?;
    let program = d.program("spire-agent").to_string_lossy().into_owned();
    let socket = d.workload_socket().to_string_lossy().into_owned();
    let script = format!(
        "echo $$ > {}/cgroup.procs && exec {program} api fetch x509 -output json -timeout 60s -socketPath {socket}",
        cgroup.display()
    );
    let output = Command::new("sh").args(["-c", &script]).output()?;
    std::fs::remove_dir(&cgroup)?;
    // Unless another test is in it, too.
    let _ = cgroup.parent().map(std::fs::remove_dir);
    let ran = Ran {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    ensure!(paths(&ran)?.is_empty(), "a name was believed: {ran:?}");
    let log = d.agent.as_ref().map(Daemon::log).unwrap_or_default();
    ensure!(log.contains("not believed"), "{log}");
    Ok(())
}

/// The engine's process is stopped: it accepts connections and does not answer.
fn an_engine_that_hangs_holds_only_its_containers(d: &Deployment, engine: &Engine, web: &str) -> Result<()> {
    d.entry("uid", "/uid", "unix:uid:0", &[])?;
    fetched(d, engine, web, &["/both", "/digest", "/env", "/image", "/label", "/uid"])?;
    // `exec` needs the engine too: callers that are in the container already.
    let callers = d.path("callers");
    let init = engine.ok(&["inspect", web, "--format", "{{.State.Pid}}"])?;
    signal("STOP", engine.daemon.pid())?;
    let answers = (|| -> Result<()> {
        let host = d.agent_api(&["api", "fetch", "x509", "-output", "json"]);
        ensure!(paths(&host)? == ["/uid"], "{host:?}");
        let program = d.program("spire-agent").to_string_lossy().into_owned();
        let socket = d.workload_socket().to_string_lossy().into_owned();
        // In the cgroups of the container's first process.
        let script = format!(
            "while IFS=: read -r n c p; do case $n in 0) c=unified;; *) c=${{c#name=}};; esac; \
             for d in /sys/fs/cgroup/$c /sys/fs/cgroup; do [ -e $d$p/cgroup.procs ] && echo $$ > $d$p/cgroup.procs && break; done; \
             done < /proc/{init}/cgroup; \
             exec {program} api fetch x509 -output json -timeout 60s -socketPath {socket}"
        );
        let mut children = Vec::new();
        for n in 0..8 {
            let out = std::fs::File::create(format!("{}{n}", callers.display()))?;
            children.push((n, Command::new("sh").args(["-c", &script]).stdout(out).spawn()?));
        }
        for (n, mut child) in children {
            let code = child.wait()?.code();
            let stdout = std::fs::read_to_string(format!("{}{n}", callers.display()))?;
            let ran = Ran { code, stdout, stderr: String::new() };
            // What the other attestor found is not held back.
            ensure!(paths(&ran)? == ["/uid"], "caller {n}: {ran:?}");
        }
        Ok(())
    })();
    signal("CONT", engine.daemon.pid())?;
    answers?;
    let log = d.agent.as_ref().map(Daemon::log).unwrap_or_default();
    let Some(line) = log.lines().find(|line| line.contains("no answer within 3 s")) else {
        bail!("the reason is not in the log:\n{log}")
    };
    ensure!(line.contains("docker"), "{line}");
    fetched(d, engine, web, &["/both", "/digest", "/env", "/image", "/label", "/uid"])
}

#[test]
fn containers_of_docker_are_known() -> Result<()> {
    containers_are_known(Kind::Docker)
}

#[test]
fn containers_of_docker_are_known_by_cgroup_version_2() -> Result<()> {
    containers_are_known(Kind::DockerOnV2)
}

#[test]
fn containers_of_podman_are_known() -> Result<()> {
    containers_are_known(Kind::Podman)
}
