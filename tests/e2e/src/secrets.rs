//! Looks for key material where none may be: logs, errors, core files, databases, sealed files.
//!
//! Two ways: [`Secrets`] knows secrets and finds them in every usual form; [`private_key_in`] knows none and finds what
//! looks like a private key. Each [`crate::Deployment`] looks through what it left when it ends, the second way.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use regex::bytes::{Regex, RegexBuilder};

/// Where private keys belong: SPIRE's file of the KeyManager "disk", mode 0600.
const KEY_FILES: [&str; 1] = ["keys.json"];
/// A needle shorter than this would be found by chance.
const SHORTEST: usize = 12;
const REGEX_SIZE: usize = 256 << 20;

/// Private keys and tokens that must be nowhere.
#[derive(Clone, Debug, Default)]
pub struct Secrets(Vec<(String, Vec<u8>)>);

impl Secrets {
    /// Bytes, of a key or so.
    pub fn add(&mut self, name: &str, secret: &[u8]) {
        assert!(secret.len() >= SHORTEST, "{name} is too short to be looked for");
        let forms = forms(secret).into_iter().filter(|form| form.len() >= SHORTEST);
        self.0.extend(forms.map(|form| (name.to_owned(), form)));
    }

    /// The private part of a key in PKCS#8: the header and the public key may be anywhere.
    pub fn add_pkcs8(&mut self, name: &str, der: &[u8]) {
        let scalar =
            [(&[2, 1, 1, 4, 32][..], 32), (&[2, 1, 1, 4, 48][..], 48)].iter().find_map(|(mark, length)| {
                let at = der.windows(mark.len()).position(|window| window == *mark)? + mark.len();
                der.get(at..at + length)
            });
        // An RSA key ends with a private number.
        self.add(name, scalar.unwrap_or_else(|| &der[der.len().saturating_sub(48)..]));
    }

    /// A token as it is sent. Of a signed one, the signature: header and claims are no secret.
    pub fn add_token(&mut self, name: &str, token: &str) {
        let part = token.rsplit('.').next().unwrap_or(token);
        self.0.push((name.to_owned(), part.as_bytes().to_vec()));
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names of those that are in `bytes`, each with the form.
    pub fn found_in(&self, bytes: &[u8]) -> Result<Vec<String>> {
        if self.0.is_empty() {
            return Ok(Vec::new());
        }
        let all: Vec<String> = self.0.iter().map(|(_, form)| literal(form)).collect();
        let any = regex(&all.join("|"))?;
        let unbroken = without_line_breaks(bytes);
        let mut found = Vec::new();
        for text in [bytes, &unbroken] {
            for hit in any.find_iter(text) {
                let known = self.0.iter().find(|(_, form)| form == hit.as_bytes());
                found.extend(known.map(|(name, _)| name.clone()));
            }
        }
        found.sort();
        found.dedup();
        Ok(found)
    }

    /// `file: name` of every secret in a file under `folder` where none may be.
    pub fn found_under(&self, folder: &Path) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for file in files(folder)? {
            let hits = self.found_in(&std::fs::read(&file).unwrap_or_default())?;
            found.extend(hits.into_iter().map(|name| format!("{}: {name}", file.display())));
        }
        Ok(found)
    }
}

/// What in `bytes` looks like a private key, if anything does.
pub fn private_key_in(bytes: &[u8]) -> Result<Option<String>> {
    const LOOKS: [&str; 11] = [
        r"PRIVATE KEY-----",
        // PKCS#8 and SEC 1, DER.
        r"\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x04\x6d\x30\x6b\x02\x01\x01\x04\x20",
        r"\x06\x05\x2b\x81\x04\x00\x22\x04\x81\x9e\x30\x81\x9b\x02\x01\x01\x04\x30",
        r"\x30\x77\x02\x01\x01\x04\x20",
        r"\x02\x01\x00\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00\x04\x82",
        // The same in base64.
        r"MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg",
        r"MIG2AgEAMBAGByqGSM49AgEGBSuBBAAiBIGeMIGbAgEBBD[A-D]",
        r"MHcCAQEEI[A-P]",
        r"MII[A-Za-z0-9+/]{3}IBADANBgkqhkiG9w0BAQEFAASC",
        // In hexadecimal.
        r"(?i:2a8648ce3d020106082a8648ce3d030107046d306b0201010420)",
        // A JWK.
        r#"\\?"d\\?":\s?\\?"[A-Za-z0-9_-]{40,}"#,
    ];
    let unbroken = without_line_breaks(bytes);
    let looks = regex(&LOOKS.join("|"))?;
    let hit = looks.find(bytes).or_else(|| looks.find(&unbroken));
    Ok(hit.map(|hit| format!("{:?} at byte {}", String::from_utf8_lossy(hit.as_bytes()), hit.start())))
}

/// `file: what` of everything under `folder` that looks like a private key where none may be.
pub fn private_keys_under(folder: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for file in files(folder)? {
        let hit = private_key_in(&std::fs::read(&file).unwrap_or_default())?;
        found.extend(hit.map(|what| format!("{}: {what}", file.display())));
    }
    Ok(found)
}

/// Regular files, without those that hold keys on purpose.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() && !KEY_FILES.iter().any(|name| entry.file_name() == *name) {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}

