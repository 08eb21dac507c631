//! A fixed clock, a small pool of keys, and a CA for good and odd certificates.

use std::sync::OnceLock;

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName as RcgenName, DnType, DnValue,
    IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls_pki_types::PrivatePkcs8KeyDer;
use steeple_spiffe::x509::{
    self, CaTemplate, Certificate, DistinguishedName, Issuer, LeafTemplate, SerialNumber, VerifyError,
};
use steeple_spiffe::{Bundle, KeyType, PrivateKey, SpiffeId, TrustDomain, UnixTime};

/// 2026-01-15 12:00:00 UTC.
pub const NOW: UnixTime = 1_768_478_400;
pub const HOUR: i64 = 3600;

/// One of four P-256 keys.
pub fn key(i: usize) -> &'static PrivateKey {
    static POOL: OnceLock<Vec<PrivateKey>> = OnceLock::new();
    &POOL.get_or_init(|| (0..4).map(|_| PrivateKey::generate(KeyType::EcP256).unwrap()).collect())[i]
}

pub fn p384() -> &'static PrivateKey {
    static KEY: OnceLock<PrivateKey> = OnceLock::new();
    KEY.get_or_init(|| PrivateKey::generate(KeyType::EcP384).unwrap())
}

pub fn rsa() -> &'static PrivateKey {
    static KEY: OnceLock<PrivateKey> = OnceLock::new();
    KEY.get_or_init(|| PrivateKey::generate(KeyType::Rsa2048).unwrap())
}

pub fn td(name: &str) -> TrustDomain {
    TrustDomain::new(name).unwrap()
}

pub fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

pub fn serial() -> SerialNumber {
    SerialNumber::random().unwrap()
}

pub fn leaf_template(spiffe_id: &str) -> LeafTemplate {
    LeafTemplate {
        spiffe_id: id(spiffe_id),
        public_key: key(1).public_key(),
        not_before: NOW - 10,
        not_after: NOW + HOUR,
        dns_names: Vec::new(),
        subject: None,
        serial: serial(),
    }
}

/// A signing certificate and its key.
pub struct Ca {
    pub certificate: Certificate,
    pub key: &'static PrivateKey,
    pub trust_domain: TrustDomain,
}

impl Ca {
    /// Self-signed by our own writer.
    pub fn new(name: &str) -> Self {
        Self::valid(name, NOW - HOUR, NOW + 24 * HOUR)
    }

    pub fn valid(name: &str, not_before: UnixTime, not_after: UnixTime) -> Self {
        let key = key(0);
        let template = CaTemplate {
            trust_domain: td(name),
            public_key: key.public_key(),
            subject: DistinguishedName::default_ca(),
            not_before,
            not_after,
            serial: serial(),
        };
        let algorithm = key.key_type().x509_signature_algorithm();
        let tbs = x509::ca_tbs_self_signed(&template, algorithm).unwrap();
        let der = x509::assemble(&tbs, algorithm, &key.sign(algorithm, &tbs).unwrap());
        Self { certificate: Certificate::from_der(&der).unwrap(), key, trust_domain: td(name) }
    }

    /// Self-signed by rcgen, changed by `odd`.
    pub fn odd(name: &str, odd: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = key(0);
        let mut params = odd_params(&format!("spiffe://{name}"));
        params.distinguished_name = rcgen_ca_name();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        odd(&mut params);
        let der = params.self_signed(&rcgen_key(key)).unwrap();
        Self { certificate: Certificate::from_der(der.der()).unwrap(), key, trust_domain: td(name) }
    }

    /// An intermediate of this CA, by our own writer, with another name and key.
    pub fn intermediate(&self, name: &str) -> Self {
        let key = key(2);
        let template = CaTemplate {
            trust_domain: td(name),
            public_key: key.public_key(),
            subject: DistinguishedName {
                organizational_unit: vec!["DOWNSTREAM-1".into()],
                ..DistinguishedName::default_ca()
            },
            not_before: NOW - HOUR,
            not_after: NOW + 24 * HOUR,
            serial: serial(),
        };
        let tbs = x509::ca_tbs(&template, &self.issuer()).unwrap();
        Self { certificate: self.finish(&tbs), key, trust_domain: td(name) }
    }

