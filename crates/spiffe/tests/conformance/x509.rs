//! X509-SVID.

use rcgen::{BasicConstraints, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};
use steeple_spiffe::x509::{
    self, Certificate, DistinguishedName, VerifyError, X509Error, X509Svid, verify_svid,
};
use steeple_spiffe::{Bundle, IdError, PrivateKey};

use crate::support::{Ca, HOUR, NOW, id, key, leaf_template, p384, permitted_uri, rsa, td, uri_san};

const SERVER_AUTH: &str = "1.3.6.1.5.5.7.3.1";
const CLIENT_AUTH: &str = "1.3.6.1.5.5.7.3.2";

fn ca() -> Ca {
    Ca::new("td")
}

#[test]
fn x5_01_one_uri_san_the_spiffe_id() {
    let leaf = ca().leaf("spiffe://td/a");
    assert_eq!(leaf.uri_sans(), ["spiffe://td/a"]);
    assert_eq!(leaf.spiffe_id().unwrap(), id("spiffe://td/a"));
}

#[test]
fn x5_02_more_than_one_uri_san_is_rejected() {
    for second in ["spiffe://td/b", "https://td/b", "urn:x"] {
        for order in [["spiffe://td/a", second], [second, "spiffe://td/a"]] {
            let leaf = ca().odd_leaf("spiffe://td/a", |p| {
                p.subject_alt_names = order.iter().map(|u| uri_san(u)).collect();
            });
            assert_eq!(ca().verify(&leaf), Err(VerifyError::LeafId(X509Error::ManyUriSans)), "{order:?}");
        }
    }
    let leaf = ca().odd_leaf("spiffe://td/a", |p| p.subject_alt_names.clear());
    assert_eq!(ca().verify(&leaf), Err(VerifyError::LeafId(X509Error::NoUriSan)));
}

#[test]
fn x5_03_other_kinds_of_names_are_accepted() {
    let leaf = ca().odd_leaf("spiffe://td/a", |p| {
        p.subject_alt_names.extend([
            SanType::DnsName("a.example.org".try_into().unwrap()),
            SanType::IpAddress([10, 0, 0, 1].into()),
            SanType::Rfc822Name("a@example.org".try_into().unwrap()),
        ]);
    });
    assert_eq!(ca().verify(&leaf).unwrap(), id("spiffe://td/a"));
    let mut template = leaf_template("spiffe://td/a");
    template.dns_names = vec!["one.test".into(), "two.test".into()];
    let leaf = ca().issue(&template);
    assert_eq!(leaf.dns_sans(), ["one.test", "two.test"]);
    assert_eq!(leaf.subject().common_name, "one.test");
    assert!(ca().verify(&leaf).is_ok());
}

#[test]
fn x5_04_leaf_id_has_a_path() {
    let template = leaf_template("spiffe://td");
    assert_eq!(x509::leaf_tbs(&template, &ca().issuer()), Err(X509Error::RootPath));
}

#[test]
fn x5_05_san_is_critical_when_the_subject_is_empty() {
    let mut template = leaf_template("spiffe://td/a");
    template.subject = Some(DistinguishedName::default());
    let leaf = ca().issue(&template);
    assert_eq!(leaf.subject_string(), "");
    assert!(leaf.is_san_critical());
    assert!(ca().verify(&leaf).is_ok(), "an empty subject is legal");
    assert!(!ca().leaf("spiffe://td/a").is_san_critical());
}

#[test]
fn x5_06_signing_certificates_do_not_authenticate() {
    let ca = ca();
    let intermediate = ca.intermediate("td");
    for signer in [&ca.certificate, &intermediate.certificate] {
        assert!(ca.verify(signer).is_err());
        assert!(
            X509Svid::new(
                vec![signer.clone()],
                PrivateKey::generate(steeple_spiffe::KeyType::EcP256).unwrap()
            )
            .is_err()
        );
    }
}

#[test]
fn x5_07_signing_certificates_are_svids_too() {
    assert_eq!(ca().certificate.spiffe_id().unwrap(), id("spiffe://td"));
    assert_eq!(ca().intermediate("td").certificate.spiffe_id().unwrap(), id("spiffe://td"));
}

