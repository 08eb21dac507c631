//! `telemetry { }` and `health_checks { }` (spire.md §1.5)

use steeple_config::{Block, Strictness, UnknownKeys};
use steeple_runtime::health::HealthConfig;
use steeple_runtime::metrics::{Dialect, MetricsConfig, PushTarget, Sinks};

use super::{LoadError, invalid, refuse, string};

/// `telemetry { Prometheus { … } … }`
#[derive(Clone, Debug)]
pub struct Telemetry {
    pub sinks: Sinks,
    pub metrics: MetricsConfig,
}

/// `None` without a sink: nothing is recorded. `prefix` is the metrics' default `MetricPrefix`.
pub fn telemetry(
    mut block: Block<'_>,
    prefix: &str,
    trust_domain: &str,
    unknown: &mut UnknownKeys,
) -> Result<Option<Telemetry>, LoadError> {
    refuse(&block, &["M3"])?;
    let prefix = string(&mut block, "MetricPrefix")?.unwrap_or_else(|| prefix.to_owned());
    let metrics = MetricsConfig {
        prefix,
        trust_domain_label: block
            .bool("EnableTrustDomainLabel")?
            .unwrap_or(false)
            .then(|| trust_domain.to_owned()),
        hostname_label: block.bool("EnableHostnameLabel")?.unwrap_or(true),
        allowed_prefixes: block.strings("AllowedPrefixes")?.unwrap_or_default(),
        blocked_prefixes: block.strings("BlockedPrefixes")?.unwrap_or_default(),
        allowed_labels: block.strings("AllowedLabels")?.filter(|labels| !labels.is_empty()),
        blocked_labels: block.strings("BlockedLabels")?.unwrap_or_default(),
    };
    let mut sinks = Sinks::default();
    if let Some(mut prometheus) = block.block("Prometheus")? {
        refuse(&prometheus, &["tls"])?;
        let host = string(&mut prometheus, "host")?.unwrap_or_else(|| "localhost".to_owned());
        let port = prometheus.port("port")?.unwrap_or(0);
        prometheus.finish(Strictness::Strict, "Prometheus", unknown);
        sinks.prometheus = Some((host, port));
    }
    for (key, dialect) in [("Statsd", Dialect::Statsd), ("DogStatsd", Dialect::DogStatsd)] {
        for mut sink in block.blocks(key)? {
            let address = string(&mut sink, "address")?;
            let address = address.filter(|address| address.contains(':'));
            let address = address.ok_or_else(|| invalid(&sink, "address", "host:port is required"))?;
            sink.finish(Strictness::Strict, key, unknown);
            sinks.push.push(PushTarget { dialect, address });
        }
    }
    if let Some(in_memory) = block.block("InMem")? {
        in_memory.finish(Strictness::Strict, "InMem", unknown);
        sinks.in_memory = true;
    }
    // SPIRE does not look for unknown keys here.
    block.finish(Strictness::Lax, "telemetry", unknown);
    Ok((sinks != Sinks::default()).then_some(Telemetry { sinks, metrics }))
}

/// `None` unless `listener_enabled`.
pub fn health_checks(
    mut block: Block<'_>,
    unknown: &mut UnknownKeys,
) -> Result<Option<HealthConfig>, LoadError> {
    let defaults = HealthConfig::default();
    let enabled = block.bool("listener_enabled")?.unwrap_or(false);
    let address = string(&mut block, "bind_address")?.unwrap_or(defaults.bind_address);
    let port = match string(&mut block, "bind_port")? {
        None => defaults.bind_port,
        // SPIRE has this port as a string.
        Some(text) => text
            .parse()
            .map_err(|_| invalid(&block, "bind_port", format!("port {text} is out of range (0 to 65535)")))?,
    };
    let live_path = string(&mut block, "live_path")?.unwrap_or(defaults.live_path);
    let ready_path = string(&mut block, "ready_path")?.unwrap_or(defaults.ready_path);
    block.finish(Strictness::Strict, "health check", unknown);
    let bind_address = address.trim_matches(['[', ']']).to_owned();
    Ok(enabled.then_some(HealthConfig { bind_address, bind_port: port, live_path, ready_path }))
}
