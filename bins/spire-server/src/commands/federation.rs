//! `federation …`: relationships with other trust domains.

mod change;
mod input;

use std::fmt::Write as _;

use serde_json::Value;
use steeple_cli::{Api, ClientCommand, Context as _, Failure, Output, Session, go, printer};
use steeple_config::{Flag, FlagSet, go_quote};
use steeple_proto::spire::api::server::trustdomain::v1::trust_domain_client::TrustDomainClient;
use steeple_proto::spire::api::server::trustdomain::v1::{
    BatchDeleteFederationRelationshipRequest, GetFederationRelationshipRequest,
    ListFederationRelationshipsRequest, RefreshBundleRequest,
};
use steeple_proto::spire::api::types::federation_relationship::BundleEndpointProfile;
use steeple_proto::spire::api::types::{FederationRelationship, Status};
use steeple_proto::steeple::server::v1::ListStatesRequest;
use steeple_proto::steeple::server::v1::federation_client::FederationClient;
use tonic::Code;
use tonic::transport::Channel;

pub use change::{Create, Update};

fn client(channel: &Channel) -> TrustDomainClient<Channel> {
    TrustDomainClient::new(channel.clone()).max_decoding_message_size(steeple_cli::session::MAX_ANSWER)
}

/// One relationship. Labels are padded to column 26; the bundle is not shown.
fn block(relationship: &FederationRelationship) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: &str| {
        let _ = writeln!(text, "{label:26}: {value}");
    };
    line("Trust domain", &relationship.trust_domain);
    line("Bundle endpoint URL", &relationship.bundle_endpoint_url);
    match &relationship.bundle_endpoint_profile {
        Some(BundleEndpointProfile::HttpsWeb(_)) => line("Bundle endpoint profile", "https_web"),
        Some(BundleEndpointProfile::HttpsSpiffe(profile)) => {
            line("Bundle endpoint profile", "https_spiffe");
            line("Endpoint SPIFFE ID", &profile.endpoint_spiffe_id);
        }
        None => {}
    }
    text
}

pub struct List;

impl ClientCommand for List {
    const NAME: &'static str = "federation list";
    const API: Api = Api::Server;

    fn flags(_: &mut FlagSet) -> Self {
        Self
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let request = ListFederationRelationshipsRequest::default();
        let found = client(&session.channel).list_federation_relationships(request).await;
        let found = found.context("error listing federation relationship")?.into_inner();
        if session.output == Output::Json {
            let name = "spire.api.server.trustdomain.v1.ListFederationRelationshipsResponse";
            let mut json = printer::message(name, &found)?;
            if let (Some(states), Some(fields)) = (states(session).await?, json.as_object_mut()) {
                fields.insert(STATES.to_owned(), states);
            }
            return session.print_json(vec![json]);
        }
        let found = found.federation_relationships;
        let count = go::plural(found.len(), "federation relationship", "federation relationships");
        let blocks: Vec<String> = found.iter().map(block).collect();
        let separated = if blocks.is_empty() { "" } else { "\n" };
        session.io.print(&format!("Found {count}\n{separated}{}", blocks.join("\n")))
    }
}

/// Our own key in the JSON of `federation list`: how each relationship is doing, those of the configuration file too.
const STATES: &str = "steeple_states";

/// Nothing from a server that is not ours.
async fn states(session: &mut Session) -> Result<Option<Value>, Failure> {
    match FederationClient::new(session.channel.clone()).list_states(ListStatesRequest {}).await {
        Ok(answer) => {
            let json = printer::message("steeple.server.v1.ListStatesResponse", &answer.into_inner())?;
            Ok(json.get("states").cloned())
        }
        Err(status) if status.code() == Code::Unimplemented => Ok(None),
        Err(status) => {
            let why = Failure::from(status);
            session.io.eprint(&format!("Warning: how the relationships are doing is not known: {why}\n"));
            Ok(None)
        }
    }
}

pub struct Show(Flag<String>);

impl ClientCommand for Show {
    const NAME: &'static str = "federation show";
    const API: Api = Api::Server;

    fn flags(flags: &mut FlagSet) -> Self {
        Self(flags.string("trustDomain", "", "Trust domain whose relationship to show"))
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let trust_domain = self.0.get();
        if trust_domain.is_empty() {
            return Err(Failure::new("a trust domain name is required"));
        }
        let request =
            GetFederationRelationshipRequest { trust_domain: trust_domain.clone(), output_mask: None };
        let found = client(&session.channel).get_federation_relationship(request).await;
        let found = found.context("error showing federation relationship")?.into_inner();
        session.answer("spire.api.types.FederationRelationship", &found, |found| {
            let block = block(found);
            Ok(format!("Found a federation relationship with trust domain {trust_domain}:\n\n{block}"))
        })
    }
}

pub struct Delete(Flag<String>);

impl ClientCommand for Delete {
    const NAME: &'static str = "federation delete";
    const API: Api = Api::Server;

    fn flags(flags: &mut FlagSet) -> Self {
        Self(flags.string("id", "", "Trust domain whose relationship to delete"))
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let id = self.0.get();
        if id.is_empty() {
            return Err(Failure::new("id is required"));
        }
        let request = BatchDeleteFederationRelationshipRequest { trust_domains: vec![id] };
        let answer = client(&session.channel).batch_delete_federation_relationship(request).await;
        let answer = answer.context("failed to delete federation relationship")?.into_inner();
        let name = "spire.api.server.trustdomain.v1.BatchDeleteFederationRelationshipResponse";
        session.answer(name, &answer, |answer| {
            let Some(result) = answer.results.first() else {
                return Err(Failure::new("internal error: the server answered nothing; please report this"));
            };
            match &result.status {
                Some(Status { code, message }) if *code != 0 => {
                    let trust_domain = go_quote(&result.trust_domain);
                    Err(Failure::new(format!(
                        "failed to delete federation relationship {trust_domain}: {message}"
                    )))
                }
                _ => Ok("federation relationship deleted.\n".to_owned()),
            }
        })
    }
}

pub struct Refresh(Flag<String>);

impl ClientCommand for Refresh {
    const NAME: &'static str = "federation refresh";
    const API: Api = Api::Server;

    fn flags(flags: &mut FlagSet) -> Self {
        Self(flags.string("id", "", "Trust domain whose bundle to fetch now"))
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let id = self.0.get();
        if id.is_empty() {
            return Err(Failure::new("id is required"));
        }
        let request = RefreshBundleRequest { trust_domain: id.clone() };
        match client(&session.channel).refresh_bundle(request).await {
            // SPIRE prints a status for want of anything else.
            Ok(_) => session.answer("spire.api.types.Status", &Status::default(), |_| {
                Ok("Bundle refreshed\n".to_owned())
            }),
            Err(status) if status.code() == Code::NotFound => {
                let id = go_quote(&id);
                Err(Failure::new(format!("there is no federation relationship with trust domain {id}")))
            }
            Err(status) => Err(status).context("failed to refresh bundle"),
        }
    }
}
