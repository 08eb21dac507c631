//! What Cilium's operator does with the server's TCP port as an admin (cilium/cilium, operator/auth/spire).

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use steeple_e2e::{Deployment, TRUST_DOMAIN, Workload};
use steeple_proto::spire::api::server::entry::v1::entry_client::EntryClient;
use steeple_proto::spire::api::server::entry::v1::list_entries_request::Filter;
use steeple_proto::spire::api::server::entry::v1::{
    BatchCreateEntryRequest, BatchDeleteEntryRequest, BatchUpdateEntryRequest, ListEntriesRequest,
    batch_create_entry_response,
};
use steeple_proto::spire::api::types::selector_match::MatchBehavior;
use steeple_proto::spire::api::types::{Entry, SelectorMatch, Spiffeid, Status};
use steeple_proto::workload::X509svidRequest;
use steeple_runtime::clock;
use steeple_runtime::tls::{ClientTls, LiveBundles, LiveIdentity, ServerTrust, Servers};
use steeple_spiffe::{Certificate, SpiffeId, TrustDomain};
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;

use super::cilium_agent::selector;
use crate::envoys::LONG;

const ID: &str = "spiffe://example.org/cilium-operator";
const CHUNK: usize = 200;
const ALREADY_EXISTS: i32 = 6;
const NOT_FOUND: i32 = 5;

pub struct CiliumOperator {
    pub entries: EntryClient<Channel>,
}

fn id(path: &str) -> Spiffeid {
    Spiffeid { trust_domain: TRUST_DOMAIN.into(), path: path.into() }
}

/// Neither ID nor TTL nor DNS names.
pub fn identity(number: u32) -> Entry {
    Entry {
        spiffe_id: Some(id(&format!("/identity/{number}"))),
        parent_id: Some(id("/cilium-operator")),
        selectors: vec![selector("cilium", "mutual-auth")],
        ..Entry::default()
    }
}

/// Of the ztunnel mode.
pub fn service_account(namespace: &str, account: &str) -> Entry {
    Entry {
        spiffe_id: Some(id(&format!("/ns/{namespace}/sa/{account}"))),
        parent_id: Some(id("/ztunnel")),
        selectors: vec![
            selector("k8s", &format!("ns:{namespace}")),
            selector("k8s", &format!("sa:{account}")),
        ],
        ..Entry::default()
    }
}

fn filter(path: Option<&str>) -> Filter {
    Filter {
        by_spiffe_id: path.map(id),
        by_parent_id: Some(id("/cilium-operator")),
        by_selectors: Some(SelectorMatch {
            selectors: vec![selector("cilium", "mutual-auth")],
            r#match: MatchBehavior::MatchExact.into(),
        }),
        ..Filter::default()
    }
}

pub fn status(status: Option<Status>) -> (i32, String) {
    status.map_or((0, String::new()), |status| (status.code, status.message))
}

impl CiliumOperator {
    /// Waits for its SVID, then dials the server by its address alone: the name of the service is not known to TLS.
    pub async fn connect(d: &Deployment) -> Result<Self> {
        let (chain, key) = timeout(LONG, source(d)).await.context("no SVID for the operator")??;
        let identity = LiveIdentity::new();
        identity.set_der(chain.iter().map(|one| one.der().to_vec().into()).collect(), &key)?;
        let trust_domain = TrustDomain::new(TRUST_DOMAIN)?;
        let bundles = LiveBundles::new();
        bundles.set(&trust_domain, Certificate::from_pem(&d.server_ok(&["bundle", "show"])?)?);
        let server = SpiffeId::from_parts(&trust_domain, "/spire/server")?;
        let tls = ClientTls::new(server, ServerTrust::Bundles(bundles), identity, clock::system())?;
        let channel = tls.channel(&Arc::new(Servers::new(&format!("127.0.0.1:{}", d.port()))))?;
        Ok(Self { entries: EntryClient::new(channel).max_decoding_message_size(64 << 20) })
    }

    pub async fn list(&mut self, filter: Filter) -> Result<Vec<Entry>, tonic::Status> {
        let asked = ListEntriesRequest { filter: Some(filter), ..ListEntriesRequest::default() };
        let answer = self.entries.list_entries(asked).await?.into_inner();
        // No page size: everything in one answer.
        assert!(answer.next_page_token.is_empty(), "a page was not asked for");
        Ok(answer.entries)
    }

    pub async fn list_all(&mut self) -> Result<Vec<Entry>, tonic::Status> {
        self.list(filter(None)).await
    }

