//! SPIFFE_Workload_API.md.
#![allow(clippy::disallowed_methods, reason = "a black box looks at the real clock")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;
use steeple_conformance::{PARENT, entitled, entry_for_me, ids, jwt, next, refusal, stranger, x509};
use steeple_e2e::{Deployment, Workload, uid};
use steeple_proto::workload::{
    JwtBundlesRequest, ValidateJwtsvidRequest, WitBundlesRequest, WitsvidRequest, X509BundlesRequest,
    X509svidRequest,
};
use steeple_spiffe::PrivateKey;
use steeple_spiffe::x509::Certificate;
use tonic::Code;

const OWN: &str = "spiffe://example.org";

fn validate(audience: &str, svid: &str) -> tonic::Request<ValidateJwtsvidRequest> {
    Workload::request(ValidateJwtsvidRequest { audience: audience.into(), svid: svid.into() })
}

/// The claims of a token, unchecked.
fn claims(token: &str) -> Result<Value> {
    Ok(serde_json::from_slice(&base64url(token.split('.').nth(1).context("no payload")?)?)?)
}

fn base64url(text: &str) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let (mut bits, mut n) = (0_u32, 0);
    for byte in text.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            other => anyhow::bail!("{other} in base64url"),
        };
        bits = bits << 6 | u32::from(value);
        n += 6;
        if n >= 8 {
            n -= 8;
            out.push((bits >> n) as u8);
            bits &= (1 << n) - 1;
        }
    }
    Ok(out)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wa_01_both_profiles_are_supported() -> Result<()> {
    let (_d, mut w) = entitled().await?;
    assert!(!next(&mut x509(&mut w).await?).await?.svids.is_empty());
    assert!(!w.api.fetch_jwtsvid(jwt(&["a"], "")).await?.into_inner().svids.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wa_06_every_message_is_the_complete_state() -> Result<()> {
    let (d, mut w) = entitled().await?;
    let mut stream = x509(&mut w).await?;
    assert_eq!(next(&mut stream).await?.svids.len(), 2);
    entry_for_me(&d, "3", &[])?;
    loop {
        let message = next(&mut stream).await?;
        assert!(
            ids(&message).contains(&"spiffe://example.org/one"),
            "a message left out what did not change"
        );
        if message.svids.len() == 3 {
            return Ok(());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wa_07_updates_follow_events() -> Result<()> {
    let (d, mut w) = entitled().await?;
    let mut stream = x509(&mut w).await?;
    next(&mut stream).await?;
    let quiet = tokio::time::timeout(Duration::from_secs(2), stream.message()).await;
    assert!(quiet.is_err(), "a message though nothing happened: {quiet:?}");
    entry_for_me(&d, "3", &[])?;
    next(&mut stream).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wa_08_the_first_message_comes_at_once() -> Result<()> {
    let (_d, mut w) = entitled().await?;
    let begin = Instant::now();
    next(&mut x509(&mut w).await?).await?;
    w.api.fetch_x509_bundles(Workload::request(X509BundlesRequest {})).await?.into_inner().message().await?;
    w.api.fetch_jwt_bundles(Workload::request(JwtBundlesRequest {})).await?.into_inner().message().await?;
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wa_12_a_mandatory_field_left_out_answers_invalid_argument() -> Result<()> {
    let (_d, mut w) = entitled().await?;
    for (name, code) in [
        ("no audience", w.api.fetch_jwtsvid(jwt(&[], "")).await.err().map(|s| s.code())),
        ("no svid", w.api.validate_jwtsvid(validate("a", "")).await.err().map(|s| s.code())),
    ] {
        assert_eq!(code, Some(Code::InvalidArgument), "{name}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wa_20_one_svid_for_each_identity() -> Result<()> {
    let (_d, mut w) = entitled().await?;
    assert_eq!(
        ids(&next(&mut x509(&mut w).await?).await?),
        ["spiffe://example.org/one", "spiffe://example.org/two"]
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wa_21_mandatory_fields_are_set() -> Result<()> {
    let (_d, mut w) = entitled().await?;
    for svid in next(&mut x509(&mut w).await?).await?.svids {
        assert!(!svid.spiffe_id.is_empty() && !svid.x509_svid.is_empty());
        assert!(!svid.x509_svid_key.is_empty() && !svid.bundle.is_empty());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wa_22_everything_is_der() -> Result<()> {
    let (_d, mut w) = entitled().await?;
    for svid in next(&mut x509(&mut w).await?).await?.svids {
        let chain = Certificate::many_from_der(&svid.x509_svid)?;
        assert_eq!(chain[0].uri_sans(), std::slice::from_ref(&svid.spiffe_id), "leaf first");
        let key = PrivateKey::from_pkcs8_der(&svid.x509_svid_key)?;
        assert_eq!(key.public_key(), chain[0].public_key(), "the key of the leaf");
        assert!(Certificate::many_from_der(&svid.bundle)?.iter().all(Certificate::is_ca));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wa_24_hints_are_unique() -> Result<()> {
    let (d, mut w) = entitled().await?;
    entry_for_me(&d, "3", &["-hint", "internal"])?; // the older entry keeps the hint
    entry_for_me(&d, "4", &[])?;
    entry_for_me(&d, "5", &[])?; // empty hints may repeat
    let mut stream = x509(&mut w).await?;
    let mut message = next(&mut stream).await?;
    while !ids(&message).contains(&"spiffe://example.org/5") {
        message = next(&mut stream).await?;
    }
    let hints: Vec<_> =
        message.svids.iter().map(|svid| svid.hint.as_str()).filter(|hint| !hint.is_empty()).collect();
    assert_eq!(hints.iter().collect::<BTreeSet<_>>().len(), hints.len(), "{hints:?}");
    assert!(
        ids(&message).contains(&"spiffe://example.org/one")
            && !ids(&message).contains(&"spiffe://example.org/3")
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wa_26_no_entitlement_answers_permission_denied() -> Result<()> {
    let (_d, mut w) = stranger().await?;
    let refused = refusal(w.api.fetch_x509svid(Workload::request(X509svidRequest {})).await).await?;
    assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, "no identity issued"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wa_28_x509_bundles_include_the_own_trust_domain() -> Result<()> {
    let (d, mut w) = entitled().await?;
    let bundles =
        next(&mut w.api.fetch_x509_bundles(Workload::request(X509BundlesRequest {})).await?.into_inner())
            .await?
            .bundles;
    let shown = Certificate::from_pem(&d.server_ok(&["bundle", "show"])?)?;
    assert_eq!(Certificate::many_from_der(bundles.get(OWN).context("own missing")?)?, shown);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wa_29_no_entitlement_to_bundles_answers_permission_denied() -> Result<()> {
    let (_d, mut w) = stranger().await?;
    let refused = refusal(w.api.fetch_x509_bundles(Workload::request(X509BundlesRequest {})).await).await?;
    assert_eq!(refused.code(), Code::PermissionDenied);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wa_31_bundles_are_keyed_by_trust_domain_id() -> Result<()> {
    let (_d, mut w) = entitled().await?;
    let x509 =
        next(&mut w.api.fetch_x509_bundles(Workload::request(X509BundlesRequest {})).await?.into_inner())
            .await?;
    let jwts =
        next(&mut w.api.fetch_jwt_bundles(Workload::request(JwtBundlesRequest {})).await?.into_inner())
            .await?;
    assert!(x509.bundles.keys().chain(jwts.bundles.keys()).all(|key| key.starts_with("spiffe://")));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wa_40_the_audience_is_the_tokens_aud() -> Result<()> {
    let (_d, mut w) = entitled().await?;
    let token = w.api.fetch_jwtsvid(jwt(&["one", "two"], "")).await?.into_inner().svids.remove(0).svid;
    assert_eq!(claims(&token)?["aud"], serde_json::json!(["one", "two"]));
    let refused = w.api.fetch_jwtsvid(jwt(&[], "")).await.err().context("no audience accepted")?;
    assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, "audience must be specified"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wa_41_without_a_spiffe_id_all_identities_answer() -> Result<()> {
    let (_d, mut w) = entitled().await?;
    let svids = w.api.fetch_jwtsvid(jwt(&["a"], "")).await?.into_inner().svids;
    assert_eq!(
        svids.iter().map(|s| s.spiffe_id.as_str()).collect::<Vec<_>>(),
        ["spiffe://example.org/one", "spiffe://example.org/two"]
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wa_42_with_a_spiffe_id_only_that_one() -> Result<()> {
    let (_d, mut w) = entitled().await?;
    let svids = w.api.fetch_jwtsvid(jwt(&["a"], "spiffe://example.org/two")).await?.into_inner().svids;
    assert_eq!(svids.len(), 1);
    assert_eq!(claims(&svids[0].svid)?["sub"], "spiffe://example.org/two");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wa_43_jwt_svids_have_their_mandatory_fields() -> Result<()> {
    let (_d, mut w) = entitled().await?;
    let svids = w.api.fetch_jwtsvid(jwt(&["a"], "")).await?.into_inner().svids;
    assert!(
        !svids.is_empty()
            && svids.iter().all(|svid| !svid.spiffe_id.is_empty() && svid.svid.split('.').count() == 3)
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wa_44_hints_of_jwt_svids_are_unique() -> Result<()> {
    let (d, mut w) = entitled().await?;
    entry_for_me(&d, "3", &["-hint", "internal"])?;
    entry_for_me(&d, "4", &[])?;
    d.eventually("the last entry", Duration::from_secs(20), || {
        d.agent_api(&["api", "fetch"]).stdout.contains("org/4")
    })?;
    let svids = w.api.fetch_jwtsvid(jwt(&["a"], "")).await?.into_inner().svids;
    let hints: Vec<_> = svids.iter().map(|svid| svid.hint.as_str()).filter(|hint| !hint.is_empty()).collect();
    assert_eq!(hints, ["internal", "external"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wa_45_not_entitled_to_a_jwt_svid_answers_permission_denied() -> Result<()> {
    let (_d, mut w) = stranger().await?;
    assert_eq!(
        w.api.fetch_jwtsvid(jwt(&["a"], "")).await.err().context("got one")?.code(),
        Code::PermissionDenied
    );
    let (_d, mut w) = entitled().await?;
    let other = w
        .api
        .fetch_jwtsvid(jwt(&["a"], "spiffe://example.org/other"))
        .await
        .err()
        .context("got another's")?;
    assert_eq!(other.code(), Code::PermissionDenied);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wa_46_jwt_bundles_include_the_own_trust_domain() -> Result<()> {
    let (_d, mut w) = entitled().await?;
    let bundles =
        next(&mut w.api.fetch_jwt_bundles(Workload::request(JwtBundlesRequest {})).await?.into_inner())
            .await?
            .bundles;
    let own: Value = serde_json::from_slice(bundles.get(OWN).context("own missing")?)?;
    let token = w.api.fetch_jwtsvid(jwt(&["a"], "")).await?.into_inner().svids.remove(0).svid;
    let header: Value = serde_json::from_slice(&base64url(token.split('.').next().unwrap_or_default())?)?;
    let kids: Vec<_> = own["keys"].as_array().context("no keys")?.iter().map(|key| &key["kid"]).collect();
    assert!(kids.contains(&&header["kid"]), "{header} not signed by any of {kids:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wa_47_jwt_bundles_are_plain_jwk_sets_of_jwt_keys() -> Result<()> {
    let (_d, mut w) = entitled().await?;
    let bundles =
        next(&mut w.api.fetch_jwt_bundles(Workload::request(JwtBundlesRequest {})).await?.into_inner())
            .await?
            .bundles;
    for bundle in bundles.values() {
        let bundle: Value = serde_json::from_slice(bundle)?;
        assert_eq!(
            bundle.as_object().context("no object")?.keys().collect::<Vec<_>>(),
            ["keys"],
            "no SPIFFE extras"
        );
        for key in bundle["keys"].as_array().context("no keys")? {
            assert!(key.get("x5c").is_none() && key["kid"].is_string(), "{key}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wa_49_no_entitlement_to_jwt_bundles_answers_permission_denied() -> Result<()> {
    let (_d, mut w) = stranger().await?;
    let refused = refusal(w.api.fetch_jwt_bundles(Workload::request(JwtBundlesRequest {})).await).await?;
    assert_eq!(refused.code(), Code::PermissionDenied);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wa_50_validation_applies_the_rules_of_jwt_svids() -> Result<()> {
    let (_d, mut w) = entitled().await?;
    let token = w.api.fetch_jwtsvid(jwt(&["a"], "")).await?.into_inner().svids.remove(0).svid;
    w.api.validate_jwtsvid(validate("a", &token)).await?;
    let parts: Vec<&str> = token.split('.').collect();
    let mut signature = parts[2].to_owned();
    signature.replace_range(4..5, if &signature[4..5] == "A" { "B" } else { "A" });
    // {"alg":"none","typ":"JWT"} and {"alg":"HS256","kid":"x","typ":"JWT"}
    for (what, audience, bad) in [
        ("another audience", "b", token.clone()),
        ("a changed signature", "a", format!("{}.{}.{signature}", parts[0], parts[1])),
        ("no signature", "a", format!("{}.{}.", parts[0], parts[1])),
        ("alg none", "a", format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{}.", parts[1])),
        (
            "alg HS256",
            "a",
            format!("eyJhbGciOiJIUzI1NiIsImtpZCI6IngiLCJ0eXAiOiJKV1QifQ.{}.{}", parts[1], parts[2]),
        ),
        ("no token at all", "a", "garbage".to_owned()),
        ("two parts", "a", format!("{}.{}", parts[0], parts[1])),
    ] {
        let refused =
            w.api.validate_jwtsvid(validate(audience, &bad)).await.err().with_context(|| what.to_owned())?;
        assert_eq!(refused.code(), Code::InvalidArgument, "{what}: {refused:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wa_51_claims_hold_the_payload() -> Result<()> {
    let (_d, mut w) = entitled().await?;
    let token = w.api.fetch_jwtsvid(jwt(&["a"], "")).await?.into_inner().svids.remove(0).svid;
    let valid = w.api.validate_jwtsvid(validate("a", &token)).await?.into_inner();
    assert_eq!(valid.spiffe_id, "spiffe://example.org/one");
    let fields = valid.claims.context("no claims")?.fields;
    for name in ["aud", "exp", "sub", "iat"] {
        assert!(fields.contains_key(name), "{name} missing in {fields:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wa_52_validation_needs_both_fields() -> Result<()> {
    let (_d, mut w) = entitled().await?;
    let no_audience = w.api.validate_jwtsvid(validate("", "x")).await.err().context("accepted")?;
    assert_eq!(
        (no_audience.code(), no_audience.message()),
        (Code::InvalidArgument, "audience must be specified")
    );
    let no_svid = w.api.validate_jwtsvid(validate("a", "")).await.err().context("accepted")?;
    assert_eq!((no_svid.code(), no_svid.message()), (Code::InvalidArgument, "svid must be specified"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wa_60_the_wit_profile_answers_unimplemented() -> Result<()> {
    let (_d, mut w) = entitled().await?;
    let svid = refusal(w.api.fetch_witsvid(Workload::request(WitsvidRequest::default())).await).await?;
    let bundles = refusal(w.api.fetch_wit_bundles(Workload::request(WitBundlesRequest {})).await).await?;
    assert_eq!((svid.code(), bundles.code()), (Code::Unimplemented, Code::Unimplemented));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wa_71_hints_end_at_1024_bytes() -> Result<()> {
    let d = Deployment::builder().start()?;
    let me = format!("unix:uid:{}", uid());
    d.entry("ok", "/ok", &me, &["-hint", &"h".repeat(1024)])?;
    assert!(d.entry("long", "/long", &me, &["-hint", &"h".repeat(1025)]).is_err());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wa_73_entitlement_is_checked_again_before_each_push() -> Result<()> {
    let d = Deployment::builder().start_with_agent()?;
    entry_for_me(&d, "only", &[])?;
    d.eventually("identity", Duration::from_secs(20), || d.agent_api(&["api", "fetch"]).code == Some(0))?;
    let mut w = d.workload().await?;
    let mut stream = x509(&mut w).await?;
    next(&mut stream).await?;
    let mut bundles = w.api.fetch_x509_bundles(Workload::request(X509BundlesRequest {})).await?.into_inner();
    next(&mut bundles).await?;
    d.server_ok(&["entry", "delete", "-entryID", "only"])?;
    let gone = tokio::time::timeout(Duration::from_secs(15), stream.message())
        .await?
        .err()
        .context("still entitled")?;
    assert_eq!(gone.code(), Code::PermissionDenied);
    let gone = tokio::time::timeout(Duration::from_secs(15), bundles.message())
        .await?
        .err()
        .context("bundles go on")?;
    assert_eq!(gone.code(), Code::PermissionDenied);
    assert!(d.server_ok(&["entry", "count", "-parentID", PARENT])?.starts_with("0 "));
    Ok(())
}
