//! An upstream CA whose certificate and key are files (spire.md §3.5). They are read again for each certificate, so that
//! whoever rotates them need not tell; while they cannot be used, the last ones that could go on.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use steeple_plugin::{MintedX509Ca, UpstreamAuthority, UpstreamAuthorityError};
use steeple_spiffe::x509::{self, CaTemplate, CertificateRequest, Issuer, SerialNumber};
use steeple_spiffe::{Certificate, PrivateKey, TrustDomain};

/// `plugin_data`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskConfig {
    pub trust_domain: TrustDomain,
    /// PEM: the CA, then what leads to a root.
    pub cert_file_path: PathBuf,
    /// PEM.
    pub key_file_path: PathBuf,
    /// PEM: the roots. Without it the CA has to be a root itself, alone in its file.
    pub bundle_file_path: Option<PathBuf>,
}

/// See the [module](self).
pub struct DiskUpstreamAuthority {
    config: DiskConfig,
    state: Mutex<State>,
}

struct State {
    material: Arc<Material>,
    /// Of the files that `material` is from.
    stamps: Stamps,
}

type Stamps = Vec<Option<(SystemTime, u64)>>;

/// What the files hold.
struct Material {
    /// The CA first; it signs.
    chain: Vec<Certificate>,
    key: PrivateKey,
    roots: Vec<Certificate>,
}

/// How much older than now a certificate says it is (SPIRE).
const BACKDATE: i64 = 10;
/// Seconds; SPIRE's for a request that names none.
const DEFAULT_TTL: i64 = 3600;

impl DiskUpstreamAuthority {
    /// Reads the files, which have to be usable now (Unix seconds).
    pub fn open(config: DiskConfig, now: i64) -> Result<Self, UpstreamAuthorityError> {
        let stamps = stamps(&config);
        let material = Arc::new(load(&config, now)?);
        Ok(Self { config, state: Mutex::new(State { material, stamps }) })
    }

    /// What the files hold now, or held when they last could be used.
    fn reload(&self, now: i64) -> Result<Arc<Material>, UpstreamAuthorityError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = stamps(&self.config);
        match load(&self.config, now) {
            Ok(material) => *state = State { material: Arc::new(material), stamps },
            Err(reason) => {
                // Told once for each state of the files.
                state.stamps = stamps;
                // What was good once may have ended since.
                if check_dates(&self.config, &state.material, now).is_err() {
                    return Err(reason);
                }
                tracing::warn!(
                    subsystem_name = "upstream_authority",
                    plugin_name = "disk",
                    error = %reason,
                    "Upstream CA could not be loaded again; going on with the one loaded before"
                );
            }
        }
        Ok(Arc::clone(&state.material))
    }

    fn sign(&self, csr: &[u8], preferred_ttl: i64, now: i64) -> Result<MintedX509Ca, UpstreamAuthorityError> {
        let material = self.reload(now)?;
        let csr = self.check_request(csr)?;
        let failed = |reason: &dyn std::fmt::Display| UpstreamAuthorityError::Sign(reason.to_string());
        let [ca, ..] = &material.chain[..] else { return Err(failed(&"there is no upstream CA")) };
        let algorithm = material.key.key_type().x509_signature_algorithm();
        let ttl = if preferred_ttl > 0 { preferred_ttl } else { DEFAULT_TTL };
        let template = CaTemplate {
            trust_domain: self.config.trust_domain.clone(),
            public_key: csr.public_key(),
            subject: csr.subject().clone(),
            not_before: now - BACKDATE,
            not_after: now.saturating_add(ttl).min(ca.not_after()),
            serial: SerialNumber::random().map_err(|e| failed(&e))?,
        };
        let tbs =
            x509::ca_tbs(&template, &Issuer::from_certificate(ca, algorithm)).map_err(|e| failed(&e))?;
        let signature = material.key.sign(algorithm, &tbs).map_err(|e| failed(&e))?;
        let der = x509::assemble(&tbs, algorithm, &signature);
        let mut chain = vec![Certificate::from_der(&der).map_err(|e| failed(&e))?];
        // Verifiers have the roots (X509-SVID §5.1).
        chain.extend(material.chain.iter().filter(|part| !material.roots.contains(part)).cloned());
        Ok(MintedX509Ca { chain, roots: material.roots.clone() })
    }

    /// SPIRE's conditions and texts.
    fn check_request(&self, csr: &[u8]) -> Result<CertificateRequest, UpstreamAuthorityError> {
        let refused = UpstreamAuthorityError::Request;
        let csr =
            CertificateRequest::from_der(csr).map_err(|e| refused(format!("unable to parse CSR: {e}")))?;
        csr.verify_signature().map_err(|e| refused(format!("CSR signature check failed: {e}")))?;
        let uris = csr.uri_sans();
        let [uri] = &uris[..] else {
            return Err(refused("CSR must have exactly one URI SAN".to_owned()));
        };
        let td = &self.config.trust_domain;
        if *uri != td.id_string() {
            return Err(refused(format!(
                "CSR with SPIFFE ID {uri:?} is invalid: must use the trust domain ID for trust domain {:?}",
                td.name()
            )));
        }
        Ok(csr)
    }
}

