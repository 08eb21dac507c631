//! The `plugins {}` block (`spire.md` §3 and §4.3).

use std::io;

use crate::ast::{Body, Item, Key, Pos, Value};
use crate::error::{ConfigError, Problem};

/// One plugin as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginConfig {
    /// `NodeAttestor`, `KeyManager`, …
    pub kind: String,
    pub name: String,
    pub file: String,
    pub pos: Pos,
    /// `plugin_cmd`; a plugin without one is built in.
    pub command: Option<String>,
    pub args: Vec<String>,
    /// SHA-256 of the command's file, in hex.
    pub checksum: Option<String>,
    pub data: PluginData,
    pub enabled: bool,
}

/// Where a plugin's own configuration is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PluginData {
    /// Absent, `null` or empty.
    None,
    Inline(Body),
    /// `plugin_data_file`, relative to the working directory. Read whenever it is asked for: a reload sees it change.
    File(String),
}

/// Why a plugin's own configuration cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PluginDataError {
    #[error("failed to read plugin_data_file {path:?}: {error}")]
    Read { path: String, error: io::Error },
    #[error(transparent)]
    Parse(#[from] ConfigError),
}

impl PluginData {
    /// HCL text for an external plugin; `None` where nothing is configured.
    pub fn text(&self) -> Result<Option<String>, PluginDataError> {
        match self {
            Self::None => Ok(None),
            Self::Inline(body) => Ok(Some(body.to_hcl())),
            Self::File(path) => match std::fs::read_to_string(path) {
                Ok(text) => Ok(Some(text)),
                Err(error) => Err(PluginDataError::Read { path: path.clone(), error }),
            },
        }
    }

    pub fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Kept in a file that a reload reads again.
    pub fn is_dynamic(&self) -> bool {
        matches!(self, Self::File(_))
    }
}

impl PluginConfig {
    pub fn is_external(&self) -> bool {
        self.command.is_some()
    }

    /// The plugin's own configuration, for a built-in to decode; empty where nothing is configured.
    pub fn body(&self) -> Result<Body, PluginDataError> {
        match &self.data {
            PluginData::None => Ok(Body::new(self.file.as_str().into(), Vec::new())),
            PluginData::Inline(body) => Ok(body.clone()),
            PluginData::File(path) => match std::fs::read(path) {
                Ok(bytes) => Ok(crate::parse_bytes(path, &bytes)?),
                Err(error) => Err(PluginDataError::Read { path: path.clone(), error }),
            },
        }
    }
}

/// The plugins of a `plugins {}` block, in file order. A type and name may come once.
pub fn plugins(body: &Body) -> Result<Vec<PluginConfig>, ConfigError> {
    let mut found: Vec<Declaration<'_>> = Vec::new();
    for item in body.items() {
        match (item.keys.as_slice(), &item.value) {
            // Type "name" { … } and Type "name" plugin_data { … }
            ([kind, name, rest @ ..], value) => declare(body, &mut found, kind, name, rest, value)?,
            // Type { "name" { … } }
            ([kind], Value::Object(object)) => {
                for inner in &object.items {
                    if let [name, rest @ ..] = inner.keys.as_slice() {
                        declare(body, &mut found, kind, name, rest, &inner.value)?;
                    }
                }
            }
            ([kind], value) => return Err(not_a_block(body, &kind.text, value)),
            ([], _) => {}
        }
    }
    found.into_iter().map(|declaration| decode(body, declaration)).collect()
}

struct Declaration<'a> {
    kind: &'a Key,
    name: &'a Key,
    items: Vec<Item>,
}

fn declare<'a>(
    body: &Body,
    found: &mut Vec<Declaration<'a>>,
    kind: &'a Key,
    name: &'a Key,
    rest: &[Key],
    value: &Value,
) -> Result<(), ConfigError> {
    let items = match value {
        Value::Object(object) if rest.is_empty() => object.items.clone(),
        _ if rest.is_empty() => {
            return Err(not_a_block(body, &format!("{} {:?}", kind.text, name.text), value));
        }
        value => vec![Item { keys: rest.to_vec(), assigned: false, value: value.clone() }],
    };
    match found.iter_mut().find(|d| d.kind.text == kind.text && d.name.text == name.text) {
        None => found.push(Declaration { kind, name, items }),
        // One JSON object that was folded into several labelled blocks: the copies share their place.
        Some(known) if known.name.pos == name.pos => known.items.extend(items),
        Some(_) => {
            let problem = Problem::DuplicatePlugin { kind: kind.text.clone(), name: name.text.clone() };
            return Err(ConfigError::new(body.file_arc(), name.pos, problem));
        }
    }
    Ok(())
}

fn decode(body: &Body, declaration: Declaration<'_>) -> Result<PluginConfig, ConfigError> {
    let Declaration { kind, name, items } = declaration;
    let inner = Body::new(body.file_arc().clone(), items);
    // The rest of the keys is ignored: SPIRE does not look for unknown ones here.
    let mut block = inner.block();
    let command = block.string("plugin_cmd")?.filter(|c| !c.is_empty());
    let args = block.strings("plugin_args")?.unwrap_or_default();
    let checksum = block.string("plugin_checksum")?.filter(|c| !c.is_empty());
    let enabled = block.bool("enabled")?.unwrap_or(true);
    let data = match (block.body("plugin_data")?, block.string("plugin_data_file")?) {
        (Some(_), Some(_)) => {
            return Err(
                block.invalid("plugin_data_file", "only one of [plugin_data, plugin_data_file] can be used")
            );
        }
        (None, Some(path)) => PluginData::File(path),
        (Some(data), None) if !data.is_empty() => PluginData::Inline(data),
        _ => PluginData::None,
    };
    Ok(PluginConfig {
        kind: kind.text.clone(),
        name: name.text.clone(),
        file: body.file().to_owned(),
        pos: name.pos,
        command,
        args,
        checksum,
        data,
        enabled,
    })
}

fn not_a_block(body: &Body, key: &str, value: &Value) -> ConfigError {
    let problem =
        Problem::Type { key: format!("plugins.{key}"), expected: "a block", found: value.describe() };
    ConfigError::new(body.file_arc(), value.pos(), problem)
}

#[cfg(test)]
mod tests;
