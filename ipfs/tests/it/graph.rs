//! Hostile graphs of honest blocks.

use std::collections::HashMap;
use std::time::Duration;

use ipfs::{Budget, Cid, CidVersion, Codec};
use ipld_dagpb::{PbLink, PbNode};
use sha2::{Digest, Sha256};

use crate::Scene;
use crate::liar::{Liar, ok, status};

/// Blocks by the text of their CIDs.
#[derive(Default)]
struct Graph(HashMap<String, Vec<u8>>);

impl Graph {
    /// A file node with links to one child, `each` bytes announced below each link.
    fn node(&mut self, child: Option<&Cid>, links: usize, data: &[u8], each: u64) -> Cid {
        let mut unixfs = vec![0x08, 2, 0x12, u8::try_from(data.len()).unwrap()];
        unixfs.extend(data);
        let whole = each.wrapping_mul(links as u64).wrapping_add(data.len() as u64);
        for (field, number) in
            std::iter::once((0x18, whole)).chain((0..links).map(|_| (0x20, each)))
        {
            unixfs.push(field);
            let mut rest = number;
            while rest >= 0x80 {
                unixfs.push(rest as u8 | 0x80);
                rest >>= 7;
            }
            unixfs.push(rest as u8);
        }
        let link = child.map(|child| PbLink {
            cid: child.to_string().parse().unwrap(),
            name: Some(String::new()),
            size: Some(0),
        });
        let links = vec![link; links].into_iter().flatten().collect();
        let block = PbNode { links, data: Some(unixfs.into()) }.into_bytes();
        let digest = Sha256::digest(&block).into();
        let cid = Cid::from_sha256(CidVersion::V1, Codec::DagPb, digest).unwrap();
        self.0.insert(cid.to_string(), block);
        cid
    }

    fn size_bytes(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    async fn serve(self) -> Liar {
        Liar::start(move |line, _| {
            let cid = line.trim_start_matches("GET /ipfs/").split('?').next().unwrap_or_default();
            self.0.get(cid).map_or_else(|| status("404 Not Found", ""), |block| ok(block))
        })
        .await
    }

    async fn fetch(self, root: &Cid, budget: Budget) -> (&'static str, Duration, usize) {
        let server = self.serve().await;
        let scene = Scene::new(&[&server.root]).await;
        let start = thread_time();
        let error = scene.store.fetch(root, &budget).await.unwrap_err();
        let took = thread_time() - start;
        assert!(!error.retry(), "{error}");
        assert_eq!(scene.cached_files(), Vec::<std::path::PathBuf>::new());
        (error.code(), took, server.seen().len())
    }
}

/// What this thread, on which client and server run, has computed so far: unlike the clock it does not count what
/// other tests do meanwhile. What is left, waiting, is bounded by the number of requests.
fn thread_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks: u64 =
        fields.split_whitespace().skip(11).take(2).map(|n| n.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

/// 20 levels of 174 links to one child.
fn bomb(leaf: &[u8], lie: Option<u64>) -> (Graph, Cid) {
    let mut graph = Graph::default();
    let mut cid = graph.node(None, 0, leaf, 0);
    let mut size = leaf.len() as u64;
    for _ in 0..20 {
        cid = graph.node(Some(&cid), 174, b"", lie.unwrap_or(size));
        size = size.saturating_mul(174).min(1 << 55);
    }
    assert!(graph.size_bytes() < 200_000, "{}", graph.size_bytes());
    (graph, cid)
}

#[tokio::test]
async fn i06_a_bomb_that_announces_its_size_is_stopped_at_its_root() {
    let (graph, root) = bomb(b"x", None);
    let (code, took, requests) = graph.fetch(&root, Budget::default()).await;
    assert_eq!((code, requests), ("too_large", 1));
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test]
async fn i06_a_bomb_of_nothing_is_stopped_by_its_nodes() {
    let (graph, root) = bomb(b"", None);
    let (code, took, requests) = graph.fetch(&root, Budget::default()).await;
    assert_eq!(code, "too_many_nodes");
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(requests < 100, "one block is fetched once, not {requests} times");
}

#[tokio::test]
async fn i06_a_bomb_that_lies_about_its_size_is_stopped_by_the_lie() {
    let (graph, root) = bomb(b"x", Some(1));
    let (code, took, _) = graph.fetch(&root, Budget::default()).await;
    assert_eq!(code, "malformed_block");
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test]
async fn i06_a_chain_of_100_000_links_is_stopped_by_its_depth() {
    let mut graph = Graph::default();
    let mut cid = graph.node(None, 0, b"x", 0);
    for _ in 0..100_000 {
        cid = graph.node(Some(&cid), 1, b"", 1);
    }
    let (code, took, requests) = graph.fetch(&cid, Budget::default()).await;
    assert_eq!((code, requests), ("too_deep", 33));
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test]
async fn i06_a_chain_without_a_depth_limit_needs_no_stack() {
    let mut graph = Graph::default();
    let mut cid = graph.node(None, 0, b"x", 0);
    for _ in 0..3_000 {
        cid = graph.node(Some(&cid), 1, b"", 1);
    }
    let server = graph.serve().await;
    let scene = Scene::new(&[&server.root]).await;
    let budget = Budget { depth: u32::MAX, ..Budget::default() };
    let content = scene.store.fetch(&cid, &budget).await.unwrap();
    assert_eq!(content.bytes().await.unwrap(), b"x");
}
