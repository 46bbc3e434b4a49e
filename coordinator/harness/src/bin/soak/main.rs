//! A coordinator in the worst weather: behind one address with nodes that are never at the same block and that fail in
//! every way, on a chain that undoes blocks deeper than anybody waits, killed and stopped while requesters submit and
//! cancel. In the end the weather is good, and an oracle that reads the chain by itself says what came of it.
//!
//! `soak --minutes M --rate R --seed S`: progress and what happened on stderr; the one line on stdout is
//! `tasks=N results=N ... lost=0 doubled=0 wrong=0 leaked=0 seed=S`, and the exit code is 0 only when all findings are 0.

mod content;
mod fate;
mod oracle;
mod requester;
mod world;

use std::{
    collections::BTreeMap,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use fate::Fate;
use harness::{
    balancer::{Balancer, Weather},
    scene::{Fault, Scene},
    witness::{self, Witness},
};
use oracle::{Judgement, Oracle};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use world::World;

/// What the command line says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    minutes: f64,
    rate: f64,
    seed: u64,
    confirmations: u64,
    /// Mean time between two blocks.
    block_ms: u64,
    /// How many blocks in a thousand are followed by a change of the branch.
    reorg_permille: u64,
    /// How long the coordinator has to finish everything once the weather is good.
    quiet_s: u64,
    /// How much of what goes wrong between coordinator and nodes does so, in percent.
    trouble: u64,
}

const USAGE: &str = "usage: soak [--minutes M] [--rate TASKS-A-SECOND] [--seed S] [--confirmations N] \
                     [--block-ms MS] [--reorgs PERMILLE] [--quiet SECONDS] [--trouble PERCENT]";

/// How the run goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Everything happens.
    Storm,
    /// Nothing happens but blocks.
    Quiet,
    /// It has ended.
    Over,
}

/// What must not be.
#[derive(Debug, Default)]
struct Findings {
    judgement: Judgement,
    leaked: Vec<String>,
    /// Ends that the coordinator came to by itself, and commands that did not do what they say.
    broken: Vec<String>,
}

