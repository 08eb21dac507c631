//! One client command from its arguments to its exit code.

use std::future::Future;
use std::time::Duration;

use prost::Message;
use serde_json::Value;
use steeple_config::{Flag, FlagSet, GoDuration};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

use crate::socket::{self, SocketFlags, SocketKind};
use crate::{Failure, Io, Output, connect, go, printer};

/// Whose API a command calls: decides the socket, and how an error is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    Server,
    AgentAdmin,
    /// Has `-timeout`; its errors are printed without `Error: `.
    Workload,
    /// As `Workload`, without `-output` and `-timeout`: runs until it is interrupted.
    WorkloadWatch,
}

/// A command that calls an API. Holds its flags' handles.
pub trait ClientCommand: Sized {
    /// As its usage text names it: `entry create`.
    const NAME: &'static str;
    const API: Api;

    fn flags(flags: &mut FlagSet) -> Self;

    fn run(&self, session: &mut Session) -> impl Future<Output = Result<(), Failure>>;
}

/// What a command works with.
pub struct Session {
    pub io: Io,
    /// Dialled at the first call.
    pub channel: Channel,
    pub output: Output,
    timeout: Option<Duration>,
}

/// Largest answer taken: a page of 1,000 agents or 500 entries can pass tonic's 4 MiB.
pub const MAX_ANSWER: usize = 256 * 1024 * 1024;
const DEFAULT_TIMEOUT: GoDuration = GoDuration::from_secs(5);
/// The Workload API asks for this header, against requests forged through a browser.
const SECURITY_HEADER: &str = "workload.spiffe.io";

/// Runs the command `C` on the process's own streams. Answers the exit code.
pub fn run<C: ClientCommand>(args: &[String]) -> u8 {
    let mut io = Io::process();
    let mut flags = FlagSet::new(C::NAME);
    let common = CommonFlags::new(&mut flags, C::API);
    let command = C::flags(&mut flags);
    if let Err(error) = flags.parse(args) {
        io.eprint(&error.output());
        return 1;
    }
    let prefix = if matches!(C::API, Api::Server | Api::AgentAdmin) { "Error: " } else { "" };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            io.eprint(&format!("{prefix}{}\n", Failure::from(error)));
            return 1;
        }
    };
    let (mut io, result) = runtime.block_on(async {
        let (channel, output, timeout) = match common.resolve() {
            Ok(resolved) => resolved,
            Err(failure) => return (io, Err(failure)),
        };
        let mut session = Session { io, channel, output, timeout };
        let result = command.run(&mut session).await;
        (session.io, result)
    });
    let Err(failure) = result else { return 0 };
    io.eprint(&format!("{prefix}{failure}\n"));
    1
}

/// The flags every client command has.
struct CommonFlags {
    socket: SocketFlags,
    output: Option<Flag<Output>>,
    timeout: Option<Flag<GoDuration>>,
}

impl CommonFlags {
    fn new(flags: &mut FlagSet, api: Api) -> Self {
        let kind: SocketKind = match api {
            Api::Server => socket::SERVER,
            Api::AgentAdmin => socket::AGENT_ADMIN,
            Api::Workload | Api::WorkloadWatch => socket::WORKLOAD,
        };
        Self {
            socket: SocketFlags::new(flags, kind),
            output: (api != Api::WorkloadWatch).then(|| Output::flag(flags)),
            timeout: (api == Api::Workload)
                .then(|| flags.duration_value("timeout", DEFAULT_TIMEOUT, "How long to wait for an answer")),
        }
    }

    fn resolve(&self) -> Result<(Channel, Output, Option<Duration>), Failure> {
        let channel = self.socket.connect()?;
        let output = self.output.as_ref().map(Flag::get).unwrap_or_default();
        // Zero and less: wait forever.
        let timeout =
            self.timeout.as_ref().and_then(|flag| flag.get().to_std()).filter(|timeout| !timeout.is_zero());
        Ok((channel, output, timeout))
    }
}

impl SocketFlags {
    /// A channel to the socket the flags name.
    pub fn connect(&self) -> Result<Channel, Failure> {
        let mut path = self.resolve()?;
        if self.kind() == socket::WORKLOAD {
            let current = std::env::current_dir()?.to_string_lossy().into_owned();
            path = if path.starts_with('/') { go::clean(&path) } else { go::join(&current, &path) };
        }
        let slashes = if path.starts_with('/') { self.kind().slashes } else { "" };
        connect::connect_unix(&path, &format!("{slashes}{path}"))
    }
}

impl Session {
    /// A session without `-timeout`, on streams of the caller's choice.
    pub fn new(io: Io, channel: Channel, output: Output) -> Self {
        Self { io, channel, output, timeout: None }
    }

    /// A call by the method's full name, for services that differ in names only: `spire.api.….Logger/GetLogger`.
    pub async fn unary<Q, A>(&self, method: &str, request: Q) -> Result<A, Failure>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let path = PathAndQuery::try_from(format!("/{method}"))?;
        let mut client = Grpc::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER);
        client.ready().await?;
        let answer = client.unary(tonic::Request::new(request), path, ProstCodec::default()).await?;
        Ok(answer.into_inner())
    }

    /// Prints an answer of the type `name`: as JSON, or as `pretty` words it.
    pub fn answer<M: Message>(
        &mut self,
        name: &str,
        answer: &M,
        pretty: impl FnOnce(&M) -> Result<String, Failure>,
    ) -> Result<(), Failure> {
        match self.output {
            Output::Json => self.print_json(vec![printer::message(name, answer)?]),
            Output::Pretty => self.io.print(&pretty(answer)?),
        }
    }

    pub fn print_json(&mut self, values: Vec<Value>) -> Result<(), Failure> {
        self.io.print(&printer::json_line(values))
    }

    /// A request to the Workload API.
    pub fn workload_request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.metadata_mut().insert(SECURITY_HEADER, MetadataValue::from_static("true"));
        request
    }

    /// Waits for a call, `-timeout` at most.
    pub async fn within<T>(
        &self,
        call: impl Future<Output = Result<T, tonic::Status>>,
    ) -> Result<T, tonic::Status> {
        match self.timeout {
            None => call.await,
            Some(timeout) => match tokio::time::timeout(timeout, call).await {
                Ok(result) => result,
                Err(_) => Err(tonic::Status::deadline_exceeded("context deadline exceeded")),
            },
        }
    }
}
