//! A delegate: it asks the agent for the SVIDs of other workloads (Delegated Identity API) and serves them to an Envoy
//! (SDS) under the names it was given for them.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "an example has neither task groups nor a log"
)]

mod delegate;
mod sds;

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use steeple_proto::envoy::service::secret::v3::secret_discovery_service_server::SecretDiscoveryServiceServer;
use steeple_proto::spire::api::types::Selector;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;

use delegate::{Delegate, Wanted};
use sds::{Board, Secrets};

const USAGE: &str =
    "usage: node-proxy -admin SOCKET -listen SOCKET NAME=pid:NUMBER|NAME=selector:TYPE:VALUE[,TYPE:VALUE…] …
  -admin   the agent's admin socket
  -listen  where Envoy asks for secrets; only this user may
Serves the SVID of each workload as the secret NAME, and every trust domain's authorities as ROOTCA.";

struct Arguments {
    admin: PathBuf,
    listen: PathBuf,
    workloads: Vec<(String, Wanted)>,
}

/// Runs until an error or the process's end.
pub fn run(arguments: impl Iterator<Item = String>) -> Result<()> {
    let arguments = parse(arguments).context(USAGE)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(arguments))
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments> {
    let (mut admin, mut listen, mut workloads) = (None, None, Vec::new());
    while let Some(word) = words.next() {
        match word.as_str() {
            "-admin" => admin = words.next(),
            "-listen" => listen = words.next(),
            _ => {
                let (name, what) = word.split_once('=').with_context(|| format!("{word:?} has no `=`"))?;
                workloads.push((name.to_owned(), wanted(what).with_context(|| word.clone())?));
            }
        }
    }
    Ok(Arguments {
        admin: admin.context("-admin is missing")?.into(),
        listen: listen.context("-listen is missing")?.into(),
        workloads,
    })
}

fn wanted(what: &str) -> Result<Wanted> {
    match what.split_once(':') {
        Some(("pid", number)) => Ok(Wanted::Process(number.parse()?)),
        Some(("selector", list)) => {
            let selector = |one: &str| {
                let (kind, value) = one.split_once(':').context("a selector is TYPE:VALUE")?;
                Ok(Selector { r#type: kind.to_owned(), value: value.to_owned() })
            };
            Ok(Wanted::Selectors(list.split(',').map(selector).collect::<Result<_>>()?))
        }
        _ => bail!("neither pid: nor selector:"),
    }
}

async fn serve(arguments: Arguments) -> Result<()> {
    let Arguments { admin, listen, workloads } = arguments;
    let board = Board::default();
    let delegate = Delegate::new(&admin)?;
    tokio::spawn(delegate.clone().follow_authorities(board.clone()));
    for (name, wanted) in workloads {
        tokio::spawn(delegate.clone().follow(name, wanted, board.clone()));
    }
    let _ = std::fs::remove_file(&listen);
    let listener = UnixListener::bind(&listen).with_context(|| listen.display().to_string())?;
    // The keys of all workloads: whoever may connect is all of them.
    std::fs::set_permissions(&listen, std::fs::Permissions::from_mode(0o600))?;
    tonic::transport::Server::builder()
        .add_service(SecretDiscoveryServiceServer::new(Secrets(board)))
        .serve_with_incoming(UnixListenerStream::new(listener))
        .await?;
    Ok(())
}
