//! `spire.api.server.entry.v1.Entry`: registration entries, and which of them an agent may have.

mod error;
mod fields;
mod filter;
mod sync;

use std::sync::Arc;

use steeple_datastore::{Created, EntryFilter, PageRequest};
use steeple_proto::spire::api::server::entry::v1 as pb;
use steeple_proto::spire::api::types;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

pub use error::EntryError;

use crate::convert::{
    ConvertError, entry_from_proto, entry_into_proto_masked, entry_mask_from_proto, entry_to_proto_masked,
};
use crate::error::item_ok;
use crate::rpc::{Fields, Rpc};
use crate::state::ServerState;

/// The service.
#[derive(Clone, Debug)]
pub struct EntryService {
    state: Arc<ServerState>,
}

impl EntryService {
    pub fn new(state: Arc<ServerState>) -> Self {
        Self { state }
    }

    /// Converts and stores a batch in one transaction; answers one result for each item, in order.
    async fn create(
        &self,
        rpc: &Rpc,
        entries: &[types::Entry],
        mask: Option<&types::EntryMask>,
    ) -> Vec<pb::batch_create_entry_response::Result> {
        let converted: Vec<_> =
            entries.iter().map(|e| entry_from_proto(&self.state.trust_domain, e, None)).collect();
        let good: Vec<_> = converted.iter().filter_map(|e| e.as_ref().ok().cloned()).collect();
        let stored = if good.is_empty() {
            Ok(Vec::new())
        } else {
            self.state.store.create_entries(good, self.state.clock.now()).await
        };
        let mut stored = stored.map(Vec::into_iter);
        converted
            .into_iter()
            .map(|entry| {
                let entry = match entry {
                    Ok(entry) => entry,
                    Err(e) => return failed_create(rpc, &EntryError::Convert(e), Fields::default()),
                };
                let outcome = match &mut stored {
                    Ok(results) => results.next().unwrap_or_else(|| Err(missing_result())),
                    Err(e) => Err(of_all(e)),
                };
                let (entry, status) = match outcome {
                    Ok(Created::New(entry)) => (entry, item_ok()),
                    Ok(Created::Existing(entry)) => (entry, EntryError::Similar.item_status()),
                    Err(e) => {
                        let fields = Fields::default().with("spiffe_id", entry.spiffe_id.as_str());
                        return failed_create(rpc, &EntryError::create(e), fields);
                    }
                };
                let entry = entry_into_proto_masked(entry, mask);
                pb::batch_create_entry_response::Result { status: Some(status), entry: Some(entry) }
            })
            .collect()
    }

    /// The database says which entries and in which order; the entries are the view's own where it is at the database's
    /// revision, which is nearly always.
    async fn list(
        &self,
        filter: &EntryFilter,
        page: &PageRequest,
        mask: Option<&types::EntryMask>,
    ) -> steeple_datastore::Result<pb::ListEntriesResponse> {
        if let Some(ids) = self.state.store.list_entry_ids(filter, page).await?
            && let Some(entries) = self.state.view.entries_at(&ids)
        {
            return Ok(pb::ListEntriesResponse {
                entries: entries.iter().map(|entry| entry_to_proto_masked(entry, mask)).collect(),
                next_page_token: ids.page.next_token,
            });
        }
        let page = self.state.store.list_entries(filter, page).await?;
        Ok(pb::ListEntriesResponse {
            entries: page.items.into_iter().map(|entry| entry_into_proto_masked(entry, mask)).collect(),
            next_page_token: page.next_token,
        })
    }

    async fn update(
        &self,
        entry: &types::Entry,
        input: Option<&types::EntryMask>,
        output: Option<&types::EntryMask>,
    ) -> Result<types::Entry, EntryError> {
        let state = &*self.state;
        let converted = entry_from_proto(&state.trust_domain, entry, input).map_err(EntryError::Convert)?;
        let mask = entry_mask_from_proto(input);
        let updated =
            state.store.update_entry(converted, mask, state.clock.now()).await.map_err(EntryError::update)?;
        // SPIRE: the store's NotFound, without its cause.
        let updated = updated.ok_or(EntryError::UpdateMissing)?;
        Ok(entry_into_proto_masked(updated, output))
    }

