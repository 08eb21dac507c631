//! `logger …`: the agent's log level while it runs.

use steeple_cli::{Api, ClientCommand, Context as _, Failure, Session, logger};
use steeple_config::{Flag, FlagSet};
use steeple_proto::spire::api::agent::logger::v1::logger_client::LoggerClient;
use steeple_proto::spire::api::agent::logger::v1::{
    GetLoggerRequest, ResetLogLevelRequest, SetLogLevelRequest,
};

pub struct Get;

impl ClientCommand for Get {
    const NAME: &'static str = "logger get";
    const API: Api = Api::AgentAdmin;

    fn flags(_: &mut FlagSet) -> Self {
        Self
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let mut client = LoggerClient::new(session.channel.clone());
        let now = client.get_logger(GetLoggerRequest {}).await.context("error fetching logger")?.into_inner();
        session.answer(logger::MESSAGE, &now, logger::pretty)
    }
}

pub struct Set(Flag<String>);

impl ClientCommand for Set {
    const NAME: &'static str = "logger set";
    const API: Api = Api::AgentAdmin;

    fn flags(flags: &mut FlagSet) -> Self {
        Self(flags.string("level", "", "The new level: panic, fatal, error, warn, info, debug or trace"))
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let request = SetLogLevelRequest { new_level: logger::parse_level(&self.0.get())? as i32 };
        let mut client = LoggerClient::new(session.channel.clone());
        let now = client.set_log_level(request).await.context("failed to set log level")?.into_inner();
        session.answer(logger::MESSAGE, &now, logger::pretty)
    }
}

pub struct Reset;

impl ClientCommand for Reset {
    const NAME: &'static str = "logger reset";
    const API: Api = Api::AgentAdmin;

    fn flags(_: &mut FlagSet) -> Self {
        Self
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let mut client = LoggerClient::new(session.channel.clone());
        let now = client
            .reset_log_level(ResetLogLevelRequest {})
            .await
            .context("failed to reset logger")?
            .into_inner();
        session.answer(logger::MESSAGE, &now, logger::pretty)
    }
}
