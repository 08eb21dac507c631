use steeple_datastore::model::Agent;
use steeple_proto::spire::api::types;

use super::{id_to_proto, selectors_to_proto};

pub fn agent_to_proto(agent: &Agent) -> types::Agent {
    types::Agent {
        id: Some(id_to_proto(&agent.id)),
        attestation_type: agent.attestation_type.clone(),
        x509svid_serial_number: agent.serial_number.clone(),
        x509svid_expires_at: agent.expires_at,
        selectors: selectors_to_proto(&agent.selectors),
        banned: agent.is_banned(),
        can_reattest: agent.can_reattest,
        agent_version: agent.agent_version.clone(),
    }
}

/// Clears what the mask does not ask for; the ID always stays.
pub fn apply_agent_mask(agent: &mut types::Agent, mask: Option<&types::AgentMask>) {
    let Some(mask) = mask else { return };
    if !mask.attestation_type {
        agent.attestation_type.clear();
    }
    if !mask.x509svid_serial_number {
        agent.x509svid_serial_number.clear();
    }
    if !mask.x509svid_expires_at {
        agent.x509svid_expires_at = 0;
    }
    if !mask.selectors {
        agent.selectors.clear();
    }
    agent.banned &= mask.banned;
    agent.can_reattest &= mask.can_reattest;
    if !mask.agent_version {
        agent.agent_version.clear();
    }
}
