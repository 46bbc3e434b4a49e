//! From a root's blocks to the file they describe: in order, without recursion, within the budget.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tokio_util::task::AbortOnDropHandle;

use crate::block::{Blocks, keep};
use crate::budget::Budget;
use crate::cid::{Cid, Codec};
use crate::dagpb;
use crate::draft::Draft;
use crate::error::{Error, blocking};
use crate::shelf::Tray;
use crate::unixfs::{self, Kind};

/// Bytes of recent blocks kept at hand for links that lead to the same block again.
const RECENT_BYTES: usize = 4 << 20;
/// Nodes after which other tasks of the thread get their turn, also when no block had to be waited for.
const NODES_PER_TURN: u64 = 64;

/// A node that is still to be visited.
struct Visit {
    cid: Cid,
    /// Bytes that the parent says are below.
    announced_bytes: Option<u64>,
    depth: u32,
    fetch: Option<AbortOnDropHandle<Result<Bytes, Error>>>,
}

/// Writes the content of `root` into the draft; what comes over a network is kept on the tray until it is whole.
pub(crate) async fn expand(
    blocks: &Arc<Blocks>,
    root: &Cid,
    budget: &Budget,
    prefetch: usize,
    tray: Option<&Tray>,
    draft: Draft,
) -> Result<Draft, Error> {
    let walk = Walk {
        blocks,
        root,
        budget,
        prefetch: if blocks.are_remote() { prefetch } else { 0 },
        tray: tray.filter(|_| blocks.are_remote()),
        recent: Recent::default(),
    };
    walk.run(draft).await
}

struct Walk<'a> {
    blocks: &'a Arc<Blocks>,
    root: &'a Cid,
    budget: &'a Budget,
    prefetch: usize,
    tray: Option<&'a Tray>,
    recent: Recent,
}

