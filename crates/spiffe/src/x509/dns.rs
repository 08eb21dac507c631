//! DNS names of entries and CSRs, checked as SPIRE does.

use std::collections::HashSet;

use crate::text::quote;

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
    #[error("name {} overlaps with an existing wildcard name in the list: wildcard overlap", quote(.0))]
    WildcardOverlap(String),
    #[error("name must be ascii")]
    NotAscii,
    #[error(
        "input domain name {} does not match idna output {}: label mismatch after idna",
        quote(.input),
        quote(.output)
    )]
    LabelMismatch { input: String, output: String },
    #[error("wildcard not allowed")]
    WildcardNotAllowed,
}

/// Checks one DNS name: ASCII, well-formed labels, at most one `*` and only as the whole first label.
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

/// What Go's strict IDNA profile refuses of an ASCII name; letters of any case, `_` and a space pass there. Control
/// characters, which pass too, are refused here: they have no business in a certificate.
fn validate_idna(name: &str) -> Result<(), DnsNameError> {
    let invalid = |label: &str| Err(DnsNameError::Idna(format!("idna: invalid label {}", quote(label))));
    if let Some(c) = name.chars().find(char::is_ascii_control) {
        return Err(DnsNameError::Idna(format!("idna: disallowed rune U+{:04X}", u32::from(c))));
    }
    let mut output = Vec::new();
    for label in name.split('.') {
        output.push(label.to_owned());
        if label.is_empty() {
            return invalid(name);
        }
        if let Some(encoded) = label.strip_prefix("xn--") {
            match punycode::decode(encoded) {
                None => return invalid(encoded),
                Some(decoded) if !punycode::is_valid_label(&decoded) => return invalid(&decoded),
                // Go decodes and encodes again, which makes the digits lower case.
                Some(_) => {
                    if let Some(label) = output.last_mut() {
                        label.make_ascii_lowercase();
                    }
                }
            }
        } else if label.starts_with('-') || label.ends_with('-') || label.get(2..4) == Some("--") {
            return invalid(label);
        }
    }
    if let Some(label) = name.split('.').find(|label| label.len() > 63) {
        return invalid(label);
    }
    if name.len() > 253 {
        return invalid(name);
    }
    let output = output.join(".");
    if output != name {
        return Err(DnsNameError::LabelMismatch { input: name.to_owned(), output });
    }
    Ok(())
}

/// RFC 3492, decoding only.
mod punycode {
    const BASE: u32 = 36;
    const T_MIN: u32 = 1;
    const T_MAX: u32 = 26;

    /// `None` when the text is no punycode, or decodes to plain ASCII.
    pub(super) fn decode(encoded: &str) -> Option<String> {
        let (basic, extended) = match encoded.rfind('-') {
            Some(at) => (&encoded[..at], &encoded[at + 1..]),
            None => ("", encoded),
        };
        if extended.is_empty() {
            return None;
        }
        let mut out: Vec<char> = basic.chars().collect();
        let (mut n, mut i, mut bias) = (128_u32, 0_u32, 72_u32);
        let mut digits = extended.bytes().peekable();
        while digits.peek().is_some() {
            let start = i;
            let mut weight = 1_u32;
            let mut k = BASE;
            loop {
                let digit = digit(digits.next()?)?;
                i = i.checked_add(digit.checked_mul(weight)?)?;
                let threshold = k.saturating_sub(bias).clamp(T_MIN, T_MAX);
                if digit < threshold {
                    break;
                }
                weight = weight.checked_mul(BASE - threshold)?;
                k += BASE;
            }
            let len = out.len() as u32 + 1;
            bias = adapt(i - start, len, start == 0);
            n = n.checked_add(i / len)?;
            i %= len;
            out.insert(i as usize, char::from_u32(n)?);
            i += 1;
        }
        Some(out.into_iter().collect())
    }

    /// Close to the IDNA tables without carrying them: no upper case, no symbols or numbers in circles and the
    /// like, no hyphens at the ends.
    pub(super) fn is_valid_label(label: &str) -> bool {
        let allowed = |c: char| match c {
            'a'..='z' | '0'..='9' | '-' | '_' => true,
            c => {
                c > '\u{9f}'
                    && !c.is_uppercase()
                    && (c.is_alphabetic() || !c.is_numeric())
                    && !c.is_whitespace()
            }
        };
        label.chars().all(allowed) && !label.starts_with('-') && !label.ends_with('-')
    }

    fn digit(c: u8) -> Option<u32> {
        match c {
            b'a'..=b'z' => Some(u32::from(c - b'a')),
            b'A'..=b'Z' => Some(u32::from(c - b'A')),
            b'0'..=b'9' => Some(u32::from(c - b'0') + 26),
            _ => None,
        }
    }

    fn adapt(delta: u32, len: u32, first: bool) -> u32 {
        let mut delta = if first { delta / 700 } else { delta / 2 };
        delta += delta / len;
        let mut k = 0;
        while delta > (BASE - T_MIN) * T_MAX / 2 {
            delta /= BASE - T_MIN;
            k += BASE;
        }
        k + (BASE - T_MIN + 1) * delta / (delta + 38)
    }
}

#[cfg(test)]
mod tests;
