//! SPIRE's key file: `{"keys": {id: base64 of PKCS#8}}`, indented with tabs, ids sorted, mode 0600, replaced
//! atomically.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use steeple_plugin::KeyManagerError;
use steeple_spiffe::PrivateKey;
use zeroize::{Zeroize as _, Zeroizing};

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    keys: Option<BTreeMap<String, String>>,
}

impl Drop for Document {
    fn drop(&mut self) {
        self.keys.iter_mut().flat_map(BTreeMap::values_mut).for_each(String::zeroize);
    }
}

pub(super) fn load(path: &Path) -> Result<BTreeMap<String, PrivateKey>, KeyManagerError> {
    let failed = |reason: String| KeyManagerError::Load { path: path.display().to_string(), reason };
    let text = match fs::read(path) {
        Ok(text) => Zeroizing::new(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(failed(error.to_string())),
    };
    let mut document: Document = serde_json::from_slice(&text)
        .map_err(|error| failed(format!("unable to decode keys JSON: {}", without_values(&error))))?;
    let mut keys = BTreeMap::new();
    for (id, encoded) in document.keys.iter_mut().flatten() {
        let unreadable = |reason: String| failed(format!("unable to parse key {id:?}: {reason}"));
        let pkcs8 = STANDARD.decode(encoded.as_bytes()).map(Zeroizing::new);
        let pkcs8 = pkcs8.map_err(|_| unreadable("not base64".to_owned()))?;
        let key = PrivateKey::from_pkcs8_der(&pkcs8).map_err(|error| unreadable(error.to_string()))?;
        keys.insert(id.clone(), key);
    }
    Ok(keys)
}

/// serde's messages may quote what they read; the position is enough here.
fn without_values(error: &serde_json::Error) -> String {
    format!("{:?} error at line {} column {}", error.classify(), error.line(), error.column())
}

pub(super) fn store(path: &Path, keys: &BTreeMap<String, Arc<PrivateKey>>) -> Result<(), KeyManagerError> {
    let failed = |reason: String| KeyManagerError::Store { path: path.display().to_string(), reason };
    let text = encode(keys).map_err(failed)?;
    replace(path, text.as_bytes()).map_err(|error| failed(error.to_string()))
}

fn encode(keys: &BTreeMap<String, Arc<PrivateKey>>) -> Result<Zeroizing<String>, String> {
    let mut lines = Vec::with_capacity(keys.len());
    for (id, key) in keys {
        let pkcs8 = key.pkcs8_der().map_err(|error| format!("key {id:?}: {error}"))?;
        let id = serde_json::to_string(id).map_err(|error| error.to_string())?;
        lines.push((id, pkcs8));
    }
    // Room for everything at once: growing would leave copies behind.
    let room =
        lines.iter().map(|(id, pkcs8)| id.len() + pkcs8.len().div_ceil(3) * 4 + 16).sum::<usize>() + 32;
    let mut text = Zeroizing::new(String::with_capacity(room));
    text.push_str("{\n\t\"keys\": {");
    for (number, (id, pkcs8)) in lines.iter().enumerate() {
        text.push_str(if number == 0 { "\n\t\t" } else { ",\n\t\t" });
        text.push_str(id);
        text.push_str(": \"");
        STANDARD.encode_string(pkcs8.as_slice(), &mut text);
        text.push('"');
    }
    text.push_str(if lines.is_empty() { "}\n}" } else { "\n\t}\n}" });
    Ok(text)
}

/// Either the old file or the new one is there, whatever happens.
fn replace(path: &Path, data: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    let temporary = PathBuf::from(name);
    // What an interrupted write left, whatever its mode is.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(data)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        // Best effort: the error that matters is the one above.
        let _ = fs::remove_file(&temporary);
        return written;
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}