#[test]
fn x5_08_signing_certificate_id_has_no_path() {
    assert_eq!(ca().certificate.uri_sans(), ["spiffe://td"]);
    assert_eq!(ca().intermediate("td").certificate.uri_sans(), ["spiffe://td"]);
}

#[test]
fn x5_09_signing_certificate_is_in_the_trust_domain_of_its_leaves() {
    let ca = ca();
    let leaf = ca.leaf("spiffe://td/a");
    assert!(leaf.spiffe_id().unwrap().is_member_of(&ca.certificate.spiffe_id().unwrap().trust_domain()));
}

#[test]
fn x5_10_signing_certificates_sign_signing_certificates() {
    let root = Ca::new("root.test");
    for name in ["root.test", "other.test"] {
        let intermediate = root.intermediate(name);
        let leaf = intermediate.leaf("spiffe://root.test/a");
        let chain = [leaf.clone(), intermediate.certificate.clone()];
        assert_eq!(verify_svid(&chain, &root.bundle(), NOW).unwrap(), id("spiffe://root.test/a"));
        assert!(verify_svid(&[leaf], &root.bundle(), NOW).is_err(), "the link is missing");
    }
}

#[test]
fn x5_11_signing_certificate_is_a_ca() {
    let ca = ca();
    assert!(ca.certificate.is_ca());
    assert!(ca.intermediate("td").certificate.is_ca());
    // One that is not signs nothing.
    let odd = Ca::odd("td", |p| p.is_ca = IsCa::ExplicitNoCa);
    assert!(matches!(odd.verify(&odd.leaf("spiffe://td/a")), Err(VerifyError::NoAuthority(_))));
}

#[test]
fn x5_12_leaf_is_not_a_ca() {
    let leaf = ca().leaf("spiffe://td/a");
    assert!(!leaf.is_ca());
    // The extension is there, critical, and says false.
    let constraints = [0x30, 0x0c, 0x06, 0x03, 0x55, 0x1d, 0x13, 0x01, 0x01, 0xff, 0x04, 0x02, 0x30, 0x00];
    assert!(leaf.der().windows(constraints.len()).any(|window| window == constraints));
    // A leaf without it is accepted, as all libraries do.
    let leaf = ca().odd_leaf("spiffe://td/a", |p| p.is_ca = IsCa::NoCa);
    assert!(ca().verify(&leaf).is_ok());
}

#[test]
fn x5_13_path_length_is_honoured() {
    let limited = Ca::odd("td", |p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    assert_eq!(limited.certificate.max_path_len(), Some(0));
    assert!(limited.verify(&limited.leaf("spiffe://td/a")).is_ok());
    let intermediate = limited.intermediate("td");
    let chain = [intermediate.leaf("spiffe://td/a"), intermediate.certificate];
    assert!(verify_svid(&chain, &limited.bundle(), NOW).is_err());
    let roomy = Ca::odd("td", |p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(1)));
    let intermediate = roomy.intermediate("td");
    let chain = [intermediate.leaf("spiffe://td/a"), intermediate.certificate];
    assert!(verify_svid(&chain, &roomy.bundle(), NOW).is_ok());
}

#[test]
fn x5_14_uri_name_constraints_are_allowed_and_honoured() {
    let constrained = |host: &str| Ca::odd("td", |p| p.custom_extensions = vec![permitted_uri(host)]);
    let ca = constrained("td");
    assert!(ca.verify(&ca.leaf("spiffe://td/a")).is_ok());
    let ca = constrained("other");
    assert!(matches!(ca.verify(&ca.leaf("spiffe://td/a")), Err(VerifyError::Path(_))));
    // Constraints bind through intermediates, and path length is honoured beside them.
    let ca = constrained("td");
    let intermediate = ca.intermediate("td");
    let chain = [intermediate.leaf("spiffe://td/a"), intermediate.certificate];
    assert!(verify_svid(&chain, &ca.bundle(), NOW).is_ok());
    let ca = Ca::odd("td", |p| {
        p.custom_extensions = vec![permitted_uri("td")];
        p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    });
    let intermediate = ca.intermediate("td");
    let chain = [intermediate.leaf("spiffe://td/a"), intermediate.certificate];
    assert!(verify_svid(&chain, &ca.bundle(), NOW).is_err());
}

