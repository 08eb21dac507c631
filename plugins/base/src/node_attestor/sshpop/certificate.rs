//! OpenSSH certificates (PROTOCOL.certkeys).

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::key::{self, PublicKey, Signature};
use super::wire::Reader;

/// A certificate as it was read; nothing in it is verified yet.
#[derive(Clone, Debug)]
pub struct Certificate {
    blob: Vec<u8>,
    /// What the authority signed.
    signed: usize,
    pub key: PublicKey,
    pub serial: u64,
    pub is_host: bool,
    pub kind: u32,
    pub key_id: String,
    pub principals: Vec<String>,
    pub valid_after: u64,
    pub valid_before: u64,
    pub critical_options: Vec<(String, String)>,
    pub extensions: Vec<(String, String)>,
    pub authority: PublicKey,
    signature: Signature,
}

const SUFFIX: &str = "-cert-v01@openssh.com";
const HOST: u32 = 2;
/// "Without end".
const INFINITY: u64 = u64::MAX;
/// Enforced where somebody logs in; OpenSSH's libraries let it pass elsewhere.
const SOURCE_ADDRESS: &str = "source-address";
/// Principals, options and extensions each. A host certificate has a handful.
const MAX_ITEMS: usize = 256;

impl Certificate {
    pub fn from_blob(blob: &[u8]) -> Result<Self, &'static str> {
        const MALFORMED: &str = "malformed certificate";
        let mut reader = Reader(blob);
        let name = reader.text().ok_or(MALFORMED)?;
        let Some(name) = name.strip_suffix(SUFFIX) else {
            return Err("pubkey in response is not a certificate");
        };
        reader.bytes().ok_or(MALFORMED)?; // The authority's nonce.
        let fields = key::read_fields(name, &mut reader)?;
        let key = PublicKey::new(name, fields);
        let serial = reader.u64().ok_or(MALFORMED)?;
        let kind = reader.u32().ok_or(MALFORMED)?;
        let key_id = reader.text().ok_or(MALFORMED)?.to_owned();
        let principals = texts(reader.bytes().ok_or(MALFORMED)?).ok_or(MALFORMED)?;
        let valid_after = reader.u64().ok_or(MALFORMED)?;
        let valid_before = reader.u64().ok_or(MALFORMED)?;
        let critical_options = pairs(reader.bytes().ok_or(MALFORMED)?).ok_or(MALFORMED)?;
        let extensions = pairs(reader.bytes().ok_or(MALFORMED)?).ok_or(MALFORMED)?;
        reader.bytes().ok_or(MALFORMED)?; // Reserved.
        let authority = PublicKey::from_blob(reader.bytes().ok_or(MALFORMED)?)?;
        let signed = blob.len() - reader.0.len();
        let signature = reader.bytes().and_then(Signature::from_wire).ok_or(MALFORMED)?;
        if !reader.is_empty() {
            return Err("trailing junk in certificate");
        }
        Ok(Self {
            blob: blob.to_vec(),
            signed,
            key,
            serial,
            is_host: kind == HOST,
            kind,
            key_id,
            principals,
            valid_after,
            valid_before,
            critical_options,
            extensions,
            authority,
            signature,
        })
    }

    pub fn blob(&self) -> &[u8] {
        &self.blob
    }

    /// SHA-256 of the wire form.
    pub fn fingerprint(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, &self.blob))
    }

    /// Whether it is a host certificate of one of `authorities` and good at `now`. The principals are the caller's to
    /// look at.
    pub fn check_host(&self, authorities: &[PublicKey], now: i64) -> Result<(), String> {
        if !self.is_host {
            return Err(format!("ssh: certificate presented as a host key has type {}", self.kind));
        }
        if !authorities.contains(&self.authority) {
            let host = self.principals.first().map_or("", String::as_str);
            return Err(format!("ssh: no authorities for hostname: {host}:22"));
        }
        if let Some((name, _)) = self.critical_options.iter().find(|(name, _)| name != SOURCE_ADDRESS) {
            return Err(format!("ssh: unsupported critical option {name:?} in certificate"));
        }
        // Times beyond what Go's int64 holds are refused as Go does.
        if i64::try_from(self.valid_after).map_or(true, |after| now < after) {
            return Err("ssh: cert is not yet valid".to_owned());
        }
        if self.valid_before != INFINITY
            && i64::try_from(self.valid_before).map_or(true, |before| now >= before)
        {
            return Err("ssh: cert has expired".to_owned());
        }
        let signed = &self.blob[..self.signed];
        let verified = self.authority.verify(signed, &self.signature, false);
        verified.map_err(|error| format!("ssh: certificate signature does not verify: {error}"))
    }
}

fn texts(list: &[u8]) -> Option<Vec<String>> {
    let mut reader = Reader(list);
    let mut out = Vec::new();
    while !reader.is_empty() {
        out.push(reader.text()?.to_owned());
        if out.len() > MAX_ITEMS {
            return None;
        }
    }
    Some(out)
}

/// Names and values; a value is a text in a text, or nothing.
fn pairs(list: &[u8]) -> Option<Vec<(String, String)>> {
    let mut reader = Reader(list);
    let mut out = Vec::new();
    while !reader.is_empty() {
        let name = reader.text()?.to_owned();
        let value = reader.bytes()?;
        let value = if value.is_empty() { "" } else { Reader(value).text()? };
        out.push((name, value.to_owned()));
        if out.len() > MAX_ITEMS {
            return None;
        }
    }
    Some(out)
}