impl Findings {
    fn kinds(&self) -> [(&'static str, &[String]); 5] {
        [
            ("lost", &self.judgement.lost),
            ("doubled", &self.judgement.doubled),
            ("wrong", &self.judgement.wrong),
            ("leaked", &self.leaked),
            ("broken", &self.broken),
        ]
    }

    fn is_clean(&self) -> bool {
        self.kinds().iter().all(|(_, found)| found.is_empty())
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(fault) => {
            eprintln!("error: {fault}\n{USAGE}");
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
    for (what, found) in findings.kinds() {
        for line in found.iter().take(50) {
            eprintln!("{what}: {line}");
        }
        if found.len() > 50 {
            eprintln!("{what}: and {} more", found.len() - 50);
        }
    }
    #[expect(clippy::print_stdout, reason = "the one line that scripts read")]
    {
        let Judgement { tasks, results, cancelled, expired, .. } = findings.judgement;
        let counts = findings.kinds().map(|(what, found)| format!("{what}={}", found.len()));
        println!(
            "tasks={tasks} results={results} cancelled={cancelled} expired={expired} {} seed={}",
            counts.join(" "),
            options.seed
        );
    }
    if findings.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn options(mut words: impl Iterator<Item = String>) -> Result<Options, Fault> {
    let mut options = Options {
        minutes: 1.0,
        rate: 10.0,
        seed: 1,
        confirmations: 4,
        block_ms: 1_000,
        reorg_permille: 80,
        quiet_s: 180,
        trouble: 100,
    };
    while let Some(word) = words.next() {
        let text = words.next().unwrap_or_default();
        let wrong = || format!("{word} needs a number");
        let whole = || text.parse::<u64>().map_err(|_| wrong());
        let real = || {
            let number = text.parse::<f64>().map_err(|_| wrong())?;
            if number.is_finite() && number >= 0.0 { Ok(number) } else { Err(wrong()) }
        };
        match word.as_str() {
            "--minutes" => options.minutes = real()?,
            "--rate" => options.rate = real()?,
            "--seed" => options.seed = whole()?,
            "--confirmations" => options.confirmations = whole()?.max(1),
            "--block-ms" => options.block_ms = whole()?.max(2),
            "--reorgs" => options.reorg_permille = whole()?,
            "--quiet" => options.quiet_s = whole()?,
            "--trouble" => options.trouble = whole()?,
            _ => return Err(format!("{word} is not known").into()),
        }
    }
    Ok(options)
}

/// Plays and keeps the folder when something is wrong.
async fn run(options: Options) -> Result<Findings, Fault> {
    let mut scene = Scene::start(Path::new("host/wasm")).await?;
    let played = play(options, &scene).await;
    if !played.as_ref().is_ok_and(Findings::is_clean) {
        eprintln!("the folder of this run stays: {}", scene.keep().display());
    }
    played
}

async fn play(options: Options, scene: &Scene) -> Result<Findings, Fault> {
    let began = Instant::now();
    let balancer = Balancer::start(&scene.anvil().url(), options.seed).await?;
    let mut world = World::begin(options, scene, &balancer).await?;
    let mut findings = Findings::default();
    let mut witness = Witness::new(scene.anvil().pid())?;
    let mut fate = Fate::new(options, scene, balancer.url());
    let mut oracle = Oracle::new(scene);
    let (phase, phases) = watch::channel(Phase::Storm);
    let (unmined, waiting) = watch::channel(0);
    balancer.set(Weather::storm(options.trouble));
    eprintln!("{options:?}, in {}", scene.folder().display());

    let storm = Duration::from_secs_f64(options.minutes * 60.0);
    let weather = async {
        let mut told = 0;
        while began.elapsed() < storm {
            tokio::time::sleep(Duration::from_secs(1).min(storm.saturating_sub(began.elapsed())))
                .await;
            if began.elapsed().as_secs() / 30 > told {
                told = began.elapsed().as_secs() / 30;
                progress(began, scene).await;
            }
        }
        balancer.set(Weather::default());
        phase.send_replace(Phase::Quiet);
        let settled = settle(options, began, scene, waiting).await;
        phase.send_replace(Phase::Over);
        settled
    };
    let (turned, lived, settled) = tokio::join!(
        world.turn(phases.clone(), &unmined),
        fate.live(phases.clone(), &mut witness, &mut findings.broken),
        weather,
    );
    turned?;
    lived?;
    findings.broken.extend(settled?);

    // The chain is at rest, the coordinator still answers.
    let mut judgement = oracle.judge(&world.content).await?;
    silent(scene, &mut judgement).await?;
    witness.look();
    findings.leaked.extend(fate.stop().await);
    findings.leaked.extend(witness.processes().await);
    findings.leaked.extend(witness.cgroups());
    findings.leaked.extend(witness::files(scene, world.content.blocks())?);
    findings.leaked.extend(witness::rows(scene, true).await?);
    // What was cancelled and not answered goes back to whom it belongs.
    let cancelled: Vec<_> =
        judgement.open.iter().filter(|open| open.cancelled_at_s.is_some()).cloned().collect();
    world.expire(&cancelled).await?;
    let silent = judgement.silent.len();
    let lost = std::mem::take(&mut judgement.lost);
    judgement = oracle.judge(&world.content).await?;
    judgement.lost.extend(lost.into_iter().filter(|line| line.contains("(silent)")));
    let accounts: Vec<_> = world.requesters.iter().map(|one| one.address()).collect();
    oracle.balance(&mut judgement, accounts.into_iter()).await?;
    report(began, &world, &balancer, &fate, &judgement, silent);
    findings.judgement = judgement;
    Ok(findings)
}

async fn progress(began: Instant, scene: &Scene) {
    let counts: Vec<_> = scene.counts().await.unwrap_or_default().into_iter().collect();
    let counts: Vec<_> = counts
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(state, count)| format!("{state} {count}"))
        .collect();
    let cursor = scene.cursor().await;
    let now = began.elapsed().as_secs();
    match cursor {
        Some(cursor) => eprintln!("{now:5} s: cursor {cursor}, tasks {}", counts.join(", ")),
        None => eprintln!("{now:5} s: nobody listens"),
    }
}

/// Waits until everything is mined and the coordinator has no step left, or its time is over: that is a finding.
async fn settle(
    options: Options,
    began: Instant,
    scene: &Scene,
    waiting: watch::Receiver<usize>,
) -> Result<Vec<String>, Fault> {
    const SETTLED: [&str; 3] = ["final", "cancelled", "withheld"];
    let quiet = Instant::now();
    let bound = Duration::from_secs(options.quiet_s);
    let node = harness::rpc::Rpc::new(&scene.anvil().url());
    let mut last_mined = None;
    loop {
        let head = node.number("eth_blockNumber", serde_json::json!([])).await?;
        let unmined = *waiting.borrow();
        if unmined > 0 {
            last_mined = None;
        }
        let mined = *last_mined.get_or_insert(head + 2);
        let counts = scene.counts().await;
        let cursor = scene.cursor().await.unwrap_or_default();
        let busy: BTreeMap<_, _> = counts
            .clone()
            .unwrap_or_default()
            .into_iter()
            .filter(|(state, count)| *count > 0 && !SETTLED.contains(&state.as_str()))
            .collect();
        let read = unmined == 0 && head >= mined && cursor >= mined;
        if counts.is_some()
            && busy.is_empty()
            && read
            && witness::rows(scene, true).await.is_ok_and(|rows| rows.is_empty())
        {
            eprintln!(
                "{:5} s: everything has settled, {} s after the storm",
                began.elapsed().as_secs(),
                quiet.elapsed().as_secs()
            );
            return Ok(Vec::new());
        }
        if quiet.elapsed() > bound {
            let rows = witness::rows(scene, true).await.unwrap_or_else(|why| vec![why.to_string()]);
            let shown = rows.iter().take(10).cloned().collect::<Vec<_>>().join("; ");
            return Ok(vec![format!(
                "not settled {} s after the storm: head {head}, cursor {cursor}, {unmined} submissions not mined, \
                 tasks {busy:?}, {} rows: {shown}",
                quiet.elapsed().as_secs(),
                rows.len()
            )]);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Free tasks whose rejection is not on chain: their coordinator has to say so when it is asked.
async fn silent(scene: &Scene, judgement: &mut Judgement) -> Result<(), Fault> {
    for (id, codes) in &judgement.silent {
        let answer = scene.api(&format!("/api/v1/tasks/{id}")).await?.unwrap_or_default();
        let [state, status, code] = ["/state", "/outcome/status", "/outcome/code"].map(|place| {
            answer.pointer(place).and_then(|value| value.as_str()).unwrap_or_default()
        });
        if state != "final" || status != "rejected" || !codes.contains(&code) {
            judgement.lost.push(format!(
                "task {id} is {state} {status} {code}, not rejected with one of {codes:?} (silent)"
            ));
        }
    }
    Ok(())
}

fn report(
    began: Instant,
    world: &World<'_>,
    balancer: &Balancer,
    fate: &Fate<'_>,
    judgement: &Judgement,
    silent: usize,
) {
    eprintln!("{:5} s: over. What happened:", began.elapsed().as_secs());
    let happened = [&world.injected, &balancer.injected(), &fate.injected];
    for (what, count) in happened.into_iter().flatten() {
        eprintln!("{count:9} {what}");
    }
    eprintln!(
        "{:9} tasks submitted, {} of them on the chain that is left: {} results, {} cancelled, {} expired, \
         {silent} rejected without a word on chain; {} publications in vain",
        world.submitted,
        judgement.tasks,
        judgement.results,
        judgement.cancelled,
        judgement.expired,
        judgement.in_vain
    );
}
