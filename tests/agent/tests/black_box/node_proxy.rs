//! `examples/node-proxy` as it stands there: one delegate and one Envoy speak mutual TLS for three workloads.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use steeple_e2e::{Deployment, Subject, connect_uds, free_port};
use steeple_proto::steeple::server::v1::RotateEntriesRequest;
use steeple_proto::steeple::server::v1::rotation_client::RotationClient;

use crate::envoys::{self, EXAMPLES, LONG, get};

const PROGRAM: &str = env!("CARGO_BIN_EXE_node-proxy");
const FIRST_UID: u32 = 52001;

/// What the script started. It stops that at the end, too.
struct Running {
    dir: PathBuf,
    prefix: String,
    environment: Vec<(&'static str, String)>,
    inbound: [u16; 3],
}

impl Running {
    fn start(d: &Deployment) -> Result<Self> {
        let dir = d.path("node-proxy");
        let inbound = [free_port()?, free_port()?, free_port()?];
        let mut config = std::fs::read_to_string(Path::new(EXAMPLES).join("node-proxy/envoy.yaml"))?;
        for (n, port) in inbound.iter().enumerate() {
            config = config.replace(&format!("port_value: 910{}", n + 1), &format!("port_value: {port}"));
        }
        let file = d.path("node-proxy.yaml");
        std::fs::write(&file, config)?;
        let prefix = format!("np{}", std::process::id());
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let environment = vec![
            ("ADMIN_SOCKET", text(&d.admin_socket())),
            ("DIR", text(&dir)),
            ("PREFIX", prefix.clone()),
            ("FIRST_UID", FIRST_UID.to_string()),
            ("NODE_PROXY", PROGRAM.to_owned()),
            ("ENVOY", text(&envoys::envoy()?)),
            ("ENVOY_CONFIG", text(&file)),
        ];
        let running = Self { dir, prefix, environment, inbound };
        running.script(&[])?;
        Ok(running)
    }

    fn script(&self, arguments: &[&str]) -> Result<()> {
        let script = Path::new(EXAMPLES).join("node-proxy/run");
        let mut command = Command::new(script);
        command.args(arguments).envs(self.environment.iter().map(|(name, value)| (*name, value)));
        // What it starts must not hold the test's own output open.
        let ran = command.stdin(std::process::Stdio::null()).output()?;
        ensure!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        Ok(())
    }

    fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.join(format!("{name}.log"))).unwrap_or_default()
    }

    fn all_logs(&self) -> String {
        ["a", "b", "c", "delegate", "envoy"]
            .map(|name| {
                let log = self.log(name);
                let last: Vec<&str> = log.lines().rev().take(5).collect();
                format!("{name}: {last:?}")
            })
            .join("\n")
    }

    /// In the order of the script: a, b, c, the delegate, Envoy.
    fn pids(&self) -> Result<Vec<String>> {
        let pids = std::fs::read_to_string(self.dir.join("pids"))?;
        Ok(pids.lines().map(str::to_owned).collect())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.script(&["stop"]).ok();
    }
}

/// Who asks whom, by the address that stands for it.
const CALLS: [(&str, &str, &str); 3] = [("a", "b", "2"), ("b", "c", "3"), ("c", "a", "1")];

/// Both ends of the newest good connection: the hash of the caller's certificate.
fn newest(running: &Running, (from, to, address): (&str, &str, &str)) -> Option<String> {
    let log = running.log(from);
    let start = format!("http://192.0.2.{address}/ 200 {to} answers ");
    let answer = log.lines().rev().find_map(|line| line.strip_prefix(&start))?;
    let by = answer.contains(&format!("By=spiffe://example.org/{to};"));
    let uri = answer.contains(&format!("URI=spiffe://example.org/{from}"));
    let hash = answer.split(';').find_map(|field| field.strip_prefix("Hash="))?;
    (by && uri).then(|| hash.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_envoy_speaks_mutual_tls_for_workloads_that_know_nothing() -> Result<()> {
    let d = Deployment::builder()
        .quiet()
        .agent_options("authorized_delegates = [\"spiffe://example.org/node-proxy\"]")
        .workload_attestor("WorkloadAttestor \"unix\" { plugin_data { discover_workload_path = true } }")
        .start_with_agent()?;
    let program = std::fs::canonicalize(PROGRAM)?;
    d.entry("proxy", "/node-proxy", &format!("unix:path:{}", program.display()), &[])?;
    for (n, name) in ["a", "b", "c"].into_iter().enumerate() {
        d.entry(name, &format!("/{name}"), &format!("unix:uid:{}", FIRST_UID as usize + n), &[])?;
    }
    let running = Running::start(&d)?;
    let all = |what: &str, reached: &dyn Fn() -> bool| {
        d.eventually(what, LONG, reached).with_context(|| running.all_logs())
    };
    all("each speaks with the next", &|| CALLS.iter().all(|call| newest(&running, *call).is_some()))?;
    let refused = || running.log("a").contains("http://192.0.2.3/ 403 RBAC: access denied");
    all("c lets in b only", &refused)?;

    // They are where nobody else is, and there is nothing of SPIFFE's in them.
    let pids = running.pids()?;
    for (name, pid) in ["a", "b", "c"].iter().zip(&pids) {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}"));
        ensure!(read("cgroup")?.contains(&format!("/{}-{name}", running.prefix)), "{}", read("cgroup")?);
        let unix = read("net/unix")?;
        ensure!(unix.lines().count() == 1, "no Unix socket in its network namespace: {unix}");
    }
    for port in running.inbound {
        ensure!(get(port, "/").map_or(true, |(status, _)| status != 200), "plain HTTP is not let in");
    }

    if d.subject() == Subject::Spire {
        // Rotation on demand is Steeple's own.
        return Ok(());
    }
    let lines = |name: &str| running.log(name).lines().count();
    let before = ["a", "b", "c"].map(lines);
    let mut server = RotationClient::new(connect_uds(&d.server_socket()).await?);
    for _ in 0..5 {
        let hashes = CALLS.map(|call| newest(&running, call));
        let ids = ["a", "b", "c"].map(str::to_owned).to_vec();
        server.rotate_entries(RotateEntriesRequest { ids }).await?;
        all("each shows a new certificate", &|| {
            CALLS.iter().zip(&hashes).all(|(call, old)| {
                let now = newest(&running, *call);
                now.is_some() && now != *old
            })
        })?;
    }
    for (name, before) in ["a", "b", "c"].into_iter().zip(before) {
        let log = running.log(name);
        let wrong = log.lines().skip(before).find(|line| {
            let denied = name == "a" && line.starts_with("http://192.0.2.3/ 403");
            !denied && !line.contains("/ 200 ")
        });
        ensure!(wrong.is_none(), "{name}: {wrong:?}");
    }

    // A process that has gone is nobody's any more.
    Command::new("kill").arg(&pids[0]).status()?;
    all("the delegate is told", &|| {
        running.log("delegate").contains("a: ") && {
            running.log("delegate").contains("workload attestation failed")
        }
    })?;
    Ok(())
}
