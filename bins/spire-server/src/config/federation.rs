//! `federation { }` (spire.md §1.3)

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use steeple_cli::settings::{invalid, place, refuse, string};
use steeple_config::{Block, GoDuration, Strictness, UnknownKeys};
use steeple_datastore::EndpointProfile;
use steeple_server_core::federation::{Target, check_url};
use steeple_spiffe::{SpiffeId, TrustDomain};

use super::LoadError;
use super::server::resolve;

const DEFAULT_HINT: i64 = 5 * 60;
const LOWEST_HINT: i64 = 60;
const HIGH_HINT: i64 = 24 * 3600;
const DEFAULT_FILE_SYNC: Duration = Duration::from_hours(1);

/// `federation { }`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Federation {
    pub endpoint: Option<BundleEndpointConfig>,
    /// They win over relationships in the database.
    pub federates_with: BTreeMap<TrustDomain, Target>,
}

/// `bundle_endpoint { }`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleEndpointConfig {
    pub address: SocketAddr,
    /// Seconds; what others are told.
    pub refresh_hint: i64,
    pub profile: ServingProfile,
}

/// What the endpoint shows of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServingProfile {
    /// The server's own X.509-SVID.
    HttpsSpiffe,
    /// `serving_cert_file { }`
    HttpsWeb { certificate: PathBuf, key: PathBuf, sync_every: Duration },
}

pub(super) fn decode(
    server: &mut Block<'_>,
    own: &TrustDomain,
    unknown: &mut UnknownKeys,
    warnings: &mut Vec<String>,
) -> Result<Federation, LoadError> {
    let Some(mut block) = server.block("federation")? else { return Ok(Federation::default()) };
    let federates_with = relationships(&mut block, own, unknown)?;
    let endpoint = match block.block("bundle_endpoint")? {
        Some(endpoint) => Some(bundle_endpoint(endpoint, unknown, warnings)?),
        None => None,
    };
    // SPIRE does not look for unknown keys here.
    block.finish(Strictness::Lax, "federation", unknown);
    Ok(Federation { endpoint, federates_with })
}

fn bundle_endpoint(
    mut block: Block<'_>,
    unknown: &mut UnknownKeys,
    warnings: &mut Vec<String>,
) -> Result<BundleEndpointConfig, LoadError> {
    let host = string(&mut block, "address")?.unwrap_or_else(|| "0.0.0.0".to_owned());
    let port = block.port("port")?.unwrap_or(0);
    let ip = resolve(&host, port).map_err(|problem| {
        invalid(&block, "address", format!("could not resolve \"{host}:{port}\": {problem}"))
    })?;
    let refresh_hint = match string(&mut block, "refresh_hint")? {
        None => DEFAULT_HINT,
        Some(_) => block.duration("refresh_hint")?.map_or(DEFAULT_HINT, GoDuration::seconds),
    };
    if refresh_hint >= HIGH_HINT {
        warnings.push(
            "Bundle endpoint refresh hint set to a high value. To cover the case of unscheduled trust bundle updates, \
             it's recommended to have a smaller value, e.g. 5m"
                .to_owned(),
        );
    }
    if refresh_hint < LOWEST_HINT {
        warnings.push(
            "Bundle endpoint refresh hint set too low. SPIRE will not refresh more often than 1 minute"
                .to_owned(),
        );
    }
    let profile = serving_profile(&mut block, warnings)?;
    block.finish(Strictness::Strict, "bundle endpoint", unknown);
    Ok(BundleEndpointConfig { address: SocketAddr::new(ip, port), refresh_hint, profile })
}

fn serving_profile(block: &mut Block<'_>, warnings: &mut Vec<String>) -> Result<ServingProfile, LoadError> {
    let at = place(block, "profile");
    let wrong = |text: &str| LoadError::Other(format!("{at}: {text}"));
    if block.contains("acme") {
        if block.contains("profile") {
            return Err(wrong("either bundle endpoint 'acme' or 'profile' can be set, but not both"));
        }
        refuse(block, &["acme"])?;
    }
    if !block.contains("profile") {
        warnings.push(
            "Bundle endpoint is configured but has no profile set, using https_spiffe as default; please configure a \
             profile explicitly. This will be fatal in a future release."
                .to_owned(),
        );
        return Ok(ServingProfile::HttpsSpiffe);
    }
    let mut profiles = block.labelled("profile")?;
    let (Some((name, mut profile)), None) = (profiles.pop(), profiles.pop()) else {
        return Err(wrong("exactly one bundle endpoint profile is expected"));
    };
    match name.as_str() {
        "https_spiffe" => Ok(ServingProfile::HttpsSpiffe),
        "https_web" => {
            refuse(&profile, &["acme"])?;
            let files = profile.block("serving_cert_file")?.ok_or_else(|| {
                wrong("malformed https_web profile configuration: 'acme' or 'serving_cert_file' is required")
            })?;
            serving_files(files)
        }
        other => Err(wrong(&format!(
            "unknown bundle endpoint profile {other:?} configured; current supported profiles are \"https_spiffe\" and \
             \"https_web\""
        ))),
    }
}