impl Walk<'_> {
    async fn run(mut self, mut draft: Draft) -> Result<Draft, Error> {
        let mut stack =
            vec![Visit { cid: self.root.clone(), announced_bytes: None, depth: 0, fetch: None }];
        let mut visited = 0;
        while let Some(visit) = stack.pop() {
            visited += 1;
            if visited > self.budget.nodes {
                return Err(self.too_many_nodes());
            }
            if visited % NODES_PER_TURN == 0 {
                tokio::task::yield_now().await;
            }
            // Only where there is something to wait for: a bomb's blocks are all at hand soon.
            if !self.recent.blocks.contains_key(&visit.cid) {
                self.ask_ahead(&mut stack);
            }
            let cid = visit.cid.clone();
            let announced = visit.announced_bytes;
            let depth = visit.depth;
            let block = self.block(visit).await?;
            let (data, links) = match cid.codec() {
                Codec::Raw => (block.clone(), Vec::new()),
                Codec::DagPb => self.open(&cid, &block)?,
            };
            let size =
                links.iter().fold(data.len() as u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
            if announced.is_some_and(|announced| announced != size) {
                return Err(malformed(&cid, "its size is not what the link to it says"));
            }
            if draft.size_bytes().saturating_add(size) > self.budget.expanded_bytes {
                return Err(Error::TooLarge {
                    cid: self.root.clone(),
                    limit_bytes: self.budget.expanded_bytes,
                });
            }
            if !links.is_empty() && depth >= self.budget.depth {
                return Err(Error::TooDeep { cid: self.root.clone(), limit: self.budget.depth });
            }
            if visited + (stack.len() + links.len()) as u64 > self.budget.nodes {
                return Err(self.too_many_nodes());
            }
            if depth == 0
                && !links.is_empty()
                && let Some(tray) = self.tray
            {
                keep(tray, &cid, &block).await?;
            }
            stack.extend(links.into_iter().rev().map(|(cid, bytes)| Visit {
                cid,
                announced_bytes: Some(bytes),
                depth: depth + 1,
                fetch: None,
            }));
            draft = append(draft, data).await?;
        }
        Ok(draft)
    }

    /// Starts fetching what comes next.
    fn ask_ahead(&self, stack: &mut [Visit]) {
        let mut coming = HashSet::new();
        for visit in stack.iter_mut().rev().take(self.prefetch) {
            let known = visit.cid.inline().is_some() || self.recent.blocks.contains_key(&visit.cid);
            if known || !coming.insert(visit.cid.clone()) || visit.fetch.is_some() {
                continue;
            }
            let (blocks, cid, max_bytes) =
                (Arc::clone(self.blocks), visit.cid.clone(), self.budget.block_bytes);
            let tray = self.tray.cloned();
            let fetch =
                tokio::spawn(async move { blocks.get(&cid, max_bytes, tray.as_ref(), true).await });
            visit.fetch = Some(AbortOnDropHandle::new(fetch));
        }
    }

    async fn block(&mut self, visit: Visit) -> Result<Bytes, Error> {
        if let Some(block) = self.recent.blocks.get(&visit.cid) {
            return Ok(block.clone());
        }
        let block = match visit.fetch {
            Some(fetch) => fetch.await.map_err(|join| {
                Error::io("fetching a block", Path::new(""))(io::Error::other(join))
            })??,
            None => {
                // A root is kept only once there turns out to be more to come.
                let keeps = visit.depth > 0;
                self.blocks.get(&visit.cid, self.budget.block_bytes, self.tray, keeps).await?
            }
        };
        self.recent.keep(visit.cid, block.clone());
        Ok(block)
    }

    /// A dag-pb block's own bytes and its links with their sizes.
    fn open(&self, cid: &Cid, block: &Bytes) -> Result<(Bytes, Vec<(Cid, u64)>), Error> {
        let node = dagpb::decode(block).map_err(|reason| malformed(cid, reason))?;
        let data = node.data.ok_or_else(|| malformed(cid, "it has no UnixFS data"))?;
        let entry = unixfs::decode(data).map_err(|reason| malformed(cid, reason))?;
        if let Kind::Other(found) = entry.kind {
            return Err(Error::NotAFile { cid: cid.clone(), found });
        }
        if entry.link_bytes.len() != node.links.len() {
            return Err(malformed(cid, "it has not one size for each link"));
        }
        entry.checked_bytes().map_err(|reason| malformed(cid, reason))?;
        // Readers do not agree on what follows, so it is nobody's content.
        if node.has_names {
            return Err(malformed(cid, "a link inside a file has a name"));
        }
        if !node.links.is_empty() && !entry.data.is_empty() {
            return Err(malformed(cid, "it has data of its own beside links"));
        }
        if !node.links.is_empty() && entry.kind == Kind::Raw {
            return Err(malformed(cid, "raw data has links"));
        }
        // The specification reads an absent size as zero, and so does Kubo's gateway.
        if entry.file_bytes.is_none() {
            return Ok((Bytes::new(), Vec::new()));
        }
        if node.links.len() as u64 > self.budget.nodes {
            return Err(self.too_many_nodes());
        }
        let links = node.links.iter().zip(&entry.link_bytes).map(|(link, bytes)| {
            let child = Cid::from_bytes(link).map_err(|error| match error {
                Error::InvalidCid { reason, .. } => {
                    malformed(cid, &format!("a link's CID: {reason}"))
                }
                unsupported => unsupported,
            })?;
            Ok((child, *bytes))
        });
        Ok((block.slice_ref(entry.data), links.collect::<Result<_, Error>>()?))
    }

    fn too_many_nodes(&self) -> Error {
        Error::TooManyNodes { cid: self.root.clone(), limit: self.budget.nodes }
    }
}

async fn append(mut draft: Draft, data: Bytes) -> Result<Draft, Error> {
    if data.is_empty() {
        return Ok(draft);
    }
    let path = draft.path().to_owned();
    blocking("writing", &path, move || draft.write(&data).map(|()| draft)).await
}

fn malformed(cid: &Cid, reason: &str) -> Error {
    Error::MalformedBlock { cid: cid.clone(), reason: reason.to_owned() }
}

/// The latest blocks, first in, first out.
#[derive(Default)]
struct Recent {
    blocks: HashMap<Cid, Bytes>,
    order: VecDeque<Cid>,
    size_bytes: usize,
}

impl Recent {
    fn keep(&mut self, cid: Cid, block: Bytes) {
        self.size_bytes += block.len();
        if self.blocks.insert(cid.clone(), block).is_none() {
            self.order.push_back(cid);
        }
        while self.size_bytes > RECENT_BYTES
            && let Some(oldest) = self.order.pop_front()
        {
            self.size_bytes -= self.blocks.remove(&oldest).map_or(0, |block| block.len());
        }
    }
}

#[cfg(test)]
mod tests;
