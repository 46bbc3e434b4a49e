//! Everything once, on a chain of its own: nothing outside of a temporary folder is touched, nothing is left running.

mod anvil;
mod sample;

use std::time::{Duration, Instant};

use chain::{Board, Client, ClientOptions, Deployment, Endpoints, FoundResult, Key};
use ipfs::Url;
use sample::Sample;
use serde_json::{Value, json};
use task::TaskId;

use super::{
    Error, Output,
    remote::{self, Remote},
    result, submit, verify,
};
use crate::{
    config::{Config, Secret, Server, value},
    lifecycle::Lifecycle,
    serve,
};

/// How long all results may take together.
const LIMIT: Duration = Duration::from_secs(50);
/// How long the end of a task's life may take after its result.
const SETTLED: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Needs anvil: from PATH, from the variable ANVIL, or where scripts/tools.sh puts it
($HOME/.cache/wasm-exec/tools). The samples come from the mirror, host/wasm by default.

Example:
  coordinator demo")]
pub(super) struct Arguments {}

/// One task of the demo.
struct Shown {
    sample: &'static Sample,
    id: TaskId,
    as_expected: bool,
    found: Option<FoundResult>,
}

pub(super) async fn demo(config: &Config, _: &Arguments, output: Output) -> Result<(), Error> {
    let began_at = Instant::now();
    let folder = Folder::make()?;
    let chain = {
        let _progress = output.progress("starting a chain");
        anvil::Anvil::start().await?
    };
    let lifecycle = Lifecycle::default();
    let told = tokio::select! {
        told = tell(config, &folder, &chain, &lifecycle, output) => told,
        interrupted = lifecycle.interrupted() => {
            interrupted.map_err(Error::doing("wait for signals"))?;
            Err(Error::No("interrupted".into()))
        }
    };
    chain.stop().await;
    let (shown, verified) = told?;
    let right = shown.iter().filter(|shown| shown.as_expected).count();
    let took = value::show(began_at.elapsed());
    let well = right == shown.len() && verified;
    let word = if well { "ok" } else { "FAILED" };
    let line = format!(
        "demo: {word}: {right} of {} tasks ended as expected, {} verified, nothing left running, {took}",
        shown.len(),
        if verified { "one" } else { "none" },
    );
    let tasks: Vec<_> = shown
        .iter()
        .map(|shown| {
            json!({
                "name": shown.sample.name,
                "id": shown.id,
                "as_expected": shown.as_expected,
                "status": shown.found.as_ref().map(|found| found.status),
                "digest": shown.found.as_ref().map(|found| found.digest),
            })
        })
        .collect();
    output.data(&line, &json!({"ok": well, "tasks": tasks, "verified": verified}));
    if well { Ok(()) } else { Err(Error::No("the demo did not go as expected".into())) }
}

/// The demo between the start of the chain and its end.
async fn tell(
    config: &Config,
    folder: &Folder,
    chain: &anvil::Anvil,
    lifecycle: &Lifecycle,
    output: Output,
) -> Result<(Vec<Shown>, bool), Error> {
    let mirror = folder.0.join("mirror");
    sample::copy(&config.content.mirror, &mirror)?;
    let publisher = Key::from_hex(anvil::PUBLISHER)?;
    let client_key = Key::from_hex(anvil::CLIENT)?;

    let mut config = config.clone();
    config.data_dir = folder.0.join("data");
    config.database = config.data_dir.join("coordinator.sqlite");
    config.content.mirror = mirror.clone();
    (config.content.gateways, config.content.api) = (Vec::new(), None);
    config.content.deadline = Duration::from_secs(3);
    config.server = Server {
        listen: ([127, 0, 0, 1], 0).into(),
        tokens: Vec::<Secret>::new(),
        ..config.server
    };
    let url = |text: &str| Url::parse(text).map_err(|_| Error::Usage(format!("no URL: {text}")));
    config.chain.endpoints = vec![url(&chain.url)?];
    config.chain.confirmations = None;
    config.chain.domains.clear();
    config.chain.from_block = None;
    config.chain.poll_interval = Some(Duration::from_millis(200));

    let launcher = serve::launcher(&config)?;
    let ready = launcher.ready().await;
    launcher.close().await;
    let client = Client::connect(&Endpoints::parse(&chain.url)?, ClientOptions::default()).await?;
    let deployment = Deployment {
        owner: None,
        engines: vec![ready?.engine],
        coordinators: vec![publisher.address()],
        domain: None,
    };
    let deployed = Board::deploy(&client, &client_key, &deployment).await?;
    output.say(&format!("deployed the TaskBoard {} on {}", deployed.contract, chain.url));
    config.chain.contract = Some(deployed.contract);
    config.chain.key = Some(publisher);
    config.chain.client_key = Some(client_key);

    let daemon = serve::start(&config, lifecycle).await?;
    config.api = url(&format!("http://{}", daemon.address))?;
    output.say(&format!("serving on {}", config.api));
    let told = story(&config, &mirror, deployed.domain, output).await;
    lifecycle.stop();
    let stopped = lifecycle.run(crate::lifecycle::GRACE).await;
    daemon.close().await;
    let told = told?;
    match stopped.map_err(Error::doing("wait for signals"))? {
        true => Ok(told),
        false => Err(Error::No("a part of the coordinator failed".into())),
    }
}

