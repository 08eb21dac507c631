//! Where the first trust comes from (spire.md §2.2, §2.3): one source, or `insecure_bootstrap`.

use std::path::PathBuf;

use steeple_agent_core::node::{Patience, Rebootstrap};
use steeple_config::{Block, GoDuration};
use steeple_spiffe::endpoint::Endpoint;

use super::{LoadError, RunFlags};
use steeple_cli::settings::{duration, string};

/// The bootstrap source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustConfig {
    File {
        path: PathBuf,
        format: BundleFormat,
    },
    /// `socket` makes it plain HTTP over a Unix socket.
    Url {
        url: String,
        socket: Option<PathBuf>,
        format: BundleFormat,
    },
    /// The X.509 authorities that another Workload API gives for the trust domain.
    WorkloadApi(Endpoint),
    Insecure,
}

/// `trust_bundle_format`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BundleFormat {
    Pem,
    Spiffe,
}

pub(super) fn decode(block: &mut Block<'_>, flags: &RunFlags) -> Result<TrustConfig, LoadError> {
    let insecure = flags.insecure_bootstrap | block.bool("insecure_bootstrap")?.unwrap_or(false);
    let path = flags.trust_bundle.clone().or(string(block, "trust_bundle_path")?);
    let url = flags.trust_bundle_url.clone().or(string(block, "trust_bundle_url")?);
    let socket = string(block, "trust_bundle_unix_socket")?;
    let endpoint = string(block, "trust_bundle_spiffe_workload_api")?;
    let format = flags.trust_bundle_format.clone().or(string(block, "trust_bundle_format")?);
    let other = |message: &str| Err(LoadError::Other(message.to_owned()));
    // The checks and their order are SPIRE's.
    let endpoint = match endpoint {
        None => None,
        Some(address) => {
            for (given, message) in [
                (
                    insecure,
                    "only one of insecure_bootstrap or trust_bundle_spiffe_workload_api can be specified, not both",
                ),
                (
                    url.is_some(),
                    "only one of trust_bundle_url or trust_bundle_spiffe_workload_api can be specified, not both",
                ),
                (
                    path.is_some(),
                    "only one of trust_bundle_path or trust_bundle_spiffe_workload_api can be specified, not both",
                ),
                (
                    socket.is_some(),
                    "trust_bundle_unix_socket can not be used with trust_bundle_spiffe_workload_api",
                ),
            ] {
                if given {
                    return other(message);
                }
            }
            let endpoint = address.parse::<Endpoint>().map_err(|error| {
                LoadError::Other(format!(
                    "trust_bundle_spiffe_workload_api is not a valid SPIFFE Workload API endpoint address: {error}"
                ))
            })?;
            Some(endpoint)
        }
    };
    match (insecure, &url, &path) {
        (true, Some(_), Some(_)) => {
            return other(
                "only one of insecure_bootstrap, trust_bundle_url, or trust_bundle_path can be specified, not the three options",
            );
        }
        (true, Some(_), None) => {
            return other("only one of insecure_bootstrap or trust_bundle_url can be specified, not both");
        }
        (true, None, Some(_)) => {
            return other("only one of insecure_bootstrap or trust_bundle_path can be specified, not both");
        }
        (false, None, None) if endpoint.is_none() => {
            return other(
                "trust_bundle_path, trust_bundle_url, or trust_bundle_spiffe_workload_api must be configured unless insecure_bootstrap is set",
            );
        }
        (false, Some(_), Some(_)) => {
            return other("only one of trust_bundle_url or trust_bundle_path can be specified, not both");
        }
        _ => {}
    }
    let format = match format.as_deref() {
        None | Some("pem") => BundleFormat::Pem,
        Some("spiffe") => BundleFormat::Spiffe,
        Some(_) => return other("invalid value for trust_bundle_format, expected \"pem\" or \"spiffe\""),
    };
    if socket.is_some() && url.is_none() {
        return other("if trust_bundle_unix_socket is specified, so must be trust_bundle_url");
    }
    if let Some(endpoint) = endpoint {
        return Ok(TrustConfig::WorkloadApi(endpoint));
    }
    match (url, path) {
        (Some(url), _) => {
            check_url(&url, socket.is_some())?;
            Ok(TrustConfig::Url { url, socket: socket.map(PathBuf::from), format })
        }
        (None, Some(path)) => Ok(TrustConfig::File { path: path.into(), format }),
        (None, None) => Ok(TrustConfig::Insecure),
    }
}

/// `rebootstrap_mode`, `rebootstrap_delay`
pub(super) fn patience(
    block: &mut Block<'_>,
    flags: &RunFlags,
    trust: &TrustConfig,
) -> Result<Patience, LoadError> {
    let mut patience = Patience::default();
    let mode = flags.rebootstrap_mode.clone().or(string(block, "rebootstrap_mode")?);
    patience.rebootstrap = match mode.as_deref() {
        None | Some("never") => Rebootstrap::Never,
        Some("auto") => Rebootstrap::Auto,
        Some("always") => Rebootstrap::Always,
        Some(other) => {
            return Err(LoadError::Other(format!("unknown rebootstrap mode specified: {other}")));
        }
    };
    if patience.rebootstrap != Rebootstrap::Never && *trust == TrustConfig::Insecure {
        return Err(LoadError::Other(
            "insecure_bootstrap option can not be used with rebootstrapping".to_owned(),
        ));
    }
    let file = duration(block, "rebootstrap_delay")?;
    let flag = flags.rebootstrap_delay.as_deref().map(|delay| {
        let delay: Result<GoDuration, _> = delay.parse();
        delay.map_err(|error| LoadError::Other(format!("-rebootstrapDelay: {error}")))
    });
    if let Some(delay) = flag.transpose()?.or(file) {
        // A negative one is no delay, as in SPIRE.
        patience.delay =
            delay.to_std().map_or(0, |delay| i64::try_from(delay.as_millis()).unwrap_or(i64::MAX / 4));
    }
    Ok(patience)
}

fn check_url(text: &str, over_socket: bool) -> Result<(), LoadError> {
    let url = reqwest::Url::parse(text)
        .map_err(|error| LoadError::Other(format!("unable to parse trust bundle URL: {error}")))?;
    let other = |message: &str| Err(LoadError::Other(message.to_owned()));
    if !over_socket {
        return match url.scheme() {
            "https" => Ok(()),
            _ => other("trust bundle URL must start with https://"),
        };
    }
    if url.scheme() != "http" {
        return other("trust bundle URL must start with http:// when used with trust bundle unix socket");
    }
    for (name, _) in url.query_pairs() {
        if name.starts_with("spiffe-") {
            return other("trust_bundle_url query params can not start with spiffe-");
        }
        if name.starts_with("spire-") {
            return other("trust_bundle_url query params can not start with spire-");
        }
    }
    Ok(())
}
