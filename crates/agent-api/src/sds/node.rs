//! What an Envoy says of itself decides how it is told whom to trust.

use prost_types::value::Kind;
use steeple_proto::envoy::config::core::v3 as core;
use steeple_proto::envoy::config::core::v3::node::UserAgentVersionType;

use super::SdsNames;

/// Key of the node's metadata by which an Envoy chooses for itself.
const DISABLE: &str = "disable_spiffe_cert_validation";

/// What matters of a node; only the first request of a stream has to tell it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    /// From the metadata; beats the configuration.
    disabled: Option<bool>,
    /// Envoy 1.17 and older do not know the SPIFFE validator.
    too_old: bool,
}

impl Node {
    pub fn of(node: Option<&core::Node>) -> Self {
        let Some(node) = node else { return Self::default() };
        let field = node.metadata.as_ref().and_then(|metadata| metadata.fields.get(DISABLE));
        let disabled = match field.and_then(|value| value.kind.as_ref()) {
            Some(Kind::BoolValue(value)) => Some(*value),
            Some(Kind::StringValue(value)) => go_bool(value),
            _ => None,
        };
        let version = match &node.user_agent_version_type {
            Some(UserAgentVersionType::UserAgentBuildVersion(build)) => build.version,
            _ => None,
        };
        let too_old = version.is_some_and(|version| (version.major_number, version.minor_number) < (1, 18));
        Self { disabled, too_old }
    }

    /// Whether bundles go to Envoy's SPIFFE validator.
    pub fn validator(self, names: &SdsNames) -> bool {
        !self.too_old && !self.disabled.unwrap_or(names.disable_spiffe_cert_validation)
    }
}

/// Go's `strconv.ParseBool`.
fn go_bool(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use prost_types::{Struct, Value};
    use steeple_proto::envoy::r#type::v3::SemanticVersion;

    use super::*;

    fn envoy(major_number: u32, minor_number: u32, switch: Option<Kind>) -> core::Node {
        let version = Some(SemanticVersion { major_number, minor_number, patch: 0 });
        let build = core::BuildVersion { version, metadata: None };
        let metadata = switch.map(|kind| Struct {
            fields: [(DISABLE.to_owned(), Value { kind: Some(kind) })].into_iter().collect(),
        });
        let user_agent_version_type = Some(UserAgentVersionType::UserAgentBuildVersion(build));
        core::Node { metadata, user_agent_version_type, ..core::Node::default() }
    }

    #[test]
    fn old_envoys_and_those_that_say_so_do_without_the_validator() {
        let on = SdsNames::default();
        let off = SdsNames { disable_spiffe_cert_validation: true, ..SdsNames::default() };
        let text = |value: &str| Some(Kind::StringValue(value.into()));
        for (node, with_on, with_off) in [
            (None, true, false),
            (Some(core::Node::default()), true, false),
            (Some(envoy(1, 17, None)), false, false),
            (Some(envoy(1, 18, None)), true, false),
            (Some(envoy(2, 0, None)), true, false),
            (Some(envoy(0, 99, None)), false, false),
            (Some(envoy(1, 40, Some(Kind::BoolValue(true)))), false, false),
            (Some(envoy(1, 40, Some(Kind::BoolValue(false)))), true, true),
            (Some(envoy(1, 40, text("true"))), false, false),
            (Some(envoy(1, 40, text("f"))), true, true),
            (Some(envoy(1, 40, text("yes"))), true, false),
            (Some(envoy(1, 40, Some(Kind::NumberValue(1.0)))), true, false),
            (Some(envoy(1, 17, Some(Kind::BoolValue(false)))), false, false),
        ] {
            let seen = Node::of(node.as_ref());
            assert_eq!((seen.validator(&on), seen.validator(&off)), (with_on, with_off), "{node:?}");
        }
    }
}
