//! What a running coordinator has earned, and how it is paid out.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    Error, Output,
    remote::{Remote, text},
};
use crate::config::Config;

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long a withdrawal is waited for.
const MINED_WITHIN: Duration = Duration::from_secs(120);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  coordinator earnings --api http://127.0.0.1:8480")]
pub(super) struct Arguments {}

pub(super) async fn earnings(config: &Config, _: &Arguments, output: Output) -> Result<(), Error> {
    let remote = Remote::new(&config.api, &config.server.tokens)?;
    let answer = remote.get("/api/v1/earnings", &[]).await?;
    output.data(&lines(&answer.value).join("\n"), &answer.text);
    Ok(())
}

pub(super) async fn withdraw(config: &Config, output: Output) -> Result<(), Error> {
    let remote = Remote::new(&config.api, &config.server.tokens)?;
    let asked = remote.post("/api/v1/withdrawals", &json!({})).await?;
    let id = asked.value.get("id").cloned().unwrap_or_default();
    let progress = output.progress("waiting for the transaction");
    let waited = tokio::time::timeout(MINED_WITHIN, async {
        loop {
            let earnings = remote.get("/api/v1/earnings", &[]).await?.value;
            let withdrawals = earnings.get("withdrawals").and_then(Value::as_array);
            let ours = withdrawals.into_iter().flatten().find(|it| it.get("id") == Some(&id));
            match ours.and_then(|it| Some((it, text(it, "/state")?))) {
                Some((_, "queued" | "sent")) => tokio::time::sleep(LOOK_EVERY).await,
                Some((it, _)) => return Ok(it.clone()),
                None => return Err(Error::No(format!("withdrawal {id} is not known any more"))),
            }
        }
    })
    .await;
    drop(progress);
    let withdrawal = waited.map_err(|_| {
        Error::No(format!(
            "withdrawal {id} is not mined within {} s; it goes on: `coordinator earnings` shows where it stands",
            MINED_WITHIN.as_secs()
        ))
    })??;
    if let Some(message) = text(&withdrawal, "/error/message") {
        return Err(Error::No(format!("nothing was paid: {message}")));
    }
    let line = format!(
        "{} wei paid to {} by {}",
        text(&withdrawal, "/amount_wei").unwrap_or("?"),
        text(&withdrawal, "/recipient").unwrap_or("?"),
        text(&withdrawal, "/transaction").unwrap_or("?"),
    );
    output.data(&line, &withdrawal);
    Ok(())
}

fn lines(earnings: &Value) -> Vec<String> {
    let word = |pointer: &str| text(earnings, pointer).unwrap_or("?");
    let block = earnings.get("block_number").and_then(Value::as_u64);
    let credit = match block {
        Some(block) => format!("credit     {} wei, as of block {block}", word("/credit_wei")),
        None => "credit     not read yet".to_owned(),
    };
    let mut lines = vec![
        format!("publisher  {}", word("/publisher")),
        format!("contract   {}", word("/contract")),
        credit,
        format!("pays to    {}", word("/recipient")),
    ];
    for withdrawal in earnings.get("withdrawals").and_then(Value::as_array).into_iter().flatten() {
        let detail = text(withdrawal, "/amount_wei").map(|wei| format!("{wei} wei"));
        let detail = detail.or_else(|| text(withdrawal, "/error/message").map(str::to_owned));
        let line = format!(
            "{}  withdrawal {}  {:<8}  {}",
            text(withdrawal, "/requested_at").unwrap_or_default(),
            withdrawal.get("id").unwrap_or(&Value::Null),
            text(withdrawal, "/state").unwrap_or_default(),
            detail.unwrap_or_default(),
        );
        lines.push(line.trim_end().to_owned());
    }
    lines
}