    pub fn issuer(&self) -> Issuer {
        Issuer::from_certificate(&self.certificate, self.key.key_type().x509_signature_algorithm())
    }

    pub fn issue(&self, template: &LeafTemplate) -> Certificate {
        self.finish(&x509::leaf_tbs(template, &self.issuer()).unwrap())
    }

    /// A leaf for `spiffe_id` by our own writer.
    pub fn leaf(&self, spiffe_id: &str) -> Certificate {
        self.issue(&leaf_template(spiffe_id))
    }

    /// A leaf by rcgen, good as it is, changed by `odd`.
    pub fn odd_leaf(&self, spiffe_id: &str, odd: impl FnOnce(&mut CertificateParams)) -> Certificate {
        let mut params = odd_params(spiffe_id);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.is_ca = IsCa::ExplicitNoCa;
        odd(&mut params);
        let mut issuer_params = CertificateParams::default();
        issuer_params.distinguished_name = rcgen_ca_name();
        issuer_params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let issuer = rcgen::Issuer::new(issuer_params, rcgen_key(self.key));
        let certificate = params.signed_by(&rcgen_key(key(1)), &issuer).unwrap();
        Certificate::from_der(certificate.der()).unwrap()
    }

    fn finish(&self, tbs: &[u8]) -> Certificate {
        let algorithm = self.key.key_type().x509_signature_algorithm();
        let der = x509::assemble(tbs, algorithm, &self.key.sign(algorithm, tbs).unwrap());
        Certificate::from_der(&der).unwrap()
    }

    pub fn bundle(&self) -> Bundle {
        let mut bundle = Bundle::new(self.trust_domain.clone());
        bundle.add_x509_authority(self.certificate.clone());
        bundle
    }

    /// Validates a single leaf against this CA alone.
    pub fn verify(&self, leaf: &Certificate) -> Result<SpiffeId, VerifyError> {
        x509::verify_svid(std::slice::from_ref(leaf), &self.bundle(), NOW)
    }
}

fn odd_params(uri: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = RcgenName::new();
    params.not_before = rcgen::date_time_ymd(2026, 1, 1);
    params.not_after = rcgen::date_time_ymd(2027, 1, 1);
    params.subject_alt_names = vec![uri_san(uri)];
    params
}

/// C=US, O=SPIFFE in the encoding our writer and Go use.
fn rcgen_ca_name() -> RcgenName {
    let mut name = RcgenName::new();
    let printable = |text: &str| DnValue::PrintableString(text.try_into().unwrap());
    name.push(DnType::CountryName, printable("US"));
    name.push(DnType::OrganizationName, printable("SPIFFE"));
    name
}

fn rcgen_key(key: &PrivateKey) -> KeyPair {
    let pkcs8 = key.pkcs8_der().unwrap();
    KeyPair::from_pkcs8_der_and_sign_algo(
        &PrivatePkcs8KeyDer::from(pkcs8.as_slice()),
        &PKCS_ECDSA_P256_SHA256,
    )
    .unwrap()
}

pub fn uri_san(uri: &str) -> SanType {
    SanType::URI(uri.try_into().unwrap())
}

/// Critical name constraints with one permitted URI subtree.
pub fn permitted_uri(host: &str) -> CustomExtension {
    let mut subtree = vec![0x86, host.len() as u8];
    subtree.extend_from_slice(host.as_bytes());
    let mut content = subtree;
    for tag in [0x30, 0xa0, 0x30] {
        content.insert(0, content.len() as u8);
        content.insert(0, tag);
    }
    let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, 30], content);
    extension.set_criticality(true);
    extension
}
