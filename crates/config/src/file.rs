//! From a file's bytes to a tree.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::ast::{Body, Pos};
use crate::error::{ConfigError, Problem};
use crate::json::parse_json;
use crate::parser::parse_hcl;

/// Parses HCL 1, or JSON where the first character that is no white space is `{`. `file` is the name for messages.
/// A byte order mark at the start is skipped.
pub fn parse(file: &str, text: &str) -> Result<Body, ConfigError> {
    let file: Arc<str> = Arc::from(file);
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // HCL 1 reserves U+E123 for its printer.
    if let Some(at) = text.find(['\0', '\u{e123}']) {
        let what = if text[at..].starts_with('\0') { "null character" } else { "reserved character U+E123" };
        return Err(ConfigError::new(&file, position(text, at), Problem::Syntax(what.to_owned())));
    }
    if text.trim_start().starts_with('{') { parse_json(&file, text) } else { parse_hcl(&file, text) }
}

/// [`parse`] for bytes that may not be UTF-8.
pub fn parse_bytes(file: &str, bytes: &[u8]) -> Result<Body, ConfigError> {
    match std::str::from_utf8(bytes) {
        Ok(text) => parse(file, text),
        Err(e) => {
            let valid = String::from_utf8_lossy(&bytes[..e.valid_up_to()]);
            let pos = position(&valid, valid.len());
            Err(ConfigError::new(
                &Arc::from(file),
                pos,
                Problem::Syntax("text is not valid UTF-8".to_owned()),
            ))
        }
    }
}

/// Why [`read_file`] has no tree to give. The messages are SPIRE's.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("could not find config file {0}: please use the -config flag")]
    Missing(String),
    #[error("unable to read configuration at {}: {error}", crate::go_quote(.path))]
    Read { path: String, error: io::Error },
    #[error("unable to decode configuration at {}: {error}", crate::go_quote(.path))]
    Parse { path: String, error: ConfigError },
}

/// Reads and parses the configuration file at `path`, with environment variables expanded first if asked for
/// (`-expandEnv`).
pub fn read_file(path: &str, expand_env: bool) -> Result<Body, FileError> {
    let bytes = std::fs::read(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => FileError::Missing(absolute(path)),
        _ => FileError::Read { path: path.to_owned(), error },
    })?;
    let parsed = match std::str::from_utf8(&bytes) {
        Ok(text) if expand_env => parse(path, &crate::expand_process_env(text)),
        _ => parse_bytes(path, &bytes),
    };
    parsed.map_err(|error| FileError::Parse { path: path.to_owned(), error })
}

fn absolute(path: &str) -> String {
    std::path::absolute(Path::new(path)).map_or_else(|_| path.to_owned(), |p| p.display().to_string())
}

fn position(text: &str, at: usize) -> Pos {
    let before = &text[..at];
    let line_start = before.rfind('\n').map_or(0, |n| n + 1);
    Pos {
        line: 1 + before.bytes().filter(|b| *b == b'\n').count() as u32,
        column: 1 + before[line_start..].chars().count() as u32,
    }
}

#[cfg(test)]
mod tests;