#[async_trait]
impl UpstreamAuthority for DiskUpstreamAuthority {
    fn name(&self) -> &'static str {
        "disk"
    }

    async fn mint_x509_ca(
        &self,
        csr: &[u8],
        preferred_ttl: i64,
        now: i64,
    ) -> Result<MintedX509Ca, UpstreamAuthorityError> {
        self.sign(csr, preferred_ttl, now)
    }

    /// Looks into the files only if they have changed.
    async fn roots(&self, now: i64) -> Result<Option<Vec<Certificate>>, UpstreamAuthorityError> {
        let unchanged = {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            (state.stamps == stamps(&self.config)).then(|| Arc::clone(&state.material))
        };
        let material = match unchanged {
            Some(material) => material,
            None => self.reload(now)?,
        };
        Ok(Some(material.roots.clone()))
    }
}

fn stamps(config: &DiskConfig) -> Stamps {
    let stamp = |path: &Path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    let paths = [&config.cert_file_path, &config.key_file_path].into_iter().chain(&config.bundle_file_path);
    paths.map(|path| stamp(path)).collect()
}

fn load(config: &DiskConfig, now: i64) -> Result<Material, UpstreamAuthorityError> {
    let error = |what, path: &Path, reason: &str| UpstreamAuthorityError::Load {
        what,
        path: path.display().to_string(),
        reason: reason.to_owned(),
    };
    let key = read(&config.key_file_path, "key")?;
    let key = PrivateKey::from_pem(&key).map_err(|e| error("key", &config.key_file_path, &e.to_string()))?;
    let chain = certificates(&config.cert_file_path, "cert")?;
    if chain[0].public_key() != key.public_key() {
        return Err(error(
            "cert",
            &config.cert_file_path,
            &format!(
                "certificate and private key do not match (key from {})",
                config.key_file_path.display()
            ),
        ));
    }
    let roots = match &config.bundle_file_path {
        Some(path) => certificates(path, "bundle")?,
        // SPIRE's words.
        None if chain.len() != 1 => {
            let reason = "with no bundle_file_path configured only self-signed CAs are supported";
            return Err(error("cert", &config.cert_file_path, reason));
        }
        None => chain.clone(),
    };
    let material = Material { chain, key, roots };
    check_dates(config, &material, now)?;
    Ok(material)
}

/// The CA, and what leads from it to a root, is valid now.
fn check_dates(config: &DiskConfig, material: &Material, now: i64) -> Result<(), UpstreamAuthorityError> {
    let bad = |reason: String| UpstreamAuthorityError::Load {
        what: "cert",
        path: config.cert_file_path.display().to_string(),
        reason,
    };
    let mut at = &material.chain[0];
    let mut seen = 0;
    loop {
        if !at.is_ca() {
            return Err(bad(format!("certificate {:?} is not a CA", at.subject_string())));
        }
        if at.not_before() > now {
            return Err(bad(format!("certificate {:?} is not yet valid", at.subject_string())));
        }
        if at.not_after() <= now {
            return Err(bad(format!("certificate {:?} has expired", at.subject_string())));
        }
        if material.roots.contains(at) {
            return Ok(());
        }
        let signed_it = |issuer: &&Certificate| {
            issuer.subject_der() == at.issuer_der() && at.verify_signature_by(&issuer.public_key()).is_ok()
        };
        let is_valid = |issuer: &&Certificate| issuer.not_before() <= now && issuer.not_after() > now;
        if material.roots.iter().filter(signed_it).any(|root| is_valid(&root)) {
            return Ok(());
        }
        if material.roots.iter().any(|root| signed_it(&root)) {
            return Err(bad(format!("the root that signed {:?} has expired", at.subject_string())));
        }
        seen += 1;
        let next = material.chain.iter().find(signed_it).filter(|_| seen < material.chain.len());
        at = next.ok_or_else(|| {
            bad("certificate cannot be validated with the provided bundle or is not self-signed".to_owned())
        })?;
    }
}

/// At least one.
fn certificates(path: &Path, what: &'static str) -> Result<Vec<Certificate>, UpstreamAuthorityError> {
    let text = read(path, what)?;
    let error =
        |reason: String| UpstreamAuthorityError::Load { what, path: path.display().to_string(), reason };
    let found = Certificate::from_pem(&text).map_err(|e| error(e.to_string()))?;
    if found.is_empty() { Err(error("no PEM blocks".to_owned())) } else { Ok(found) }
}

/// A key is wiped when it is dropped.
fn read(path: &Path, what: &'static str) -> Result<zeroize::Zeroizing<String>, UpstreamAuthorityError> {
    let text = std::fs::read_to_string(path).map(zeroize::Zeroizing::new);
    text.map_err(|e| UpstreamAuthorityError::Load {
        what,
        path: path.display().to_string(),
        reason: e.to_string(),
    })
}

#[cfg(test)]
mod tests;
