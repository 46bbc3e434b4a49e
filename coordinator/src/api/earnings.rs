use std::sync::Arc;

use axum::{Json, extract::State, extract::rejection::JsonRejection, http::StatusCode};
use serde::Serialize;
use store::{Board, Withdrawal};
use task::{Address, Hash, publication};
use tokio::sync::Notify;

use super::{Api, Error, request::Empty, view::instant};

/// How many withdrawals are shown.
const SHOWN: u32 = 50;

/// Who earns on this coordinator, and where that goes.
#[derive(Debug, Clone)]
pub struct Earner {
    /// The contract.
    pub contract: Address,
    /// The publisher's account.
    pub publisher: Address,
    /// Who is paid when earnings are withdrawn. No request can name somebody else.
    pub recipient: Address,
    /// Told when a withdrawal waits.
    pub queued: Arc<Notify>,
}

/// What was earned, and what became of it.
#[derive(Debug, Serialize)]
pub(super) struct Earnings {
    publisher: Address,
    contract: Address,
    chain_id: u64,
    recipient: Address,
    /// What can be withdrawn, in wei, as text; none until it was read.
    credit_wei: Option<String>,
    /// The head when it was read.
    block_number: Option<u64>,
    read_at: Option<String>,
    /// The newest ones, newest first.
    withdrawals: Vec<View>,
}

/// A withdrawal.
#[derive(Debug, Serialize)]
pub(super) struct View {
    id: i64,
    recipient: Address,
    state: &'static str,
    /// What was paid, in wei, as text.
    amount_wei: Option<String>,
    transaction: Option<Hash>,
    block_number: Option<u64>,
    /// Why it was not paid.
    error: Option<Problem>,
    requested_at: String,
}

#[derive(Debug, Serialize)]
struct Problem {
    code: String,
    message: String,
}

/// `GET /api/v1/earnings`
pub(super) async fn show(State(api): State<Arc<Api>>) -> Result<Json<Earnings>, Error> {
    let (earner, board) = earner(&api).await?;
    let earnings = api.store.earnings(&board, &earner.publisher).await?;
    let withdrawals = api.store.withdrawals(&board, &earner.publisher, SHOWN).await?;
    Ok(Json(Earnings {
        publisher: earner.publisher,
        contract: board.contract,
        chain_id: board.chain_id,
        recipient: earner.recipient,
        credit_wei: earnings.map(|it| it.credit_wei.to_string()),
        block_number: earnings.map(|it| it.block_number),
        read_at: earnings.map(|it| instant(it.read_at_ms)),
        withdrawals: withdrawals.iter().map(View::of).collect(),
    }))
}

/// `POST /api/v1/withdrawals`: the whole credit is paid out by the publisher, with its own next nonce.
pub(super) async fn withdraw(
    State(api): State<Arc<Api>>,
    body: Result<Json<Empty>, JsonRejection>,
) -> Result<(StatusCode, Json<View>), Error> {
    let Json(Empty {}) = body.map_err(|_| {
        Error::new(
            StatusCode::BAD_REQUEST,
            "bad_request",
            "the body is the JSON object {}; who is paid is COORDINATOR_WITHDRAW_TO",
        )
    })?;
    let (earner, board) = earner(&api).await?;
    let mut writer = api.store.begin().await?;
    let withdrawal = writer
        .request_withdrawal(&board, &earner.publisher, &earner.recipient, store::now_ms())
        .await?;
    writer.commit().await?;
    earner.queued.notify_one();
    tracing::info!(withdrawal.id, recipient = %withdrawal.recipient, "a withdrawal of the earnings is queued");
    Ok((StatusCode::ACCEPTED, Json(View::of(&withdrawal))))
}

async fn earner(api: &Api) -> Result<(&Earner, Board), Error> {
    let earner = api.earner.as_ref().ok_or_else(|| {
        Error::new(
            StatusCode::CONFLICT,
            "publishes_nothing",
            "this coordinator publishes nothing, so it earns nothing: it has no chain or no key",
        )
    })?;
    let chains = api.store.chains_of(&earner.contract).await?;
    match chains.as_slice() {
        [(chain_id, _)] => Ok((earner, Board { chain_id: *chain_id, contract: earner.contract })),
        _ => Err(Error::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "chain_unreachable",
            "the contract has not been read yet; /readyz says why",
        )),
    }
}

impl View {
    fn of(withdrawal: &Withdrawal) -> Self {
        let place = withdrawal.state.place();
        let problem = |reason: &publication::Reason| Problem {
            code: reason.code.clone(),
            message: reason.message.clone(),
        };
        Self {
            id: withdrawal.id,
            recipient: withdrawal.recipient,
            state: withdrawal.state.name(),
            amount_wei: withdrawal.amount_wei.map(|wei| wei.to_string()),
            transaction: place.map(|place| place.transaction),
            block_number: place.map(|place| place.block.number),
            error: withdrawal.state.reason().map(problem),
            requested_at: instant(withdrawal.requested_at_ms),
        }
    }
}
