//! The two small HTTP servers: health (default 127.0.0.1:9099) and metrics (default port 9091).

use std::net::{SocketAddr, TcpListener};
use std::thread;

use anyhow::Context as _;
use axum::http::StatusCode;
use axum::{Router, routing::get};

use crate::{Health, Metrics};

/// Serves `GET /liveness` and `GET /readiness` on a thread of its own, for the life of the process.
pub fn serve_health(address: SocketAddr, health: Health) -> anyhow::Result<()> {
    let (live, ready) = (health.clone(), health);
    let answer = |report: crate::health::Report| {
        (if report.good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, report.text)
    };
    let router = Router::new()
        .route("/liveness", get(move || async move { answer(live.liveness()) }))
        .route("/readiness", get(move || async move { answer(ready.readiness()) }));
    spawn("health", address, router)
}

/// Serves `GET /metrics` in Prometheus' text format on a thread of its own.
pub fn serve_metrics(address: SocketAddr, metrics: Metrics) -> anyhow::Result<()> {
    let text = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let router = Router::new()
        .route("/metrics", get(move || async move { ([("content-type", text)], metrics.encode()) }));
    spawn("metrics", address, router)
}

fn spawn(name: &'static str, address: SocketAddr, router: Router) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).with_context(|| {
        format!("{name} endpoint: cannot listen on {address}; is another agent running here?")
    })?;
    listener.set_nonblocking(true).with_context(|| format!("{name} endpoint: {address}"))?;
    thread::Builder::new().name(name.into()).spawn(move || {
        let serve = async move {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            axum::serve(listener, router).await
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        if let Err(err) = runtime.and_then(|runtime| runtime.block_on(serve)) {
            tracing::error!(endpoint = name, %err, "endpoint stopped");
        }
    })?;
    Ok(())
}
