//! The chain and those who use it: makes blocks, undoes them, and has requesters submit and cancel.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use alloy::primitives::{B256, U256};
use harness::{
    Dice,
    balancer::{Balancer, Block},
    rpc::{Rpc, quantity},
    scene::{Fault, Scene},
};
use serde_json::{Value, json};
use task_board::Header;

use crate::{
    Options, Phase,
    content::Content,
    oracle::{Open, call, topics_and_data},
    requester::{Call, Requester},
};

/// How many accounts ask for work.
const REQUESTERS: usize = 8;

/// Everything but the coordinator.
#[derive(Debug)]
pub(crate) struct World<'a> {
    options: Options,
    scene: &'a Scene,
    node: Rpc,
    balancer: &'a Balancer,
    pub(crate) content: Content,
    pub(crate) requesters: Vec<Requester>,
    dice: Dice,
    /// No block up to this one is ever undone.
    floor: u64,
    pub(crate) submitted: u64,
    pub(crate) injected: BTreeMap<&'static str, u64>,
}

/// What becomes of an account's transactions in blocks that are undone.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// All of them are in the new blocks.
    Kept,
    /// Some are; the rest comes later, if its account sends it again.
    Dropped,
    /// Some are; in place of the rest the account asks for something else.
    Replaced,
}

impl<'a> World<'a> {
    /// Lays out content, gives the requesters money, and makes so many blocks that none of that can be undone.
    pub(crate) async fn begin(
        options: Options,
        scene: &'a Scene,
        balancer: &'a Balancer,
    ) -> Result<Self, Fault> {
        let mut dice = Dice::new(options.seed);
        let node = Rpc::new(&scene.anvil().url());
        node.call("evm_setAutomine", json!([false])).await?;
        let chain_id = node.number("eth_chainId", json!([])).await?;
        let content = Content::lay_out(scene, &mut dice)?;
        let board = *scene.board().address();
        let requesters = (0..REQUESTERS).map(|_| Requester::new(&mut dice, chain_id, board));
        let requesters = requesters.collect::<Result<Vec<_>, _>>()?;
        for requester in &requesters {
            let wei = format!("{:#x}", U256::from(10).pow(U256::from(21)));
            node.call("anvil_setBalance", json!([requester.address(), wei])).await?;
        }
        node.call("anvil_mine", json!([3 * options.confirmations + 2])).await?;
        let floor = node.number("eth_blockNumber", json!([])).await?;
        balancer.look().await?;
        Ok(Self {
            options,
            scene,
            node,
            balancer,
            content,
            requesters,
            dice,
            floor,
            submitted: 0,
            injected: BTreeMap::new(),
        })
    }

    fn count(&mut self, what: &'static str, number: u64) {
        *self.injected.entry(what).or_default() += number;
    }

    /// Makes blocks until the phase is the last one; storms in the first.
    pub(crate) async fn turn(
        &mut self,
        mut phase: tokio::sync::watch::Receiver<Phase>,
        unmined: &tokio::sync::watch::Sender<usize>,
    ) -> Result<(), Fault> {
        let mut told = Instant::now();
        let mut owed = 0.0;
        loop {
            let now = *phase.borrow_and_update();
            if now == Phase::Over {
                return Ok(());
            }
            let pause = self.dice.between(self.options.block_ms / 2, self.options.block_ms * 3 / 2);
            let pause = Duration::from_millis(pause);
            let end = Instant::now() + pause;
            if now == Phase::Storm {
                owed += self.options.rate * told.elapsed().as_secs_f64();
                told = Instant::now();
                owed = self.submit(owed).await?;
                if self.dice.falls(300) {
                    self.cancel().await?;
                }
            }
            let mut waiting = 0;
            for requester in &mut self.requesters {
                waiting += requester.send(&self.node).await?;
            }
            unmined.send_replace(waiting);
            if now == Phase::Storm {
                self.lose_transactions().await?;
            }
            self.mine().await?;
            if now == Phase::Storm && self.dice.falls(self.options.reorg_permille) {
                self.change_branch().await?;
            }
            tokio::time::sleep(end.saturating_duration_since(Instant::now())).await;
        }
    }

    async fn mine(&self) -> Result<(), Fault> {
        self.node.call("evm_mine", json!([])).await?;
        self.balancer.look().await?;
        Ok(())
    }

    /// Submits so many tasks, most of them one by one; answers what is left of them.
    async fn submit(&mut self, mut owed: f64) -> Result<f64, Fault> {
        while owed >= 1.0 {
            let many = if self.dice.falls(50) { self.dice.between(2, 12) } else { 1 };
            let call = self.submission(many)?;
            let index = usize::try_from(self.dice.below(REQUESTERS as u64))?;
            let requester = self.requesters.get_mut(index).ok_or("there is no such requester")?;
            requester.add(&call)?;
            self.submitted += many;
            owed -= many as f64;
        }
        Ok(owed)
    }

