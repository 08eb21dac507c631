//! The APIs under measurement, each call checked: any error fails the scenario.

pub mod herd;
pub mod node;
pub mod pop;
pub mod workload;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use steeple_proto::spire::api::server::agent::v1::{CreateJoinTokenRequest, agent_client::AgentClient};
use steeple_proto::spire::api::server::bundle::v1::{GetBundleRequest, bundle_client::BundleClient};
use steeple_proto::spire::api::server::entry::v1::{
    BatchCreateEntryRequest, BatchDeleteEntryRequest, CountEntriesRequest, ListEntriesRequest,
    entry_client::EntryClient, list_entries_request,
};
use steeple_proto::spire::api::server::svid::v1::svid_client::SvidClient;
use steeple_proto::spire::api::types::{self, Entry, EntryMask, Selector};
use steeple_spiffe::{Certificate, SpiffeId};
use tonic::transport::Channel;

/// The server's socket.
#[derive(Clone, Debug)]
pub struct Admin {
    pub entries: EntryClient<Channel>,
    pub agents: AgentClient<Channel>,
    pub svids: SvidClient<Channel>,
    bundles: BundleClient<Channel>,
    parent: types::Spiffeid,
}

/// Entries of one page of ListEntries.
const PAGE: i32 = 500;
const MAX_MESSAGE: usize = 256 << 20;

impl Admin {
    pub async fn connect(socket: &Path, parent: &str) -> Result<Self> {
        let channel = steeple_e2e::connect_uds(socket).await?;
        Ok(Self {
            entries: EntryClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE),
            agents: AgentClient::new(channel.clone()),
            svids: SvidClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE),
            bundles: BundleClient::new(channel),
            parent: id(parent)?,
        })
    }

    /// An entry of the node under measurement.
    pub fn entry(&self, name: &str, selector: &str) -> Entry {
        Entry {
            id: name.to_owned(),
            spiffe_id: Some(types::Spiffeid {
                trust_domain: self.parent.trust_domain.clone(),
                path: format!("/bench/{name}"),
            }),
            parent_id: Some(self.parent.clone()),
            selectors: vec![Selector { r#type: "unix".into(), value: selector.to_owned() }],
            ..Entry::default()
        }
    }

    /// `count` entries of this node that no process here has the selector of.
    pub fn others(&self, prefix: &str, from: usize, count: usize) -> Vec<Entry> {
        (from..from + count)
            .map(|n| {
                let mut entry = self.entry(&format!("{prefix}-{n}"), &format!("uid:{}", 2_000_000 + n));
                entry
                    .selectors
                    .push(Selector { r#type: "unix".into(), value: format!("gid:{}", 3_000_000 + n % 1000) });
                entry
            })
            .collect()
    }

    /// The same of nodes that are not there, a thousand of them.
    pub fn strangers(&self, prefix: &str, from: usize, count: usize) -> Vec<Entry> {
        let mut entries = self.others(prefix, from, count);
        for (n, entry) in entries.iter_mut().enumerate() {
            let trust_domain = self.parent.trust_domain.clone();
            entry.parent_id =
                Some(types::Spiffeid { trust_domain, path: format!("/elsewhere/{}", (from + n) % 1000) });
        }
        entries
    }

    /// This very process.
    pub fn mine(&self, name: &str) -> Entry {
        self.entry(name, &format!("uid:{}", steeple_e2e::uid()))
    }

    pub async fn create(&mut self, entries: Vec<Entry>) -> Result<()> {
        let request = BatchCreateEntryRequest { entries, output_mask: None };
        let results =
            self.entries.batch_create_entry(request).await.context("BatchCreateEntry")?.into_inner().results;
        results.iter().try_for_each(|result| succeeded("BatchCreateEntry", result.status.as_ref()))
    }

    /// In batches that the largest messages allow.
    pub async fn create_many(&mut self, mut entries: Vec<Entry>) -> Result<()> {
        while !entries.is_empty() {
            let rest = entries.split_off(entries.len().min(500));
            self.create(std::mem::replace(&mut entries, rest)).await?;
        }
        Ok(())
    }

    pub async fn delete(&mut self, ids: Vec<String>) -> Result<()> {
        let request = BatchDeleteEntryRequest { ids };
        let results =
            self.entries.batch_delete_entry(request).await.context("BatchDeleteEntry")?.into_inner().results;
        results.iter().try_for_each(|result| succeeded("BatchDeleteEntry", result.status.as_ref()))
    }

    pub async fn count(&mut self) -> Result<usize> {
        let counted =
            self.entries.count_entries(CountEntriesRequest { filter: None }).await.context("CountEntries")?;
        Ok(usize::try_from(counted.into_inner().count)?)
    }

    /// All pages; how many entries they had.
    pub async fn list(&mut self, filter: Option<list_entries_request::Filter>) -> Result<usize> {
        let (mut listed, mut page_token) = (0, String::new());
        loop {
            let request =
                ListEntriesRequest { filter: filter.clone(), output_mask: None, page_size: PAGE, page_token };
            let page = self.entries.list_entries(request).await.context("ListEntries")?.into_inner();
            listed += page.entries.len();
            if page.next_page_token.is_empty() {
                return Ok(listed);
            }
            page_token = page.next_page_token;
        }
    }

    /// A join token whose agent is also the parent of the entries.
    pub async fn token(&mut self) -> Result<String> {
        let request =
            CreateJoinTokenRequest { ttl: 3600, token: String::new(), agent_id: Some(self.parent.clone()) };
        Ok(self.agents.create_join_token(request).await.context("CreateJoinToken")?.into_inner().value)
    }

    pub async fn authorities(&mut self) -> Result<Vec<Certificate>> {
        let bundle =
            self.bundles.get_bundle(GetBundleRequest::default()).await.context("GetBundle")?.into_inner();
        bundle.x509_authorities.iter().map(|authority| Ok(Certificate::from_der(&authority.asn1)?)).collect()
    }

    pub fn trust_domain(&self) -> &str {
        &self.parent.trust_domain
    }
}

/// What SPIRE's agent asks for with each entry.
pub fn agent_mask() -> EntryMask {
    EntryMask {
        spiffe_id: true,
        parent_id: false,
        selectors: true,
        x509_svid_ttl: true,
        federates_with: true,
        admin: true,
        downstream: true,
        dns_names: true,
        revision_number: true,
        store_svid: true,
        hint: true,
        created_at: true,
        ..EntryMask::default()
    }
}

pub fn id(text: &str) -> Result<types::Spiffeid> {
    let id = SpiffeId::parse(text).with_context(|| text.to_owned())?;
    Ok(types::Spiffeid { trust_domain: id.trust_domain().name().to_owned(), path: id.path().to_owned() })
}

/// A status of one of several.
pub fn succeeded(call: &str, status: Option<&types::Status>) -> Result<()> {
    let status = status.with_context(|| format!("{call}: no status"))?;
    ensure!(status.code == 0, "{call}: code {}: {}", status.code, status.message);
    Ok(())
}