/// Submits, waits, shows, verifies.
async fn story(
    config: &Config,
    mirror: &std::path::Path,
    domain: u16,
    output: Output,
) -> Result<(Vec<Shown>, bool), Error> {
    let board = super::board::open(&config.chain).await?;
    let key = super::board::client_key(&config.chain)?;
    // A store of the client's own: what it adds, the coordinator has to fetch.
    let store = ipfs::Store::open(config.content_options(&config.data_dir.join("client"))).await?;
    let remote = Remote::new(&config.api, &[])?;
    let mut shown = Vec::new();
    for sample in sample::SAMPLES {
        let submission = sample.submission(&store, mirror, domain).await?;
        let accepted = board.submit(key, &[submission]).await?;
        let id = accepted.ids.first().copied().ok_or_else(|| {
            Error::Missing("the contract accepted a task without an id".to_owned())
        })?;
        output.say(&format!(
            "submitted {} as task {id} in transaction {}",
            sample.name, accepted.receipt.transaction
        ));
        shown.push(Shown { sample, id, as_expected: false, found: None });
    }
    let until_at = Instant::now() + LIMIT;
    for shown in &mut shown {
        let progress = output.progress(&format!("waiting for task {}", shown.id));
        let found = submit::wait_on_chain(&board, shown.id, until_at).await;
        let task = settled(&remote, shown.id).await;
        drop(progress);
        let found = found?;
        let document = result::document(&store, &found).await?;
        shown.as_expected = document == shown.sample.wanted;
        tell_task(shown, &found, &document, &task?, output);
        shown.found = Some(found);
    }
    let verified = match shown.first() {
        None => false,
        Some(first) => {
            let verdict = verify::judge(config, first.id).await?;
            if !output.is_json() {
                verdict.show(first.id, output);
            }
            verdict.equal
        }
    };
    Ok((shown, verified))
}

fn tell_task(shown: &Shown, found: &FoundResult, document: &str, task: &Value, output: Output) {
    if output.is_json() {
        return;
    }
    let mark = if shown.as_expected { "as expected" } else { "NOT AS EXPECTED" };
    let mut lines = vec![format!("task {} ({}): {mark}", shown.id, shown.sample.name)];
    lines.extend(remote::timeline(task).into_iter().map(|line| format!("  {line}")));
    let short: String = document.chars().take(200).collect();
    lines.push(format!("  read back from the chain: {short}"));
    lines.push(format!("  digest {}, block {}", found.digest, found.block.number));
    output.data(&lines.join("\n"), &Value::Null);
}

/// A task as the API shows it when its life has ended.
async fn settled(remote: &Remote, id: TaskId) -> Result<Value, Error> {
    let until_at = Instant::now() + SETTLED;
    loop {
        let task = remote.task(&id.to_string()).await?.value;
        let state = remote::text(&task, "/state").unwrap_or_default();
        if state == "final" || state == "cancelled" || Instant::now() >= until_at {
            return Ok(task);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// A temporary folder that goes when it is dropped.
struct Folder(std::path::PathBuf);

impl Folder {
    fn make() -> Result<Self, Error> {
        let name = format!("wasm-exec-demo-{}", uuid::Uuid::new_v4().simple());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path)
            .map_err(Error::doing(format!("make the folder {}", path.display())))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(folder = %self.0.display(), %error, "cannot remove the demo's folder");
        }
    }
}
