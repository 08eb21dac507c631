//! What agent path templates know of a certificate: the fields of Go's x509.Certificate that can stand in a path.

use std::collections::BTreeMap;

use aws_lc_rs::digest;
use steeple_spiffe::Certificate;
use steeple_spiffe::x509::DistinguishedName;

use super::NAME;
use crate::agent_path::Value;
use crate::hex;

/// What is known besides the certificate.
#[derive(Default)]
pub struct Known<'a> {
    pub trust_domain: &'a str,
    pub svid_path: &'a str,
    pub san_selectors: BTreeMap<String, String>,
}

pub fn data(leaf: &Certificate, known: Known<'_>) -> Value {
    let issuer = DistinguishedName::from_der(leaf.issuer_der()).unwrap_or_default();
    let digits = hex(leaf.serial_bytes());
    let number = Value::Big {
        decimal: leaf.serial_decimal(),
        hex: match digits.trim_start_matches('0') {
            "" => "0".to_owned(),
            digits => digits.to_owned(),
        },
    };
    record([
        ("SerialNumberHex", serial_number(leaf).into()),
        ("Fingerprint", fingerprint(leaf).into()),
        ("TrustDomain", known.trust_domain.into()),
        ("SVIDPathTrimmed", known.svid_path.into()),
        (
            "URISanSelectors",
            Value::Map(known.san_selectors.into_iter().map(|(key, value)| (key, value.into())).collect()),
        ),
        ("Subject", name(&leaf.subject())),
        ("Issuer", name(&issuer)),
        ("SerialNumber", number),
        ("DNSNames", Value::strings(leaf.dns_sans())),
        ("EmailAddresses", Value::strings(leaf.email_sans().iter().cloned())),
        ("IPAddresses", Value::strings(leaf.ip_sans().iter().map(ToString::to_string))),
        ("URIs", Value::List(leaf.uri_sans().iter().map(|uri| self::uri(uri)).collect())),
        ("IsCA", Value::Bool(leaf.is_ca())),
    ])
}

/// Every field there can be, for checking templates.
pub fn example() -> Value {
    record([
        ("SerialNumberHex", "".into()),
        ("Fingerprint", "".into()),
        ("TrustDomain", "".into()),
        ("SVIDPathTrimmed", "".into()),
        ("URISanSelectors", Value::Map(BTreeMap::new())),
        ("Subject", name(&DistinguishedName::default())),
        ("Issuer", name(&DistinguishedName::default())),
        ("SerialNumber", Value::Int(0)),
        ("DNSNames", Value::List(Vec::new())),
        ("EmailAddresses", Value::List(Vec::new())),
        ("IPAddresses", Value::List(Vec::new())),
        ("URIs", Value::List(Vec::new())),
        ("IsCA", Value::Bool(false)),
    ])
}

fn record<const N: usize>(fields: [(&'static str, Value); N]) -> Value {
    Value::record("", fields.into_iter().chain([("PluginName", NAME.into())]))
}

fn name(name: &DistinguishedName) -> Value {
    let list = |values: &[String]| Value::strings(values.iter().cloned());
    Value::record(
        name.to_string(),
        [
            ("CommonName", name.common_name.as_str().into()),
            ("SerialNumber", name.serial_number.as_str().into()),
            ("Country", list(&name.country)),
            ("Organization", list(&name.organization)),
            ("OrganizationalUnit", list(&name.organizational_unit)),
            ("Locality", list(&name.locality)),
            ("Province", list(&name.province)),
            ("StreetAddress", list(&name.street_address)),
            ("PostalCode", list(&name.postal_code)),
        ],
    )
}

fn uri(uri: &str) -> Value {
    let (scheme, rest) = uri.split_once("://").unwrap_or(("", uri));
    let (host, path) =
        rest.split_once('/').map_or((rest, String::new()), |(host, path)| (host, format!("/{path}")));
    Value::record(uri, [("Scheme", scheme.into()), ("Host", host.into()), ("Path", path.into())])
}

/// SHA-1 of the DER, in hexadecimal digits.
pub fn fingerprint(certificate: &Certificate) -> String {
    hex(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, certificate.der()).as_ref())
}

/// Lower-case hexadecimal, an even number of digits.
pub fn serial_number(certificate: &Certificate) -> String {
    let bytes = certificate.serial_bytes();
    let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len().saturating_sub(1));
    hex(&bytes[first..])
}
