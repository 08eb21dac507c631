//! `logger get`, `set`, `reset`: levels by logrus' names, the same for server and agent.

use std::marker::PhantomData;

use prost::Message;
use steeple_config::{Flag, FlagSet, go_quote};
use steeple_proto::spire::api::server::logger::v1::{
    GetLoggerRequest, ResetLogLevelRequest, SetLogLevelRequest,
};
use steeple_proto::spire::api::types::{LogLevel, Logger};

use crate::{Api, ClientCommand, Context as _, Failure, Session};

/// Whose log.
pub trait Service {
    const API: Api;
    /// The services of server and agent differ in their package only.
    const PACKAGE: &'static str;
}

/// Calls `method` of `S`. The agent's messages have the server's fields.
async fn call<S: Service>(
    session: &Session,
    method: &str,
    request: impl Message + 'static,
) -> Result<Logger, Failure> {
    session.unary(&format!("{}.Logger/{method}", S::PACKAGE), request).await
}

pub struct Get<S>(PhantomData<S>);

impl<S: Service> ClientCommand for Get<S> {
    const NAME: &'static str = "logger get";
    const API: Api = S::API;

    fn flags(_: &mut FlagSet) -> Self {
        Self(PhantomData)
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let now = call::<S>(session, "GetLogger", GetLoggerRequest {}).await;
        let now = now.context("error fetching logger")?;
        session.answer(MESSAGE, &now, |now| pretty(*now))
    }
}

pub struct Set<S>(Flag<String>, PhantomData<S>);

impl<S: Service> ClientCommand for Set<S> {
    const NAME: &'static str = "logger set";
    const API: Api = S::API;

    fn flags(flags: &mut FlagSet) -> Self {
        let about = "The new level: panic, fatal, error, warn, info, debug or trace";
        Self(flags.string("level", "", about), PhantomData)
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let request = SetLogLevelRequest { new_level: parse_level(&self.0.get())? as i32 };
        let now = call::<S>(session, "SetLogLevel", request).await;
        let now = now.context("failed to set log level")?;
        session.answer(MESSAGE, &now, |now| pretty(*now))
    }
}

pub struct Reset<S>(PhantomData<S>);

impl<S: Service> ClientCommand for Reset<S> {
    const NAME: &'static str = "logger reset";
    const API: Api = S::API;

    fn flags(_: &mut FlagSet) -> Self {
        Self(PhantomData)
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let now = call::<S>(session, "ResetLogLevel", ResetLogLevelRequest {}).await;
        let now = now.context("failed to reset logger")?;
        session.answer(MESSAGE, &now, |now| pretty(*now))
    }
}

const MESSAGE: &str = "spire.api.types.Logger";

/// The level a user names, in any case.
fn parse_level(text: &str) -> Result<LogLevel, Failure> {
    if text.is_empty() {
        return Err(Failure::new("a value (-level) must be set"));
    }
    match text.to_lowercase().as_str() {
        "panic" => Ok(LogLevel::Panic),
        "fatal" => Ok(LogLevel::Fatal),
        "error" => Ok(LogLevel::Error),
        "warn" | "warning" => Ok(LogLevel::Warn),
        "info" => Ok(LogLevel::Info),
        "debug" => Ok(LogLevel::Debug),
        "trace" => Ok(LogLevel::Trace),
        _ => Err(Failure::new(format!("the value {} is not a valid setting", go_quote(text)))),
    }
}

fn pretty(logger: Logger) -> Result<String, Failure> {
    let (current, launch) =
        (level_name(logger.current_level, "current")?, level_name(logger.launch_level, "launch")?);
    Ok(format!("Logger Level : {current}\nLaunch Level : {launch}\n\n"))
}

fn level_name(level: i32, which: &str) -> Result<&'static str, Failure> {
    match LogLevel::try_from(level) {
        Ok(LogLevel::Panic) => Ok("panic"),
        Ok(LogLevel::Fatal) => Ok("fatal"),
        Ok(LogLevel::Error) => Ok("error"),
        Ok(LogLevel::Warn) => Ok("warning"),
        Ok(LogLevel::Info) => Ok("info"),
        Ok(LogLevel::Debug) => Ok("debug"),
        Ok(LogLevel::Trace) => Ok("trace"),
        Ok(LogLevel::Unspecified) | Err(_) => Err(Failure::new(format!(
            "internal error: returned {which} log level is undefined; please report this as a bug"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels() {
        assert_eq!(parse_level("WARNING"), Ok(LogLevel::Warn));
        assert_eq!(parse_level("").unwrap_err().to_string(), "a value (-level) must be set");
        assert_eq!(parse_level("Nope").unwrap_err().to_string(), "the value \"Nope\" is not a valid setting");
    }

    #[test]
    fn text() {
        let logger = Logger { current_level: LogLevel::Debug as i32, launch_level: LogLevel::Warn as i32 };
        assert_eq!(pretty(logger).unwrap(), "Logger Level : debug\nLaunch Level : warning\n\n");
        assert!(pretty(Logger::default()).is_err());
    }
}
