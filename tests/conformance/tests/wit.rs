//! SPIFFE_Workload_API.md §7, the WIT profile. It is optional (WA-02): an implementation that answers Unimplemented has
//! nothing more to show here.
#![allow(clippy::disallowed_methods, reason = "a black box looks at the real clock")]

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use steeple_conformance::{next, refusal};
use steeple_e2e::{Deployment, Workload, uid};
use steeple_proto::workload::{
    JwtBundlesRequest, WitBundlesRequest, Witsvid, WitsvidRequest, WitsvidResponse,
};
use steeple_spiffe::jwt::WitSvid;
use steeple_spiffe::{Bundle, TrustDomain};
use tonic::Code;

const OWN: &str = "spiffe://example.org";
/// Server and agent each have to be told.
const FLAG: &str = "experimental { feature_flags = [\"wit-svid\"] }";

/// A deployment with the profile, and its client; with two identities if `entitled`. `None` if it is not served.
async fn profile(entitled: bool) -> Result<Option<(Deployment, Workload)>> {
    let d = Deployment::builder().server_options(FLAG).agent_options(FLAG).start_with_agent()?;
    let me = if entitled { format!("unix:uid:{}", uid()) } else { "unix:uid:4294967".to_owned() };
    d.entry("1", "/one", &me, &["-hint", "internal"])?;
    d.entry("2", "/two", &me, &["-hint", "external"])?;
    let mut w = d.workload().await?;
    if entitled {
        d.eventually("both identities", Duration::from_mins(1), || {
            let ran = d.agent_api(&["api", "fetch"]);
            ran.stdout.contains("/one") && ran.stdout.contains("/two")
        })?;
    }
    let asked = w.api.fetch_wit_bundles(Workload::request(WitBundlesRequest {})).await;
    let served = !asked.is_err_and(|status| status.code() == Code::Unimplemented);
    Ok(served.then_some((d, w)))
}

async fn fetch(w: &mut Workload, spiffe_id: &str) -> Result<WitsvidResponse> {
    let request = Workload::request(WitsvidRequest { spiffe_id: spiffe_id.into() });
    next(&mut w.api.fetch_witsvid(request).await?.into_inner()).await
}

fn ids(response: &WitsvidResponse) -> Vec<&str> {
    response.svids.iter().map(|svid| svid.spiffe_id.as_str()).collect()
}

