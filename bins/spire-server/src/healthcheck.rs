//! `spire-server healthcheck`

use steeple_cli::{Api, healthcheck};

pub struct Own;

impl healthcheck::Subject for Own {
    const API: Api = Api::Server;
    const NAME: &'static str = "server";
    const TITLE: &'static str = "Server";
    const UNHEALTHY: &'static str = "server";
}

pub type HealthCheck = healthcheck::HealthCheck<Own>;
