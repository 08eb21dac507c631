//! The flags of `run` and `validate` (spire.md §5.4). An empty value counts as not given, as in SPIRE.

use steeple_config::{FlagError, FlagSet};

use super::Secret;

const DEFAULT_CONFIG: &str = "conf/agent/agent.conf";

/// What the command line says.
#[derive(Debug, Default)]
pub struct RunFlags {
    pub config: String,
    pub expand_env: bool,
    pub data_dir: Option<String>,
    pub join_token: Option<Secret>,
    pub join_token_file: Option<String>,
    pub log_file: Option<String>,
    pub log_format: Option<String>,
    pub log_level: Option<String>,
    pub log_source_location: bool,
    pub server_address: Option<String>,
    pub server_port: Option<i64>,
    pub trust_domain: Option<String>,
    pub disable_workload_api: bool,
    pub disable_sds_api: bool,
    pub trust_bundle: Option<String>,
    pub trust_bundle_url: Option<String>,
    pub trust_bundle_format: Option<String>,
    pub allow_unauthenticated_verifiers: bool,
    pub insecure_bootstrap: bool,
    pub rebootstrap_mode: Option<String>,
    pub rebootstrap_delay: Option<String>,
    pub socket_path: Option<String>,
}

impl RunFlags {
    pub fn parse(command: &str, args: &[String]) -> Result<Self, FlagError> {
        let mut set = FlagSet::new(command);
        let config = set.string("config", DEFAULT_CONFIG, "Path of the configuration file");
        let data_dir = set.string("dataDir", "", "Directory for what the agent keeps");
        let join_token = set.string("joinToken", "", "Join token made by the server, to attest with");
        let join_token_file = set.string("joinTokenFile", "", "File that holds the join token");
        let log_file = set.string("logFile", "", "File to write logs to");
        let log_format = set.string("logFormat", "", "'text' or 'json'");
        let log_level = set.string("logLevel", "", "'debug', 'info', 'warn', or 'error'");
        let log_source = set.bool("logSourceLocation", false, "Add file, line and module to log lines");
        let server_address = set.string("serverAddress", "", "Host name or IP address of the server");
        let server_port = set.int("serverPort", 0, "Port of the server");
        let trust_domain = set.string("trustDomain", "", "Trust domain of this agent");
        let no_workload = set.bool("disableWorkloadAPI", false, "Do not serve the SPIFFE Workload API");
        let no_sds = set.bool("disableSDSAPI", false, "Do not serve Envoy's SDS API");
        let trust_bundle = set.string("trustBundle", "", "File with the server's CA certificates");
        let trust_bundle_url = set.string("trustBundleUrl", "", "URL of the server's CA certificates");
        let trust_bundle_format =
            set.string("trustBundleFormat", "", "Form of the bootstrap trust bundle, \"pem\" or \"spiffe\"");
        let verifiers = set.bool(
            "allowUnauthenticatedVerifiers",
            false,
            "Serve trust bundles to callers without an identity too",
        );
        let insecure = set.bool("insecureBootstrap", false, "Do not verify the server at the first contact");
        let rebootstrap_mode = set.string("rebootstrapMode", "", "One of 'never', 'auto', or 'always'");
        let rebootstrap_delay =
            set.string("rebootstrapDelay", "", "How long the server must be unknown before rebootstrapping");
        let expand_env = set.bool("expandEnv", false, "Replace $VAR and ${VAR} in the configuration file");
        let socket_path = set.string("socketPath", "", "Path of the Workload API's Unix socket");
        set.parse(args)?;
        let given = |value: String| Some(value).filter(|value| !value.is_empty());
        Ok(Self {
            config: given(config.get()).unwrap_or_else(|| DEFAULT_CONFIG.to_owned()),
            expand_env: expand_env.get(),
            data_dir: given(data_dir.get()),
            join_token: given(join_token.get()).map(Secret::new),
            join_token_file: given(join_token_file.get()),
            log_file: given(log_file.get()),
            log_format: given(log_format.get()),
            log_level: given(log_level.get()),
            log_source_location: log_source.get(),
            server_address: given(server_address.get()),
            server_port: Some(server_port.get()).filter(|port| *port != 0),
            trust_domain: given(trust_domain.get()),
            disable_workload_api: no_workload.get(),
            disable_sds_api: no_sds.get(),
            trust_bundle: given(trust_bundle.get()),
            trust_bundle_url: given(trust_bundle_url.get()),
            trust_bundle_format: given(trust_bundle_format.get()),
            allow_unauthenticated_verifiers: verifiers.get(),
            insecure_bootstrap: insecure.get(),
            rebootstrap_mode: given(rebootstrap_mode.get()),
            rebootstrap_delay: given(rebootstrap_delay.get()),
            socket_path: given(socket_path.get()),
        })
    }
}
