//! What happens to the coordinator's process, and the operator who looks after it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use harness::{
    Daemon, Dice,
    scene::{Fault, Scene},
    witness::Witness,
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::watch;

use crate::{Options, Phase};

/// The code in `/readyz` that only an operator clears.
const VIOLATED: &str = "finality_violated";
/// How long the operator goes on asking.
const ACCEPTED_WITHIN: Duration = Duration::from_secs(90);
/// How long the operator's command may take.
const COMMAND_WITHIN: Duration = Duration::from_secs(60);
/// How long a coordinator has to end when it is asked to.
const STOPS_WITHIN: Duration = Duration::from_secs(10);
/// Ends of its own after which a run is given up.
const MOST_ENDS: usize = 20;
const TICK: Duration = Duration::from_millis(100);

/// The process and its operator.
#[derive(Debug)]
pub(crate) struct Fate<'a> {
    options: Options,
    scene: &'a Scene,
    url: String,
    dice: Dice,
    daemon: Option<Daemon>,
    http: reqwest::Client,
    pub(crate) injected: BTreeMap<&'static str, u64>,
}

impl<'a> Fate<'a> {
    pub(crate) fn new(options: Options, scene: &'a Scene, url: String) -> Self {
        Self {
            options,
            scene,
            url,
            dice: Dice::new(options.seed ^ 0x5eed),
            daemon: None,
            http: reqwest::Client::new(),
            injected: BTreeMap::new(),
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.injected.entry(what).or_default() += 1;
    }

    fn variables(&self) -> BTreeMap<String, String> {
        let mut variables = self.scene.environment();
        variables.insert("COORDINATOR_RPC_URL".to_owned(), self.url.clone());
        let confirmations = self.options.confirmations.to_string();
        variables.insert("COORDINATOR_CONFIRMATIONS".to_owned(), confirmations);
        variables
    }

    fn start(&mut self) -> Result<(), Fault> {
        self.daemon = Some(Daemon::start(&self.variables(), self.scene.folder())?);
        Ok(())
    }

    /// Keeps a coordinator running until the end; in the storm it is killed and stopped.
    pub(crate) async fn live(
        &mut self,
        phase: watch::Receiver<Phase>,
        witness: &mut Witness,
        broken: &mut Vec<String>,
    ) -> Result<(), Fault> {
        self.start()?;
        let mut next = self.next();
        let mut violated: Option<Instant> = None;
        let mut patience = Duration::ZERO;
        let mut ends = 0;
        loop {
            let now = *phase.borrow();
            if now == Phase::Over {
                return Ok(());
            }
            tokio::time::sleep(TICK).await;
            let ended = match &mut self.daemon {
                Some(daemon) => daemon.ended()?.map(|status| (status, daemon.tail())),
                None => None,
            };
            if let Some((status, tail)) = ended {
                let lines: Vec<_> = tail.lines().rev().take(5).collect();
                let said = lines.into_iter().rev().collect::<Vec<_>>().join("\n");
                broken.push(format!("the coordinator ended by itself: {status}\n{said}"));
                ends += 1;
                if ends > MOST_ENDS {
                    return Err("the coordinator ends again and again".into());
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
                self.start()?;
            }
            if now == Phase::Storm && Instant::now() > next {
                witness.look();
                if let Err(fault) = self.strike(&phase).await {
                    broken.push(fault.to_string());
                    self.start()?;
                }
                next = self.next();
            }
            match (self.is_violated().await, violated) {
                (false, _) => violated = None,
                (true, None) => {
                    self.count("times that the operator found finality violated");
                    violated = Some(Instant::now());
                    patience = Duration::from_millis(self.dice.between(1_000, 8_000));
                }
                (true, Some(since)) if since.elapsed() > patience => {
                    match self.accept().await? {
                        Ok(()) => {
                            self.count("branches that the operator accepted");
                            violated = None;
                        }
                        // The coordinator was killed meanwhile, or does not reach its chain: once more.
                        Err(_) if since.elapsed() < ACCEPTED_WITHIN => {
                            self.count("commands of the operator that were to be repeated");
                            patience = since.elapsed() + Duration::from_secs(2);
                        }
                        Err(why) => {
                            broken.push(why);
                            violated = None;
                        }
                    }
                }
                (true, Some(_)) => {}
            }
        }
    }

    fn next(&mut self) -> Instant {
        Instant::now() + Duration::from_millis(self.dice.between(4_000, 30_000))
    }

    /// Kills the coordinator, or stops it for a while.
    async fn strike(&mut self, phase: &watch::Receiver<Phase>) -> Result<(), Fault> {
        let Some(daemon) = self.daemon.take() else { return self.start() };
        if self.dice.falls(550) {
            daemon.kill_9().await?;
            self.count("kill -9");
            self.dice.pause(0, 3_000).await;
            return self.start();
        }
        let pid = daemon.pid().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        self.daemon = Some(daemon);
        let Some(pid) = pid else { return Ok(()) };
        let longest = if self.dice.falls(250) { 45_000 } else { 10_000 };
        kill_process(pid, Signal::STOP)?;
        self.count("SIGSTOP, later SIGCONT");
        let until = Instant::now() + Duration::from_millis(self.dice.between(500, longest));
        while Instant::now() < until && *phase.borrow() == Phase::Storm {
            tokio::time::sleep(TICK).await;
        }
        kill_process(pid, Signal::CONT)?;
        Ok(())
    }

    /// Whether the coordinator says that a finality which it relied on is gone.
    async fn is_violated(&self) -> bool {
        let url = format!("{}/readyz", self.scene.api_url());
        let answer = self.http.get(url).timeout(Duration::from_secs(2)).send().await;
        match answer {
            Ok(answer) => answer.text().await.is_ok_and(|text| text.contains(VIOLATED)),
            Err(_) => false,
        }
    }

    /// What the operator does then, as the documentation says.
    async fn accept(&self) -> Result<Result<(), String>, Fault> {
        let mut command = harness::command(&self.variables())?;
        command.args(["chain", "accept"]).current_dir(self.scene.folder());
        let output = match tokio::time::timeout(COMMAND_WITHIN, command.output()).await {
            Ok(output) => output?,
            Err(_) => return Ok(Err(format!("`chain accept` takes more than {COMMAND_WITHIN:?}"))),
        };
        if output.status.success() {
            return Ok(Ok(()));
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Ok(Err(format!("`chain accept` failed: {}\n{said}", output.status)))
    }

    /// Asks the coordinator to end; answers what is wrong with that.
    pub(crate) async fn stop(&mut self) -> Option<String> {
        let stopped = match self.daemon.take() {
            Some(daemon) => daemon.stop(STOPS_WITHIN).await,
            None => Err("there is no coordinator".into()),
        };
        stopped.err().map(|fault| format!("process: {fault}"))
    }
}
