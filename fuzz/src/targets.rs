//! What each parser must keep to, whatever it is given: it answers, and what it accepts means the same when it is
//! written and read again.

mod corpus;

use steeple_agent_core::agent_data::AgentData;
use steeple_config::{Strictness, UnknownKeys, parse_bytes, plugins};
use steeple_runtime::authority::AuthorityFilter;
use steeple_runtime::container::{Place, Want, cgroup_mounts};
use steeple_spiffe::bundle::BundleMap;
use steeple_spiffe::endpoint::Endpoint;
use steeple_spiffe::jwt::{self, WitSvid};
use steeple_spiffe::x509::CertificateRequest;
use steeple_spiffe::{Bundle, Certificate, PrivateKey, PublicKey, SpiffeId, TrustDomain, X509Svid};
use tokio::io::AsyncReadExt as _;

use crate::Target;

/// SPIFFE-ID §2.3
const MAX_ID_LEN: usize = 2048;

pub const ALL: &[Target] = &[
    Target { name: "spiffe_id", check: spiffe_id, corpus: corpus::ids },
    Target { name: "endpoint", check: endpoint, corpus: corpus::endpoints },
    Target { name: "config", check: config, corpus: corpus::configs },
    Target { name: "certificate", check: certificate, corpus: corpus::certificates },
    Target { name: "certificate_request", check: certificate_request, corpus: corpus::requests },
    Target { name: "key", check: key, corpus: corpus::keys },
    Target { name: "jwt", check: jwt, corpus: corpus::tokens },
    Target { name: "bundle", check: bundle, corpus: corpus::bundles },
    Target { name: "cgroup", check: cgroup, corpus: corpus::cgroups },
    Target { name: "authority", check: authority, corpus: corpus::connections },
    Target { name: "agent_data", check: agent_data, corpus: corpus::agent_data },
];

fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

fn own() -> TrustDomain {
    TrustDomain::new("example.org").expect("a trust domain")
}

/// An accepted ID is canonical: it reads as itself, and its parts make it again.
fn spiffe_id(bytes: &[u8]) {
    let text = text(bytes);
    let Ok(id) = SpiffeId::parse(&text) else { return };
    assert_eq!(id.as_str(), text);
    assert!(id.as_str().is_ascii() && !id.path().ends_with('/') && !id.path().contains("//"));
    assert!(id.path().split('/').all(|segment| segment != "." && segment != ".."));
    // Longer ones are read (SPIFFE-ID §2.3 has validators take what they can), not made.
    if text.len() <= MAX_ID_LEN {
        let again = SpiffeId::from_parts(&id.trust_domain(), id.path()).expect("its own parts");
        assert_eq!(again, id);
    }
    assert!(id.is_member_of(&id.trust_domain()));
}

fn endpoint(bytes: &[u8]) {
    let _ = text(bytes).parse::<Endpoint>();
}

/// Whatever a file holds can be decoded, and printed it is the same file.
fn config(bytes: &[u8]) {
    let Ok(body) = parse_bytes("agent.conf", bytes) else { return };
    let mut block = body.block();
    for key in ["agent", "server", "plugins", "a"] {
        let _ = (block.string(key), block.int(key), block.port(key), block.bool(key), block.float(key));
        let _ = (block.duration(key), block.strings(key), block.string_map(key), block.pos_of(key));
        let _ = (block.block(key).is_ok(), block.blocks(key).is_ok(), block.labelled(key).is_ok());
    }
    let mut unknown = UnknownKeys::default();
    block.finish(Strictness::Strict, "top-level", &mut unknown);
    let _ = plugins(&body);
    let printed = body.to_hcl();
    let again = parse_bytes("printed", printed.as_bytes());
    let again = again.unwrap_or_else(|error| panic!("{error}: {printed}"));
    assert_eq!(again.to_hcl(), printed);
}

/// An accepted certificate is as it came, and a chain of itself.
fn certificate(bytes: &[u8]) {
    if let Ok(certificate) = Certificate::from_der(bytes) {
        assert_eq!(certificate.der(), bytes);
        let _ = (certificate.spiffe_id(), certificate.public_key(), certificate.subject_key_id());
        let _ = (certificate.not_before(), certificate.not_after(), certificate.authority_key_id());
        let pem = Certificate::from_pem(&certificate.to_pem()).expect("its own PEM");
        assert_eq!(pem, [certificate]);
    }
    if let Ok(many) = Certificate::from_pem(&text(bytes)) {
        assert!(!many.is_empty());
    }
    let _ = X509Svid::from_der(bytes, bytes);
    let _ = Bundle::from_x509_der(own(), bytes);
}