#[test]
fn x5_15_key_usage_is_present() {
    let ca = ca();
    assert!(ca.certificate.key_usage().is_some());
    assert!(ca.intermediate("td").certificate.key_usage().is_some());
    assert!(ca.leaf("spiffe://td/a").key_usage().is_some());
}

#[test]
fn x5_16_key_usage_is_critical() {
    let ca = ca();
    for certificate in [&ca.certificate, &ca.intermediate("td").certificate, &ca.leaf("spiffe://td/a")] {
        assert!(certificate.key_usage().unwrap().critical);
    }
}

#[test]
fn x5_17_signing_certificate_sets_key_cert_sign() {
    let ca = ca();
    for signer in [&ca.certificate, &ca.intermediate("td").certificate] {
        assert!(signer.key_usage().unwrap().cert_sign());
    }
    // One that does not signs nothing.
    let odd = Ca::odd("td", |p| p.key_usages = vec![KeyUsagePurpose::CrlSign]);
    assert!(matches!(odd.verify(&odd.leaf("spiffe://td/a")), Err(VerifyError::NoAuthority(_))));
}

#[test]
fn x5_18_leaf_sets_digital_signature() {
    assert!(ca().leaf("spiffe://td/a").key_usage().unwrap().digital_signature());
    // A workload's own SVID without it is refused; of peers X509-SVID §5.2 does not ask for it.
    let leaf = ca().odd_leaf("spiffe://td/a", |p| p.key_usages = vec![KeyUsagePurpose::KeyAgreement]);
    assert!(ca().verify(&leaf).is_ok());
    let pkcs8 = key(1).pkcs8_der().unwrap();
    assert!(matches!(X509Svid::from_der(leaf.der(), &pkcs8), Err(X509Error::NotAnSvid(_))));
}

#[test]
fn x5_19_leaf_may_set_key_encipherment_and_key_agreement() {
    let usage = ca().leaf("spiffe://td/a").key_usage().unwrap();
    assert!(usage.key_encipherment() && usage.key_agreement());
    let leaf = ca().odd_leaf("spiffe://td/a", |p| p.key_usages.push(KeyUsagePurpose::KeyEncipherment));
    assert!(ca().verify(&leaf).is_ok());
}

#[test]
fn x5_20_leaf_never_sets_key_cert_sign_or_crl_sign() {
    let usage = ca().leaf("spiffe://td/a").key_usage().unwrap();
    assert!(!usage.cert_sign() && !usage.crl_sign());
}

#[test]
fn x5_21_leaf_carries_extended_key_usage() {
    assert!(ca().leaf("spiffe://td/a").extended_key_usage().is_some());
}

#[test]
fn x5_22_extended_key_usage_holds_server_and_client_auth() {
    assert_eq!(ca().leaf("spiffe://td/a").extended_key_usage().unwrap(), [SERVER_AUTH, CLIENT_AUTH]);
    // It binds issuers; validators accept what others wrote (X509-SVID §5.2 does not name it).
    for usages in [vec![], vec![ExtendedKeyUsagePurpose::CodeSigning]] {
        let leaf = ca().odd_leaf("spiffe://td/a", |p| p.extended_key_usages = usages);
        assert!(ca().verify(&leaf).is_ok());
    }
}

