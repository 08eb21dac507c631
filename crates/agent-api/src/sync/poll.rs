//! SPIRE's way: SyncAuthorizedEntries by revision, then bundles.

use std::collections::{BTreeSet, HashMap};

use futures::StreamExt as _;
use steeple_agent_core::Entry;
use steeple_proto::spire::api::server::bundle::v1::{GetBundleRequest, GetFederatedBundleRequest};
use steeple_proto::spire::api::server::entry::v1::{
    GetAuthorizedEntriesRequest, SyncAuthorizedEntriesRequest,
};
use steeple_proto::spire::api::types::EntryMask;
use steeple_spiffe::{Bundle, TrustDomain};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::{FETCH_FAILED, Sync, good_bundle, good_entry, log_failed_fetch};
use crate::failure::ServerError;
use crate::identity::timed;
use crate::link::RPC_TIMEOUT;

/// Federated bundles are fetched this many at a time (SPIRE).
const BUNDLE_WORKERS: usize = 10;

impl Sync {
    /// Brings the view up to date once.
    pub(super) async fn poll(&self) -> Result<(), ServerError> {
        let own =
            timed("fetching the trust bundle", self.link.bundle().get_bundle(GetBundleRequest::default()))
                .await?;
        let entries = if self.config.by_revision {
            tokio::time::timeout(RPC_TIMEOUT, self.entries_by_revision())
                .await
                .unwrap_or_else(|_| Err(ServerError::timed_out(FETCH_FAILED)))
        } else {
            self.all_entries().await
        };
        let entries = entries.inspect_err(log_failed_fetch)?;
        let mut bundles =
            vec![good_bundle(own).ok_or_else(|| ServerError::other("invalid trust domain bundle"))?];
        bundles.extend(self.federated(&entries).await);
        let changes = self.state.view().replace(entries, bundles);
        self.own_bundle(&changes).await;
        self.heard().await;
        self.state.apply(&changes);
        self.done();
        Ok(())
    }

    async fn all_entries(&self) -> Result<Vec<Entry>, ServerError> {
        let request = GetAuthorizedEntriesRequest { output_mask: Some(mask()) };
        let response = timed(FETCH_FAILED, self.link.entry().get_authorized_entries(request)).await?;
        Ok(response.entries.into_iter().filter_map(good_entry).collect())
    }

    /// Asks for revisions and then for what changed.
    async fn entries_by_revision(&self) -> Result<Vec<Entry>, ServerError> {
        let failed = |status: Status| ServerError::new(FETCH_FAILED, &status);
        let ended = || ServerError::other(format!("{FETCH_FAILED}: the server closed the stream early"));
        let (ask, requests) = mpsc::channel(1);
        let send = |ids| SyncAuthorizedEntriesRequest { output_mask: Some(mask()), ids };
        ask.send(send(Vec::new())).await.map_err(|_| ended())?;
        let mut answers = self
            .link
            .entry()
            .sync_authorized_entries(ReceiverStream::new(requests))
            .await
            .map_err(failed)?
            .into_inner();
        let mut answer = answers.message().await.map_err(failed)?.ok_or_else(ended)?;
        // Without revisions the first answer is the complete list.
        if answer.entry_revisions.is_empty() {
            return Ok(answer.entries.into_iter().filter_map(good_entry).collect());
        }
        let page = answer.entry_revisions.len();
        let mut revisions = answer.entry_revisions;
        while answer.more {
            answer = answers.message().await.map_err(failed)?.ok_or_else(ended)?;
            revisions.append(&mut answer.entry_revisions.clone());
        }
        let mut entries = Vec::with_capacity(revisions.len());
        let mut needed = Vec::new();
        {
            let view = self.state.view();
            for revision in revisions {
                // `created_at` tells an entry that was deleted and made anew under the same id.
                match view.entry(&revision.id) {
                    Some(held)
                        if held.revision_number == revision.revision_number
                            && held.created_at == revision.created_at =>
                    {
                        entries.push(Entry::clone(held));
                    }
                    _ => needed.push(revision.id),
                }
            }
        }
        for ids in needed.chunks(page.max(1)) {
            ask.send(SyncAuthorizedEntriesRequest { output_mask: None, ids: ids.to_vec() })
                .await
                .map_err(|_| ended())?;
            loop {
                let answer = answers.message().await.map_err(failed)?.ok_or_else(ended)?;
                entries.extend(answer.entries.into_iter().filter_map(good_entry));
                if !answer.more {
                    break;
                }
            }
        }
        Ok(entries)
    }

    /// Bundles of the trust domains that entries federate with. One that cannot be fetched now stays as it is.
    async fn federated(&self, entries: &[Entry]) -> Vec<Bundle> {
        let domains: BTreeSet<TrustDomain> =
            entries.iter().flat_map(|entry| entry.federates_with.iter().cloned()).collect();
        let held: HashMap<TrustDomain, Bundle> = {
            let view = self.state.view();
            domains.iter().filter_map(|td| Some((td.clone(), Bundle::clone(view.bundle(td)?)))).collect()
        };
        let fetched = futures::stream::iter(domains).map(|trust_domain| {
            let mut client = self.link.bundle();
            async move {
                let request = GetFederatedBundleRequest {
                    trust_domain: trust_domain.name().to_owned(),
                    output_mask: None,
                };
                let result = timed("fetching a federated bundle", client.get_federated_bundle(request)).await;
                (trust_domain, result)
            }
        });
        let results: Vec<_> = fetched.buffer_unordered(BUNDLE_WORKERS).collect().await;
        results
            .into_iter()
            .filter_map(|(trust_domain, result)| match result {
                Ok(proto) => good_bundle(proto),
                Err(error) => {
                    tracing::error!(subsystem_name = "manager", federated_bundle = trust_domain.as_id_str(), error = %error, "Could not fetch federated bundle");
                    if error.code == Code::NotFound { None } else { held.get(&trust_domain).cloned() }
                }
            })
            .collect()
    }
}

/// What the agent uses of an entry.
fn mask() -> EntryMask {
    EntryMask {
        spiffe_id: true,
        parent_id: false,
        selectors: true,
        x509_svid_ttl: true,
        federates_with: true,
        admin: true,
        downstream: true,
        expires_at: true,
        dns_names: true,
        revision_number: true,
        store_svid: true,
        jwt_svid_ttl: true,
        hint: true,
        created_at: true,
        additional_attributes: true,
    }
}
