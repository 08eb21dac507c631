//! DNS names of entries and CSRs, checked as SPIRE does.

use std::collections::HashSet;

/// Why a DNS name is refused; SPIRE's texts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DnsNameError {
    #[error("too many wildcards")]
    TooManyWildcards,
    #[error("wildcard must be first label")]
    WildcardMustBeFirstLabel,
    #[error("empty or only whitespace")]
    Empty,
    /// With the reason of the IDNA check on a line of its own, as Go joins errors.
    #[error("idna error\n{0}")]
    Idna(String),
    #[error("domain ends with dot")]
    EndsWithDot,
    #[error("name {0:?} overlaps with an existing wildcard name in the list: wildcard overlap")]
    WildcardOverlap(String),
    #[error("name must be ascii")]
    NotAscii,
    #[error("input domain name {input:?} does not match idna output {output:?}: label mismatch after idna")]
    LabelMismatch { input: String, output: String },
    #[error("wildcard not allowed")]
    WildcardNotAllowed,
}

/// Checks one DNS name: ASCII letters, digits and hyphens, at most one `*` and only as the whole first label.
pub fn validate_dns_name(name: &str) -> Result<(), DnsNameError> {
    if !name.is_ascii() {
        return Err(DnsNameError::NotAscii);
    }
    match name.matches('*').count() {
        0 => validate_plain(name),
        1 => match name.strip_prefix("*.") {
            Some(rest) => validate_plain(rest),
            None => Err(DnsNameError::WildcardMustBeFirstLabel),
        },
        _ => Err(DnsNameError::TooManyWildcards),
    }
}

/// Refuses a list in which a name is covered by a wildcard of the same list.
pub fn check_wildcard_overlap(names: &[String]) -> Result<(), DnsNameError> {
    let all: HashSet<&str> = names.iter().map(String::as_str).collect();
    for name in names {
        if name.starts_with('*') {
            continue;
        }
        let wildcard = match name.split_once('.') {
            Some((_, parent)) => format!("*.{parent}"),
            None => "*".to_owned(),
        };
        if all.contains(wildcard.as_str()) {
            return Err(DnsNameError::WildcardOverlap(name.clone()));
        }
    }
    Ok(())
}

fn validate_plain(name: &str) -> Result<(), DnsNameError> {
    let name = name.trim();
    if name.is_empty() {
        return Err(DnsNameError::Empty);
    }
    if name.ends_with('.') {
        return Err(DnsNameError::EndsWithDot);
    }
    validate_idna(name)
}

fn validate_idna(name: &str) -> Result<(), DnsNameError> {
    for label in name.split('.') {
        let plain = label.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-');
        if !plain || label.is_empty() || label.len() > 63 || label.starts_with('-') || label.ends_with('-') {
            return Err(DnsNameError::Idna(format!("idna: invalid label {label:?}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
