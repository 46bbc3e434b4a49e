//! Memory of the coordinator's own process; what it starts is not counted.

use std::time::{Duration, Instant};

use harness::{Daemon, scene::Fault};
use task_board::Submission;

/// Resident memory as the kernel counts it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) peak_mib: f64,
    pub(crate) now_mib: f64,
}

/// Has a coordinator with one place see this many tasks that take long, and measures it when all but one wait with
/// their content fetched.
pub(crate) async fn with_queued(tasks: usize) -> Result<Memory, Fault> {
    let scene = crate::scene().await?;
    let endless = Submission {
        entry: Some("loop".to_owned()),
        timeout_s: 300,
        fuel: 1_000_000_000_000,
        ..scene.wasm("loop.wasm", None)?
    };
    scene.submit(&vec![endless; tasks]).await?;
    let daemon = crate::coordinator(&scene, &[("COORDINATOR_CONCURRENCY", "1")]).await?;
    let began = Instant::now();
    let mut told = Instant::now();
    loop {
        let counts = scene.counts().await.unwrap_or_default();
        let of = |state| counts.get(state).copied().unwrap_or(0);
        let waiting = of("ready") + of("running");
        if waiting == u64::try_from(tasks)? {
            break;
        }
        if told.elapsed() > Duration::from_secs(5) {
            told = Instant::now();
            eprintln!("{:.0} s: {counts:?}", began.elapsed().as_secs_f64());
        }
        if began.elapsed() > crate::PATIENCE {
            return Err(format!("the tasks are not queued: {counts:?}\n{}", daemon.tail()).into());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    eprintln!("{tasks} tasks wait after {:.1} s", began.elapsed().as_secs_f64());
    let memory = of(&daemon);
    daemon.stop(Duration::from_secs(10)).await?;
    memory
}

/// The memory of a coordinator.
pub(crate) fn of(daemon: &Daemon) -> Result<Memory, Fault> {
    let pid = daemon.pid().ok_or("the coordinator has ended")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let mib = |name: &str| -> Option<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim_start_matches(':').split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
    };
    match (mib("VmHWM"), mib("VmRSS")) {
        (Some(peak_mib), Some(now_mib)) => Ok(Memory { peak_mib, now_mib }),
        _ => Err("the kernel does not say how much memory a process has".into()),
    }
}
