//! LocalAuthority: SPIRE's answers, codes and texts.

use std::sync::Arc;

use steeple_proto::spire::api::server::localauthority::v1 as pb;
use steeple_proto::spire::api::server::localauthority::v1::local_authority_client::LocalAuthorityClient;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::harness::{Options, logged, server, start};

fn is(status: &Status, code: Code, message: &str) {
    assert_eq!((status.code(), status.message()), (code, message));
}

async fn activate(api: &mut LocalAuthorityClient<Channel>, id: &str) -> Result<pb::AuthorityState, Status> {
    let request = pb::ActivateX509AuthorityRequest { authority_id: id.to_owned() };
    Ok(api.activate_x509_authority(request).await?.into_inner().activated_authority.unwrap())
}

async fn taint(api: &mut LocalAuthorityClient<Channel>, id: &str) -> Result<pb::AuthorityState, Status> {
    let request = pb::TaintX509AuthorityRequest { authority_id: id.to_owned() };
    Ok(api.taint_x509_authority(request).await?.into_inner().tainted_authority.unwrap())
}

async fn revoke(api: &mut LocalAuthorityClient<Channel>, id: &str) -> Result<pb::AuthorityState, Status> {
    let request = pb::RevokeX509AuthorityRequest { authority_id: id.to_owned() };
    Ok(api.revoke_x509_authority(request).await?.into_inner().revoked_authority.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn x509_over_both_endpoints() {
    let server = server().await;
    let admin = server.workload("spiffe://example.org/admin-by-config").await;
    for channel in [server.local(), admin] {
        let mut api = LocalAuthorityClient::new(channel);
        let state = |api: &mut LocalAuthorityClient<Channel>| {
            let mut api = api.clone();
            async move {
                api.get_x509_authority_state(pb::GetX509AuthorityStateRequest {}).await.unwrap().into_inner()
            }
        };
        let first = state(&mut api).await.active.unwrap();
        assert_eq!(first.upstream_authority_subject_key_id, "");
        let prepared = api.prepare_x509_authority(pb::PrepareX509AuthorityRequest {}).await.unwrap();
        let prepared = prepared.into_inner().prepared_authority.unwrap();
        assert_eq!(state(&mut api).await.prepared.as_ref(), Some(&prepared));
        let id = &prepared.authority_id;

        let invalid = Code::InvalidArgument;
        is(&activate(&mut api, "").await.unwrap_err(), invalid, "no authority ID provided");
        is(&activate(&mut api, "zzz").await.unwrap_err(), invalid, "unexpected authority ID");
        is(
            &taint(&mut api, id).await.unwrap_err(),
            invalid,
            "only Old local authorities can be tainted: unsupported local authority status: PREPARED",
        );
        assert_eq!(activate(&mut api, id).await.unwrap(), prepared);
        let old = &first.authority_id;
        assert_eq!(state(&mut api).await.old.as_ref(), Some(&first));
        is(
            &activate(&mut api, old).await.unwrap_err(),
            Code::Internal,
            "only Prepared authorities can be activated: unsupported local authority status: OLD",
        );
        is(&taint(&mut api, id).await.unwrap_err(), invalid, "unable to taint current local authority");
        is(
            &revoke(&mut api, old).await.unwrap_err(),
            Code::Internal,
            "failed to revoke X.509 authority: it is not possible to revoke an untainted root CA",
        );
        assert_eq!(taint(&mut api, old).await.unwrap(), first);
        is(
            &taint(&mut api, old).await.unwrap_err(),
            Code::Internal,
            "failed to taint X.509 authority: root CA is already tainted",
        );
        is(
            &revoke(&mut api, id).await.unwrap_err(),
            invalid,
            "invalid authority ID: unable to use current authority",
        );
        let revoked = revoke(&mut api, old).await.unwrap();
        assert_eq!((revoked.authority_id, revoked.expires_at), (old.clone(), 0));
        is(
            &revoke(&mut api, old).await.unwrap_err(),
            Code::Internal,
            "failed to revoke X.509 authority: no root CA found with provided subject key ID",
        );
        let request = pb::TaintX509UpstreamAuthorityRequest { subject_key_id: "aa".to_owned() };
        let refused = api.taint_x509_upstream_authority(request).await.unwrap_err();
        is(&refused, Code::FailedPrecondition, "upstream authority is not configured");
        let request = pb::RevokeX509UpstreamAuthorityRequest { subject_key_id: "aa".to_owned() };
        let refused = api.revoke_x509_upstream_authority(request).await.unwrap_err();
        is(&refused, Code::FailedPrecondition, "upstream authority is not configured");
        let lines = logged(old);
        assert!(lines.iter().any(|line| line["msg"] == "X.509 authority tainted successfully"));
        assert!(lines.iter().any(|line| {
            line["msg"] == "Failed to taint X.509 authority" && line["error"].as_str().is_some()
        }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jwt_and_wit() {
    let server = start(Options { wit: true, ..Options::default() }).await;
    let mut api = LocalAuthorityClient::new(server.local());
    let first = api.get_jwt_authority_state(pb::GetJwtAuthorityStateRequest {}).await.unwrap().into_inner();
    let old = first.active.unwrap().authority_id;
    let prepared = api.prepare_jwt_authority(pb::PrepareJwtAuthorityRequest {}).await.unwrap().into_inner();
    let id = prepared.prepared_authority.unwrap().authority_id;
    let request = |id: &str| pb::RevokeJwtAuthorityRequest { authority_id: id.to_owned() };
    let refused = api.revoke_jwt_authority(request(&id)).await.unwrap_err();
    is(&refused, Code::InvalidArgument, "invalid authority ID: unable to use a prepared key");
    let refused = api.revoke_jwt_authority(request("x")).await.unwrap_err();
    is(
        &refused,
        Code::InvalidArgument,
        "invalid authority ID: no JWT authority found with provided authority ID",
    );
    let activate = pb::ActivateJwtAuthorityRequest { authority_id: id.clone() };
    api.activate_jwt_authority(activate).await.unwrap();
    let taint = pb::TaintJwtAuthorityRequest { authority_id: old.clone() };
    let tainted = api.taint_jwt_authority(taint).await.unwrap().into_inner().tainted_authority.unwrap();
    assert_eq!(tainted, pb::AuthorityState { authority_id: old.clone(), ..pb::AuthorityState::default() });
    let bundle = server.state.store.fetch_bundle(&crate::harness::td()).await.unwrap().unwrap();
    assert!(bundle.jwt_authorities.iter().any(|key| key.key_id == old && key.tainted));
    api.revoke_jwt_authority(request(&old)).await.unwrap();

    // Ours: SPIRE has the methods and answers Unimplemented.
    let prepared = api.prepare_wit_authority(pb::PrepareWitAuthorityRequest {}).await.unwrap().into_inner();
    let id = prepared.prepared_authority.unwrap().authority_id;
    let old = api.get_wit_authority_state(pb::GetWitAuthorityStateRequest {}).await.unwrap().into_inner();
    let old = old.active.unwrap().authority_id;
    let activate = pb::ActivateWitAuthorityRequest { authority_id: id };
    api.activate_wit_authority(activate).await.unwrap();
    let taint = pb::TaintWitAuthorityRequest { authority_id: old.clone() };
    api.taint_wit_authority(taint).await.unwrap();
    api.revoke_wit_authority(pb::RevokeWitAuthorityRequest { authority_id: old }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_off_is_refused() {
    let server = start(Options { jwt_disabled: true, ..Options::default() }).await;
    let mut api = LocalAuthorityClient::new(server.local());
    let refused = api.get_jwt_authority_state(pb::GetJwtAuthorityStateRequest {}).await.unwrap_err();
    is(&refused, Code::Unimplemented, "JWT functionality is disabled");
    let refused = api.prepare_wit_authority(pb::PrepareWitAuthorityRequest {}).await.unwrap_err();
    is(&refused, Code::Unimplemented, "WIT functionality is disabled");
}

/// A key manager that fails once it is told to.
struct Failing(steeple_plugins_base::key_manager::MemoryKeyManager, std::sync::atomic::AtomicBool);

#[tonic::async_trait]
impl steeple_plugin::KeyManager for Failing {
    async fn generate_key(
        &self,
        id: &str,
        key_type: steeple_spiffe::KeyType,
    ) -> Result<steeple_spiffe::PublicKey, steeple_plugin::KeyManagerError> {
        if self.1.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(steeple_plugin::KeyManagerError::Generate("no luck".to_owned()));
        }
        self.0.generate_key(id, key_type).await
    }

    async fn public_key(
        &self,
        id: &str,
    ) -> Result<Option<steeple_spiffe::PublicKey>, steeple_plugin::KeyManagerError> {
        self.0.public_key(id).await
    }

    async fn public_keys(
        &self,
    ) -> Result<Vec<(String, steeple_spiffe::PublicKey)>, steeple_plugin::KeyManagerError> {
        self.0.public_keys().await
    }

    async fn sign(
        &self,
        id: &str,
        algorithm: steeple_spiffe::SignatureAlgorithm,
        data: &[u8],
    ) -> Result<Vec<u8>, steeple_plugin::KeyManagerError> {
        self.0.sign(id, algorithm, data).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_manager_that_fails_is_told() {
    let keys = Arc::new(Failing(steeple_plugins_base::key_manager::MemoryKeyManager::new(), false.into()));
    let server = start(Options { keys: keys.clone(), ..Options::default() }).await;
    keys.1.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut api = LocalAuthorityClient::new(server.local());
    let refused = api.prepare_x509_authority(pb::PrepareX509AuthorityRequest {}).await.unwrap_err();
    is(&refused, Code::Internal, "failed to prepare X.509 authority: key generation failed: no luck");
    let refused = api.prepare_jwt_authority(pb::PrepareJwtAuthorityRequest {}).await.unwrap_err();
    is(&refused, Code::Internal, "failed to prepare JWT authority: key generation failed: no luck");
}