/// As it is, in base64 wherever it begins in a longer text, in hexadecimal, and as Rust and Go print bytes.
fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let mut forms = vec![secret.to_vec()];
    for offset in 0..3 {
        let mut shifted = vec![0; offset];
        shifted.extend(secret);
        // The first characters depend on what stands before, the last one on what follows.
        let whole = base64(&shifted[..shifted.len() / 3 * 3]);
        let inner = &whole[[0, 2, 3][offset]..];
        forms.push(inner.as_bytes().to_vec());
        forms.push(inner.replace('+', "-").replace('/', "_").into_bytes());
    }
    let each = |form: fn(u8) -> String, between: &str| {
        let parts: Vec<String> = secret.iter().map(|byte| form(*byte)).collect();
        parts.join(between).into_bytes()
    };
    forms.push(each(|byte| format!("{byte:02x}"), ""));
    forms.push(each(|byte| format!("{byte:02X}"), ""));
    forms.push(each(|byte| format!("{byte:02x}"), ":"));
    forms.push(each(|byte| byte.to_string(), ", "));
    forms.push(each(|byte| byte.to_string(), " "));
    forms.sort();
    forms.dedup();
    forms
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0_usize, |group, byte| group << 8 | usize::from(*byte));
        let group = group << (8 * (3 - chunk.len()));
        for at in 0..=chunk.len() {
            text.push(char::from(DIGITS[group >> (18 - 6 * at) & 63]));
        }
    }
    text
}

/// PEM breaks its lines, and a log line of one has them as `\n`.
fn without_line_breaks(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, after)) = rest.split_first() {
        if rest.starts_with(b"\\n") || rest.starts_with(b"\\r") {
            rest = &rest[2..];
            continue;
        }
        if !matches!(first, b'\n' | b'\r') {
            text.push(*first);
        }
        rest = after;
    }
    text
}

fn literal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "\\x{byte:02x}");
        text
    })
}

fn regex(pattern: &str) -> Result<Regex> {
    Ok(RegexBuilder::new(pattern).unicode(false).size_limit(REGEX_SIZE).dfa_size_limit(REGEX_SIZE).build()?)
}

#[cfg(test)]
mod tests {
    use steeple_spiffe::{KeyType, PrivateKey};

    use super::*;

    /// A log, with `planted` in it.
    fn log(planted: &[u8]) -> Vec<u8> {
        let mut log = b"level=info msg=\"Starting agent\" key=\"".to_vec();
        log.extend(planted);
        log.extend(b"\"\nlevel=debug msg=done\n");
        log
    }

    #[test]
    fn a_planted_key_is_found_in_every_form() -> Result<()> {
        for key_type in [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048] {
            let key = PrivateKey::generate(key_type)?;
            let der = key.pkcs8_der()?;
            let mut secrets = Secrets::default();
            secrets.add_pkcs8("the key", &der);
            let pem = key.to_pem()?;
            let hex = der.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
            let planted: [Vec<u8>; 8] = [
                der.to_vec(),
                pem.as_bytes().to_vec(),
                pem.replace('\n', "\\n").into_bytes(),
                base64(&der).into_bytes(),
                base64(&[&[1][..], &der].concat()).into_bytes(),
                base64(&[&[1, 2][..], &der].concat()).into_bytes(),
                hex.into_bytes(),
                format!("{:?}", &**der).into_bytes(),
            ];
            for (number, planted) in planted.iter().enumerate() {
                assert_eq!(secrets.found_in(&log(planted))?, ["the key"], "{key_type} {number}");
            }
            for (number, planted) in planted[..4].iter().enumerate() {
                let text = String::from_utf8_lossy(planted);
                assert!(private_key_in(&log(planted))?.is_some(), "{key_type} {number}: {text}");
            }
            assert!(private_key_in(&log(key.to_jwk()?.as_bytes()))?.is_some());
            let public = key.public_key().spki_der().to_vec();
            for harmless in [public.clone(), base64(&public).into_bytes()] {
                assert!(secrets.found_in(&log(&harmless))?.is_empty());
                assert_eq!(private_key_in(&log(&harmless))?, None);
            }
        }
        Ok(())
    }

    #[test]
    fn tokens_are_known_by_their_signature() -> Result<()> {
        let mut secrets = Secrets::default();
        secrets.add_token("token", "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJlLW9mLXRoZS10b2tlbg");
        assert!(secrets.found_in(b"eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0")?.is_empty());
        assert_eq!(secrets.found_in(b"x c2lnbmF0dXJlLW9mLXRoZS10b2tlbg y")?, ["token"]);
        Ok(())
    }

    #[test]
    fn files_of_keys_are_left_out_and_others_are_not() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let pem = PrivateKey::generate(KeyType::EcP256)?.to_pem()?;
        std::fs::create_dir(dir.path().join("agent"))?;
        std::fs::write(dir.path().join("agent/keys.json"), pem.as_bytes())?;
        assert!(private_keys_under(dir.path())?.is_empty());
        std::fs::write(dir.path().join("agent/agent.log"), pem.as_bytes())?;
        assert_eq!(private_keys_under(dir.path())?.len(), 1);
        Ok(())
    }
}