    fn submission(&mut self, tasks: u64) -> Result<Call, Fault> {
        let submissions = (0..tasks).map(|_| self.content.any(&mut self.dice));
        Call::submit(&submissions.collect::<Result<Vec<_>, _>>()?)
    }

    /// Cancels a task of the last few blocks, for the one who asked for it.
    async fn cancel(&mut self) -> Result<(), Fault> {
        let line = self.balancer.line().await?;
        let recent = line.iter().rev().take(8).flat_map(|block| &block.logs);
        let recent: Vec<_> = recent
            .filter_map(|log| {
                let (topics, data) = topics_and_data(log)?;
                Header::of(&topics, &data).ok()
            })
            .collect();
        if recent.is_empty() {
            return Ok(());
        }
        let header = self.dice.one_of(&recent);
        let requester = self.requesters.iter_mut().find(|one| one.address() == header.requester);
        if let Some(requester) = requester {
            requester.add(&cancellation(&header))?;
            let kept = header.id.is_kept();
            self.count(if kept { "cancellations of kept tasks" } else { "cancellations" }, 1);
        }
        Ok(())
    }

    /// Has the node forget a transaction of the coordinator that waits.
    async fn lose_transactions(&mut self) -> Result<(), Fault> {
        if !self.dice.falls(50) {
            return Ok(());
        }
        let pool = self.node.call("txpool_content", json!([])).await?;
        let publisher = self.scene.publisher().to_string().to_lowercase();
        let of = |kind: &str| -> Vec<String> {
            let accounts = pool.get(kind).and_then(Value::as_object);
            let own = accounts.into_iter().flatten();
            let own = own.filter(|(account, _)| account.to_lowercase() == publisher);
            own.filter_map(|(_, nonces)| nonces.as_object())
                .flat_map(|nonces| nonces.values())
                .filter_map(|found| Some(found.get("hash")?.as_str()?.to_owned()))
                .collect()
        };
        for hash in [of("pending"), of("queued")].concat() {
            if self.dice.falls(500) {
                self.node.answer("anvil_dropTransaction", &json!([hash])).await?;
                self.count("publications forgotten by the node", 1);
            }
        }
        Ok(())
    }

    /// Undoes the newest blocks, and puts others in their place.
    async fn change_branch(&mut self) -> Result<(), Fault> {
        let confirmations = self.options.confirmations;
        let deep = self.dice.falls(400);
        let wanted = match deep {
            true => self.dice.between(confirmations + 1, 3 * confirmations),
            false => self.dice.between(1, confirmations),
        };
        let line = self.balancer.line().await?;
        let head = line.last().map_or(0, |block| block.number);
        let depth = wanted.min(head.saturating_sub(self.floor));
        if depth == 0 {
            return Ok(());
        }
        let deep = depth > confirmations;
        self.count(if deep { "deep reorganisations" } else { "shallow reorganisations" }, 1);
        let from = usize::try_from(head + 1 - depth)?;
        let undone: Vec<_> = line.iter().skip(from).cloned().collect();
        let again = self.again(&undone).await?;
        if self.dice.falls(150) {
            // The head moves backwards first, and everything comes again by itself or not at all.
            self.node.call("anvil_rollback", json!([depth])).await?;
            self.balancer.look().await?;
            self.count("heads that moved backwards", 1);
            self.dice.pause(100, 1_500).await;
            for _ in 0..self.dice.between(1, depth + 1) {
                self.mine().await?;
            }
            return Ok(());
        }
        let pairs = self.spread(again, depth);
        self.node.call("anvil_reorg", json!([depth, pairs])).await?;
        self.balancer.look().await?;
        // The new branch is the longer one, sooner or later.
        for _ in 0..self.dice.below(3) {
            self.mine().await?;
        }
        Ok(())
    }

