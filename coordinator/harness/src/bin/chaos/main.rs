//! Kills a coordinator with SIGKILL at random moments while tasks go through it, then asks the chain itself whether
//! each has exactly one right result, and the machine whether anything was left behind.
//!
//! `chaos --tasks N --kills K --seed S`: progress on stderr; the one line on stdout is
//! `tasks=N kills=K lost=0 doubled=0 leaked=0 seed=S`, and the exit code is 0 only when the three are 0.

mod audit;
mod mix;

use std::{
    collections::{BTreeMap, VecDeque},
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use harness::{
    Daemon, Dice,
    scene::{Fault, Scene},
    witness::{self, Witness},
};
use mix::Planned;
use task_board::TaskId;
use tokio::signal::unix::{SignalKind, signal};

/// How long the last coordinator has to finish everything: the tasks that never end take a second each.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a coordinator has to listen.
const LISTENS_WITHIN: Duration = Duration::from_secs(15);

/// What the command line says.
#[derive(Debug, Clone, Copy)]
struct Options {
    tasks: usize,
    kills: usize,
    seed: u64,
}

/// What must not be.
#[derive(Debug, Default)]
struct Findings {
    lost: Vec<String>,
    doubled: Vec<String>,
    leaked: Vec<String>,
}

impl Findings {
    fn is_clean(&self) -> bool {
        self.lost.is_empty() && self.doubled.is_empty() && self.leaked.is_empty()
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(fault) => {
            eprintln!("error: {fault}\nusage: chaos [--tasks N] [--kills K] [--seed S]");
            return ExitCode::from(2);
        }
    };
    let stopped = async {
        let (Ok(mut interrupt), Ok(mut terminate)) =
            (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            return;
        };
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
    };
    // Whatever ends the run drops the scene, and with it every process.
    let played = tokio::select! {
        played = run(options) => played,
        () = stopped => Err("stopped by a signal".into()),
    };
    let findings = match played {
        Ok(findings) => findings,
        Err(fault) => {
            eprintln!("error: {fault} (seed {})", options.seed);
            return ExitCode::FAILURE;
        }
    };
    for (what, found) in
        [("lost", &findings.lost), ("doubled", &findings.doubled), ("leaked", &findings.leaked)]
    {
        for line in found {
            eprintln!("{what}: {line}");
        }
    }
    #[expect(clippy::print_stdout, reason = "the one line that scripts read")]
    {
        let Options { tasks, kills, seed } = options;
        println!(
            "tasks={tasks} kills={kills} lost={} doubled={} leaked={} seed={seed}",
            findings.lost.len(),
            findings.doubled.len(),
            findings.leaked.len(),
        );
    }
    if findings.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn options(mut words: impl Iterator<Item = String>) -> Result<Options, Fault> {
    let mut options = Options { tasks: 100, kills: 50, seed: 1 };
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|text| text.parse::<u64>().ok());
        let value = number().ok_or_else(|| format!("{word} needs a number"))?;
        match word.as_str() {
            "--tasks" => options.tasks = usize::try_from(value)?,
            "--kills" => options.kills = usize::try_from(value)?,
            "--seed" => options.seed = value,
            _ => return Err(format!("{word} is not known").into()),
        }
    }
    Ok(options)
}

/// Plays and keeps the folder when something is wrong.
async fn run(options: Options) -> Result<Findings, Fault> {
    let samples = Path::new("host/wasm");
    let mut scene = Scene::start(samples).await?;
    let played = play(options, &scene).await;
    if !played.as_ref().is_ok_and(Findings::is_clean) {
        eprintln!("the folder of this run stays: {}", scene.keep().display());
    }
    played
}

/// One coordinator's short life.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// Its tasks are there before it is; it dies early.
    Start,
    /// Its tasks come at any time.
    Whenever,
    /// Its tasks come when it works, and it dies after this many milliseconds at the most.
    Work { from_ms: u64, to_ms: u64 },
}

/// Half of the lives end while what came last is on its way, some are long enough for a task that takes its second.
const MOMENTS: [Moment; 8] = [
    Moment::Start,
    Moment::Whenever,
    Moment::Whenever,
    Moment::Work { from_ms: 0, to_ms: 60 },
    Moment::Work { from_ms: 0, to_ms: 60 },
    Moment::Work { from_ms: 0, to_ms: 250 },
    Moment::Work { from_ms: 0, to_ms: 250 },
    Moment::Work { from_ms: 1000, to_ms: 1500 },
];

