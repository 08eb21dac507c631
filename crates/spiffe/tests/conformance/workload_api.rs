//! What the Workload Endpoint and Workload API documents ask of a library; the agent's part is in
//! `tests/conformance` at the root.

use std::net::SocketAddr;
use std::path::Path;

use steeple_spiffe::endpoint::{Endpoint, EndpointError};
use steeple_spiffe::jwt::{self, JwtError};
use steeple_spiffe::x509::{VerifyError, verify_svid};
use steeple_spiffe::{Bundle, bundle::JwtAuthority};

use crate::support::{Ca, HOUR, NOW, id, key, td};

fn endpoint(uri: &str) -> Result<Endpoint, EndpointError> {
    uri.parse()
}

fn unix(path: &str) -> Endpoint {
    Endpoint::Unix(Path::new(path).to_owned())
}

#[test]
fn we_10_a_uri_of_scheme_unix_or_tcp() {
    assert_eq!(endpoint("unix:///a"), Ok(unix("/a")));
    assert!(endpoint("tcp://127.0.0.1:80").is_ok());
    for uri in ["", "/run/a.sock", "127.0.0.1:80", "http://127.0.0.1:80", "unixx:///a", "npipe:a", "://a"] {
        assert!(endpoint(uri).is_err(), "{uri}");
    }
}

#[test]
fn we_11_unix_has_an_absolute_path_and_nothing_else() {
    assert_eq!(endpoint("unix:/run/a.sock"), Ok(unix("/run/a.sock")));
    assert_eq!(endpoint("unix:///run/a%20b"), Ok(unix("/run/a b")));
    for uri in ["unix://foo", "unix://foo/a", "unix:a", "unix:./a", "unix:", "unix://", "unix:///", "unix:/"]
    {
        assert_eq!(endpoint(uri), Err(EndpointError::BadUnixPath), "{uri}");
    }
    for uri in ["unix:///a?b=c", "unix:///a#b", "unix:///a?"] {
        assert_eq!(endpoint(uri), Err(EndpointError::UnixExtras), "{uri}");
    }
    for uri in ["unix:///a%", "unix:///a%zz", "unix:///a%00", "unix:///a b", "unix:///a\n"] {
        assert_eq!(endpoint(uri), Err(EndpointError::NotAUri), "{uri:?}");
    }
}

#[test]
fn we_12_tcp_has_an_ip_address_a_port_and_nothing_else() {
    for (uri, want) in [("tcp://1.2.3.4:5", "1.2.3.4:5"), ("tcp://[::1]:65535", "[::1]:65535")] {
        assert_eq!(endpoint(uri), Ok(Endpoint::Tcp(want.parse::<SocketAddr>().unwrap())));
        assert_eq!(endpoint(uri).unwrap().to_string(), uri);
    }
    for uri in [
        "tcp://localhost:5",
        "tcp://1.2.3.4",
        "tcp://1.2.3.4:",
        "tcp://:5",
        "tcp:1.2.3.4:5",
        "tcp://1.2.3.4:+5",
        "tcp://1.2.3.4:65536",
        "tcp://::1:5",
    ] {
        assert_eq!(endpoint(uri), Err(EndpointError::BadTcpAddress), "{uri}");
    }
    for uri in [
        "tcp://1.2.3.4:5/",
        "tcp://1.2.3.4:5/a",
        "tcp://1.2.3.4:5?a",
        "tcp://1.2.3.4:5#a",
        "tcp://u@1.2.3.4:5",
    ] {
        assert_eq!(endpoint(uri), Err(EndpointError::TcpExtras), "{uri}");
    }
}

/// A token for `spiffe://td/a` by the key called `k`.
fn token() -> String {
    let claims = jwt::Claims::new(&id("spiffe://td/a"), &["me".into()], NOW, NOW + HOUR).unwrap();
    let algorithm = key(0).key_type().jws_algorithm();
    let input = jwt::signing_input(algorithm, "k", &claims);
    jwt::assemble(&input, algorithm, &key(0).sign(algorithm, input.as_bytes()).unwrap()).unwrap()
}

fn jwt_bundle() -> Bundle {
    let mut bundle = Bundle::new(td("td"));
    bundle.jwt_authorities = vec![JwtAuthority {
        key_id: "k".into(),
        public_key: key(0).public_key(),
        expires_at: 0,
        tainted: false,
    }];
    bundle
}

#[test]
fn wa_14_bundle_chosen_by_the_peers_trust_domain() {
    let (td_ca, other) = (Ca::new("td"), Ca::new("other.test"));
    let leaf = [td_ca.leaf("spiffe://td/a")];
    assert!(verify_svid(&leaf, &[other.bundle(), td_ca.bundle()][..], NOW).is_ok());
    assert!(matches!(verify_svid(&leaf, &[other.bundle()][..], NOW), Err(VerifyError::NoBundle(_))));
}

#[test]
fn wa_23_x509_bundles_validate_x509_svids_only() {
    // The CA's key signed the token too, and is nevertheless no JWT authority.
    let ca = Ca::new("td");
    let bundle = Bundle::from_x509_der(td("td"), &ca.bundle().x509_der()).unwrap();
    assert!(verify_svid(&[ca.leaf("spiffe://td/a")], &bundle, NOW).is_ok());
    let refused = jwt::validate(&token(), &bundle, &["me".into()], NOW);
    assert!(matches!(refused, Err(JwtError::NoAuthority { .. })));
}

#[test]
fn wa_48_jwt_bundles_validate_jwt_svids_only() {
    let ca = Ca::new("td");
    let bundle = Bundle::from_jwks_json(td("td"), &jwt_bundle().to_jwks_json()).unwrap();
    assert!(jwt::validate(&token(), &bundle, &["me".into()], NOW).is_ok());
    let refused = verify_svid(&[ca.leaf("spiffe://td/a")], &bundle, NOW);
    assert!(matches!(refused, Err(VerifyError::NoAuthority(_))));
    // Nor does a key in such a set that is marked for another use.
    let marked = jwt_bundle().to_spiffe_json().replace("jwt-svid", "x509-svid");
    assert!(Bundle::from_jwks_json(td("td"), &marked).unwrap().is_empty());
}

#[test]
fn wa_54_bundle_of_the_subjects_trust_domain() {
    let mut other = jwt_bundle();
    other.trust_domain = td("other.test");
    assert!(jwt::validate(&token(), &[other.clone(), jwt_bundle()][..], &["me".into()], NOW).is_ok());
    let refused = jwt::validate(&token(), &[other][..], &["me".into()], NOW);
    assert_eq!(refused, Err(JwtError::NoBundle("td".into())));
}
