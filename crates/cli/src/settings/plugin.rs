//! What every plugin block must keep to.

use steeple_config::PluginConfig;

use super::LoadError;

fn place(plugin: &PluginConfig) -> String {
    format!("{}:{}", plugin.file, plugin.pos)
}

/// `plugin_cmd`: a plugin outside the binary.
pub fn refuse_external(plugin: &PluginConfig) -> Result<(), LoadError> {
    match plugin.command {
        None => Ok(()),
        Some(_) => Err(LoadError::Unsupported {
            place: place(plugin),
            option: format!("plugins.{}.{}.plugin_cmd", plugin.kind, plugin.name),
        }),
    }
}

/// A built-in of SPIRE's that we do not have.
pub fn unsupported_plugin(plugin: &PluginConfig) -> LoadError {
    LoadError::UnsupportedPlugin {
        place: place(plugin),
        kind: plugin.kind.clone(),
        name: plugin.name.clone(),
    }
}

/// `plugin_data {}` and an empty `plugin_data_file` are legal on plugins that have no configuration; anything in it is
/// not (SPIRE).
pub fn no_data(plugin: &PluginConfig) -> Result<(), LoadError> {
    if plugin.body()?.is_empty() {
        return Ok(());
    }
    Err(LoadError::Other(format!(
        "{}: failed to configure plugin {:?}: no supported configuration interface found; remove its plugin_data",
        place(plugin),
        plugin.name
    )))
}

pub fn exactly_one(kind: &str, count: usize) -> Result<(), LoadError> {
    if count == 1 { Ok(()) } else { Err(constraint(kind, "exactly 1", count)) }
}

/// How many plugins of a kind there may be, in SPIRE's words.
pub fn constraint(kind: &str, expected: &str, count: usize) -> LoadError {
    LoadError::Other(format!(
        "plugin type {kind:?} constraint not satisfied: expected {expected} but got {count}"
    ))
}
