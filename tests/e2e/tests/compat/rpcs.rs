//! RPCs: an empty request on the socket where each is served. Whatever is answered but Unimplemented shows that it is.

use std::time::Duration;

use anyhow::{Result, bail};
use steeple_e2e::{Deployment, connect_uds};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request};
use tonic_prost::ProstCodec;

use super::State;
use super::list::Row;
use super::options::Files;

/// A stream that is open but has nothing to say is served.
const QUIET: Duration = Duration::from_secs(3);

pub fn state(d: &Deployment, files: &Files, row: &Row) -> Result<State> {
    let socket = match row.how.as_str() {
        "server" => d.server_socket(),
        "workload" => d.workload_socket(),
        "admin" => d.admin_socket(),
        // Its socket is an option of its own: without that there is nothing to call.
        "broker" => {
            let how = "experimental { broker { socket_path = \"{dir}/b.sock\" } }".to_owned();
            let (kind, name) = ("agent-option".to_owned(), "experimental.broker".to_owned());
            return files.state(d, &Row { kind, name, how, not_applicable: false });
        }
        other => bail!("docs/compat.list: unknown socket {other}"),
    };
    let path = PathAndQuery::try_from(format!("/{}", row.name))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(async {
        let mut client = Grpc::new(connect_uds(&socket).await?);
        client.ready().await?;
        let mut request = Request::new(());
        request.metadata_mut().insert("workload.spiffe.io", MetadataValue::from_static("true"));
        let call = client.unary(request, path, ProstCodec::<(), ()>::default());
        anyhow::Ok(tokio::time::timeout(QUIET, call).await)
    })?;
    match answer {
        Ok(Err(status)) if status.code() == Code::Unimplemented => Ok(State::Refused),
        Ok(Err(status)) if status.code() == Code::Unavailable => bail!("{status}"),
        _ => Ok(State::Served),
    }
}
