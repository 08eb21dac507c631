//! The flags of `run` and `validate` (spire.md §5.2). An empty value counts as not given, as in SPIRE.

use steeple_config::{FlagError, FlagSet};

/// What the command line says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunFlags {
    pub config: String,
    pub expand_env: bool,
    pub bind_address: Option<String>,
    pub server_port: Option<i64>,
    pub data_dir: Option<String>,
    pub log_file: Option<String>,
    pub log_format: Option<String>,
    pub log_level: Option<String>,
    pub log_source_location: bool,
    pub trust_domain: Option<String>,
    pub socket_path: Option<String>,
}

impl RunFlags {
    pub const DEFAULT_CONFIG: &str = "conf/server/server.conf";

    pub fn parse(command: &str, args: &[String]) -> Result<Self, FlagError> {
        let mut set = FlagSet::new(command);
        let bind_address = set.string("bindAddress", "", "IP address the TCP API listens on");
        let server_port = set.int("serverPort", 0, "Port the TCP API listens on");
        let config = set.string("config", "", "Path of the configuration file");
        let data_dir = set.string("dataDir", "", "Directory for what the server keeps");
        let log_file = set.string("logFile", "", "File to write logs to");
        let log_format = set.string("logFormat", "", "'text' or 'json'");
        let log_level = set.string("logLevel", "", "'debug', 'info', 'warn', or 'error'");
        let log_source_location =
            set.bool("logSourceLocation", false, "Add file, line and module to log lines");
        let trust_domain = set.string("trustDomain", "", "Trust domain of this server");
        let expand_env = set.bool("expandEnv", false, "Replace $VAR and ${VAR} in the configuration file");
        let socket_path = set.string("socketPath", "", "Path of the API's Unix socket");
        set.parse(args)?;
        let given = |value: String| Some(value).filter(|value| !value.is_empty());
        Ok(Self {
            config: given(config.get()).unwrap_or_else(|| Self::DEFAULT_CONFIG.to_owned()),
            expand_env: expand_env.get(),
            bind_address: given(bind_address.get()),
            server_port: Some(server_port.get()).filter(|port| *port != 0),
            data_dir: given(data_dir.get()),
            log_file: given(log_file.get()),
            log_format: given(log_format.get()),
            log_level: given(log_level.get()),
            log_source_location: log_source_location.get(),
            trust_domain: given(trust_domain.get()),
            socket_path: given(socket_path.get()),
        })
    }
}
