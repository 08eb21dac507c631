//! Blocks that several commands print.

use std::fmt::Write as _;

use steeple_cli::go;
use steeple_proto::spire::api::types;
use steeple_runtime::grpc;

/// `spiffe://td/path`; nothing when there is no ID.
pub fn id(id: Option<&types::Spiffeid>) -> String {
    id.map(|id| format!("spiffe://{}{}", id.trust_domain, id.path)).unwrap_or_default()
}

/// The name of a status code that came as a number.
pub fn code(code: i32) -> String {
    match tonic::Code::from_i32(code) {
        tonic::Code::Unknown if code != tonic::Code::Unknown as i32 => format!("Code({code})"),
        known => grpc::code_name(known).to_owned(),
    }
}

/// One entry and an empty line. Labels are padded to column 24; what is rarely set is only shown when it is.
pub fn entry(entry: &types::Entry) -> String {
    let mut block = Block { text: String::new(), width: 24 };
    let ttl = |seconds: i32| if seconds == 0 { "default".to_owned() } else { seconds.to_string() };
    block.line("Entry ID", if entry.id.is_empty() { "(none)" } else { &entry.id });
    block.line("SPIFFE ID", &id(entry.spiffe_id.as_ref()));
    block.line("Parent ID", &id(entry.parent_id.as_ref()));
    block.line("Revision", &entry.revision_number.to_string());
    block.line_if("Downstream", entry.downstream);
    block.line("X509-SVID TTL", &ttl(entry.x509_svid_ttl));
    block.line("JWT-SVID TTL", &ttl(entry.jwt_svid_ttl));
    if entry.expires_at != 0 {
        block.line("Expiration time", &go::time_utc(entry.expires_at));
    }
    for selector in &entry.selectors {
        block.line("Selector", &format!("{}:{}", selector.r#type, selector.value));
    }
    for trust_domain in &entry.federates_with {
        block.line("FederatesWith", trust_domain);
    }
    for name in &entry.dns_names {
        block.line("DNS name", name);
    }
    block.line_if("Admin", entry.admin);
    block.line_if("StoreSvid", entry.store_svid);
    if !entry.hint.is_empty() {
        block.line("Hint", &entry.hint);
    }
    if let Some(more) = &entry.additional_attributes {
        block.line_if("DisableX509SvidPrefetch", more.disable_x509_svid_prefetch);
        block.line_if("JwtSvidIncludeJti", more.jwt_svid_include_jti);
    }
    block.end()
}

/// One agent and an empty line. Labels are padded to column 18; the expiration is in the system's time zone.
pub fn agent(agent: &types::Agent) -> String {
    let mut block = Block { text: String::new(), width: 18 };
    block.line("SPIFFE ID", &id(agent.id.as_ref()));
    block.line("Attestation type", &agent.attestation_type);
    block.line("Expiration time", &go::time_local(agent.x509svid_expires_at));
    if agent.banned {
        // A banned agent has no serial number.
        block.line("Banned", "true");
    } else {
        block.line("Serial number", &agent.x509svid_serial_number);
    }
    block.line("Can re-attest", if agent.can_reattest { "true" } else { "false" });
    if !agent.agent_version.is_empty() {
        block.line("Agent version", &agent.agent_version);
    }
    block.end()
}

/// A line of an agent's block on its own.
pub fn agent_line(label: &str, value: &str) -> String {
    let mut block = Block { text: String::new(), width: 18 };
    block.line(label, value);
    block.text
}

struct Block {
    text: String,
    width: usize,
}

impl Block {
    fn line(&mut self, label: &str, value: &str) {
        let width = self.width;
        let _ = writeln!(self.text, "{label:width$}: {value}");
    }

    fn line_if(&mut self, label: &str, set: bool) {
        if set {
            self.line(label, "true");
        }
    }

    fn end(mut self) -> String {
        self.text.push('\n');
        self.text
    }
}

#[cfg(test)]
mod tests;
