use std::sync::Arc;

use axum::{Json, extract::State, extract::rejection::JsonRejection, http::StatusCode};
use serde::Serialize;

use super::{Api, Error, request::Empty};

/// What was accepted.
#[derive(Debug, Serialize)]
pub(super) struct Accepted {
    /// How many contracts had a violation of finality.
    accepted: u64,
}

/// `POST /api/v1/chain/accept`: the branch that the chain has now is the chain.
pub(super) async fn accept(
    State(api): State<Arc<Api>>,
    body: Result<Json<Empty>, JsonRejection>,
) -> Result<Json<Accepted>, Error> {
    let Json(Empty {}) = body.map_err(|_| {
        Error::new(StatusCode::BAD_REQUEST, "bad_request", "the body is the JSON object {}")
    })?;
    let mut writer = api.store.begin().await?;
    let accepted = writer.accept_violations().await?;
    writer.commit().await?;
    if accepted > 0 {
        tracing::warn!(accepted, "an operator accepted the chain as it is; publishing goes on");
    }
    Ok(Json(Accepted { accepted }))
}
