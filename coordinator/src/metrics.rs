//! Metrics in the Prometheus text format. Counters are counted where things happen; gauges of state are computed at
//! the scrape, from the store. Labels come from closed lists.

use std::sync::Arc;

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use store::Store;
use task::State;

/// Where a recorder is installed already, or a bucket is not valid.
#[derive(Debug, thiserror::Error)]
#[error("the metrics cannot be recorded: {0}")]
pub struct Error(String);

/// What renders the metrics of this process.
#[derive(Clone)]
pub struct Metrics {
    handle: Arc<PrometheusHandle>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics(..)")
    }
}

const SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

impl Metrics {
    /// Makes the recorder and takes it as this process's own.
    pub fn install() -> Result<Self, Error> {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)
            .map_err(|error| Error(error.to_string()))?
            .build_recorder();
        let handle = Arc::new(recorder.handle());
        metrics::set_global_recorder(recorder).map_err(|error| Error(error.to_string()))?;
        describe();
        Ok(Self { handle })
    }

    /// Counts one answered HTTP request. `route` is the route's template, never the path.
    pub fn request(route: &'static str, status: u16, seconds: f64) {
        let class = match status {
            200..=299 => "2xx",
            300..=399 => "3xx",
            400..=499 => "4xx",
            _ => "5xx",
        };
        counter!("wasm_exec_http_requests_total", "route" => route, "status" => class).increment(1);
        histogram!("wasm_exec_http_request_seconds", "route" => route).record(seconds);
    }

    /// Everything as text. Gauges of tasks are read from the store now.
    pub async fn render(&self, store: &Store) -> Result<String, store::Error> {
        let counts = store.counts().await?;
        for state in State::NAMES {
            let count =
                counts.iter().find(|(name, _)| name == state).map_or(0, |(_, count)| *count);
            #[expect(clippy::cast_precision_loss, reason = "no store holds 2^52 tasks")]
            gauge!("wasm_exec_tasks", "state" => state).set(count as f64);
        }
        self.handle.run_upkeep();
        Ok(self.handle.render())
    }
}

fn describe() {
    describe_gauge!("wasm_exec_tasks", "Tasks by state, as the store has them.");
    describe_gauge!("wasm_exec_build_info", "1, with the version as a label.");
    describe_counter!("wasm_exec_http_requests_total", "Answered HTTP requests.");
    describe_histogram!(
        "wasm_exec_http_request_seconds",
        Unit::Seconds,
        "Time from an HTTP request to its answer."
    );
    gauge!("wasm_exec_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}