#[test]
fn x5_23_extended_key_usage_on_signing_certificates_is_accepted() {
    assert_eq!(ca().certificate.extended_key_usage(), None);
    let ca = Ca::odd("td", |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
    assert!(ca.verify(&ca.leaf("spiffe://td/a")).is_ok());
}

#[test]
fn x5_24_leaf_key_usages_are_not_on_signing_certificates() {
    let ca = ca();
    for signer in [&ca.certificate, &ca.intermediate("td").certificate] {
        let usage = signer.key_usage().unwrap();
        assert!(!usage.digital_signature() && !usage.key_agreement() && !usage.key_encipherment());
    }
}

#[test]
fn x5_25_path_validation_against_the_bundle_of_the_trust_domain() {
    let ca = ca();
    let leaf = ca.leaf("spiffe://td/a");
    let bundle = ca.bundle();
    assert!(ca.verify(&leaf).is_ok());
    assert_eq!(verify_svid(&[], &bundle, NOW), Err(VerifyError::EmptyChain));
    // Validity of the leaf and of the authority.
    for at in [NOW - 11, NOW + HOUR + 1] {
        assert!(matches!(
            verify_svid(std::slice::from_ref(&leaf), &bundle, at),
            Err(VerifyError::NotValidNow(_))
        ));
    }
    let expired = Ca::valid("td", NOW - 2 * HOUR, NOW - HOUR);
    assert!(matches!(expired.verify(&expired.leaf("spiffe://td/a")), Err(VerifyError::NoAuthority(_))));
    // No bundle, an empty one, one of a stranger with the same name.
    assert!(matches!(
        verify_svid(std::slice::from_ref(&leaf), &Bundle::new(td("other")), NOW),
        Err(VerifyError::NoBundle(_))
    ));
    let mut stranger = Bundle::new(td("td"));
    stranger.add_x509_authority(ca.intermediate("td").certificate);
    assert!(verify_svid(std::slice::from_ref(&leaf), &stranger, NOW).is_err());
    // A broken signature.
    let mut der = leaf.der().to_vec();
    let last = der.len() - 1;
    der[last] ^= 1;
    assert!(Certificate::from_der(&der).map_or(true, |forged| ca.verify(&forged).is_err()));
    // An unknown critical extension.
    let leaf = ca.odd_leaf("spiffe://td/a", |p| {
        let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 65980, 99], vec![5, 0]);
        extension.set_criticality(true);
        p.custom_extensions = vec![extension];
    });
    assert!(ca.verify(&leaf).is_err());
}

