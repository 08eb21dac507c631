//! An X.509 CA that an upstream authority signs. What it sends is believed only once an SVID made with it verifies.

use std::collections::HashSet;
use std::time::Duration;

use steeple_spiffe::bundle::X509Authority;
use steeple_spiffe::x509::{self, Issuer, KeyUsage, LeafTemplate, SerialNumber};
use steeple_spiffe::{Bundle, Certificate, PublicKey, SpiffeId};

use super::CaError;
use super::manager::{CaManager, Rotation, tainted_ids};
use super::sign::BACKDATE;
use super::state::{Kind, activation_threshold, chain_leads_to, hex};

/// How long an upstream authority may take.
const PATIENCE: Duration = Duration::from_secs(30);

impl CaManager {
    /// Has a CA certificate signed for a new key and publishes the roots it stands under. Our CA comes first in the
    /// answer, which has no root.
    pub(super) async fn mint(
        &self,
        key_id: &str,
        public_key: &PublicKey,
        ttl: i64,
        now: i64,
    ) -> Result<Vec<Certificate>, CaError> {
        let upstream = self.upstream.as_ref().ok_or(CaError::X509NotReady)?;
        let csr = self.desk.ca_request(key_id, public_key).await?;
        let minted = tokio::time::timeout(PATIENCE, upstream.mint_x509_ca(&csr, ttl, now)).await;
        let minted = minted.map_err(|_| CaError::UpstreamSlow(PATIENCE.as_secs()))??;
        self.check_mint(key_id, public_key, &minted.chain, &minted.roots, now).await?;
        self.refuse_tainted(&minted.chain, now)?;
        self.publish_roots(&minted.roots, now).await?;
        Ok(minted.chain)
    }

    /// SPIRE's conditions: a CA for our key and trust domain, valid now, under which an SVID verifies.
    async fn check_mint(
        &self,
        key_id: &str,
        public_key: &PublicKey,
        chain: &[Certificate],
        roots: &[Certificate],
        now: i64,
    ) -> Result<(), CaError> {
        let bad = |reason: &str| CaError::BadMint(reason.to_owned());
        let ca = chain.first().ok_or_else(|| bad("no certificate was returned"))?;
        if ca.public_key() != *public_key {
            return Err(bad("the certificate is of another key than was asked for"));
        }
        if !ca.is_ca() {
            return Err(bad("invalid X509 CA: cA constraint is not set"));
        }
        if !ca.key_usage().is_some_and(KeyUsage::cert_sign) {
            return Err(bad("invalid X509 CA: keyCertSign key usage must be set"));
        }
        let td = &self.desk.config.trust_domain;
        if let Some(other) = ca.uri_sans().into_iter().find(|uri| *uri != td.id_string()) {
            return Err(CaError::BadMint(format!(
                "invalid X509 CA: expected URI SAN \"{}\" but got \"{other}\"",
                td.id_string()
            )));
        }
        if ca.not_before() > now {
            return Err(CaError::BadMint(format!(
                "invalid X509 CA: not yet valid until {}",
                rfc3339(ca.not_before())
            )));
        }
        if ca.not_after() <= now {
            return Err(CaError::BadMint(format!(
                "invalid X509 CA: already expired as of {}",
                rfc3339(ca.not_after())
            )));
        }
        let leaf = self.throwaway(key_id, public_key, ca, now).await?;
        let svid: Vec<Certificate> = std::iter::once(leaf).chain(chain.iter().cloned()).collect();
        x509::verify_svid(&svid, &(td.clone(), roots.to_vec()), now).map_err(|reason| {
            CaError::BadMint(format!("X509 CA produced an invalid X509-SVID chain: {reason}"))
        })?;
        Ok(())
    }

    /// An SVID that nobody gets.
    async fn throwaway(
        &self,
        key_id: &str,
        public_key: &PublicKey,
        ca: &Certificate,
        now: i64,
    ) -> Result<Certificate, CaError> {
        let key_type = public_key.key_type().ok_or(CaError::X509NotReady)?;
        let algorithm = key_type.x509_signature_algorithm();
        let spiffe_id = SpiffeId::from_parts(&self.desk.config.trust_domain, "/spire/throwaway")
            .map_err(|reason| CaError::InvalidX509Id(reason.to_string()))?;
        let template = LeafTemplate {
            spiffe_id,
            public_key: public_key.clone(),
            not_before: now - BACKDATE,
            not_after: ca.not_after(),
            dns_names: Vec::new(),
            subject: None,
            serial: SerialNumber::random()?,
        };
        let tbs = x509::leaf_tbs(&template, &Issuer::from_certificate(ca, algorithm))?;
        let signature = self.desk.keys.sign(key_id, algorithm, &tbs).await?;
        Ok(Certificate::from_der(&x509::assemble(&tbs, algorithm, &signature))?)
    }

    /// An authority under a tainted root would be replaced at once, again and again. Only a server that is about to
    /// have none takes it.
    fn refuse_tainted(&self, chain: &[Certificate], now: i64) -> Result<(), CaError> {
        let tainted = tainted_ids(&self.bundle());
        let Some(id) = tainted.iter().find(|id| chain_leads_to(chain, &HashSet::from([(*id).clone()])))
        else {
            return Ok(());
        };
        let slots = self.slots.load();
        let current = slots[Kind::X509.index()].current.as_ref();
        let enough_left = |authority: &super::state::Authority| {
            authority.not_after - now > activation_threshold(authority.not_after - authority.issued_at)
        };
        if current.is_some_and(enough_left) { Err(CaError::TaintedUpstream(hex(id))) } else { Ok(()) }
    }

    /// Roots that came up since the last look join the bundle; what is gone upstream stays until it expires or is
    /// revoked. Those that were there at the first look came with the CA.
    pub(super) async fn sync_upstream_roots(&self, rotation: &mut Rotation, now: i64) -> Result<(), CaError> {
        let Some(upstream) = &self.upstream else { return Ok(()) };
        let roots = tokio::time::timeout(PATIENCE, upstream.roots(now)).await;
        let Some(roots) = roots.map_err(|_| CaError::UpstreamSlow(PATIENCE.as_secs()))?? else {
            return Ok(());
        };
        if let Some(known) = &rotation.upstream_roots {
            let new: Vec<Certificate> = roots.iter().filter(|root| !known.contains(root)).cloned().collect();
            if !new.is_empty() {
                self.publish_roots(&new, now).await?;
            }
        }
        rotation.upstream_roots = Some(roots);
        Ok(())
    }

    async fn publish_roots(&self, roots: &[Certificate], now: i64) -> Result<(), CaError> {
        let mut added = Bundle::new(self.desk.config.trust_domain.clone());
        added.x509_authorities =
            roots.iter().map(|root| X509Authority { certificate: root.clone(), tainted: false }).collect();
        let bundle = self.store.append_bundle(added, now).await?;
        self.set_bundle(bundle);
        Ok(())
    }
}

fn rfc3339(unix: i64) -> String {
    jiff::Timestamp::from_second(unix).map_or_else(|_| unix.to_string(), |at| at.to_string())
}