/// What a request names is text, whoever signed it.
fn certificate_request(bytes: &[u8]) {
    let Ok(request) = CertificateRequest::from_der(bytes) else { return };
    let _ = (request.verify_signature(), request.subject(), request.public_key());
    assert!(request.subject_der().len() <= bytes.len());
    assert!(request.uri_sans().iter().chain(&request.dns_names()).all(|name| name.len() <= bytes.len()));
}

fn key(bytes: &[u8]) {
    if let Ok(key) = PublicKey::from_spki_der(bytes) {
        assert_eq!(PublicKey::from_spki_der(key.spki_der()).expect("its own form"), key);
    }
    if let Ok(key) = PrivateKey::from_pkcs8_der(bytes) {
        let again = PrivateKey::from_pkcs8_der(&key.pkcs8_der().expect("DER")).expect("its own form");
        assert_eq!(again.public_key(), key.public_key());
    }
    let _ = PrivateKey::from_pem(&text(bytes));
}

/// A token that nobody signed is never valid; one that is read names a SPIFFE ID.
fn jwt(bytes: &[u8]) {
    let text = text(bytes);
    let bundle = Bundle::new(own());
    assert!(jwt::validate(&text, &bundle, &["a".to_owned()], 0).is_err());
    assert!(WitSvid::validate(&text, &bundle, 0).is_err());
    if let Ok(svid) = jwt::parse_insecure(&text) {
        assert_eq!(SpiffeId::parse(svid.id.as_str()).expect("its own subject"), svid.id);
        assert!(!svid.audience.is_empty());
    }
    if let Ok(svid) = WitSvid::parse_insecure(&text) {
        assert!(!svid.key_id.is_empty() && svid.confirmation.1.fits(&svid.confirmation.0));
    }
}

/// A bundle written and read again holds the same authorities, and no list holds another's.
fn bundle(bytes: &[u8]) {
    let text = text(bytes);
    let _ = (BundleMap::from_json(&text).map(|map| map.to_json()), Bundle::from_jwks_json(own(), &text));
    let Ok(bundle) = Bundle::from_spiffe_json(own(), &text) else { return };
    let again = Bundle::from_spiffe_json(own(), &bundle.to_spiffe_json());
    if bundle.is_empty() {
        return;
    }
    let again = again.expect("what was written");
    assert_eq!(again.x509_authorities, bundle.x509_authorities);
    assert_eq!(again.jwt_authorities, bundle.jwt_authorities);
    assert_eq!(again.wit_authorities, bundle.wit_authorities);
    let jwks = bundle.to_jwks_json();
    assert!(!jwks.contains("\"x5c\"") && !jwks.contains("wit-svid"));
}

/// A container's id is short and plain, and a process is in the place that its own lines name.
fn cgroup(bytes: &[u8]) {
    let text = text(bytes);
    let _ = cgroup_mounts(&text);
    for want in [Want::Container, Want::Pod] {
        let _ = Place::from_mountinfo(&text, want);
        let Ok(Some(place)) = Place::from_cgroup(&text, want) else { continue };
        assert!(!place.container_id.is_empty() && !place.container_id.contains('/'), "{place:?}");
        assert!(text.contains(&place.container_id));
        assert!(place.holds(&text), "{place:?}");
    }
}

/// What the filter passes on does not depend on how much is read at a time.
fn authority(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let read = |size: usize| {
        runtime.block_on(async {
            let mut filter = AuthorityFilter::new(bytes);
            let (mut out, mut buffer) = (Vec::<u8>::new(), vec![0; size]);
            loop {
                match filter.read(&mut buffer).await {
                    Ok(0) | Err(_) => return out,
                    Ok(count) => out.extend(&buffer[..count]),
                }
            }
        })
    };
    assert_eq!(read(1), read(1 << 15));
}

/// What is read from the file and written again is read as the same.
fn agent_data(bytes: &[u8]) {
    let Ok(data) = AgentData::from_json(bytes) else { return };
    let written = data.to_json().expect("what was read");
    let again = AgentData::from_json(&written).expect("what was written");
    assert_eq!((again.svid, again.bundle, again.reattestable), (data.svid, data.bundle, data.reattestable));
}
