//! A trust domain in a scratch directory.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use steeple_databases::{Database, Engine};

use crate::daemon::Daemon;
use crate::workload::Workload;

/// Whose binaries are under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    Steeple,
    Spire,
}

/// What a command did.
#[derive(Clone, Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Lines of configuration besides those every test needs.
#[derive(Clone, Debug)]
#[must_use]
pub struct DeploymentBuilder {
    server_options: String,
    server_blocks: String,
    agent_options: String,
    agent_blocks: String,
    key_manager: &'static str,
    workload_attestor: String,
    server_plugins: String,
    limits: &'static str,
    bin_dir: Option<PathBuf>,
    log_level: &'static str,
    engine: Option<Engine>,
    database: Option<Arc<Database>>,
    connection_string: Option<String>,
    host: String,
    port: Option<u16>,
    servers: Option<String>,
    trust_domain: String,
    server_env: Vec<String>,
}

/// A server, and an agent once [`Deployment::start_agent`] ran.
#[derive(Debug)]
pub struct Deployment {
    dir: TempDir,
    bin: PathBuf,
    port: u16,
    builder: DeploymentBuilder,
    // Fields are dropped in this order: the programs end before their database does.
    pub server: Option<Daemon>,
    pub agent: Option<Daemon>,
    database: Option<Arc<Database>>,
}

pub const TRUST_DOMAIN: &str = "example.org";
/// The alias that every join token of a deployment gives its agent.
pub const NODE: &str = "spiffe://example.org/node";

impl Default for DeploymentBuilder {
    fn default() -> Self {
        Self {
            server_options: String::new(),
            server_blocks: String::new(),
            agent_options: String::new(),
            agent_blocks: String::new(),
            key_manager: "memory",
            workload_attestor: "WorkloadAttestor \"unix\" { plugin_data {} }".into(),
            server_plugins: String::new(),
            limits: "attestation = false",
            bin_dir: None,
            log_level: "DEBUG",
            engine: None,
            database: None,
            connection_string: None,
            host: "127.0.0.1".into(),
            port: None,
            servers: None,
            trust_domain: TRUST_DOMAIN.into(),
            server_env: Vec::new(),
        }
    }
}

impl DeploymentBuilder {
    /// Inside `server { }`.
    pub fn server_options(mut self, lines: &str) -> Self {
        self.server_options.push_str(lines);
        self.server_options.push('\n');
        self
    }

    /// Beside `server { }`: telemetry, health_checks.
    pub fn server_blocks(mut self, lines: &str) -> Self {
        self.server_blocks.push_str(lines);
        self
    }

    /// Inside `agent { }`.
    pub fn agent_options(mut self, lines: &str) -> Self {
        self.agent_options.push_str(lines);
        self.agent_options.push('\n');
        self
    }

    /// Beside `agent { }`.
    pub fn agent_blocks(mut self, lines: &str) -> Self {
        self.agent_blocks.push_str(lines);
        self
    }

    /// More plugins of the server.
    pub fn server_plugins(mut self, lines: &str) -> Self {
        self.server_plugins.push_str(lines);
        self
    }

    /// Signs as many as are asked for, too: what is measured is not the rate limit.
    pub fn unlimited(mut self) -> Self {
        self.limits = "attestation = false signing = false";
        self
    }

    /// Keys survive a restart.
    pub fn disk_keys(mut self) -> Self {
        self.key_manager = "disk";
        self
    }

