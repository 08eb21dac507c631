//! SPIRE's metric names over the `metrics` facade, and their Prometheus rendering.
//!
//! A key is what `spire.md` §1.5 and §2.13 list, parts joined with dots: `metrics::counter!("lru_cache_entry_add")`,
//! `metrics::gauge!("started", "version" => v)`, `metrics::histogram!("workload_api.discovered_selectors")` for a
//! sample. The [`Registry`] adds prefix and labels. Calls are counted and timed with [`CallCounter`].
//! Without a registry (no telemetry configured) all of this does nothing.

mod call;
mod push;
mod registry;
mod render;
mod summary;

use std::{io, net::SocketAddr, sync::Arc};

use ::http::StatusCode;
use tokio::net::TcpListener;

pub use call::{CallCounter, CallMetric, Outcome, rpc_key};
pub use push::{Dialect, PushTarget, Pusher};
pub use registry::{MetricsConfig, Registry};

use crate::http as web;
use crate::tasks::{OnEnd, TaskGroup};

/// Where metrics go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sinks {
    /// Host and port that Prometheus scrapes.
    pub prometheus: Option<(String, u16)>,
    pub push: Vec<PushTarget>,
    /// SIGUSR1 writes all series to stderr.
    pub in_memory: bool,
}

/// Makes a registry the process's recorder, with `started` in it, and runs what carries metrics away. Answers where
/// Prometheus is served.
pub async fn start(
    config: MetricsConfig,
    sinks: Sinks,
    (version, trust_domain): (&str, &str),
    tasks: &TaskGroup,
) -> io::Result<Option<SocketAddr>> {
    let (registry, pushers) = Registry::with_push(config, sinks.push);
    registry.install();
    registry.started(version, trust_domain);
    for pusher in pushers {
        tasks.spawn_until_shutdown("statsd", OnEnd::Log, pusher.run(registry.clone()));
    }
    if sinks.in_memory {
        let signal = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::user_defined1())?;
        tasks.spawn_until_shutdown("metrics in memory", OnEnd::Log, dump(registry.clone(), signal));
    }
    let Some((host, port)) = sinks.prometheus else { return Ok(None) };
    let listener = PrometheusListener::bind(registry, &host, port).await?;
    let address = listener.address();
    tasks.spawn_until_shutdown("prometheus", OnEnd::Shutdown, listener.serve());
    Ok(Some(address))
}

async fn dump(registry: Registry, mut signal: tokio::signal::unix::Signal) {
    use io::Write as _;
    while signal.recv().await.is_some() {
        // Nobody reads stderr: then nobody wants it.
        let _ = io::stderr().write_all(registry.render().as_bytes());
    }
}

/// Serves a registry to Prometheus, on every path as SPIRE does.
#[derive(Debug)]
pub struct PrometheusListener {
    registry: Registry,
    listener: TcpListener,
    address: SocketAddr,
}

impl PrometheusListener {
    pub async fn bind(registry: Registry, host: &str, port: u16) -> io::Result<Self> {
        if host != "localhost" {
            tracing::warn!(
                subsystem_name = "telemetry",
                "Agent is now configured to accept remote network connections for Prometheus stats collection. \
                 Please ensure access to this port is tightly controlled"
            );
        }
        let (listener, address) = web::bind(host, port).await?;
        tracing::info!(
            subsystem_name = "telemetry",
            host,
            port = address.port(),
            "Starting prometheus exporter"
        );
        Ok(Self { registry, listener, address })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until dropped.
    pub async fn serve(self) {
        let registry = self.registry;
        let handler = move |_: &str| {
            Some(web::Answer {
                status: StatusCode::OK,
                content_type: "text/plain; version=0.0.4; charset=utf-8",
                body: registry.render(),
            })
        };
        web::serve(self.listener, Arc::new(handler)).await;
    }
}

#[cfg(test)]
mod tests;
