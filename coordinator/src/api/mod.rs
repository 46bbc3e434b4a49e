//! The HTTP API: probes, metrics, and tasks as the store has them. It reads, but for what an operator decides.

mod auth;
mod chain;
mod earnings;
mod error;
mod listen;
mod probe;
mod request;
mod task;
mod view;

use std::{sync::Arc, time::Duration};

pub use auth::Tokens;
use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware,
    routing::{get, post},
};
pub use earnings::Earner;
pub use error::Error;
pub use listen::Bounds;
pub use probe::Readiness;
use store::Store;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// The longest time for one answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The largest body of a request, in bytes.
const BODY_BYTES: usize = 64 << 10;

/// What the handlers share.
#[derive(Debug)]
pub struct Api {
    store: Store,
    metrics: Metrics,
    readiness: Readiness,
    tokens: Tokens,
    bounds: Bounds,
    earner: Option<Earner>,
}

impl Api {
    /// Puts it together; without tokens everybody is let in.
    #[must_use]
    pub fn new(store: Store, metrics: Metrics, readiness: Readiness, tokens: Tokens) -> Self {
        Self { store, metrics, readiness, tokens, bounds: Bounds::default(), earner: None }
    }

    /// With other bounds of its connections.
    #[must_use]
    pub fn bounded(mut self, bounds: Bounds) -> Self {
        self.bounds = bounds;
        self
    }

    /// With somebody who earns.
    #[must_use]
    pub fn earning(mut self, earner: Option<Earner>) -> Self {
        self.earner = earner;
        self
    }

    /// The routes.
    pub fn router(self) -> Router {
        let api = Arc::new(self);
        let guarded = Router::new()
            .route("/metrics", get(probe::render))
            .route("/api/v1/tasks", get(task::list))
            .route("/api/v1/tasks/{id}", get(task::show))
            .route("/api/v1/tasks/{id}/log", get(task::log))
            .route("/api/v1/chain/accept", post(chain::accept))
            .route("/api/v1/earnings", get(earnings::show))
            .route("/api/v1/withdrawals", post(earnings::withdraw))
            .route_layer(middleware::from_fn_with_state(Arc::clone(&api), auth::check));
        Router::new()
            .route("/healthz", get(probe::health))
            .route("/readyz", get(probe::ready))
            .merge(guarded)
            .fallback(error::no_route)
            .method_not_allowed_fallback(error::no_method)
            .layer(middleware::from_fn_with_state(Arc::clone(&api), auth::check_host))
            .layer(DefaultBodyLimit::max(BODY_BYTES))
            .layer(middleware::from_fn(request::observe))
            .with_state(api)
    }

    /// Answers requests until `soft` is cancelled; those that have begun are answered.
    pub async fn serve(
        self,
        listener: TcpListener,
        soft: CancellationToken,
    ) -> Result<(), std::io::Error> {
        let bounds = self.bounds;
        listen::serve(listener, self.router(), bounds, soft).await;
        Ok(())
    }
}