    pub async fn list_of(&mut self, number: u32) -> Result<Vec<Entry>, tonic::Status> {
        self.list(filter(Some(&format!("/identity/{number}")))).await
    }

    pub async fn create(
        &mut self,
        entries: Vec<Entry>,
    ) -> Result<Vec<batch_create_entry_response::Result>, tonic::Status> {
        let asked = BatchCreateEntryRequest { entries, output_mask: None };
        Ok(self.entries.batch_create_entry(asked).await?.into_inner().results)
    }

    /// Without ID and mask; what comes of it is not looked at, as long as the call itself goes through.
    pub async fn update(&mut self, entries: Vec<Entry>) -> Result<Vec<(i32, String)>, tonic::Status> {
        let asked = BatchUpdateEntryRequest { entries, input_mask: None, output_mask: None };
        let results = self.entries.batch_update_entry(asked).await?.into_inner().results;
        Ok(results.into_iter().map(|result| status(result.status)).collect())
    }

    pub async fn upsert(&mut self, number: u32) -> Result<(), tonic::Status> {
        let found = match self.list_of(number).await {
            Err(status) if status.message().contains("NotFound") => Vec::new(),
            found => found?,
        };
        if found.is_empty() {
            self.create(vec![identity(number)]).await?;
        } else {
            self.update(vec![identity(number)]).await?;
        }
        Ok(())
    }

    pub async fn upsert_batch(&mut self, entries: &[Entry]) -> Result<()> {
        for chunk in entries.chunks(CHUNK) {
            let mut there = Vec::new();
            for (entry, result) in chunk.iter().zip(self.create(chunk.to_vec()).await?) {
                match status(result.status) {
                    (0, _) => {}
                    (ALREADY_EXISTS, _) => there.push(entry.clone()),
                    other => anyhow::bail!("{entry:?}: {other:?}"),
                }
            }
            if !there.is_empty() {
                self.update(there).await?;
            }
        }
        Ok(())
    }

    pub async fn delete_ids(&mut self, ids: Vec<String>) -> Result<Vec<(i32, String)>, tonic::Status> {
        let results =
            self.entries.batch_delete_entry(BatchDeleteEntryRequest { ids }).await?.into_inner().results;
        Ok(results.into_iter().map(|result| status(result.status)).collect())
    }

    pub async fn delete(&mut self, number: u32) -> Result<()> {
        let found = self.list_of(number).await?;
        if found.is_empty() {
            return Ok(());
        }
        self.delete_ids(found.into_iter().map(|entry| entry.id).collect()).await?;
        Ok(())
    }

    /// Pages by parent, keeps what is to go, deletes 200 at a time.
    pub async fn delete_batch(&mut self, goes: impl Fn(u32) -> bool) -> Result<usize> {
        let (mut ids, mut page_token) = (Vec::new(), String::new());
        loop {
            let by_parent_id = Some(id("/cilium-operator"));
            let filter = Some(Filter { by_parent_id, ..Filter::default() });
            let asked = ListEntriesRequest { filter, page_size: 200, page_token, output_mask: None };
            let page = self.entries.list_entries(asked).await?.into_inner();
            ensure!(page.entries.len() <= 200, "{} on a page", page.entries.len());
            for entry in page.entries {
                let path = entry.spiffe_id.context("no id")?.path;
                let number = path.strip_prefix("/identity/").and_then(|number| number.parse().ok());
                if number.is_some_and(&goes) {
                    ids.push(entry.id);
                }
            }
            if page.next_page_token.is_empty() {
                break;
            }
            page_token = page.next_page_token;
        }
        let count = ids.len();
        for chunk in ids.chunks(CHUNK) {
            for (code, message) in self.delete_ids(chunk.to_vec()).await? {
                ensure!(code == 0 || code == NOT_FOUND, "{code} {message}");
            }
        }
        Ok(count)
    }
}

/// As go-spiffe's source: asks again after a pause until there is an SVID.
async fn source(d: &Deployment) -> Result<(Vec<Certificate>, Vec<u8>)> {
    let mut pause = std::time::Duration::from_millis(100);
    loop {
        let mut workload = d.workload().await?;
        if let Ok(stream) = workload.api.fetch_x509svid(Workload::request(X509svidRequest {})).await
            && let Ok(Some(message)) = stream.into_inner().message().await
            && let Some(own) = message.svids.into_iter().find(|svid| svid.spiffe_id == ID)
        {
            return Ok((Certificate::many_from_der(&own.x509_svid)?, own.x509_svid_key));
        }
        sleep(pause).await;
        pause = (pause * 2).min(std::time::Duration::from_secs(10));
    }
}
