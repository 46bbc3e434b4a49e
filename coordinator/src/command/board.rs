//! The contract, as commands reach it; and the two commands that only call it.

use chain::{Board, Client, ClientOptions, Endpoints, Found, Key};
use serde_json::json;
use task::{Address, TaskId};

use super::{Error, Output, result};
use crate::config::{self, Config};

/// Connects to the chain that the configuration names.
pub(super) async fn connect(config: &config::Chain) -> Result<Client, Error> {
    let endpoints = Endpoints::parse(&config.endpoint_list())?;
    Ok(Client::connect(&endpoints, ClientOptions::default()).await?)
}

/// The contract that the configuration names.
pub(super) async fn open(config: &config::Chain) -> Result<Board, Error> {
    let contract = config.contract.ok_or_else(|| {
        Error::Usage("COORDINATOR_CONTRACT is empty: this needs a contract".into())
    })?;
    Ok(Board::new(connect(config).await?, contract))
}

/// The key that signs what a client asks for.
pub(super) fn client_key(config: &config::Chain) -> Result<&Key, Error> {
    config.client_key.as_ref().ok_or_else(|| {
        Error::Usage("COORDINATOR_CLIENT_KEY is empty: this needs a key that signs".into())
    })
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Asks only: a free task's coordinator honours it when it comes from the requester; a kept task's
deadline moves near, and its fee is refunded after it when no result came first.

Example:
  coordinator cancel 17")]
pub(super) struct Cancel {
    /// The task's id
    id: TaskId,
}

pub(super) async fn cancel(
    config: &Config,
    arguments: &Cancel,
    output: Output,
) -> Result<(), Error> {
    let board = open(&config.chain).await?;
    let from_block = config.chain.from_block;
    let id = arguments.id;
    let (found, result) = match board.find(id, from_block).await? {
        Found::NotSubmitted => return Err(result::not_submitted(id, from_block)),
        Found::Open { submission, .. } => (submission, None),
        Found::Answered { submission, result } => (submission, Some(result)),
    };
    if found.submission.requester != client_key(&config.chain)?.address() {
        return Err(Error::No(format!(
            "task {} was submitted by {}: nobody else can cancel it",
            arguments.id, found.submission.requester
        )));
    }
    if let Some(result) = result {
        return Err(Error::No(format!(
            "task {id} is answered already: {} in block {}",
            result.status, result.block.number
        )));
    }
    if id.is_kept() && board.is_closed(id).await? {
        return Err(Error::No(format!("task {id} has expired already")));
    }
    let receipt = {
        let _progress = output.progress("waiting for the transaction");
        board.cancel(client_key(&config.chain)?, &found.identity).await?
    };
    output.data(
        &receipt.transaction.to_string(),
        &json!({"id": arguments.id, "transaction": receipt.transaction, "block": receipt.block, "gas_used": receipt.gas_used}),
    );
    Ok(())
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
What a requester is owed waits on the contract as its credit. A coordinator's earnings are paid out by
the coordinator itself, which alone may use its key: --publisher asks the one at COORDINATOR_API for
it, and COORDINATOR_WITHDRAW_TO of that coordinator says who is paid.

Examples:
  coordinator withdraw
  coordinator withdraw --publisher
  coordinator withdraw --to 0x70997970C51812dc3A010C7d01b50e0d17dc79C8")]
pub(super) struct Withdraw {
    /// Who gets it; the signer itself when nobody is named
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    to: Option<Address>,
    /// Pay out the earnings of the coordinator at COORDINATOR_API
    #[arg(long, conflicts_with = "to")]
    pub(super) publisher: bool,
}

pub(super) fn address(text: &str) -> Result<Address, String> {
    text.parse().map_err(|error: task::HexError| error.to_string())
}

pub(super) async fn withdraw(
    config: &Config,
    arguments: &Withdraw,
    output: Output,
) -> Result<(), Error> {
    let board = open(&config.chain).await?;
    let key = client_key(&config.chain)?;
    board.check().await?;
    let to = arguments.to.unwrap_or_else(|| key.address());
    let receipt = {
        let _progress = output.progress("waiting for the transaction");
        board.withdraw(key, to).await?
    };
    output.data(
        &receipt.transaction.to_string(),
        &json!({"to": to, "transaction": receipt.transaction, "block": receipt.block, "gas_used": receipt.gas_used}),
    );
    Ok(())
}