    /// All in one transaction; one outcome for each, in order.
    async fn delete(&self, ids: &[String]) -> Vec<Result<(), EntryError>> {
        let named: Vec<String> = ids.iter().filter(|id| !id.is_empty()).cloned().collect();
        let deleted =
            if named.is_empty() { Ok(Vec::new()) } else { self.state.store.delete_entries(named).await };
        let mut were_there = deleted.as_ref().map(|found| found.iter().copied());
        let outcome = |id: &String| {
            if id.is_empty() {
                return Err(EntryError::MissingEntryId);
            }
            match were_there.as_mut().map(Iterator::next) {
                Ok(Some(true)) => Ok(()),
                Ok(_) => Err(EntryError::NotFound),
                Err(e) => Err(EntryError::Delete(of_all(e))),
            }
        };
        ids.iter().map(outcome).collect()
    }
}

/// A store that answers fewer results than it was given items breaks its contract.
fn missing_result() -> steeple_datastore::Error {
    steeple_datastore::Error::Internal("the store gave no result for this entry".to_owned())
}

/// The failure of a whole batch, for each of its items.
fn of_all(error: &steeple_datastore::Error) -> steeple_datastore::Error {
    let text = error.to_string();
    steeple_datastore::Error::Internal(text.strip_prefix("datastore-sql: ").unwrap_or(&text).to_owned())
}

fn failed_create(rpc: &Rpc, error: &EntryError, fields: Fields) -> pb::batch_create_entry_response::Result {
    pb::batch_create_entry_response::Result { status: Some(rpc.refuse_item(error, fields)), entry: None }
}

#[tonic::async_trait]
impl pb::entry_server::Entry for EntryService {
    async fn count_entries(
        &self,
        request: Request<pb::CountEntriesRequest>,
    ) -> Result<Response<pb::CountEntriesResponse>, Status> {
        let rpc = Rpc::of(&request)?;
        let td = &self.state.trust_domain;
        let asked = request.into_inner().filter.map(filter::from_count).unwrap_or_default();
        rpc.audit_fields(|| fields::of_filter(td, &asked));
        let filter = filter::from_proto(td, &asked).map_err(|e| rpc.refuse(e))?;
        let count =
            self.state.store.count_entries(&filter).await.map_err(|e| rpc.refuse(EntryError::Count(e)))?;
        rpc.audit();
        Ok(Response::new(pb::CountEntriesResponse { count: i32::try_from(count).unwrap_or(i32::MAX) }))
    }

    async fn list_entries(
        &self,
        request: Request<pb::ListEntriesRequest>,
    ) -> Result<Response<pb::ListEntriesResponse>, Status> {
        let rpc = Rpc::of(&request)?;
        let td = &self.state.trust_domain;
        let request = request.into_inner();
        let asked = request.filter.unwrap_or_default();
        rpc.audit_fields(|| fields::of_filter(td, &asked));
        let filter = filter::from_proto(td, &asked).map_err(|e| rpc.refuse(e))?;
        let page = page_request(request.page_size, request.page_token);
        let mask = request.output_mask.as_ref();
        let listed = self.list(&filter, &page, mask).await.map_err(|e| rpc.refuse(EntryError::List(e)))?;
        rpc.audit();
        Ok(Response::new(listed))
    }

    async fn get_entry(
        &self,
        request: Request<pb::GetEntryRequest>,
    ) -> Result<Response<types::Entry>, Status> {
        let rpc = Rpc::of(&request)?;
        let request = request.into_inner();
        if request.id.is_empty() {
            return Err(rpc.refuse(EntryError::MissingId));
        }
        rpc.audit_fields(|| Fields::default().with("entry_id", &request.id));
        let found =
            self.state.store.fetch_entry(&request.id).await.map_err(|e| rpc.refuse(EntryError::Fetch(e)))?;
        let entry = found.ok_or_else(|| rpc.refuse(EntryError::NotFound))?;
        rpc.audit();
        Ok(Response::new(entry_into_proto_masked(entry, request.output_mask.as_ref())))
    }