    /// Instead of `STEEPLE_BIN_DIR`.
    pub fn bin_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.bin_dir = Some(dir.into());
        self
    }

    /// Instead of `STEEPLE_E2E_DATABASE`.
    pub fn engine(mut self, engine: Engine) -> Self {
        self.engine = Some(engine);
        self
    }

    /// A database that other servers may use too.
    pub fn database(mut self, database: &Arc<Database>) -> Self {
        self.database = Some(database.clone());
        self
    }

    /// How to reach [`DeploymentBuilder::database`], if not directly.
    pub fn connection_string(mut self, text: impl Into<String>) -> Self {
        self.connection_string = Some(text.into());
        self
    }

    /// Where the server listens, instead of 127.0.0.1 and a free port.
    pub fn listen(mut self, host: &str, port: u16) -> Self {
        self.host = host.into();
        self.port = Some(port);
        self
    }

    /// The agent's `server_address`, instead of the deployment's own server.
    pub fn servers(mut self, addresses: &str) -> Self {
        self.servers = Some(addresses.into());
        self
    }

    /// Instead of [`TRUST_DOMAIN`].
    pub fn trust_domain(mut self, name: &str) -> Self {
        self.trust_domain = name.into();
        self
    }

    /// An environment variable of the server.
    pub fn server_env(mut self, name: &str, value: &str) -> Self {
        self.server_env.push(format!("{name}={value}"));
        self
    }

    /// Logs warnings only: what is measured is not the log.
    pub fn quiet(mut self) -> Self {
        self.log_level = "WARN";
        self
    }

    /// The `WorkloadAttestor` block.
    pub fn workload_attestor(mut self, block: &str) -> Self {
        self.workload_attestor = block.into();
        self
    }

    /// Starts the server and waits until it is healthy.
    pub fn start(self) -> Result<Deployment> {
        let mut deployment = self.prepare()?;
        deployment.start_server()?;
        Ok(deployment)
    }

    /// Starts the server and an agent.
    pub fn start_with_agent(self) -> Result<Deployment> {
        let mut deployment = self.start()?;
        deployment.start_agent()?;
        Ok(deployment)
    }

    /// Only writes the files.
    pub fn prepare(self) -> Result<Deployment> {
        let bin = self.bin_dir.clone().or_else(|| std::env::var_os("STEEPLE_BIN_DIR").map(PathBuf::from)).context(
            "STEEPLE_BIN_DIR names the folder with the spire-server and spire-agent under test; `scripts/test` sets it",
        )?;
        let database = match (&self.database, self.engine) {
            (Some(database), _) => Some(database.clone()),
            (None, engine) => match engine.map_or_else(chosen_engine, Ok)? {
                // A file in the server's data folder.
                Engine::Sqlite => None,
                engine => Some(Arc::new(Database::new(engine)?)),
            },
        };
        let dir = tempfile::Builder::new().prefix("e2e").tempdir_in("/tmp")?;
        for name in ["server", "agent", "public", "admin"] {
            std::fs::create_dir(dir.path().join(name))?;
        }
        Command::new("chmod").arg("755").arg(dir.path()).status()?;
        let port = match self.port {
            Some(port) => port,
            None => steeple_databases::free_port()?,
        };
        let deployment = Deployment { server: None, agent: None, dir, bin, port, builder: self, database };
        deployment.write_config()?;
        Ok(deployment)
    }
}

impl Drop for Deployment {
    /// What the programs leave behind holds no private key, whatever the test was about.
    fn drop(&mut self) {
        if std::thread::panicking() || self.subject() == Subject::Spire {
            return;
        }
        let found = self.key_material();
        assert!(found.is_empty(), "private keys where none may be: {found:#?}");
    }
}

impl Deployment {
    pub fn builder() -> DeploymentBuilder {
        DeploymentBuilder::default()
    }

