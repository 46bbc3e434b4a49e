//! A coordinator's process, from its start to its end.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::scene::Fault;

/// A running coordinator. It is killed when this goes.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

/// Where one of our two programs is: named by `COORDINATOR_BIN` or `EXECUTOR_BIN`, else beside this one or in a folder
/// above it, as cargo lays them out.
///
/// # Errors
/// When it is nowhere.
pub fn binary(name: &str) -> Result<PathBuf, Fault> {
    if let Some(path) = std::env::var_os(format!("{}_BIN", name.to_uppercase())) {
        return Ok(path.into());
    }
    let own = std::env::current_exe()?;
    let found =
        own.ancestors().skip(1).take(3).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| format!("there is no program `{name}` near {}", own.display()).into())
}

/// A command of the coordinator with nothing in its environment but these variables.
///
/// # Errors
/// When there is no binary.
pub fn command(variables: &BTreeMap<String, String>) -> Result<Command, Fault> {
    let mut command = Command::new(binary("coordinator")?);
    command.env_clear().env("COORDINATOR_EXECUTOR", binary("executor")?).envs(variables);
    command.stdin(Stdio::null()).kill_on_drop(true);
    Ok(command)
}

impl Daemon {
    /// Starts `coordinator serve` in `folder`; its stderr goes to the end of `coordinator.log` there.
    ///
    /// # Errors
    /// When there is no binary or it cannot be started.
    pub fn start(variables: &BTreeMap<String, String>, folder: &Path) -> Result<Self, Fault> {
        let log = folder.join("coordinator.log");
        let output: File = OpenOptions::new().create(true).append(true).open(&log)?;
        let child = command(variables)?
            .arg("serve")
            .current_dir(folder)
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        Ok(Self { child, log })
    }

    /// Its process id; none once it has ended.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// When that cannot be asked.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>, Fault> {
        Ok(self.child.try_wait()?)
    }

    /// Kills it with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    /// When it had ended by itself.
    pub async fn kill_9(mut self) -> Result<(), Fault> {
        if let Some(status) = self.ended()? {
            return Err(
                format!("the coordinator had ended by itself: {status}\n{}", self.tail()).into()
            );
        }
        self.child.kill().await?;
        Ok(())
    }

    /// Asks it to stop (SIGTERM) and answers how long that took.
    ///
    /// # Errors
    /// When it does not stop within `patience`, or not with exit code 0.
    pub async fn stop(mut self, patience: Duration) -> Result<Duration, Fault> {
        let began = Instant::now();
        let pid = self.pid().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        kill_process(pid.ok_or("the coordinator had ended by itself")?, Signal::TERM)?;
        match tokio::time::timeout(patience, self.child.wait()).await {
            Ok(status) if status.as_ref().is_ok_and(ExitStatus::success) => Ok(began.elapsed()),
            Ok(status) => {
                Err(format!("the coordinator ended with {:?}\n{}", status?, self.tail()).into())
            }
            Err(_) => Err(format!("the coordinator does not stop\n{}", self.tail()).into()),
        }
    }

    /// The last lines of its log.
    #[must_use]
    pub fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines.get(lines.len().saturating_sub(30)..).unwrap_or_default().join("\n")
    }
}