async fn play(options: Options, scene: &Scene) -> Result<Findings, Fault> {
    let began = Instant::now();
    let mut dice = Dice::new(options.seed);
    let mut plan: VecDeque<_> = mix::plan(scene, options.tasks, &mut dice)?.into();
    let mut sent = Sent::default();
    let mut witness = Witness::new(scene.anvil().pid())?;
    let seconds = mining(scene, options.seed).await?;
    eprintln!(
        "{} tasks, {} kills, seed {}; blocks {}; in {}",
        options.tasks,
        options.kills,
        options.seed,
        if seconds == 0 { "at once".to_owned() } else { format!("every {seconds} s") },
        scene.folder().display()
    );
    for round in 0..options.kills {
        let left = options.kills - round + 1;
        let portion: Vec<_> = plan.drain(..plan.len().div_ceil(left).min(plan.len())).collect();
        life(scene, portion, &mut sent, &mut dice, &mut witness).await?;
        if (round + 1) % 10 == 0 {
            let results = scene.logs(0).await?.published.len();
            eprintln!(
                "{:5.1} s: {} kills, {} tasks submitted, {results} results",
                began.elapsed().as_secs_f64(),
                round + 1,
                sent.all.len()
            );
        }
    }
    eprintln!(
        "{:5.1} s: the last coordinator; the kills found tasks {}",
        began.elapsed().as_secs_f64(),
        witness.found()
    );
    let mut last = coordinator(scene)?;
    sent.submit(scene, plan.into()).await?;
    sent.cancel(scene).await?;
    let mut findings = Findings::default();
    settle(scene, &sent, &mut last).await?;
    eprintln!("{:5.1} s: everything has settled; asking the chain", began.elapsed().as_secs_f64());
    let tasks = sent.tasks(scene).await?;
    audit::results(scene, &tasks, &mut findings).await?;
    audit::money(scene, &tasks, &mut findings).await?;
    audit::transactions(scene, &mut findings).await?;
    audit::recorded(scene, &tasks, &mut findings).await?;
    witness.look();
    match last.stop(Duration::from_secs(10)).await {
        Ok(took) => {
            eprintln!("{:5.1} s: stopped in {} ms", began.elapsed().as_secs_f64(), took.as_millis())
        }
        Err(fault) => findings.leaked.push(format!("process: {fault}")),
    }
    findings.leaked.extend(witness.processes().await);
    findings.leaked.extend(witness.cgroups());
    findings.leaked.extend(witness::files(scene, mix::blocks(&tasks))?);
    findings.leaked.extend(witness::rows(scene, false).await?);
    Ok(findings)
}

/// Mines at once or, with odd seeds, every second: answers the seconds.
async fn mining(scene: &Scene, seed: u64) -> Result<u64, Fault> {
    let seconds = seed % 2;
    if seconds > 0 {
        scene.anvil().rpc("evm_setIntervalMining", serde_json::json!([seconds])).await;
    }
    Ok(seconds)
}

/// Starts a coordinator, submits some tasks around that, and kills it.
async fn life(
    scene: &Scene,
    portion: Vec<Planned>,
    sent: &mut Sent,
    dice: &mut Dice,
    witness: &mut Witness,
) -> Result<(), Fault> {
    let daemon = match dice.one_of(&MOMENTS) {
        Moment::Start => {
            sent.submit(scene, portion).await?;
            let daemon = coordinator(scene)?;
            dice.pause(0, 400).await;
            daemon
        }
        Moment::Whenever => {
            let daemon = coordinator(scene)?;
            dice.pause(0, 250).await;
            sent.submit(scene, portion).await?;
            dice.pause(0, 600).await;
            daemon
        }
        Moment::Work { from_ms, to_ms } => {
            let mut daemon = coordinator(scene)?;
            listens(scene, &mut daemon).await?;
            sent.submit(scene, portion).await?;
            dice.pause(from_ms, to_ms).await;
            daemon
        }
    };
    sent.cancel(scene).await?;
    witness.look();
    daemon.kill_9().await?;
    witness.count(scene).await;
    Ok(())
}

