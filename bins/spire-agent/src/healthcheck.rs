//! `spire-agent healthcheck`

use steeple_cli::{Api, healthcheck};

pub struct Own;

impl healthcheck::Subject for Own {
    const API: Api = Api::WorkloadWatch;
    const NAME: &'static str = "agent";
    const TITLE: &'static str = "Agent";
    const UNHEALTHY: &'static str = "Agent";
}

pub type HealthCheck = healthcheck::HealthCheck<Own>;
