use chain::Quote;
use executor_protocol::{Record, Status};
use job::{Instance, Name};
use serde::Serialize;
use serde_json::value::RawValue;
use task::{Hash, Hex, TaskId};
use task_board::gas;

use super::{Error, Output, board, request};
use crate::{
    config::Config,
    serve::{self, Workshop},
    work::{Answered, Looked, Work},
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The same fetch, limits and executor as for a task of the chain. Prints the result document, then
what it took. Exit code 3 when the module failed.

Examples:
  coordinator run host/wasm/fib.wasm --entry fib --args '[12]'
  coordinator run host/wasm/affine.wasm --input host/wasm/affine-input.json
  coordinator run host/wasm/wordcount.wasm --input README.md --json")]
pub(super) struct Arguments {
    #[command(flatten)]
    request: request::Arguments,
}

pub(super) async fn run(
    config: &Config,
    arguments: &Arguments,
    output: Output,
) -> Result<(), Error> {
    let workshop = Workshop::open(config, serve::limits(config)).await?;
    let answered = async {
        let prepared = arguments.request.prepare(workshop.work.content(), output).await?;
        let request = arguments.request.request(&prepared);
        let _progress = output.progress("running");
        execute(&workshop.work, &request).await
    }
    .await;
    workshop.close().await;
    let answered = answered?;
    let cost = cost(config, &answered, arguments.request.callback_gas, output).await;
    show(&answered, &cost, output)?;
    match answered.outcome.status() {
        Status::Ok => Ok(()),
        status => Err(Error::No(match &answered.message {
            Some(message) => format!("the run {status}: {message}"),
            None => format!("the run {status}"),
        })),
    }
}

/// Runs a request once, under a name that no task has.
pub(super) async fn execute(work: &Work, request: &task::Request) -> Result<Answered, Error> {
    match work.prepare(request).await? {
        Looked::Answered(answered) => Ok(*answered),
        Looked::Runnable(runnable) => {
            let name = Name::new(&Instance::of(uuid::Uuid::new_v4().as_bytes()), 1, 1);
            let answered = work.execute(&name, &runnable).await;
            let removed = work.runtime().remove(&name).await;
            let answered = answered?;
            removed?;
            Ok(answered)
        }
    }
}

/// What a publication would cost: a bound of its gas, and the price where a chain can be asked.
struct Cost {
    gas: u64,
    wei: Option<u128>,
}

async fn cost(config: &Config, answered: &Answered, callback_gas: u32, output: Output) -> Cost {
    let document = &answered.document;
    let inline = document.fits_inline();
    // A callback makes a task a kept one.
    let id = TaskId::new(0, callback_gas > 0, 1);
    let item = gas::Item {
        id: task_board::TaskId::new(id.0),
        document_bytes: document.bytes().len(),
        callback_gas,
    };
    let gas = if inline { gas::publish_document(&item) } else { gas::publish(&item) };
    if config.chain.endpoints.is_empty() {
        return Cost { gas, wei: None };
    }
    let quoted = async {
        let client = board::connect(&config.chain).await?;
        let bytes = inline.then(|| document.bytes().len());
        Ok::<_, Error>(Quote::of_free_task(&client, bytes).await?)
    };
    match quoted.await {
        Ok(quote) => Cost { gas, wei: Some(quote.gas_price_wei.saturating_mul(gas.into())) },
        Err(error) => {
            output.say(&format!("the chain could not be asked for its price: {error}"));
            Cost { gas, wei: None }
        }
    }
}

fn show(answered: &Answered, cost: &Cost, output: Output) -> Result<(), Error> {
    let document = answered.document.as_str();
    let digest = Hex(answered.document.digest());
    let record = answered.record.as_ref();
    let fuel = record.and_then(|record| record.fuel_used);
    let mut text = vec![document.to_owned(), format!("digest: {digest}")];
    match fuel {
        Some(fuel) => text.push(format!("fuel: {fuel}")),
        None => text.push("fuel: none, nothing was run".to_owned()),
    }
    if let Some(record) = record {
        text.push(format!("time: {} us", record.run_us));
        text.push(format!("engine: {} ({})", record.engine, record.engine_version));
    }
    text.push(match cost.wei {
        Some(wei) => format!("publishing: at most {} gas, {wei} wei now", cost.gas),
        None => format!("publishing: at most {} gas", cost.gas),
    });
    if let Some(record) = record {
        for (name, measure) in record.isolation.measures() {
            if let executor_protocol::Measure::NotEnforced(reason) = measure {
                output.say(&format!("not enforced: {name}: {reason}"));
            }
        }
    }
    let raw = RawValue::from_string(document.to_owned())
        .map_err(|error| Error::No(format!("the result is no JSON: {error}")))?;
    let value = Shown {
        document: raw,
        digest,
        fuel_used: fuel,
        record,
        message: answered.message.as_deref(),
        publishing_gas: cost.gas,
        publishing_wei: cost.wei.map(|wei| wei.to_string()),
    };
    output.data(&text.join("\n"), &value);
    Ok(())
}

/// A run as JSON; the document's tokens stay as they are.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    document: Box<RawValue>,
    digest: Hash,
    fuel_used: Option<u64>,
    record: Option<&'a Record>,
    message: Option<&'a str>,
    publishing_gas: u64,
    publishing_wei: Option<String>,
}
