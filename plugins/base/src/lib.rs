//! Built-in plugins that need no SDK: key managers disk and memory, join_token, the unix workload attestor.

pub mod agent_path;
pub mod credential_composer;
pub mod key_manager;
pub mod node_attestor;
pub mod upstream_authority;
pub mod workload_attestor;

/// Lower-case hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}