    /// What of the undone blocks is in the new ones, by account and in the order of nonces.
    async fn again(&mut self, undone: &[std::sync::Arc<Block>]) -> Result<Vec<Vec<String>>, Fault> {
        let mut by_account: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for receipt in undone.iter().flat_map(|block| &block.receipts) {
            let text = |field: &str| {
                receipt.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
            };
            by_account.entry(text("from")).or_default().push(text("transactionHash"));
        }
        let mut again = Vec::new();
        for (account, hashes) in by_account {
            let fate = self.dice.one_of(&[
                Fate::Kept,
                Fate::Kept,
                Fate::Dropped,
                Fate::Replaced,
                Fate::Replaced,
            ]);
            let kept = match fate {
                Fate::Kept => hashes.len(),
                _ => usize::try_from(self.dice.below(hashes.len() as u64))?,
            };
            let index = self
                .requesters
                .iter()
                .position(|one| one.address().to_string().to_lowercase() == account);
            let Some(index) = index else {
                // The coordinator's, and what else there is.
                let mut raws = Vec::new();
                for hash in hashes.iter().take(kept) {
                    let raw = self.node.call("eth_getRawTransactionByHash", json!([hash])).await?;
                    raws.push(
                        raw.as_str().ok_or("there are no bytes of a transaction")?.to_owned(),
                    );
                }
                self.count("publications included again", u64::try_from(kept)?);
                self.count("publications dropped", u64::try_from(hashes.len() - kept)?);
                again.push(raws);
                continue;
            };
            let mut raws = Vec::new();
            let (mut included, mut dropped, mut replaced) = (0_u64, 0_u64, 0_u64);
            for (at, hash) in hashes.iter().enumerate() {
                let requester = self.requesters.get(index).ok_or("there is no such requester")?;
                let Some(nonce) = requester.nonce_of(hash) else { break };
                let is_kept = at < kept;
                if !is_kept && matches!(fate, Fate::Dropped) {
                    dropped += 1;
                    continue;
                }
                if !is_kept {
                    let many = requester.sent.get(nonce).map_or(1, |sent| sent.tasks.max(1));
                    let call = self.submission(u64::try_from(many)?)?;
                    let requester =
                        self.requesters.get_mut(index).ok_or("there is no such requester")?;
                    requester.replace(nonce, &call)?;
                }
                *(if is_kept { &mut included } else { &mut replaced }) += 1;
                let requester = self.requesters.get(index).ok_or("there is no such requester")?;
                raws.extend(requester.sent.get(nonce).map(|sent| sent.raw.clone()));
            }
            self.count("submissions included again", included);
            self.count("submissions dropped, sent again later", dropped);
            self.count("submissions replaced by other tasks", replaced);
            again.push(raws);
        }
        Ok(again)
    }

    /// Spreads transactions over new blocks: each account's in their order, those of several in any.
    fn spread(&mut self, accounts: Vec<Vec<String>>, depth: u64) -> Vec<Value> {
        let mut queues: Vec<Vec<(u64, String)>> = Vec::new();
        for raws in accounts {
            let mut blocks: Vec<_> = raws.iter().map(|_| self.dice.below(depth)).collect();
            blocks.sort_unstable();
            queues.push(blocks.into_iter().zip(raws).rev().collect());
        }
        let mut pairs = Vec::new();
        for block in 0..depth {
            loop {
                let mut ready: Vec<_> = (0..queues.len())
                    .filter(|at| {
                        queues
                            .get(*at)
                            .and_then(|queue| queue.last())
                            .is_some_and(|(at, _)| *at == block)
                    })
                    .collect();
                self.dice.shuffle(&mut ready);
                let Some(queue) = ready.first().and_then(|at| queues.get_mut(*at)) else { break };
                if let Some((_, raw)) = queue.pop() {
                    pairs.push(json!([raw, block]));
                }
            }
        }
        pairs
    }

    /// Lets the time of every notice pass, and has a stranger close what has no result; answers how many those were.
    pub(crate) async fn expire(&self, open: &[Open]) -> Result<usize, Fault> {
        let now = self.node.call("eth_getBlockByNumber", json!(["latest", false])).await?;
        let now = now.get("timestamp").and_then(quantity).unwrap_or_default();
        let last = open.iter().filter_map(|open| open.cancelled_at_s).max().unwrap_or(now);
        self.node.call("evm_setNextBlockTimestamp", json!([now.max(last) + 60])).await?;
        self.mine().await?;
        for open in open {
            let call = json!({
                "from": self.scene.anvil().address(0), "to": self.scene.board().address(),
                "data": alloy::hex::encode_prefixed(expiry(open)), "gas": "0x100000",
            });
            self.node.call("eth_sendTransaction", json!([call])).await?;
        }
        for _ in 0..3 {
            self.mine().await?;
        }
        Ok(open.len())
    }
}

fn cancellation(header: &Header) -> Call {
    let tag = header.payload_hash.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    let data = call("cancel(uint64,uint64)", &[number(header.id.get()), number(tag)]);
    Call { data, wei: U256::ZERO, gas: 100_000, tasks: 0 }
}

fn expiry(open: &Open) -> Vec<u8> {
    call("expire(uint64,uint64)", &[number(open.id.get()), number(open.tag)])
}

fn number(number: u64) -> B256 {
    B256::from(U256::from(number))
}
