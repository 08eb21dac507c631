use steeple_spiffe::x509::{self, CaTemplate, DistinguishedName, Issuer, LeafTemplate, SerialNumber};
use steeple_spiffe::{KeyType, TrustDomain};

use super::*;

/// A CA of `td` and a leaf for `spiffe://td/w`, both valid from 0 to `until`.
fn answer(until: i64) -> X509svidResponse {
    let trust_domain: TrustDomain = "td".parse().unwrap();
    let (ca_key, key) =
        (PrivateKey::generate(KeyType::EcP256).unwrap(), PrivateKey::generate(KeyType::EcP256).unwrap());
    let algorithm = KeyType::EcP256.x509_signature_algorithm();
    let ca = CaTemplate {
        trust_domain,
        public_key: ca_key.public_key(),
        subject: DistinguishedName::default_ca(),
        not_before: 0,
        not_after: until,
        serial: SerialNumber::new(1).unwrap(),
    };
    let tbs = x509::ca_tbs_self_signed(&ca, algorithm).unwrap();
    let ca = x509::assemble(&tbs, algorithm, &ca_key.sign(algorithm, &tbs).unwrap());
    let issuer = Issuer::from_certificate(&Certificate::from_der(&ca).unwrap(), algorithm);
    let leaf = LeafTemplate {
        spiffe_id: "spiffe://td/w".parse().unwrap(),
        public_key: key.public_key(),
        not_before: 0,
        not_after: until,
        dns_names: Vec::new(),
        subject: None,
        serial: SerialNumber::new(2).unwrap(),
    };
    let tbs = x509::leaf_tbs(&leaf, &issuer).unwrap();
    let leaf = x509::assemble(&tbs, algorithm, &ca_key.sign(algorithm, &tbs).unwrap());
    let svid = X509svid {
        spiffe_id: "spiffe://td/w".into(),
        x509_svid: leaf,
        x509_svid_key: key.pkcs8_der().unwrap().to_vec(),
        bundle: ca.clone(),
        hint: "internal".into(),
    };
    X509svidResponse {
        svids: vec![svid],
        federated_bundles: [("spiffe://other".to_owned(), ca)].into(),
        ..Default::default()
    }
}

#[test]
fn what_is_shown() {
    let (svids, federated) = parse(&answer(60)).unwrap();
    verify(&svids, 30).unwrap();
    let (after, until) = ("1970-01-01 00:00:00 +0000 UTC", "1970-01-01 00:01:00 +0000 UTC");
    assert_eq!(
        pretty(&svids, &federated, 1_500_000),
        format!(
            "Received 1 svid after 1.5ms\n\n\
             SPIFFE ID:\t\tspiffe://td/w\n\
             Hint:\t\t\tinternal\n\
             SVID Valid After:\t{after}\n\
             SVID Valid Until:\t{until}\n\
             CA #1 Valid After:\t{after}\n\
             CA #1 Valid Until:\t{until}\n\
             [spiffe://other] CA #1 Valid After:\t{after}\n\
             [spiffe://other] CA #1 Valid Until:\t{until}\n\n"
        )
    );
    assert!(pretty(&[], &federated, 0).starts_with("Received 0 svids after 0s\n"));
}

#[test]
fn what_does_not_verify_is_refused() {
    let (svids, _) = parse(&answer(60)).unwrap();
    let failure = verify(&svids, 61).unwrap_err().to_string();
    assert!(
        failure.starts_with("\"spiffe://td/w\" SVID failed verification against bundle: x509svid: "),
        "{failure}"
    );
}

#[test]
fn what_is_missing_is_named() {
    let error = |answer: &X509svidResponse| {
        parse(answer).err().map(|failure| failure.to_string()).unwrap_or_default()
    };
    assert_eq!(error(&X509svidResponse::default()), "workload response contains no svids");
    let mut broken = answer(60);
    broken.svids[0].bundle.clear();
    let place = "failed to parse svid entry 0 for spiffe id \"spiffe://td/w\"";
    assert_eq!(error(&broken), format!("{place}: no certificates in trust bundle"));
    broken.svids[0].x509_svid_key.clear();
    assert!(error(&broken).starts_with(&format!("{place}: failed to parse private key: ")));
    broken.federated_bundles.insert("spiffe://other".into(), Vec::new());
    assert_eq!(error(&broken), "no certificates in bundle for federated domain \"spiffe://other\"");
}