/// A few places, so that tasks that never end do not keep all others from being seen in every state.
fn coordinator(scene: &Scene) -> Result<Daemon, Fault> {
    scene.coordinator_with(&[("COORDINATOR_CONCURRENCY", "4")])
}

async fn listens(scene: &Scene, daemon: &mut Daemon) -> Result<(), Fault> {
    let began = Instant::now();
    while scene.get("/healthz").await.is_none() {
        if daemon.ended()?.is_some() || began.elapsed() > LISTENS_WITHIN {
            return Err(format!("the coordinator does not listen\n{}", daemon.tail()).into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Waits until every result that is expected stands on chain and no task has a step left.
async fn settle(scene: &Scene, sent: &Sent, daemon: &mut Daemon) -> Result<(), Fault> {
    const SETTLED: [&str; 3] = ["final", "cancelled", "withheld"];
    listens(scene, daemon).await?;
    let began = Instant::now();
    loop {
        let tasks = sent.tasks(scene).await?;
        let logs = scene.logs(0).await?;
        let wanted = tasks.iter().filter(|(_, planned)| planned.is_published());
        let missing = wanted.filter(|(id, _)| !logs.published.contains_key(id)).count();
        let counts = scene.counts().await.unwrap_or_default();
        let seen: u64 = counts.values().sum();
        let busy: BTreeMap<_, _> = counts
            .iter()
            .filter(|(state, count)| **count > 0 && !SETTLED.contains(&state.as_str()))
            .collect();
        let read = scene.cursor().await.is_some_and(|cursor| cursor >= logs.last_block);
        let rests = missing == 0 && busy.is_empty() && read;
        // Nothing new can come from the chain now: what is left is to be applied, or left for ever.
        if rests
            && seen == u64::try_from(sent.all.len())?
            && witness::rows(scene, false).await.is_ok_and(|rows| rows.is_empty())
        {
            return Ok(());
        }
        if let Some(status) = daemon.ended()? {
            return Err(
                format!("the coordinator ended by itself: {status}\n{}", daemon.tail()).into()
            );
        }
        if began.elapsed() > PATIENCE {
            eprintln!("still {missing} results missing, tasks {busy:?}, {seen} seen");
            return Ok(()); // the audit says which
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What was submitted.
#[derive(Debug, Default)]
struct Sent {
    /// In the order of the transactions: the transaction and the task.
    all: Vec<(alloy::primitives::B256, Planned)>,
    /// How many of them were looked at for cancellation.
    cancelled: usize,
}

impl Sent {
    async fn submit(&mut self, scene: &Scene, portion: Vec<Planned>) -> Result<(), Fault> {
        for planned in portion {
            let transaction = scene.send(&planned.submission).await?;
            self.all.push((transaction, planned));
        }
        Ok(())
    }

    /// Cancels what is to be cancelled and is mined.
    async fn cancel(&mut self, scene: &Scene) -> Result<(), Fault> {
        if !self.all.iter().skip(self.cancelled).any(|(_, planned)| planned.cancels) {
            self.cancelled = self.all.len();
            return Ok(());
        }
        let ids: BTreeMap<_, _> =
            scene.logs(0).await?.submitted.into_iter().map(|(id, hash)| (hash, id)).collect();
        for (transaction, planned) in self.all.iter().skip(self.cancelled) {
            let Some(id) = ids.get(transaction) else { break };
            self.cancelled += 1;
            // One that is answered already cannot be cancelled any more.
            if planned.cancels && !scene.board().isClosed(id.get()).call().await? {
                let _ = scene.cancel(*id).await;
            }
        }
        Ok(())
    }

    /// The tasks with their ids.
    async fn tasks(&self, scene: &Scene) -> Result<Vec<(TaskId, &Planned)>, Fault> {
        let began = Instant::now();
        loop {
            let ids: BTreeMap<_, _> =
                scene.logs(0).await?.submitted.into_iter().map(|(id, hash)| (hash, id)).collect();
            let found: Vec<_> = self
                .all
                .iter()
                .filter_map(|(hash, planned)| Some((*ids.get(hash)?, planned)))
                .collect();
            if found.len() == self.all.len() {
                return Ok(found);
            }
            if began.elapsed() > Duration::from_secs(30) {
                return Err("a submission is not mined".into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
