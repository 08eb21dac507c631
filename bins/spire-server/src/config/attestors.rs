//! `NodeAttestor` plugins with configuration. What they read (CA files, templates, patterns) is read here, so that `validate`
//! finds mistakes as SPIRE's does.

use steeple_cli::settings::{invalid, string};
use steeple_config::{Block, PluginConfig, Strictness, UnknownKeys};
use steeple_plugins_base::node_attestor::http_challenge::{HttpChallengeConfig, HttpChallengeOptions};
use steeple_plugins_base::node_attestor::sshpop::{SshPopConfig, SshPopOptions};
use steeple_plugins_base::node_attestor::x509pop::{X509PopConfig, X509PopOptions};

use super::LoadError;

/// An attestor beside join_token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttestorConfig {
    X509Pop(X509PopConfig),
    SshPop(SshPopConfig),
    HttpChallenge(HttpChallengeConfig),
}

pub(super) fn x509pop(
    plugin: &PluginConfig,
    mut block: Block<'_>,
    unknown: &mut UnknownKeys,
) -> Result<AttestorConfig, LoadError> {
    // SPIRE's documentation has the one name, its code the other.
    let (documented, read) = (block.string("svid_prefix")?, block.string("spiffe_prefix")?);
    if documented.is_some() && read.is_some() {
        return Err(invalid(&block, "svid_prefix", "is the same as spiffe_prefix; remove one"));
    }
    let options = X509PopOptions {
        mode: string(&mut block, "mode")?,
        svid_prefix: documented.or(read),
        ca_bundle_path: string(&mut block, "ca_bundle_path")?,
        ca_bundle_paths: block.strings("ca_bundle_paths")?.unwrap_or_default(),
        agent_path_template: string(&mut block, "agent_path_template")?,
        max_intermediates: block.int("max_intermediates")?,
        max_rsa_key_size: block.int("max_rsa_key_size")?,
        verify_client_ip: block.bool("verify_client_ip")?.unwrap_or(false),
    };
    block.finish(Strictness::Lax, "NodeAttestor \"x509pop\"", unknown);
    X509PopConfig::load(&options).map(AttestorConfig::X509Pop).map_err(|error| refused(plugin, &error))
}

pub(super) fn sshpop(
    plugin: &PluginConfig,
    mut block: Block<'_>,
    unknown: &mut UnknownKeys,
) -> Result<AttestorConfig, LoadError> {
    let options = SshPopOptions {
        cert_authorities: block.strings("cert_authorities")?,
        cert_authorities_path: string(&mut block, "cert_authorities_path")?,
        canonical_domain: string(&mut block, "canonical_domain")?,
        agent_path_template: string(&mut block, "agent_path_template")?,
    };
    block.finish(Strictness::Lax, "NodeAttestor \"sshpop\"", unknown);
    SshPopConfig::load(&options).map(AttestorConfig::SshPop).map_err(|error| refused(plugin, &error))
}

pub(super) fn http_challenge(
    plugin: &PluginConfig,
    mut block: Block<'_>,
    unknown: &mut UnknownKeys,
) -> Result<AttestorConfig, LoadError> {
    let options = HttpChallengeOptions {
        allowed_dns_patterns: block.strings("allowed_dns_patterns")?.unwrap_or_default(),
        required_port: block.int("required_port")?,
        allow_non_root_ports: block.bool("allow_non_root_ports")?,
        tofu: block.bool("tofu")?,
    };
    block.finish(Strictness::Lax, "NodeAttestor \"http_challenge\"", unknown);
    HttpChallengeConfig::load(&options)
        .map(AttestorConfig::HttpChallenge)
        .map_err(|error| refused(plugin, &error))
}

fn refused(plugin: &PluginConfig, error: &impl ToString) -> LoadError {
    LoadError::Other(format!(
        "{}:{}: failed to configure plugin {:?}: {}",
        plugin.file,
        plugin.pos,
        plugin.name,
        error.to_string()
    ))
}
