//! Agent path templates: the part of Go's text/template, and of the Sprig functions that SPIRE allows, that makes sense in
//! a path (spire.md §3.1). What is not served is refused when the template is read, by name.

mod eval;
mod functions;
mod parse;
mod value;

use steeple_spiffe::{SpiffeId, TrustDomain, id};

pub use parse::ParseError;
pub use value::Value;

/// A template that was read and checked against the fields it may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentPathTemplate {
    text: String,
    nodes: Vec<parse::Node>,
}

/// Why a template gave no agent ID.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    #[error("template: agent-path: {0}")]
    Template(String),
    #[error("invalid agent path suffix {suffix:?}: {problem}")]
    Suffix { suffix: String, problem: id::IdError },
    #[error("{0}")]
    Id(#[from] id::IdError),
}

impl AgentPathTemplate {
    /// `example` has every field that data will have; a field it lacks is refused here and now.
    pub fn parse(text: &str, example: &Value) -> Result<Self, ParseError> {
        Ok(Self { text: text.to_owned(), nodes: parse::parse(text, example)? })
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// The agent's ID: `/spire/agent` and what comes out, which must be a SPIFFE path of its own.
    pub fn agent_id(&self, trust_domain: &TrustDomain, data: &Value) -> Result<SpiffeId, PathError> {
        let suffix = eval::run(&self.nodes, data).map_err(PathError::Template)?;
        agent_id(trust_domain, &suffix)
    }
}

/// `/spire/agent` and `suffix`.
pub fn agent_id(trust_domain: &TrustDomain, suffix: &str) -> Result<SpiffeId, PathError> {
    let checked =
        if suffix.is_empty() { Err(id::IdError::NoLeadingSlash) } else { id::validate_path(suffix) };
    checked.map_err(|problem| PathError::Suffix { suffix: suffix.to_owned(), problem })?;
    Ok(SpiffeId::from_parts(trust_domain, &format!("/spire/agent{suffix}"))?)
}

#[cfg(test)]
mod tests;
