//! SPIRE's metric names over the `metrics` facade, and their Prometheus rendering.
//!
//! A key is what `spire.md` §1.5 and §2.13 list, parts joined with dots: `metrics::counter!("lru_cache_entry_add")`,
//! `metrics::gauge!("started", "version" => v)`, `metrics::histogram!("workload_api.discovered_selectors")` for a
//! sample. The [`Registry`] adds prefix and labels. Calls are counted and timed with [`CallCounter`].
//! Without a registry (no telemetry configured) all of this does nothing.

mod call;
mod registry;
mod render;
mod summary;

use std::{io, net::SocketAddr, sync::Arc};

use ::http::StatusCode;
use tokio::net::TcpListener;

pub use call::{CallCounter, CallMetric, Outcome, rpc_key};
pub use registry::{MetricsConfig, Registry};

use crate::http as web;

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
