//! What the configuration files of server and agent share: errors, how an option is named, `telemetry {}`,
//! `health_checks {}`, and what every plugin block must keep to.

mod plugin;
mod telemetry;

use steeple_config::{Block, ConfigError, FileError, GoDuration, PluginDataError, UnknownKeys};

pub use plugin::{constraint, exactly_one, no_data, refuse_external, unsupported_plugin};
pub use telemetry::{Telemetry, health_checks, telemetry};

/// Why a daemon does not start. Says what is wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The command line; printed with its usage.
    #[error("{0}")]
    Flags(steeple_config::FlagError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Decode(#[from] ConfigError),
    #[error(transparent)]
    PluginData(#[from] PluginDataError),
    #[error("{} section must be configured", .0)]
    MissingSection(&'static str),
    #[error("{} must be configured", .0)]
    Missing(&'static str),
    #[error("{}", unknown(.0))]
    Unknown(UnknownKeys),
    #[error("{place}: option \"{option}\" is not supported by this version of Steeple")]
    Unsupported { place: String, option: String },
    #[error("{place}: plugin {kind} \"{name}\" is not supported by this version of Steeple")]
    UnsupportedPlugin { place: String, kind: String, name: String },
    #[error("{place}: {option}: {problem}")]
    Invalid { place: String, option: String, problem: String },
    /// Whole sentences, SPIRE's where it has one.
    #[error("{0}")]
    Other(String),
}

/// SPIRE's words, then what it leaves to the log: where.
fn unknown(keys: &UnknownKeys) -> String {
    let places: Vec<String> = keys.refused().iter().map(ToString::to_string).collect();
    format!("unknown configuration detected: {}", places.join("; "))
}

/// `file:line:column` of a key, or of the block it would be in.
pub fn place(block: &Block<'_>, key: &str) -> String {
    format!("{}:{}", block.file(), block.pos_of(key).unwrap_or_else(|| block.pos()))
}

/// The option's full name, as an operator would look for it.
pub fn full_name(block: &Block<'_>, key: &str) -> String {
    if block.path().is_empty() { key.to_owned() } else { format!("{}.{key}", block.path()) }
}

/// An option SPIRE has and we do not serve.
pub fn unsupported(block: &Block<'_>, key: &str) -> LoadError {
    LoadError::Unsupported { place: place(block, key), option: full_name(block, key) }
}

pub fn invalid(block: &Block<'_>, key: &str, problem: impl ToString) -> LoadError {
    LoadError::Invalid {
        place: place(block, key),
        option: full_name(block, key),
        problem: problem.to_string(),
    }
}

/// Refuses the options that are there.
pub fn refuse(block: &Block<'_>, keys: &[&str]) -> Result<(), LoadError> {
    match keys.iter().find(|key| block.contains(key)) {
        Some(key) => Err(unsupported(block, key)),
        None => Ok(()),
    }
}

/// Refuses switches that are on; off is what we do.
pub fn refuse_on(block: &mut Block<'_>, keys: &[&str]) -> Result<(), LoadError> {
    for key in keys {
        if block.bool(key)? == Some(true) {
            return Err(unsupported(block, key));
        }
    }
    Ok(())
}

/// A string that is set; SPIRE takes an empty one for not set.
pub fn string(block: &mut Block<'_>, key: &str) -> Result<Option<String>, LoadError> {
    Ok(block.string(key)?.filter(|value| !value.is_empty()))
}

/// A duration that is set; as with strings, an empty one is not.
pub fn duration(block: &mut Block<'_>, key: &str) -> Result<Option<GoDuration>, LoadError> {
    match string(block, key)? {
        Some(_) => Ok(block.duration(key)?),
        None => Ok(None),
    }
}

/// The feature flag of WIT-SVIDs.
pub const WIT_SVID: &str = "wit-svid";
/// Flags that SPIRE knows; others end the start.
const KNOWN_FLAGS: [&str; 2] = [WIT_SVID, "i_am_a_test_flag"];

/// `experimental.feature_flags`, the same for server and agent. One that is not known is refused in SPIRE's words.
pub fn feature_flags(block: &mut Block<'_>) -> Result<Vec<String>, LoadError> {
    let flags = block.strings("feature_flags")?.unwrap_or_default();
    let mut bad: Vec<&str> =
        flags.iter().map(String::as_str).filter(|flag| !KNOWN_FLAGS.contains(flag)).collect();
    if bad.is_empty() {
        return Ok(flags);
    }
    bad.sort_unstable();
    let text = format!(
        "error loading feature flags: unknown feature flag(s): [{}]; known are {}",
        bad.join(" "),
        KNOWN_FLAGS.join(", ")
    );
    Err(invalid(block, "feature_flags", text))
}