fn serving_files(mut block: Block<'_>) -> Result<ServingProfile, LoadError> {
    let mut path = |key: &str| -> Result<PathBuf, LoadError> {
        let path = string(&mut block, key)?;
        path.map(PathBuf::from).ok_or_else(|| invalid(&block, key, "must be configured"))
    };
    let (certificate, key) = (path("cert_file_path")?, path("key_file_path")?);
    let sync_every = if string(&mut block, "file_sync_interval")?.is_none() {
        DEFAULT_FILE_SYNC
    } else {
        let interval = block.duration("file_sync_interval")?.and_then(GoDuration::to_std);
        interval.ok_or_else(|| invalid(&block, "file_sync_interval", "must not be negative"))?
    };
    let sync_every = if sync_every.is_zero() { DEFAULT_FILE_SYNC } else { sync_every };
    Ok(ServingProfile::HttpsWeb { certificate, key, sync_every })
}

fn relationships(
    block: &mut Block<'_>,
    own: &TrustDomain,
    unknown: &mut UnknownKeys,
) -> Result<BTreeMap<TrustDomain, Target>, LoadError> {
    let mut all = BTreeMap::new();
    for (name, mut peer) in block.labelled("federates_with")? {
        let at = place(&peer, "bundle_endpoint_url");
        let wrong = |text: String| LoadError::Other(format!("{at}: {text}"));
        let key = format!("federation.federates_with[\"{name}\"].bundle_endpoint_url");
        let url = string(&mut peer, "bundle_endpoint_url")?
            .ok_or_else(|| wrong(format!("{key} must be configured")))?;
        if !url.to_ascii_lowercase().starts_with("https://") {
            return Err(wrong(format!("{key} must use the HTTPS protocol; URL found: {url:?}")));
        }
        let url = check_url(&url).map_err(|e| wrong(format!("{key}: {e}; URL found: {url:?}")))?;
        let trust_domain = TrustDomain::new(&name).map_err(|e| {
            wrong(format!("federation.federates_with[\"{name}\"]: invalid trust domain: {e}"))
        })?;
        if trust_domain == *own {
            return Err(wrong(format!(
                "federation.federates_with[\"{name}\"] is the server's own trust domain; remove it"
            )));
        }
        let profile = peer_profile(&mut peer, &name).map_err(|e| match e {
            LoadError::Other(text) => wrong(text),
            e => e,
        })?;
        peer.finish(Strictness::Lax, &format!("federates_with {name:?}"), unknown);
        all.insert(trust_domain, Target { url, profile, is_static: true });
    }
    Ok(all)
}

fn peer_profile(peer: &mut Block<'_>, name: &str) -> Result<EndpointProfile, LoadError> {
    if !peer.contains("bundle_endpoint_profile") {
        return Err(LoadError::Other(format!(
            "federation configuration for trust domain {name:?}: missing bundle endpoint configuration"
        )));
    }
    let wrong = |text: &str| {
        LoadError::Other(format!("error parsing federation relationship for trust domain {name:?}: {text}"))
    };
    let mut profiles = peer.labelled("bundle_endpoint_profile")?;
    let (Some((profile, mut block)), None) = (profiles.pop(), profiles.pop()) else {
        return Err(wrong("exactly one bundle endpoint profile is expected"));
    };
    match profile.as_str() {
        "https_web" => Ok(EndpointProfile::HttpsWeb),
        "https_spiffe" => {
            let id = block.string("endpoint_spiffe_id")?.unwrap_or_default();
            let endpoint_spiffe_id =
                SpiffeId::parse(&id).map_err(|e| wrong(&format!("could not get endpoint SPIFFE ID: {e}")))?;
            Ok(EndpointProfile::HttpsSpiffe { endpoint_spiffe_id })
        }
        _ => Err(wrong(
            "no bundle endpoint profile defined; current supported profiles are \"https_spiffe\" and \"https_web\"",
        )),
    }
}