/// The own trust domain's document, once there is a key in it: the agent may learn of the newest one a little later.
async fn document(w: &mut Workload) -> Result<(String, Value)> {
    let mut stream = w.api.fetch_wit_bundles(Workload::request(WitBundlesRequest {})).await?.into_inner();
    loop {
        let bundles = next(&mut stream).await?.bundles;
        let text = bundles.get(OWN).context("no bundle of the own trust domain")?.clone();
        let document: Value = serde_json::from_str(&text)?;
        if document["keys"].as_array().is_some_and(|keys| !keys.is_empty()) {
            return Ok((text, document));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wa_62_without_a_spiffe_id_all_identities_with_one_that_one() -> Result<()> {
    let Some((_d, mut w)) = profile(true).await? else { return Ok(()) };
    assert_eq!(ids(&fetch(&mut w, "").await?), ["spiffe://example.org/one", "spiffe://example.org/two"]);
    assert_eq!(ids(&fetch(&mut w, "spiffe://example.org/two").await?), ["spiffe://example.org/two"]);
    Ok(())
}

/// Whether the private key beside a token is that of its `cnf`.
fn matches(svid: &Witsvid) -> Result<bool> {
    let parsed = WitSvid::parse_insecure(&svid.wit_svid)?;
    let payload = svid.wit_svid.split('.').nth(1).context("no payload")?;
    let claims: Value = serde_json::from_slice(&base64url(payload)?)?;
    let (public, private) = (&claims["cnf"]["jwk"], serde_json::from_str::<Value>(&svid.wit_svid_key)?);
    let same = |member: &str| public[member] == private[member];
    Ok(parsed.id.as_str() == svid.spiffe_id
        && same("kty")
        && same("x")
        && same("y")
        && private["d"].is_string())
}

fn base64url(text: &str) -> Result<Vec<u8>> {
    let (mut out, mut bits, mut count) = (Vec::new(), 0_u32, 0);
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
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Ok(out)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wa_63_the_key_is_a_private_jwk_that_matches_cnf() -> Result<()> {
    let Some((_d, mut w)) = profile(true).await? else { return Ok(()) };
    let response = fetch(&mut w, "").await?;
    assert!(!response.svids.is_empty());
    for svid in &response.svids {
        assert!(matches(svid)?, "{}", svid.spiffe_id);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wa_64_hints_are_unique() -> Result<()> {
    let Some((d, mut w)) = profile(true).await? else { return Ok(()) };
    // A third one with a hint that is taken: the older entry wins.
    d.entry("3", "/three", &format!("unix:uid:{}", uid()), &["-hint", "internal"])?;
    d.entry("4", "/four", &format!("unix:uid:{}", uid()), &[])?;
    d.eventually("the newest entry", Duration::from_mins(1), || {
        d.agent_api(&["api", "fetch"]).stdout.contains("/four")
    })?;
    let response = fetch(&mut w, "").await?;
    let hints: Vec<&str> =
        response.svids.iter().map(|svid| &*svid.hint).filter(|hint| !hint.is_empty()).collect();
    assert_eq!(hints.len(), hints.iter().collect::<BTreeSet<_>>().len(), "{hints:?}");
    assert_eq!(response.svids.len(), 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wa_65_a_caller_without_identity_gets_permission_denied() -> Result<()> {
    let Some((_d, mut w)) = profile(false).await? else { return Ok(()) };
    let svid = w.api.fetch_witsvid(Workload::request(WitsvidRequest::default())).await;
    assert_eq!(refusal(svid).await?.code(), Code::PermissionDenied);
    let bundles = w.api.fetch_wit_bundles(Workload::request(WitBundlesRequest {})).await;
    assert_eq!(refusal(bundles).await?.code(), Code::PermissionDenied);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wa_66_the_bundle_of_the_own_trust_domain_validates_the_svids() -> Result<()> {
    let Some((_d, mut w)) = profile(true).await? else { return Ok(()) };
    let (document, _) = document(&mut w).await?;
    let bundle = Bundle::from_spiffe_json(TrustDomain::new("example.org")?, &document)?;
    for svid in fetch(&mut w, "").await?.svids {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
        WitSvid::validate(&svid.wit_svid, &bundle, i64::try_from(now)?)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wa_67_wit_bundles_hold_wit_keys_with_unique_kids_and_jwt_bundles_none() -> Result<()> {
    let Some((d, mut w)) = profile(true).await? else { return Ok(()) };
    let (_, document) = document(&mut w).await?;
    let keys = document["keys"].as_array().context("no keys")?;
    let kids: BTreeSet<&str> = keys.iter().filter_map(|key| key["kid"].as_str()).collect();
    assert_eq!(kids.len(), keys.len(), "{document}");
    assert!(keys.iter().all(|key| key["use"] == "wit-svid"), "{document}");
    // WA-47: they are not among the keys of JWT-SVIDs.
    let mut stream = w.api.fetch_jwt_bundles(Workload::request(JwtBundlesRequest {})).await?.into_inner();
    let jwts = next(&mut stream).await?.bundles;
    let jwts: Value = serde_json::from_slice(jwts.get(OWN).context("no JWT bundle")?)?;
    let jwts = jwts["keys"].as_array().context("no JWT keys")?;
    assert!(
        !jwts.is_empty() && jwts.iter().all(|key| !kids.contains(key["kid"].as_str().unwrap_or_default()))
    );
    // Wherever the server shows them, they are no keys of JWT-SVIDs.
    let shown: Value = serde_json::from_str(&d.server_ok(&["bundle", "show", "-format", "spiffe"])?)?;
    let shown = shown["keys"].as_array().context("no keys")?;
    let of_wit = |key: &&Value| kids.contains(key["kid"].as_str().unwrap_or_default());
    assert!(shown.iter().filter(of_wit).all(|key| key["use"] == "wit-svid"));
    Ok(())
}
