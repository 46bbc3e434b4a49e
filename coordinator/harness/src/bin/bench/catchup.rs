//! A coordinator that was away for a hundred thousand events, beside a reader that only pages and decodes.

use std::time::{Duration, Instant};

use alloy::{
    eips::BlockNumberOrTag,
    primitives::{Address, B256},
    providers::Provider as _,
    rpc::types::Filter,
    sol_types::SolEvent as _,
};
use harness::scene::{Fault, Scene};
use task_board::{
    DigestBatch, DigestRecord, Header, Submission, TaskBoard, TaskId, decode_submitted,
};

use crate::memory::{self, Memory};

/// Events of a block.
const IN_A_BLOCK: usize = 20;
/// Blocks of a page, as the coordinator asks for at most.
const PAGE: u64 = 2_000;
/// Another coordinator, which has answered everything.
const OTHER: usize = 3;

/// What was measured.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) events: usize,
    pub(crate) blocks: u64,
    pub(crate) raw: Duration,
    /// With every task taken, and found answered.
    pub(crate) taken: (Duration, Memory),
    /// With no task taken: they are of a domain that this coordinator does not answer.
    pub(crate) passed: (Duration, Memory),
}

/// Has a chain with that many events, half of them submissions and half results, read in three ways.
pub(crate) async fn measure(events: usize) -> Result<Measured, Fault> {
    let scene = crate::scene().await?;
    let owner = scene.anvil().address(0);
    let other = scene.anvil().address(OTHER);
    let right = scene.board().setCoordinator(0, other, true).from(owner).send().await?;
    scene.mined(*right.tx_hash()).await?;
    let began = Instant::now();
    for round in 0..events / IN_A_BLOCK / 2 {
        answered(&scene, other, round).await?;
    }
    let head = scene.board().provider().get_block_number().await?;
    // What is to be confirmed needs a block on top.
    scene.anvil().mine(2).await;
    eprintln!("{events} events in {head} blocks after {:.1} s", began.elapsed().as_secs_f64());
    let raw = raw(&scene, head).await?;
    eprintln!("raw paging: {:.2} s", raw.as_secs_f64());
    let taken = caught_up(&scene, head, "0", "taken").await?;
    eprintln!("with every task taken: {:.2} s", taken.0.as_secs_f64());
    let passed = caught_up(&scene, head, "1", "passed").await?;
    eprintln!("with no task taken: {:.2} s", passed.0.as_secs_f64());
    Ok(Measured { events, blocks: head, raw, taken, passed })
}

/// A block with submissions, and one with their results.
async fn answered(scene: &Scene, other: Address, round: usize) -> Result<(), Fault> {
    let submissions = (0..IN_A_BLOCK).map(|at| crate::fib(scene, round * IN_A_BLOCK + at));
    let submissions = submissions.collect::<Result<Vec<_>, _>>()?;
    let requests = submissions.iter().map(Submission::encode).collect::<Result<Vec<_>, _>>()?;
    let sent = scene.board().submitBatch(requests).from(scene.client()).send().await?;
    let receipt = scene.mined(*sent.tx_hash()).await?;
    let records = receipt.logs().iter().map(|log| {
        let header = Header::of(log.topics(), &log.data().data)?;
        Ok::<_, Fault>(DigestRecord {
            id: header.id,
            tag: header.tag(),
            status: 1,
            again: false,
            digest: B256::repeat_byte(7),
        })
    });
    let packed = DigestBatch { engine: 1, records: records.collect::<Result<_, _>>()? }.encode();
    let head = scene.board().provider().get_block_by_number(BlockNumberOrTag::Latest).await?;
    let head = head.ok_or("the chain has no head")?.header;
    let call = scene
        .board()
        .publishDigests(packed.into(), alloy::primitives::U256::from(head.number), head.hash)
        .gas(2_000_000)
        .from(other);
    scene.mined(*call.send().await?.tx_hash()).await?;
    Ok(())
}

/// Pages through the logs and decodes them, and does nothing with them.
async fn raw(scene: &Scene, head: u64) -> Result<Duration, Fault> {
    let topics = vec![TaskBoard::Submitted::SIGNATURE_HASH, TaskBoard::Published::SIGNATURE_HASH];
    let began = Instant::now();
    let mut decoded = 0;
    let mut from = 0;
    while from <= head {
        let filter =
            Filter::new().address(*scene.board().address()).event_signature(topics.clone());
        let filter = filter.from_block(from).to_block((from + PAGE - 1).min(head));
        for log in scene.board().provider().get_logs(&filter).await? {
            let id = match log.topic0() {
                Some(topic) if *topic == TaskBoard::Submitted::SIGNATURE_HASH => {
                    decode_submitted(log.topics(), &log.data().data)?.id
                }
                _ => TaskId::new(log.log_decode::<TaskBoard::Published>()?.inner.id),
            };
            decoded += usize::from(id.sequence() > 0);
        }
        from += PAGE;
    }
    eprintln!("{decoded} logs decoded");
    Ok(began.elapsed())
}

/// Time from the start of a coordinator that knows nothing to its cursor at the head, and its memory.
async fn caught_up(
    scene: &Scene,
    head: u64,
    domains: &str,
    folder: &str,
) -> Result<(Duration, Memory), Fault> {
    let data = scene.folder().join(folder).display().to_string();
    let mut variables = scene.environment();
    // It only reads: nothing of its own may be in the way.
    variables.remove("COORDINATOR_KEY");
    variables.insert("COORDINATOR_DATA_DIR".to_owned(), data);
    variables.insert("COORDINATOR_DOMAINS".to_owned(), domains.to_owned());
    let began = Instant::now();
    let mut daemon = harness::Daemon::start(&variables, scene.folder())?;
    while scene.cursor().await.is_none_or(|cursor| cursor < head) {
        if daemon.ended()?.is_some() || began.elapsed() > crate::PATIENCE {
            return Err(format!("the coordinator does not catch up\n{}", daemon.tail()).into());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let took = began.elapsed();
    let memory = memory::of(&daemon)?;
    daemon.stop(Duration::from_secs(30)).await?;
    Ok((took, memory))
}
