//! `spire.api.server.logger.v1.Logger`: the log level, while the server runs.

use std::sync::Arc;

use steeple_proto::spire::api::server::logger::v1 as pb;
use steeple_proto::spire::api::types;
use steeple_runtime::logs::LogLevel;
use tonic::{Code, Request, Response, Status};
use tracing::Level;

use crate::error::{ApiError, to_status};
use crate::rpc::{Fields, Rpc};
use crate::state::ServerState;

/// The service.
#[derive(Clone, Debug)]
pub struct LoggerService {
    state: Arc<ServerState>,
}

/// Why the level stayed. Texts are SPIRE's.
#[derive(Debug, thiserror::Error)]
pub enum LoggerError {
    #[error("newLevel value cannot be LogLevel_UNSPECIFIED")]
    Unspecified,
    #[error("unsupported log level")]
    Unsupported,
}

impl ApiError for LoggerError {
    fn code(&self) -> Code {
        Code::InvalidArgument
    }
}

impl From<LoggerError> for Status {
    fn from(error: LoggerError) -> Self {
        to_status(&error)
    }
}

impl LoggerService {
    pub fn new(state: Arc<ServerState>) -> Self {
        let launch_log_level = state.logs.launch_level().name();
        tracing::info!(subsystem_name = "api", launch_log_level, "Logger service configured");
        Self { state }
    }

    fn levels(&self) -> Response<types::Logger> {
        let logs = &self.state.logs;
        Response::new(types::Logger {
            current_level: level_to_proto(logs.level()) as i32,
            launch_level: level_to_proto(logs.launch_level()) as i32,
        })
    }
}

#[tonic::async_trait]
impl pb::logger_server::Logger for LoggerService {
    async fn get_logger(
        &self,
        request: Request<pb::GetLoggerRequest>,
    ) -> Result<Response<types::Logger>, Status> {
        let rpc = Rpc::of(&request)?;
        rpc.log(Level::INFO, "GetLogger Called", Fields::default());
        rpc.audit();
        Ok(self.levels())
    }

    async fn set_log_level(
        &self,
        request: Request<pb::SetLogLevelRequest>,
    ) -> Result<Response<types::Logger>, Status> {
        let rpc = Rpc::of(&request)?;
        let asked = types::LogLevel::try_from(request.get_ref().new_level);
        rpc.audit_fields(|| {
            let name =
                asked.map_or_else(|unknown| unknown.0.to_string(), |level| level.as_str_name().to_owned());
            Fields::default().with("new_log_level", name)
        });
        let asked = asked.map_err(|_| rpc.refuse(LoggerError::Unsupported))?;
        let level = level_from_proto(asked).ok_or_else(|| rpc.refuse(LoggerError::Unspecified))?;
        rpc.log(Level::INFO, "SetLogLevel Called", Fields::default().with("new_log_level", level.name()));
        self.state.logs.set_level(level);
        rpc.audit();
        Ok(self.levels())
    }

    async fn reset_log_level(
        &self,
        request: Request<pb::ResetLogLevelRequest>,
    ) -> Result<Response<types::Logger>, Status> {
        let rpc = Rpc::of(&request)?;
        let launch = self.state.logs.launch_level();
        rpc.log(
            Level::INFO,
            "ResetLogLevel Called",
            Fields::default().with("launch_log_level", launch.name()),
        );
        self.state.logs.reset();
        rpc.audit();
        Ok(self.levels())
    }
}

fn level_to_proto(level: LogLevel) -> types::LogLevel {
    match level {
        LogLevel::Panic => types::LogLevel::Panic,
        LogLevel::Fatal => types::LogLevel::Fatal,
        LogLevel::Error => types::LogLevel::Error,
        LogLevel::Warn => types::LogLevel::Warn,
        LogLevel::Info => types::LogLevel::Info,
        LogLevel::Debug => types::LogLevel::Debug,
        LogLevel::Trace => types::LogLevel::Trace,
    }
}

fn level_from_proto(level: types::LogLevel) -> Option<LogLevel> {
    Some(match level {
        types::LogLevel::Unspecified => return None,
        types::LogLevel::Panic => LogLevel::Panic,
        types::LogLevel::Fatal => LogLevel::Fatal,
        types::LogLevel::Error => LogLevel::Error,
        types::LogLevel::Warn => LogLevel::Warn,
        types::LogLevel::Info => LogLevel::Info,
        types::LogLevel::Debug => LogLevel::Debug,
        types::LogLevel::Trace => LogLevel::Trace,
    })
}
