//! grpc.health.v1 on a Unix socket: `uds-health PATH`. For trying other languages' clients, and for measuring what an
//! idle connection costs.

use steeple_runtime::{grpc, logs, shutdown::Shutdown, signals::Signals, uds};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    steeple_runtime::raise_open_files();
    let logs = logs::init(logs::LogConfig::default())?;
    let path = std::env::args().nth(1).ok_or("usage: uds-health PATH")?;
    let listener = uds::bind(&path, 0o777)?;
    let shutdown = Shutdown::new();
    let signals = Signals::install()?.run(shutdown.clone(), logs);
    let (_reporter, health) = tonic_health::server::health_reporter();
    tracing::info!(path, "Serving");
    let serving = grpc::server_builder()
        .add_service(health)
        .serve_with_incoming_shutdown(listener, shutdown.requested());
    tokio::select! {
        served = serving => served?,
        () = signals => {}
    }
    Ok(())
}
