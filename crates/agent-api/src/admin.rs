//! The admin socket: Debug and Logger.

use std::sync::Arc;
use std::time::Duration;

use steeple_proto::spire::agent::debug::v1::{
    GetInfoRequest, GetInfoResponse, debug_server::Debug, get_info_response::Cert,
};
use steeple_proto::spire::api::agent::logger::v1::{
    GetLoggerRequest, ResetLogLevelRequest, SetLogLevelRequest, logger_server::Logger,
};
use steeple_proto::spire::api::types;
use steeple_runtime::logs::{LogHandle, LogLevel};
use tonic::{Request, Response, Status};

use crate::connection::Connection;
use crate::convert::id_to_proto;
use crate::identity::AgentIdentity;
use crate::state::AgentState;

pub use steeple_proto::spire::agent::debug::v1::debug_server::DebugServer;
pub use steeple_proto::spire::api::agent::logger::v1::logger_server::LoggerServer;

/// `spire.agent.debug.v1.Debug`
pub struct DebugService {
    pub state: Arc<AgentState>,
    pub identity: Arc<AgentIdentity>,
    /// When the agent started, by the monotonic clock.
    pub started: Duration,
}

#[tonic::async_trait]
impl Debug for DebugService {
    async fn get_info(&self, _: Request<GetInfoRequest>) -> Result<Response<GetInfoResponse>, Status> {
        let _connection = Connection::open("debug_api.connection", "debug_api.connections");
        let svid_chain = self
            .identity
            .verified_chain()
            .iter()
            .map(|certificate| Cert {
                id: certificate.spiffe_id().ok().map(|id| id_to_proto(&id)),
                expires_at: certificate.not_after(),
                subject: certificate.subject_string(),
            })
            .collect();
        let (x509, jwt) = self.state.svid_counts();
        let uptime = self.state.clock.monotonic().saturating_sub(self.started);
        Ok(Response::new(GetInfoResponse {
            svid_chain,
            uptime: i32::try_from(uptime.as_secs()).unwrap_or(i32::MAX),
            svids_count: x509 as i32,
            last_sync_success: self.state.last_sync(),
            cached_x509_svids_count: x509 as i32,
            cached_jwt_svids_count: jwt as i32,
            cached_svidstore_x509_svids_count: 0,
        }))
    }
}

/// `spire.api.agent.logger.v1.Logger`
pub struct LoggerService {
    pub logs: LogHandle,
}

#[tonic::async_trait]
impl Logger for LoggerService {
    async fn get_logger(&self, _: Request<GetLoggerRequest>) -> Result<Response<types::Logger>, Status> {
        tracing::info!(subsystem_name = "endpoints", "GetLogger Called");
        Ok(Response::new(self.logger()))
    }

    async fn set_log_level(
        &self,
        request: Request<SetLogLevelRequest>,
    ) -> Result<Response<types::Logger>, Status> {
        let level = match request.get_ref().new_level() {
            types::LogLevel::Unspecified => {
                return Err(Status::invalid_argument("newLevel value cannot be LogLevel_UNSPECIFIED"));
            }
            types::LogLevel::Panic => LogLevel::Panic,
            types::LogLevel::Fatal => LogLevel::Fatal,
            types::LogLevel::Error => LogLevel::Error,
            types::LogLevel::Warn => LogLevel::Warn,
            types::LogLevel::Info => LogLevel::Info,
            types::LogLevel::Debug => LogLevel::Debug,
            types::LogLevel::Trace => LogLevel::Trace,
        };
        tracing::info!(subsystem_name = "endpoints", new_level = level.name(), "SetLogLevel Called");
        self.logs.set_level(level);
        Ok(Response::new(self.logger()))
    }

    async fn reset_log_level(
        &self,
        _: Request<ResetLogLevelRequest>,
    ) -> Result<Response<types::Logger>, Status> {
        self.logs.reset();
        tracing::info!(subsystem_name = "endpoints", "ResetLogLevel Called");
        Ok(Response::new(self.logger()))
    }
}

impl LoggerService {
    fn logger(&self) -> types::Logger {
        types::Logger {
            current_level: level(self.logs.level()).into(),
            launch_level: level(self.logs.launch_level()).into(),
        }
    }
}

fn level(level: LogLevel) -> types::LogLevel {
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
