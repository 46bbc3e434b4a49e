//! What the same work costs without a coordinator: a transaction by itself, an executor by itself.

use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use alloy::{eips::BlockNumberOrTag, primitives::U256, providers::Provider as _};
use harness::{binary, scene::Fault};
use task_board::Answer;
use tokio::{process::Command, task::JoinSet};

/// Times from sending a raw `publishDocument` to its receipt.
pub(crate) async fn publications(count: usize) -> Result<Vec<Duration>, Fault> {
    let scene = crate::scene().await?;
    let submissions = vec![crate::fib(&scene, 12)?; count];
    let ids = scene.submit(&submissions).await?;
    let document = br#"{"status":"ok","value":144}"#;
    let mut times = Vec::with_capacity(count);
    for id in ids {
        let head = scene.board().provider().get_block_by_number(BlockNumberOrTag::Latest).await?;
        let head = head.ok_or("the chain has no head")?.header;
        let answer = Answer { id, tag: scene.tag(id).await?, engine: 1, status: 1, again: false };
        let call = scene
            .board()
            .publishDocument(answer.pack(), document.into(), U256::from(head.number), head.hash)
            .gas(200_000)
            .from(scene.publisher());
        let began = Instant::now();
        scene.mined(*call.send().await?.tx_hash()).await?;
        times.push(began.elapsed());
    }
    Ok(times)
}

/// Times of a bare executor from its start to its end.
pub(crate) async fn runs(count: usize) -> Result<Vec<Duration>, Fault> {
    let folder = tempfile::tempdir()?;
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let began = Instant::now();
        execute(folder.path()).await?;
        times.push(began.elapsed());
    }
    Ok(times)
}

/// How many bare executors end in a second when each core has one.
pub(crate) async fn runs_per_second(count: usize) -> Result<f64, Fault> {
    let folder = tempfile::tempdir()?;
    let began = Instant::now();
    let mut workers = JoinSet::new();
    let cores = std::thread::available_parallelism()?.get();
    for worker in 0..cores {
        let path = folder.path().join(worker.to_string());
        std::fs::create_dir(&path)?;
        let share = count / cores;
        workers.spawn(async move {
            for _ in 0..share {
                execute(&path).await?;
            }
            Ok::<usize, Fault>(share)
        });
    }
    let mut done = 0;
    while let Some(worker) = workers.join_next().await {
        done += worker??;
    }
    Ok(done as f64 / began.elapsed().as_secs_f64())
}

async fn execute(folder: &Path) -> Result<(), Fault> {
    let output = Command::new(binary("executor")?)
        .arg("run")
        .env_clear()
        .env("WASM_PATH", "host/wasm/fib.wasm")
        .env("INPUT_PATH", "host/wasm/fib-input.json")
        .env("OUTPUT_PATH", folder.join("result.json"))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    if output.stdout != b"{\"status\":\"ok\",\"value\":144}\n" {
        return Err(format!("the executor said {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(())
}
