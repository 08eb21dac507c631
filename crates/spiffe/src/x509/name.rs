//! Distinguished names in the order, encoding and text form of Go's crypto/x509/pkix, which is what SPIRE
//! writes into certificates and prints.

use std::fmt;

use super::X509Error;
use crate::der::{self, Reader, Writer};

/// A subject or issuer. Equal values of one attribute go into one RDN, attributes in Go's order
/// (C, ST, L, street, postal code, O, OU, CN, serial number, then the rest).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DistinguishedName {
    pub country: Vec<String>,
    pub organization: Vec<String>,
    pub organizational_unit: Vec<String>,
    pub locality: Vec<String>,
    pub province: Vec<String>,
    pub street_address: Vec<String>,
    pub postal_code: Vec<String>,
    pub common_name: String,
    pub serial_number: String,
    /// Other attributes: the content bytes of the OID, and the value.
    pub extra: Vec<(Vec<u8>, String)>,
}

impl DistinguishedName {
    /// SPIRE's default subject of workload certificates: `C=US, O=SPIRE`.
    pub fn default_svid() -> Self {
        Self { country: vec!["US".into()], organization: vec!["SPIRE".into()], ..Self::default() }
    }

    /// SPIRE's default subject of CA certificates: `C=US, O=SPIFFE`.
    pub fn default_ca() -> Self {
        Self { country: vec!["US".into()], organization: vec!["SPIFFE".into()], ..Self::default() }
    }

    pub fn is_empty(&self) -> bool {
        self.rdns().is_empty()
    }

    pub fn to_der(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(96);
        w.nested(der::SEQUENCE, |w| {
            for (oid, values) in self.rdns() {
                w.nested(der::SET, |w| {
                    // DER: the members of a SET in order of their encodings.
                    let mut attributes: Vec<_> = values.iter().map(|value| attribute(&oid, value)).collect();
                    attributes.sort();
                    for attribute in attributes {
                        w.raw(&attribute);
                    }
                });
            }
        });
        w.finish()
    }

    pub fn from_der(name: &[u8]) -> Result<Self, X509Error> {
        Self::parse(name).ok_or(X509Error::MalformedName)
    }

    fn parse(name: &[u8]) -> Option<Self> {
        let mut out = Self::default();
        let mut outer = Reader::new(name);
        let mut rdns = outer.nested(der::SEQUENCE)?;
        if !outer.is_empty() {
            return None;
        }
        while !rdns.is_empty() {
            let mut rdn = rdns.nested(der::SET)?;
            while !rdn.is_empty() {
                let mut attribute = rdn.nested(der::SEQUENCE)?;
                let oid = attribute.expect(der::OID)?;
                let (_, value, _) = attribute.any()?;
                out.add(oid, String::from_utf8_lossy(value).into_owned());
            }
        }
        Some(out)
    }

    fn add(&mut self, oid: &[u8], value: String) {
        match oid {
            [0x55, 0x04, 6] => self.country.push(value),
            [0x55, 0x04, 10] => self.organization.push(value),
            [0x55, 0x04, 11] => self.organizational_unit.push(value),
            [0x55, 0x04, 7] => self.locality.push(value),
            [0x55, 0x04, 8] => self.province.push(value),
            [0x55, 0x04, 9] => self.street_address.push(value),
            [0x55, 0x04, 17] => self.postal_code.push(value),
            [0x55, 0x04, 3] => self.common_name = value,
            [0x55, 0x04, 5] => self.serial_number = value,
            _ => self.extra.push((oid.to_vec(), value)),
        }
    }

    /// The RDNs in the order they are encoded.
    fn rdns(&self) -> Vec<(Vec<u8>, Vec<&str>)> {
        let lists = [
            (6, &self.country),
            (8, &self.province),
            (7, &self.locality),
            (9, &self.street_address),
            (17, &self.postal_code),
            (10, &self.organization),
            (11, &self.organizational_unit),
        ];
        let mut out = Vec::new();
        for (id, values) in lists {
            if !values.is_empty() {
                out.push((vec![0x55, 0x04, id], values.iter().map(String::as_str).collect()));
            }
        }
        for (id, value) in [(3, &self.common_name), (5, &self.serial_number)] {
            if !value.is_empty() {
                out.push((vec![0x55, 0x04, id], vec![value.as_str()]));
            }
        }
        out.extend(self.extra.iter().map(|(oid, value)| (oid.clone(), vec![value.as_str()])));
        out
    }
}

/// Go's pkix.Name.String: RDNs in reverse, `CN=x,O=SPIRE,C=US`; unknown attributes come last, by OID.
impl fmt::Display for DistinguishedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rdns = self.rdns();
        // Go puts attributes it has no field for before the others, and then writes all backwards.
        let known = rdns.len() - self.extra.len();
        rdns.rotate_left(known);
        for (i, (oid, values)) in rdns.iter().rev().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            for (j, value) in values.iter().enumerate() {
                if j > 0 {
                    f.write_str("+")?;
                }
                if let Some(label) = label(oid) {
                    write!(f, "{label}={}", escape(value))?;
                    continue;
                }
                write!(f, "{}=#", dotted(oid))?;
                let mut w = Writer::default();
                w.value(string_tag(value), value.as_bytes());
                for byte in w.finish() {
                    write!(f, "{byte:02x}")?;
                }
            }
        }
        Ok(())
    }
}

fn label(oid: &[u8]) -> Option<&'static str> {
    let [0x55, 0x04, id] = oid else { return None };
    Some(match id {
        3 => "CN",
        5 => "SERIALNUMBER",
        6 => "C",
        7 => "L",
        8 => "ST",
        9 => "STREET",
        10 => "O",
        11 => "OU",
        17 => "POSTALCODE",
        _ => return None,
    })
}

/// RFC 2253 escapes.
fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (i, c) in value.chars().enumerate() {
        let special = match c {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' => true,
            ' ' => i == 0 || i == last,
            '#' => i == 0,
            _ => false,
        };
        if special {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

pub(super) fn dotted(oid: &[u8]) -> String {
    let mut parts = Vec::new();
    let mut value = 0_u64;
    for byte in oid {
        value = value << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            if parts.is_empty() {
                let first = (value / 40).min(2);
                parts.push(first.to_string());
                parts.push((value - first * 40).to_string());
            } else {
                parts.push(value.to_string());
            }
            value = 0;
        }
    }
    parts.join(".")
}

fn attribute(oid: &[u8], value: &str) -> Vec<u8> {
    let mut w = Writer::with_capacity(value.len() + 16);
    w.nested(der::SEQUENCE, |w| {
        w.value(der::OID, oid);
        w.value(string_tag(value), value.as_bytes());
    });
    w.finish()
}

/// PrintableString where its alphabet is enough, as Go does; it counts `*` and `&` as not printable here.
fn string_tag(value: &str) -> u8 {
    let printable = value.bytes().all(|c| {
        c.is_ascii_alphanumeric()
            || matches!(c, b' ' | b'\'' | b'(' | b')' | b'+'..=b'/' | b':' | b'=' | b'?')
    });
    if printable { der::PRINTABLE_STRING } else { der::UTF8_STRING }
}

#[cfg(test)]
mod tests;
