//! `bundle …`: the own bundle and those of federated trust domains.

mod change;
mod form;

use steeple_cli::{Api, ClientCommand, Failure, Session, go};
use steeple_config::{Flag, FlagSet};
use steeple_proto::spire::api::server::bundle::v1::bundle_client::BundleClient;
use steeple_proto::spire::api::server::bundle::v1::{
    CountBundlesRequest, GetBundleRequest, GetFederatedBundleRequest, ListFederatedBundlesRequest,
};
use tonic::transport::Channel;

pub use change::{Delete, Set};
pub(super) use form::Form;

pub(super) fn client(channel: &Channel) -> BundleClient<Channel> {
    BundleClient::new(channel.clone()).max_decoding_message_size(steeple_cli::session::MAX_ANSWER)
}

const BUNDLE: &str = "spire.api.types.Bundle";

pub struct Show {
    format: Flag<String>,
}

impl ClientCommand for Show {
    const NAME: &'static str = "bundle show";
    const API: Api = Api::Server;

    fn flags(flags: &mut FlagSet) -> Self {
        Self { format: Form::flag(flags) }
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let bundle = client(&session.channel).get_bundle(GetBundleRequest::default()).await?.into_inner();
        session.answer(BUNDLE, &bundle, |bundle| Form::parse(&self.format.get())?.print(bundle))
    }
}

pub struct List {
    id: Flag<String>,
    format: Flag<String>,
}

impl ClientCommand for List {
    const NAME: &'static str = "bundle list";
    const API: Api = Api::Server;

    fn flags(flags: &mut FlagSet) -> Self {
        Self { id: flags.string("id", "", "Only the bundle of this trust domain"), format: Form::flag(flags) }
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let mut client = client(&session.channel);
        let trust_domain = self.id.get();
        if !trust_domain.is_empty() {
            let request = GetFederatedBundleRequest { trust_domain, output_mask: None };
            let bundle = client.get_federated_bundle(request).await?.into_inner();
            return session.answer(BUNDLE, &bundle, |bundle| Form::parse(&self.format.get())?.print(bundle));
        }
        let found = client.list_federated_bundles(ListFederatedBundlesRequest::default()).await?.into_inner();
        session.answer("spire.api.server.bundle.v1.ListFederatedBundlesResponse", &found, |found| {
            let mut text = String::new();
            for (i, bundle) in found.bundles.iter().enumerate() {
                let form = Form::parse(&self.format.get())?;
                if i > 0 {
                    text.push('\n');
                }
                text.push_str(&form::header(&bundle.trust_domain));
                text.push_str(&form.print(bundle)?);
            }
            Ok(text)
        })
    }
}

pub struct Count;

impl ClientCommand for Count {
    const NAME: &'static str = "bundle count";
    const API: Api = Api::Server;

    fn flags(_: &mut FlagSet) -> Self {
        Self
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let counted = client(&session.channel).count_bundles(CountBundlesRequest {}).await?.into_inner();
        session.answer("spire.api.server.bundle.v1.CountBundlesResponse", &counted, |counted| {
            let count = usize::try_from(counted.count).unwrap_or_default();
            Ok(format!("{}\n", go::plural(count, "bundle", "bundles")))
        })
    }
}
