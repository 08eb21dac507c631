use steeple_plugin::conformance;
use steeple_spiffe::KeyType;
use steeple_spiffe::x509::DistinguishedName;

use super::*;

const NOW: i64 = 1_800_000_000;
const YEAR: i64 = 365 * 24 * 3600;

struct Ca {
    certificate: Certificate,
    key: PrivateKey,
}

fn ca(name: &str, issuer: Option<&Ca>, key_type: KeyType, lives: (i64, i64)) -> Ca {
    let key = PrivateKey::generate(key_type).unwrap();
    let template = CaTemplate {
        trust_domain: TrustDomain::new("upstream.example").unwrap(),
        public_key: key.public_key(),
        subject: DistinguishedName { common_name: name.to_owned(), ..DistinguishedName::default() },
        not_before: lives.0,
        not_after: lives.1,
        serial: SerialNumber::random().unwrap(),
    };
    let signer = issuer.map_or(&key, |issuer| &issuer.key);
    let algorithm = signer.key_type().x509_signature_algorithm();
    let tbs = match issuer {
        None => x509::ca_tbs_self_signed(&template, algorithm),
        Some(issuer) => x509::ca_tbs(&template, &Issuer::from_certificate(&issuer.certificate, algorithm)),
    };
    let tbs = tbs.unwrap();
    let der = x509::assemble(&tbs, algorithm, &signer.sign(algorithm, &tbs).unwrap());
    Ca { certificate: Certificate::from_der(&der).unwrap(), key }
}

fn root(name: &str) -> Ca {
    ca(name, None, KeyType::EcP256, (NOW - YEAR, NOW + YEAR))
}

fn below(name: &str, issuer: &Ca) -> Ca {
    ca(name, Some(issuer), KeyType::EcP256, (NOW - 1000, NOW + YEAR / 2))
}

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    fn put(&self, chain: &[&Ca], roots: Option<&[&Ca]>) -> DiskConfig {
        let pem = |cas: &[&Ca]| cas.iter().map(|ca| ca.certificate.to_pem()).collect::<String>();
        DiskConfig {
            trust_domain: TrustDomain::new("example.org").unwrap(),
            cert_file_path: self.write("ca.crt", &pem(chain)),
            key_file_path: self.write("ca.key", &chain[0].key.to_pem().unwrap()),
            bundle_file_path: roots.map(|roots| self.write("bundle.crt", &pem(roots))),
        }
    }
}

fn csr() -> Vec<u8> {
    let key = conformance::pooled_key(1);
    let algorithm = key.key_type().x509_signature_algorithm();
    let subject = DistinguishedName { serial_number: "7".to_owned(), ..DistinguishedName::default_ca() };
    let info = x509::csr_tbs(&subject, &key.public_key(), &["spiffe://example.org"], &[]);
    x509::assemble(&info, algorithm, &key.sign(algorithm, &info).unwrap())
}

fn refused(config: &DiskConfig, now: i64) -> String {
    DiskUpstreamAuthority::open(config.clone(), now).err().unwrap().to_string()
}

#[tokio::test]
async fn keeps_to_the_contract_alone_chained_and_with_every_key() {
    let td = TrustDomain::new("example.org").unwrap();
    for key_type in KeyType::ALL {
        let files = Files::new();
        let alone = ca("root", None, key_type, (NOW - YEAR, NOW + YEAR));
        let config = files.put(&[&alone], None);
        conformance::upstream_authority(&DiskUpstreamAuthority::open(config, NOW).unwrap(), &td, NOW).await;
    }
    let (top, files) = (root("root"), Files::new());
    let middle = below("middle", &top);
    let signer = below("signer", &middle);
    let config = files.put(&[&signer, &middle], Some(&[&top]));
    conformance::upstream_authority(&DiskUpstreamAuthority::open(config, NOW).unwrap(), &td, NOW).await;
    let config = files.put(&[&top], Some(&[&top]));
    conformance::upstream_authority(&DiskUpstreamAuthority::open(config, NOW).unwrap(), &td, NOW).await;
}

#[tokio::test]
async fn the_request_decides_the_name_and_the_upstream_the_end() {
    let files = Files::new();
    let (top, short) = (root("root"), NOW + 50);
    let signer = ca("signer", Some(&top), KeyType::EcP256, (NOW - 10, short));
    let upstream = DiskUpstreamAuthority::open(files.put(&[&signer], Some(&[&top])), NOW).unwrap();
    let minted = upstream.mint_x509_ca(&csr(), 3600, NOW).await.unwrap();
    let made = &minted.chain[0];
    assert_eq!((made.not_before(), made.not_after()), (NOW - 10, short), "not longer than its issuer");
    assert_eq!(made.subject_string(), "SERIALNUMBER=7,O=SPIFFE,C=US");
    assert_eq!(made.authority_key_id(), signer.certificate.subject_key_id());
    assert_eq!(minted.chain[1..], *std::slice::from_ref(&signer.certificate));
    assert_eq!(minted.roots, std::slice::from_ref(&top.certificate));
    assert_eq!(upstream.mint_x509_ca(&csr(), 0, NOW - 5).await.unwrap().chain[0].not_after(), short);
    // It has ended: told with file and reason.
    let refused = upstream.mint_x509_ca(&csr(), 3600, short).await.unwrap_err().to_string();
    assert!(refused.contains("ca.crt") && refused.contains("\"CN=signer\" has expired"), "{refused}");
}