    /// What looks like a private key in logs and data folders, but for the files that are there for keys.
    pub fn key_material(&self) -> Vec<String> {
        let mut found = Vec::new();
        for folder in ["server", "agent"] {
            found.extend(crate::secrets::private_keys_under(&self.path(folder)).unwrap_or_default());
        }
        for log in ["server.log", "agent.log"] {
            let text = std::fs::read(self.path(log)).unwrap_or_default();
            let key = crate::secrets::private_key_in(&text).ok().flatten();
            found.extend(key.map(|key| format!("{log}: {key}")));
        }
        found
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Which database the server keeps its state in.
    pub fn engine(&self) -> Engine {
        self.database.as_ref().map_or(Engine::Sqlite, |database| database.engine())
    }

    /// The database, if it is not a file in the server's data folder.
    pub fn database(&self) -> Option<&Arc<Database>> {
        self.database.as_ref()
    }

    pub fn workload_socket(&self) -> PathBuf {
        self.path("public/api.sock")
    }

    pub fn admin_socket(&self) -> PathBuf {
        self.path("admin/admin.sock")
    }

    pub fn server_socket(&self) -> PathBuf {
        self.path("server.sock")
    }

    /// Steeple only if both programs are: for what takes the two of them.
    pub fn subject(&self) -> Subject {
        match (self.subject_of("spire-server"), self.subject_of("spire-agent")) {
            (Subject::Steeple, Subject::Steeple) => Subject::Steeple,
            _ => Subject::Spire,
        }
    }

    /// Told by `--version`: SPIRE prints a bare version. A folder may mix the two.
    pub fn subject_of(&self, program: &str) -> Subject {
        let ran = self.run(program, &["--version"]);
        if format!("{}{}", ran.stdout, ran.stderr).to_lowercase().contains("steeple") {
            Subject::Steeple
        } else {
            Subject::Spire
        }
    }

    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    pub fn write_config(&self) -> Result<()> {
        let dir = self.dir.path().display();
        let (b, port, level) = (&self.builder, self.port, self.builder.log_level);
        let trust_domain = &b.trust_domain;
        let keys = |what: &str, key: &str, value: String| match b.key_manager {
            "disk" => format!("KeyManager \"disk\" {{ plugin_data {{ {key} = \"{value}\" }} }} # {what}"),
            _ => "KeyManager \"memory\" { plugin_data {} }".to_owned(),
        };
        let server_keys = keys("server", "keys_path", format!("{dir}/server/keys.json"));
        let agent_keys = keys("agent", "directory", format!("{dir}/agent"));
        let data_store = match &self.database {
            Some(database) => {
                let given = b.connection_string.clone();
                database.plugin_at(&given.unwrap_or_else(|| database.connection_string()))
            }
            None => format!(
                "DataStore \"sql\" {{ plugin_data {{ database_type = \"sqlite3\" connection_string = \"{dir}/server/datastore.sqlite3\" }} }}"
            ),
        };
        std::fs::write(
            self.path("server.conf"),
            format!(
                r#"server {{
  bind_address = "{}"
  bind_port = "{port}"
  socket_path = "{dir}/server.sock"
  trust_domain = "{trust_domain}"
  data_dir = "{dir}/server"
  log_level = "{level}"
  ratelimit {{ {} }}
{}}}
plugins {{
  {data_store}
  NodeAttestor "join_token" {{ plugin_data {{}} }}
  {server_keys}
{}}}
{}"#,
                b.host, b.limits, b.server_options, b.server_plugins, b.server_blocks
            ),
        )?;
        std::fs::write(
            self.path("agent.conf"),
            format!(
                r#"agent {{
  server_address = "{}"
  server_port = "{port}"
  socket_path = "{dir}/public/api.sock"
  admin_socket_path = "{dir}/admin/admin.sock"
  trust_domain = "{trust_domain}"
  data_dir = "{dir}/agent"
  log_level = "{level}"
  trust_bundle_path = "{dir}/bundle.pem"
{}}}
plugins {{
  NodeAttestor "join_token" {{ plugin_data {{}} }}
  {agent_keys}
  {}
}}
{}"#,
                b.servers.as_ref().unwrap_or(&b.host),
                b.agent_options,
                b.workload_attestor,
                b.agent_blocks
            ),
        )?;
        Ok(())
    }

    /// Starts the server and waits until it is healthy.
    pub fn start_server(&mut self) -> Result<()> {
        let mut daemon = self.spawn_server()?;
        self.wait_healthy("spire-server", &self.server_socket(), &mut daemon)?;
        self.server = Some(daemon);
        let bundle = self.server_ok(&["bundle", "show"])?;
        std::fs::write(self.path("bundle.pem"), bundle)?;
        Ok(())
    }

    /// Starts the server without waiting: for those whose start is watched.
    pub fn spawn_server(&self) -> Result<Daemon> {
        let config = self.path("server.conf");
        let (program, config) = (self.program("spire-server"), config.to_string_lossy());
        let (program, config) = (program.to_string_lossy(), config.as_ref());
        let mut args: Vec<&str> = self.builder.server_env.iter().map(String::as_str).collect();
        args.extend([program.as_ref(), "run", "-config", config]);
        Daemon::start(Path::new("env"), &args, &self.path("server.log"))
    }

    /// Attests an agent with a fresh join token and waits until it serves.
    pub fn start_agent(&mut self) -> Result<()> {
        let token = self.join_token()?;
        self.start_agent_with(&["-joinToken", &token])
    }

    /// Starts the agent with these flags (none: from what it has on disk) and waits until it serves.
    pub fn start_agent_with(&mut self, flags: &[&str]) -> Result<()> {
        let mut daemon = self.spawn_agent(flags)?;
        self.wait_healthy("spire-agent", &self.workload_socket(), &mut daemon)?;
        self.agent = Some(daemon);
        Ok(())
    }

    /// Starts an agent without waiting: for those that must not come up.
    pub fn spawn_agent(&self, flags: &[&str]) -> Result<Daemon> {
        let config = self.path("agent.conf").to_string_lossy().into_owned();
        let mut args = vec!["run", "-config", &config];
        args.extend(flags);
        Daemon::start(&self.program("spire-agent"), &args, &self.path("agent.log"))
    }

    fn wait_healthy(&self, program: &str, socket: &Path, daemon: &mut Daemon) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(30);
        while Instant::now() < end && daemon.ended().is_none() {
            if self.run(program, &["healthcheck", "-socketPath", &socket.to_string_lossy()]).code == Some(0) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("{program} is not healthy; its log:\n{}", daemon.log())
    }

    fn node(&self) -> String {
        format!("spiffe://{}/node", self.builder.trust_domain)
    }

    /// A single-use token whose agent is also [`NODE`], or its like in the deployment's own trust domain.
    pub fn join_token(&self) -> Result<String> {
        let printed = self.server_ok(&["token", "generate", "-spiffeID", &self.node()])?;
        Ok(printed.split_whitespace().nth(1).context("no token printed")?.to_owned())
    }

    /// Runs a program under test to its end.
    pub fn run(&self, program: &str, args: &[&str]) -> Ran {
        match Command::new(self.program(program))
            .args(args)
            .stdin(Stdio::null())
            .current_dir(self.dir.path())
            .output()
        {
            Ok(output) => Ran {
                code: output.status.code(),
                stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
                stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            },
            Err(err) => Ran { code: None, stdout: String::new(), stderr: err.to_string() },
        }
    }

    /// A server command, with the socket.
    pub fn server(&self, args: &[&str]) -> Ran {
        let socket = self.server_socket().to_string_lossy().into_owned();
        let mut args = args.to_vec();
        args.extend(["-socketPath", &socket]);
        self.run("spire-server", &args)
    }

    /// A server command that must succeed; its stdout.
    pub fn server_ok(&self, args: &[&str]) -> Result<String> {
        let ran = self.server(args);
        if ran.code != Some(0) {
            bail!("spire-server {}: {ran:?}", args.join(" "));
        }
        Ok(ran.stdout)
    }

    /// A Workload API command of the agent, with the socket.
    pub fn agent_api(&self, args: &[&str]) -> Ran {
        let socket = self.workload_socket().to_string_lossy().into_owned();
        let mut args = args.to_vec();
        args.extend(["-socketPath", &socket]);
        self.run("spire-agent", &args)
    }

    /// Registers a workload under the alias of [`Deployment::join_token`]; prints nothing, returns the entry id.
    pub fn entry(&self, id: &str, path: &str, selector: &str, more: &[&str]) -> Result<String> {
        let (spiffe_id, node) = (format!("spiffe://{}{path}", self.builder.trust_domain), self.node());
        let mut args = vec![
            "entry",
            "create",
            "-entryID",
            id,
            "-spiffeID",
            &spiffe_id,
            "-parentID",
            &node,
            "-selector",
            selector,
        ];
        args.extend(more);
        self.server_ok(&args)?;
        Ok(id.to_owned())
    }

    /// Registers this very process.
    pub fn entry_for_me(&self, id: &str, path: &str) -> Result<String> {
        self.entry(id, path, &format!("unix:uid:{}", uid()), &[])
    }

    /// A Workload API client.
    pub async fn workload(&self) -> Result<Workload> {
        Workload::connect(&self.workload_socket()).await
    }

    /// Polls `what` until it holds; the error tells what was waited for.
    pub fn eventually(&self, what: &str, within: Duration, mut holds: impl FnMut() -> bool) -> Result<()> {
        let end = Instant::now() + within;
        while Instant::now() < end {
            if holds() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("not within {within:?}: {what}")
    }
}

/// `STEEPLE_E2E_DATABASE`: sqlite (default), postgres, mariadb or mysql8.
pub fn chosen_engine() -> Result<Engine> {
    match std::env::var("STEEPLE_E2E_DATABASE") {
        Ok(name) => name.parse(),
        Err(_) => Ok(Engine::Sqlite),
    }
}

/// The caller's user id, as the kernel tells.
pub fn uid() -> u32 {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("Uid:").map(str::to_owned))?;
            line.split_whitespace().next()?.parse().ok()
        })
        .unwrap_or(0)
}
