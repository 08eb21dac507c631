//! `api fetch x509`

use steeple_cli::{Api, ClientCommand, Failure, Io, Output, Session, files, go, printer};
use steeple_config::{Flag, FlagSet};
use steeple_proto::workload::{X509svidRequest, X509svidResponse};
use steeple_runtime::clock::{Clock as _, SystemClock};
use steeple_spiffe::Certificate;

use super::client;
use super::svids::{self, Federated, Svid};

pub struct FetchX509 {
    silent: Flag<bool>,
    write: Flag<String>,
}

impl ClientCommand for FetchX509 {
    const NAME: &'static str = "fetch x509";
    const API: Api = Api::Workload;

    fn flags(flags: &mut FlagSet) -> Self {
        Self {
            silent: flags.bool("silent", false, "Do not show the SVIDs"),
            write: flags.string(
                "write",
                "",
                "Directory to write SVIDs, keys and bundles into (not with -output json)",
            ),
        }
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let start = SystemClock.monotonic();
        let answer = fetch(session).await?;
        let took = SystemClock.monotonic().saturating_sub(start).as_nanos() as i128;
        if session.output == Output::Json {
            return session.print_json(vec![printer::message("X509SVIDResponse", &answer)?]);
        }
        let (svids, federated) = svids::parse(&answer)?;
        svids::verify(&svids, SystemClock.now())?;
        if !self.silent.get() {
            session.io.print(&svids::pretty(&svids, &federated, took))?;
        }
        let directory = self.write.get();
        if directory.is_empty() { Ok(()) } else { write(&mut session.io, &directory, &svids, &federated) }
    }
}

/// The first answer of the stream.
async fn fetch(session: &Session) -> Result<X509svidResponse, Failure> {
    let mut client = client(&session.channel);
    let request = session.workload_request(X509svidRequest {});
    let first =
        session.within(async { client.fetch_x509svid(request).await?.into_inner().message().await }).await?;
    first.ok_or_else(|| Failure::new("EOF"))
}

fn write(io: &mut Io, directory: &str, svids: &[Svid], federated: &Federated) -> Result<(), Failure> {
    for (i, svid) in svids.iter().enumerate() {
        let path = |name: String| go::join(directory, &name);
        let chain = path(format!("svid.{i}.pem"));
        io.print(&format!("Writing SVID #{i} to file {chain}.\n"))?;
        files::write_public(&chain, pem(&svid.chain).as_bytes())?;

        let key = path(format!("svid.{i}.key"));
        io.print(&format!("Writing key #{i} to file {key}.\n"))?;
        files::write_private(&key, svid.key.to_pem()?.as_bytes())?;

        let bundle = path(format!("bundle.{i}.pem"));
        io.print(&format!("Writing bundle #{i} to file {bundle}.\n"))?;
        files::write_public(&bundle, pem(&svid.bundle).as_bytes())?;

        for (j, (trust_domain, certificates)) in federated.iter().enumerate() {
            let bundle = path(format!("federated_bundle.{i}.{j}.pem"));
            io.print(&format!(
                "Writing federated bundle #{j} for trust domain {trust_domain} to file {bundle}.\n"
            ))?;
            files::write_public(&bundle, pem(certificates).as_bytes())?;
        }
    }
    Ok(())
}

fn pem(certificates: &[Certificate]) -> String {
    certificates.iter().map(Certificate::to_pem).collect()
}