#[tokio::test]
async fn files_are_read_again_and_the_last_good_ones_go_on() {
    let files = Files::new();
    let (first, second) = (root("first"), root("second"));
    let config = files.put(&[&first], None);
    let upstream = DiskUpstreamAuthority::open(config.clone(), NOW).unwrap();
    let signed_by = |minted: &MintedX509Ca| minted.roots[0].subject_string();
    assert_eq!(signed_by(&upstream.mint_x509_ca(&csr(), 60, NOW).await.unwrap()), "CN=first");
    files.put(&[&second], None);
    assert_eq!(upstream.roots(NOW).await.unwrap().unwrap(), std::slice::from_ref(&second.certificate));
    assert_eq!(signed_by(&upstream.mint_x509_ca(&csr(), 60, NOW).await.unwrap()), "CN=second");
    for garbage in ["", "garbage", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        files.write("ca.crt", garbage);
        assert_eq!(signed_by(&upstream.mint_x509_ca(&csr(), 60, NOW).await.unwrap()), "CN=second");
    }
    std::fs::remove_file(&config.key_file_path).unwrap();
    assert_eq!(signed_by(&upstream.mint_x509_ca(&csr(), 60, NOW).await.unwrap()), "CN=second");
    // Not beyond its end.
    let late = upstream.mint_x509_ca(&csr(), 60, NOW + 2 * YEAR).await.unwrap_err().to_string();
    assert!(late.contains("ca.key"), "{late}");
    files.put(&[&first], None);
    assert_eq!(signed_by(&upstream.mint_x509_ca(&csr(), 60, NOW).await.unwrap()), "CN=first");
}

#[test]
fn what_cannot_be_used_is_told_with_file_and_reason() {
    let files = Files::new();
    let (top, other) = (root("root"), root("other"));
    let signer = below("signer", &top);
    let expect = |config: &DiskConfig, now: i64, file: &str, reason: &str| {
        let told = refused(config, now);
        assert!(told.starts_with("unable to load upstream CA "), "{told}");
        assert!(told.contains(file) && told.contains(reason), "{file}, {reason}: {told}");
    };
    let good = files.put(&[&signer], Some(&[&top]));
    DiskUpstreamAuthority::open(good.clone(), NOW).unwrap();
    let missing = |path: &str| files.0.path().join(path);
    let no_key = DiskConfig { key_file_path: missing("none.key"), ..good.clone() };
    expect(&no_key, NOW, "none.key", "No such file");
    let no_cert = DiskConfig { cert_file_path: missing("none.crt"), ..good.clone() };
    expect(&no_cert, NOW, "none.crt", "No such file");
    let no_bundle = DiskConfig { bundle_file_path: Some(missing("none.pem")), ..good.clone() };
    expect(&no_bundle, NOW, "none.pem", "No such file");
    let garbage = files.write("garbage", "garbage");
    expect(&DiskConfig { key_file_path: garbage.clone(), ..good.clone() }, NOW, "garbage", "no private key");
    expect(
        &DiskConfig { cert_file_path: garbage.clone(), ..good.clone() },
        NOW,
        "garbage",
        "no certificates found",
    );
    expect(
        &DiskConfig { bundle_file_path: Some(garbage), ..good.clone() },
        NOW,
        "garbage",
        "no certificates found",
    );
    let other_key = files.write("other.key", &other.key.to_pem().unwrap());
    let mismatched = DiskConfig { key_file_path: other_key, ..good.clone() };
    expect(&mismatched, NOW, "ca.crt", "certificate and private key do not match");
    expect(&mismatched, NOW, "other.key", "certificate and private key do not match");
    let unchained = "certificate cannot be validated with the provided bundle or is not self-signed";
    expect(&files.put(&[&signer], Some(&[&other])), NOW, "ca.crt", unchained);
    // What is trusted need not be self-signed: as in Go, it ends the chain.
    DiskUpstreamAuthority::open(files.put(&[&signer], None), NOW).unwrap();
    let two = "with no bundle_file_path configured only self-signed CAs are supported";
    expect(&files.put(&[&signer, &top], None), NOW, "ca.crt", two);
    let good = files.put(&[&signer], Some(&[&top]));
    expect(&good, NOW + YEAR / 2, "ca.crt", "\"CN=signer\" has expired");
    expect(&good, NOW - 2000, "ca.crt", "\"CN=signer\" is not yet valid");
    let old_root = ca("old", None, KeyType::EcP256, (NOW - YEAR, NOW - 5));
    let orphan = below("orphan", &old_root);
    expect(
        &files.put(&[&orphan], Some(&[&old_root])),
        NOW,
        "ca.crt",
        "the root that signed \"CN=orphan\" has expired",
    );
    let old_middle = ca("old middle", Some(&top), KeyType::EcP256, (NOW - YEAR, NOW - 5));
    let orphan = below("orphan", &old_middle);
    expect(
        &files.put(&[&orphan, &old_middle], Some(&[&top])),
        NOW,
        "ca.crt",
        "\"CN=old middle\" has expired",
    );
    // A certificate that is no CA signs nothing.
    let leaf = leaf(&top);
    expect(&files.put(&[&leaf], Some(&[&top])), NOW, "ca.crt", "is not a CA");
}

fn leaf(issuer: &Ca) -> Ca {
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let algorithm = issuer.key.key_type().x509_signature_algorithm();
    let template = x509::LeafTemplate {
        spiffe_id: steeple_spiffe::SpiffeId::parse("spiffe://upstream.example/leaf").unwrap(),
        public_key: key.public_key(),
        not_before: NOW - 10,
        not_after: NOW + 1000,
        dns_names: Vec::new(),
        subject: None,
        serial: SerialNumber::random().unwrap(),
    };
    let tbs = x509::leaf_tbs(&template, &Issuer::from_certificate(&issuer.certificate, algorithm)).unwrap();
    let der = x509::assemble(&tbs, algorithm, &issuer.key.sign(algorithm, &tbs).unwrap());
    Ca { certificate: Certificate::from_der(&der).unwrap(), key }
}
