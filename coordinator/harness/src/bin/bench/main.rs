//! Measures the coordinator end to end, each figure beside its floor from the same run, and prints a table.
//!
//! `bench [--tasks N] [--queued N] [--events N] [--hostile N]
//! [--only latency|rate|memory|hostile|catchup]`: progress on stderr, Markdown on stdout. Nothing here fails for being slow.

mod catchup;
mod floor;
mod hostile;
mod memory;

use std::{
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use alloy::{primitives::B256, providers::Provider as _, rpc::types::Filter};
use harness::{
    Daemon,
    scene::{Fault, Scene},
};
use task_board::{Submission, TaskId};

/// Tasks of the measurement of latency, one after the other.
const SEQUENTIAL: usize = 200;
/// How long anything may take before the run is given up.
const PATIENCE: Duration = Duration::from_secs(600);

/// How many tasks are measured.
#[derive(Debug, Clone)]
struct Options {
    /// One measurement alone.
    only: Option<String>,
    /// At once, for the rate.
    tasks: usize,
    /// Waiting, for the memory.
    queued: usize,
    /// Events that were missed, for catching up.
    events: usize,
    /// Hostile tasks at the most, for what honest ones feel of them.
    hostile: usize,
}

/// A row of the table.
#[derive(Debug)]
struct Row {
    what: &'static str,
    measured: String,
    floor: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    let measured = tokio::select! {
        measured = run() => measured,
        _ = tokio::signal::ctrl_c() => Err("stopped by a signal".into()),
    };
    match measured {
        Ok(rows) => {
            #[expect(clippy::print_stdout, reason = "the table is the answer")]
            {
                println!("| what | measured | floor, in the same run |\n| --- | --- | --- |");
                for Row { what, measured, floor } in rows {
                    println!("| {what} | {measured} | {floor} |");
                }
            }
            ExitCode::SUCCESS
        }
        Err(fault) => {
            eprintln!("error: {fault}");
            ExitCode::FAILURE
        }
    }
}

fn options(mut words: impl Iterator<Item = String>) -> Result<Options, Fault> {
    let mut options =
        Options { only: None, tasks: 1_000, queued: 10_000, events: 100_000, hostile: 900 };
    while let Some(word) = words.next() {
        let text = words.next().ok_or_else(|| format!("{word} needs a value"))?;
        if word == "--only" {
            options.only = Some(text);
            continue;
        }
        let number = text.parse().map_err(|_| format!("{word} needs a number"))?;
        match word.as_str() {
            "--tasks" => options.tasks = number,
            "--queued" => options.queued = number,
            "--events" => options.events = number,
            "--hostile" => options.hostile = number,
            _ => return Err(format!("{word} is not known").into()),
        }
    }
    Ok(options)
}

async fn run() -> Result<Vec<Row>, Fault> {
    let options = options(std::env::args().skip(1))?;
    let wants = |what: &str| options.only.as_deref().is_none_or(|only| only == what);
    let mut rows = Vec::new();
    if wants("latency") || wants("rate") {
        rows.extend(usual(&options, wants("latency"), wants("rate")).await?);
    }
    if wants("memory") {
        rows.push(waiting(options.queued).await?);
    }
    if wants("hostile") {
        rows.extend(beside_hostile(options.hostile).await?);
    }
    if wants("catchup") {
        rows.extend(catching_up(options.events).await?);
    }
    Ok(rows)
}

/// How long tasks take one after the other, and how many go through at once.
async fn usual(options: &Options, latency: bool, sustained: bool) -> Result<Vec<Row>, Fault> {
    eprintln!("floors");
    let mut runs = floor::runs(SEQUENTIAL).await?;
    let mut publications = floor::publications(SEQUENTIAL).await?;
    let mut rows = Vec::new();
    if latency {
        eprintln!("{SEQUENTIAL} tasks, one after the other");
        let mut latencies = latencies().await?;
        rows.push(Row {
            what: "event to mined result, median / 95th percentile (ms)",
            measured: format!(
                "{} / {}",
                millis(percentile(&mut latencies, 50)),
                millis(percentile(&mut latencies, 95))
            ),
            floor: format!(
                "{} / {}: raw `publish` {} / {} + bare `executor run` {} / {}",
                millis(percentile(&mut publications, 50) + percentile(&mut runs, 50)),
                millis(percentile(&mut publications, 95) + percentile(&mut runs, 95)),
                millis(percentile(&mut publications, 50)),
                millis(percentile(&mut publications, 95)),
                millis(percentile(&mut runs, 50)),
                millis(percentile(&mut runs, 95)),
            ),
        });
    }
    if sustained {
        let runs_per_second = floor::runs_per_second(options.tasks).await?;
        let mean = publications.iter().sum::<Duration>().as_secs_f64() / SEQUENTIAL as f64;
        eprintln!("{} tasks at once", options.tasks);
        let (rate, transactions) = rate(options.tasks).await?;
        let tasks = options.tasks;
        rows.push(Row {
            what: "sustained tasks, submission to result on chain (1/s)",
            measured: format!("{rate:.0}, in {transactions} transactions for {tasks} tasks"),
            floor: format!(
                "{:.0} raw `publish` one by one, {runs_per_second:.0} bare `executor run` on all cores",
                1.0 / mean
            ),
        });
    }
    Ok(rows)
}

/// What so many tasks that wait cost in memory.
async fn waiting(queued: usize) -> Result<Row, Fault> {
    eprintln!("{queued} tasks that wait");
    let memory = memory::with_queued(queued).await?;
    let empty = memory::with_queued(0).await?;
    Ok(Row {
        what: "memory of the coordinator with 10,000 queued tasks, peak / then (MiB)",
        measured: format!("{:.1} / {:.1}", memory.peak_mib, memory.now_mib),
        floor: format!("{:.1} / {:.1} with none", empty.peak_mib, empty.now_mib),
    })
}

/// What honest tasks feel of hostile ones.
async fn beside_hostile(most: usize) -> Result<Vec<Row>, Fault> {
    eprintln!("honest tasks beside no others");
    let mut idle = hostile::latencies(0, hostile::Hold::Fetches).await?;
    let floor = format!(
        "{} / {} beside none",
        millis(percentile(&mut idle, 50)),
        millis(percentile(&mut idle, 99))
    );
    let mut rows = Vec::new();
    for (what, number, hold) in [
        ("honest tasks beside 9 free ones whose content never comes", 9, hostile::Hold::Fetches),
        (
            "honest tasks beside 900 free ones whose content never comes",
            most,
            hostile::Hold::Fetches,
        ),
        ("honest tasks beside 9 free ones that run for 30 s", 9, hostile::Hold::Runs),
        ("honest tasks beside 900 free ones that run for 30 s", most, hostile::Hold::Runs),
    ] {
        eprintln!("{what} ({number})");
        let mut times = hostile::latencies(number, hold).await?;
        rows.push(Row {
            what,
            measured: format!(
                "{} / {} (median / 99th percentile, ms)",
                millis(percentile(&mut times, 50)),
                millis(percentile(&mut times, 99))
            ),
            floor: floor.clone(),
        });
    }
    Ok(rows)
}

/// How long it takes to read what was missed.
async fn catching_up(events: usize) -> Result<Vec<Row>, Fault> {
    eprintln!("{events} events to catch up with");
    let catchup::Measured { events, blocks, raw, taken, passed } = catchup::measure(events).await?;
    let floor = format!("{:.2} s: paging and decoding alone", raw.as_secs_f64());
    let row = |what, (took, memory): (Duration, memory::Memory)| Row {
        what,
        measured: format!(
            "{:.2} s ({:.1}x) for {events} events in {blocks} blocks, peak {:.1} MiB",
            took.as_secs_f64(),
            took.as_secs_f64() / raw.as_secs_f64(),
            memory.peak_mib
        ),
        floor: floor.clone(),
    };
    Ok(vec![
        row("catching up, all tasks of another domain", passed),
        row("catching up, all tasks taken and found answered", taken),
    ])
}

/// A chain with the contract, and a mirror with the samples.
pub(crate) async fn scene() -> Result<Scene, Fault> {
    Scene::start(Path::new("host/wasm")).await
}

/// A fib task; there are 90 different ones.
pub(crate) fn fib(scene: &Scene, number: usize) -> Result<Submission, Fault> {
    let input = format!(r#"{{"entry":"fib","args":[{}]}}"#, number % 90);
    scene.wasm("fib.wasm", Some(input.as_bytes()))
}

/// Starts a coordinator that polls and is woken, as the README says, and waits until it listens.
pub(crate) async fn coordinator(scene: &Scene, more: &[(&str, &str)]) -> Result<Daemon, Fault> {
    let urls = format!("{},{}", scene.anvil().url(), scene.anvil().ws_url());
    let mut variables = vec![("COORDINATOR_RPC_URL", urls.as_str())];
    variables.extend_from_slice(more);
    let mut daemon = scene.coordinator_with(&variables)?;
    let began = Instant::now();
    while scene.get("/readyz").await.is_none() {
        if daemon.ended()?.is_some() || began.elapsed() > Duration::from_secs(30) {
            return Err(format!("the coordinator is not ready\n{}", daemon.tail()).into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(daemon)
}

/// From the block with the event to the block with the result, seen by somebody who looks every millisecond.
async fn latencies() -> Result<Vec<Duration>, Fault> {
    let scene = scene().await?;
    let daemon = coordinator(&scene, &[]).await?;
    let mut latencies = Vec::with_capacity(SEQUENTIAL);
    // The first few warm what is warm in a daemon that has run for a while.
    for number in 0..SEQUENTIAL + 10 {
        let id = scene.submit_one(&fib(&scene, number)?).await?;
        let began = Instant::now();
        published(&scene, id).await?;
        if number >= 10 {
            latencies.push(began.elapsed());
        }
    }
    daemon.stop(Duration::from_secs(10)).await?;
    Ok(latencies)
}

async fn published(scene: &Scene, id: TaskId) -> Result<(), Fault> {
    let began = Instant::now();
    let head = scene.board().provider().get_block_number().await?;
    let filter = Filter::new().address(*scene.board().address()).topic1(B256::from(id.topic()));
    let filter = filter.from_block(head.saturating_sub(1));
    // Its submission is the one log there is without a result.
    while scene.board().provider().get_logs(&filter).await?.len() < 2 {
        if began.elapsed() > Duration::from_secs(60) {
            return Err(format!("task {id} has no result").into());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// Tasks a second, from the moment that a coordinator finds them all to the last result on chain; and how many
/// transactions that took.
async fn rate(tasks: usize) -> Result<(f64, u64), Fault> {
    let scene = scene().await?;
    let submissions =
        (0..tasks).map(|number| fib(&scene, number)).collect::<Result<Vec<_>, _>>()?;
    scene.submit(&submissions).await?;
    let began = Instant::now();
    let daemon = scene.coordinator()?;
    loop {
        let results = scene.logs(0).await?.published.len();
        if results == tasks {
            break;
        }
        if began.elapsed() > PATIENCE {
            return Err(format!("{results} results of {tasks}\n{}", daemon.tail()).into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let took = began.elapsed();
    let transactions = scene.board().provider().get_transaction_count(scene.publisher()).await?;
    daemon.stop(Duration::from_secs(10)).await?;
    Ok((tasks as f64 / took.as_secs_f64(), transactions))
}

/// The time that so many of a hundred are not above.
fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    let index = (times.len() * percent / 100).min(times.len().saturating_sub(1));
    times.get(index).copied().unwrap_or_default()
}

fn millis(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() * 1000.0)
}