    async fn batch_create_entry(
        &self,
        request: Request<pb::BatchCreateEntryRequest>,
    ) -> Result<Response<pb::BatchCreateEntryResponse>, Status> {
        let rpc = Rpc::of(&request)?;
        let request = request.into_inner();
        let results = self.create(&rpc, &request.entries, request.output_mask.as_ref()).await;
        for (entry, result) in request.entries.iter().zip(&results) {
            rpc.audit_item(&result.status.clone().unwrap_or_default(), || fields::of_entry(entry, None));
        }
        Ok(Response::new(pb::BatchCreateEntryResponse { results }))
    }

    async fn batch_update_entry(
        &self,
        request: Request<pb::BatchUpdateEntryRequest>,
    ) -> Result<Response<pb::BatchUpdateEntryResponse>, Status> {
        let rpc = Rpc::of(&request)?;
        let request = request.into_inner();
        let input = request.input_mask.as_ref();
        let mut results = Vec::with_capacity(request.entries.len());
        for entry in &request.entries {
            let (status, updated) = match self.update(entry, input, request.output_mask.as_ref()).await {
                Ok(updated) => (item_ok(), Some(updated)),
                Err(e) => (rpc.refuse_item(&e, Fields::default().with("entry_id", &entry.id)), None),
            };
            rpc.audit_item(&status, || fields::of_entry(entry, input));
            results.push(pb::batch_update_entry_response::Result { status: Some(status), entry: updated });
        }
        Ok(Response::new(pb::BatchUpdateEntryResponse { results }))
    }

    async fn batch_delete_entry(
        &self,
        request: Request<pb::BatchDeleteEntryRequest>,
    ) -> Result<Response<pb::BatchDeleteEntryResponse>, Status> {
        let rpc = Rpc::of(&request)?;
        let ids = request.into_inner().ids;
        let mut results = Vec::with_capacity(ids.len());
        let outcomes = self.delete(&ids).await;
        for (id, outcome) in ids.into_iter().zip(outcomes) {
            let status = match outcome {
                Ok(()) => item_ok(),
                Err(e) => rpc.refuse_item(&e, Fields::default().with("entry_id", &id)),
            };
            rpc.audit_item(&status, || Fields::default().with("entry_id", &id));
            results.push(pb::batch_delete_entry_response::Result { status: Some(status), id });
        }
        Ok(Response::new(pb::BatchDeleteEntryResponse { results }))
    }

    async fn get_authorized_entries(
        &self,
        request: Request<pb::GetAuthorizedEntriesRequest>,
    ) -> Result<Response<pb::GetAuthorizedEntriesResponse>, Status> {
        let rpc = Rpc::of(&request)?;
        let mask = request.into_inner().output_mask;
        self.state.fresh().await;
        let entries = self.state.view.authorized_entries(rpc.caller_id()?);
        rpc.audit();
        Ok(Response::new(pb::GetAuthorizedEntriesResponse {
            entries: entries.iter().map(|e| entry_to_proto_masked(e, mask.as_ref())).collect(),
        }))
    }

    type SyncAuthorizedEntriesStream = ReceiverStream<Result<pb::SyncAuthorizedEntriesResponse, Status>>;

    async fn sync_authorized_entries(
        &self,
        request: Request<tonic::Streaming<pb::SyncAuthorizedEntriesRequest>>,
    ) -> Result<Response<Self::SyncAuthorizedEntriesStream>, Status> {
        let rpc = Rpc::of(&request)?;
        self.state.fresh().await;
        let entries = self.state.view.authorized_entries(rpc.caller_id()?);
        Ok(Response::new(sync::serve(&self.state.tasks, rpc, request.into_inner(), entries)))
    }
}

/// SPIRE ignores the token without a size.
pub(crate) fn page_request(size: i32, token: String) -> PageRequest {
    match u32::try_from(size) {
        Ok(size) if size > 0 => PageRequest { token, size },
        _ => PageRequest::default(),
    }
}
