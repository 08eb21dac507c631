//! `steeple.server.v1.Federation`: how the relationships with other trust domains are doing.

use std::sync::Arc;

use steeple_proto::steeple::server::v1 as pb;
use tonic::{Request, Response, Status};

use crate::rpc::Rpc;
use crate::state::ServerState;

/// The service.
#[derive(Clone, Debug)]
pub struct FederationService {
    state: Arc<ServerState>,
}

impl FederationService {
    pub fn new(state: Arc<ServerState>) -> Self {
        Self { state }
    }
}

#[tonic::async_trait]
impl pb::federation_server::Federation for FederationService {
    /// Each server asks the endpoints by itself: the answer is this server's.
    async fn list_states(
        &self,
        request: Request<pb::ListStatesRequest>,
    ) -> Result<Response<pb::ListStatesResponse>, Status> {
        let rpc = Rpc::of(&request)?;
        let states = self.state.federation.states();
        let states = states.iter().map(|(trust_domain, state)| pb::RelationshipState {
            trust_domain: trust_domain.name().to_owned(),
            r#static: state.is_static,
            last_attempt: state.last_attempt,
            last_success: state.last_success,
            next_attempt: state.next_attempt,
            last_error: state.last_error.clone().unwrap_or_default(),
            failures_in_a_row: state.failures_in_a_row,
            sequence_number: state.stored.map_or(0, |stored| stored.sequence_number),
            refresh_hint: state.stored.and_then(|stored| stored.refresh_hint).unwrap_or(0),
        });
        rpc.audit();
        Ok(Response::new(pb::ListStatesResponse { states: states.collect() }))
    }
}
