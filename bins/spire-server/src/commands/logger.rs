//! `logger …`: the server's log level while it runs.

use steeple_cli::{Api, logger};

pub struct Own;

impl logger::Service for Own {
    const API: Api = Api::Server;
    const PACKAGE: &'static str = "spire.api.server.logger.v1";
}

pub type Get = logger::Get<Own>;
pub type Set = logger::Set<Own>;
pub type Reset = logger::Reset<Own>;
