use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use chain::{Alarm, EndpointHealth};
use serde::Serialize;
use serde_json::json;
use store::Store;

use super::{Api, Error};
use crate::{
    health::{Health, Part},
    price::Prices,
    telemetry::causes,
    work::Work,
};

/// The longest time that one check may take.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Alarms that mean: tasks are not seen in time, or nothing is published.
const NOT_READY: [Alarm; 4] =
    [Alarm::ChainUnreachable, Alarm::ChainLagging, Alarm::SequenceGap, Alarm::FinalityViolated];

/// What has to be well for this coordinator to be of use.
#[derive(Clone)]
pub struct Readiness {
    /// What runs tasks.
    pub work: Arc<Work>,
    /// What watcher and publisher complain of.
    pub alarms: chain::Alarms,
    /// What holds tasks back.
    pub health: Health,
    /// Knows the chain's endpoints.
    pub prices: Prices,
}

impl std::fmt::Debug for Readiness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Readiness(..)")
    }
}

/// One reason for not being ready, or one thing that somebody should look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Reason {
    part: &'static str,
    code: std::borrow::Cow<'static, str>,
    message: String,
}

impl Readiness {
    /// What keeps us from working, and what does not but should be looked at.
    async fn look(&self, store: &Store) -> (Vec<Reason>, Vec<Reason>) {
        let mut reasons = Vec::new();
        let mut warnings = Vec::new();
        let database = tokio::time::timeout(TIMEOUT, store.next_due_at_ms(0)).await;
        match database {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => reasons.push(Reason {
                part: "database",
                code: error.code().into(),
                message: causes(&error),
            }),
            Err(_) => reasons.push(late("database")),
        }
        match tokio::time::timeout(TIMEOUT, self.work.describe()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => reasons.push(Reason {
                part: "runtime",
                code: error.code().into(),
                message: causes(&error),
            }),
            Err(_) => reasons.push(late("runtime")),
        }
        for (part, fault) in self.health.current() {
            let known = reasons.iter().any(|reason| reason.part == part.name());
            if !known {
                let (part, code) = (part.name(), fault.code.into());
                reasons.push(Reason { part, code, message: fault.message });
            }
        }
        if reasons.iter().all(|reason| reason.part != Part::Content.name()) {
            for (_, fault) in self.work.failing_places() {
                let (part, code) = (Part::Content.name(), fault.code.into());
                warnings.push(Reason { part, code, message: fault.message });
            }
        }
        for (alarm, message) in self.alarms.current() {
            let reason = Reason { part: "chain", code: alarm.code().into(), message };
            if NOT_READY.contains(&alarm) {
                reasons.push(reason);
            } else {
                warnings.push(reason);
            }
        }
        for EndpointHealth { endpoint, problem } in self.prices.endpoints() {
            if let Some((code, message)) = problem {
                let message = format!("{endpoint} fails ({code}): {message}");
                warnings.push(Reason { part: "chain", code: "endpoint_failing".into(), message });
            }
        }
        (reasons, warnings)
    }
}

fn late(part: &'static str) -> Reason {
    Reason { part, code: "timed_out".into(), message: format!("the {part} does not answer") }
}

/// The process is alive.
pub(super) async fn health() -> Response {
    Json(json!({"status": "ok"})).into_response()
}

/// The process can do its work, or why not.
pub(super) async fn ready(State(api): State<Arc<Api>>) -> Response {
    let (reasons, warnings) = api.readiness.look(&api.store).await;
    let (status, word) = if reasons.is_empty() {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not_ready")
    };
    let body = json!({"status": word, "reasons": reasons, "warnings": warnings});
    (status, Json(body)).into_response()
}

/// Metrics as text.
pub(super) async fn render(State(api): State<Arc<Api>>) -> Result<Response, Error> {
    let failing = api.readiness.work.failing_places();
    for kind in ["gateway", "mirror", "api", "cache"] {
        let count = failing.iter().filter(|(failing, _)| *failing == kind).count();
        #[expect(clippy::cast_precision_loss, reason = "nobody has 2^52 gateways")]
        metrics::gauge!("wasm_exec_content_places_failing", "kind" => kind).set(count as f64);
    }
    let endpoints = api.readiness.prices.endpoints();
    let failing = endpoints.iter().filter(|endpoint| endpoint.problem.is_some()).count();
    #[expect(clippy::cast_precision_loss, reason = "nobody has 2^52 endpoints")]
    metrics::gauge!("wasm_exec_chain_endpoints_failing").set(failing as f64);
    let text = api.metrics.render(&api.store).await?;
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Ok((kind, text).into_response())
}
