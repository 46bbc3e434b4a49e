//! Measures the coordinator end to end, each figure beside its floor from the same run, and prints a table.
//!
//! `bench [--tasks N] [--queued N]`: progress on stderr, Markdown on stdout. Nothing here fails for being slow.

mod floor;
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
#[derive(Debug, Clone, Copy)]
struct Options {
    /// At once, for the rate.
    tasks: usize,
    /// Waiting, for the memory.
    queued: usize,
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
    let mut options = Options { tasks: 1_000, queued: 10_000 };
    while let Some(word) = words.next() {
        let number = words.next().and_then(|text| text.parse().ok());
        let number = number.ok_or_else(|| format!("{word} needs a number"))?;
        match word.as_str() {
            "--tasks" => options.tasks = number,
            "--queued" => options.queued = number,
            _ => return Err(format!("{word} is not known").into()),
        }
    }
    Ok(options)
}

async fn run() -> Result<Vec<Row>, Fault> {
    let options = options(std::env::args().skip(1))?;
    eprintln!("floors");
    let mut runs = floor::runs(SEQUENTIAL).await?;
    let mut publications = floor::publications(SEQUENTIAL).await?;
    let runs_per_second = floor::runs_per_second(options.tasks).await?;
    let mean = publications.iter().sum::<Duration>().as_secs_f64() / SEQUENTIAL as f64;
    let floor = format!(
        "{} / {}: raw `publish` {} / {} + bare `executor run` {} / {}",
        millis(percentile(&mut publications, 50) + percentile(&mut runs, 50)),
        millis(percentile(&mut publications, 95) + percentile(&mut runs, 95)),
        millis(percentile(&mut publications, 50)),
        millis(percentile(&mut publications, 95)),
        millis(percentile(&mut runs, 50)),
        millis(percentile(&mut runs, 95)),
    );

    eprintln!("{SEQUENTIAL} tasks, one after the other");
    let mut latencies = latencies().await?;
    let mut rows = vec![Row {
        what: "event to mined result, median / 95th percentile (ms)",
        measured: format!(
            "{} / {}",
            millis(percentile(&mut latencies, 50)),
            millis(percentile(&mut latencies, 95))
        ),
        floor,
    }];

    eprintln!("{} tasks at once", options.tasks);
    let (rate, transactions) = rate(options.tasks).await?;
    rows.push(Row {
        what: "sustained tasks, submission to result on chain (1/s)",
        measured: format!("{rate:.0}, in {transactions} transactions for {} tasks", options.tasks),
        floor: format!(
            "{:.0} raw `publish` one by one, {runs_per_second:.0} bare `executor run` on all cores",
            1.0 / mean
        ),
    });

    eprintln!("{} tasks that wait", options.queued);
    let memory = memory::with_queued(options.queued).await?;
    let empty = memory::with_queued(0).await?;
    rows.push(Row {
        what: "memory of the coordinator with 10,000 queued tasks, peak / then (MiB)",
        measured: format!("{:.1} / {:.1}", memory.peak_mib, memory.now_mib),
        floor: format!("{:.1} / {:.1} with none", empty.peak_mib, empty.now_mib),
    });
    Ok(rows)
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