#[test]
fn x5_26_leaf_with_the_ca_flag_is_rejected() {
    let leaf = ca().odd_leaf("spiffe://td/a", |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    let error = ca().verify(&leaf).unwrap_err();
    assert_eq!(error.to_string(), "leaf certificate with CA flag set to true");
}

#[test]
fn x5_27_leaf_with_key_cert_sign_is_rejected() {
    let leaf = ca().odd_leaf("spiffe://td/a", |p| p.key_usages.push(KeyUsagePurpose::KeyCertSign));
    let error = ca().verify(&leaf).unwrap_err();
    assert_eq!(error.to_string(), "leaf certificate with KeyCertSign key usage");
}

#[test]
fn x5_28_leaf_with_crl_sign_is_rejected() {
    let leaf = ca().odd_leaf("spiffe://td/a", |p| p.key_usages.push(KeyUsagePurpose::CrlSign));
    let error = ca().verify(&leaf).unwrap_err();
    assert_eq!(error.to_string(), "leaf certificate with KeyCrlSign key usage");
}

#[test]
fn x5_29_uri_of_another_scheme_is_rejected() {
    for uri in ["https://td/a", "urn:spiffe:td", "spiffe:td/a", "xspiffe://td/a"] {
        let leaf = ca().odd_leaf(uri, |_| {});
        let want = Err(VerifyError::LeafId(X509Error::Id(IdError::WrongScheme)));
        assert_eq!(ca().verify(&leaf), want, "{uri}");
    }
    // URI schemes have no letter case (RFC 3986 §3.1).
    assert_eq!(ca().verify(&ca().odd_leaf("SPIFFE://td/a", |_| {})).unwrap(), id("spiffe://td/a"));
}

#[test]
fn x5_30_peer_leaf_without_a_path_is_rejected() {
    let leaf = ca().odd_leaf("spiffe://td", |_| {});
    assert_eq!(ca().verify(&leaf), Err(VerifyError::Leaf(X509Error::RootPath)));
    let leaf = ca().odd_leaf("spiffe://td/", |_| {});
    assert_eq!(ca().verify(&leaf), Err(VerifyError::LeafId(X509Error::Id(IdError::TrailingSlash))));
}

fn published(bundle: &Bundle) -> Vec<serde_json::Value> {
    let document: serde_json::Value = serde_json::from_str(&bundle.to_spiffe_json()).unwrap();
    document["keys"].as_array().unwrap().clone()
}

#[test]
fn x5_31_one_jwk_per_ca_certificate() {
    let mut bundle = ca().bundle();
    bundle.add_x509_authority(Ca::valid("td", NOW, NOW + HOUR).certificate);
    let keys = published(&bundle);
    assert_eq!(keys.len(), 2);
    assert!(keys.iter().all(|jwk| jwk["use"] == "x509-svid"));
}

#[test]
fn x5_32_x509_entries_have_no_kid() {
    assert!(published(&ca().bundle()).iter().all(|jwk| jwk.get("kid").is_none()));
}

#[test]
fn x5_33_x5c_is_one_certificate_in_standard_base64() {
    use base64::Engine as _;
    let ca = ca();
    let keys = published(&ca.bundle());
    let x5c = keys[0]["x5c"].as_array().unwrap();
    assert_eq!(x5c.len(), 1);
    let der = base64::engine::general_purpose::STANDARD.decode(x5c[0].as_str().unwrap()).unwrap();
    assert_eq!(der, ca.certificate.der());
}

#[test]
fn x5_34_published_certificate_is_self_signed() {
    let certificate = ca().certificate;
    assert_eq!(certificate.subject_der(), certificate.issuer_der());
    certificate.verify_signature_by(&certificate.public_key()).unwrap();
}

fn x509_document(x5c: &str) -> Bundle {
    let json = format!(r#"{{"keys":[{{"use":"x509-svid","kty":"EC"{x5c}}}]}}"#);
    Bundle::from_spiffe_json(td("td"), &json).unwrap()
}

fn base64_der(certificate: &Certificate) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(certificate.der())
}

#[test]
fn x5_35_entry_without_x5c_is_ignored() {
    assert!(x509_document("").x509_authorities.is_empty());
    assert!(x509_document(r#","x5c":[]"#).x509_authorities.is_empty());
    let good = base64_der(&ca().certificate);
    let json = format!(
        r#"{{"keys":[{{"use":"x509-svid","kty":"EC"}},{{"use":"x509-svid","kty":"EC","x5c":["{good}"]}}]}}"#
    );
    let (bundle, skipped) = Bundle::from_spiffe_json_reporting(td("td"), &json).unwrap();
    assert_eq!((bundle.x509_authorities.len(), skipped.len(), skipped[0].entry), (1, 1, 0));
}

#[test]
fn x5_36_only_the_first_x5c_value_counts() {
    let ca = ca();
    let (first, second) = (base64_der(&ca.certificate), base64_der(&ca.intermediate("td").certificate));
    for rest in [second.as_str(), "not base64"] {
        let bundle = x509_document(&format!(r#","x5c":["{first}","{rest}"]"#));
        assert_eq!(bundle.x509_authorities.len(), 1);
        assert_eq!(bundle.x509_authorities[0].certificate, ca.certificate);
    }
}

#[test]
fn x5_37_without_x509_entries_no_x509_svid_is_valid() {
    let ca = ca();
    let error = verify_svid(&[ca.leaf("spiffe://td/a")], &Bundle::new(td("td")), NOW).unwrap_err();
    assert!(matches!(error, VerifyError::NoAuthority(_)));
}

#[test]
fn all_key_types_sign_and_are_signed() {
    for ca_key in [key(3), p384(), rsa()] {
        for leaf_key in [key(1), p384(), rsa()] {
            let algorithm = ca_key.key_type().x509_signature_algorithm();
            let template = x509::CaTemplate {
                trust_domain: td("td"),
                public_key: ca_key.public_key(),
                subject: DistinguishedName::default_ca(),
                not_before: NOW - HOUR,
                not_after: NOW + HOUR,
                serial: crate::support::serial(),
            };
            let tbs = x509::ca_tbs_self_signed(&template, algorithm).unwrap();
            let der = x509::assemble(&tbs, algorithm, &ca_key.sign(algorithm, &tbs).unwrap());
            let ca =
                Ca { certificate: Certificate::from_der(&der).unwrap(), key: ca_key, trust_domain: td("td") };
            let mut template = leaf_template("spiffe://td/a");
            template.public_key = leaf_key.public_key();
            let leaf = ca.issue(&template);
            assert!(ca.verify(&leaf).is_ok());
            let svid = X509Svid::from_der(leaf.der(), &leaf_key.pkcs8_der().unwrap()).unwrap();
            assert_eq!(svid.id(), &id("spiffe://td/a"));
        }
    }
}

#[test]
fn a_key_that_is_not_the_leafs_is_refused() {
    let leaf = ca().leaf("spiffe://td/a");
    let error = X509Svid::from_der(leaf.der(), &key(2).pkcs8_der().unwrap()).unwrap_err();
    assert_eq!(error, X509Error::KeyMismatch);
}
