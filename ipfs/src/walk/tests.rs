use std::fs;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::budget::Timeouts;
use crate::cid::CidVersion;
use crate::dagpb::Link;
use crate::import::{cid_of_bytes, raw_cid};
use crate::mirror::Mirror;
use crate::wire::{put_bytes, put_number};

/// A mirror that is filled with single blocks.
struct Shelf {
    folder: TempDir,
}

impl Shelf {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("blocks")).unwrap();
        Self { folder }
    }

    fn put(&self, cid: Cid, block: &[u8]) -> Cid {
        fs::write(self.folder.path().join("blocks").join(cid.to_string()), block).unwrap();
        cid
    }

    fn raw(&self, content: &[u8]) -> Cid {
        self.put(raw_cid(content), content)
    }

    fn node(&self, links: &[&Cid], unixfs: &[u8]) -> Cid {
        let links: Vec<_> =
            links.iter().map(|cid| Link { cid: (*cid).clone(), total_bytes: 0 }).collect();
        let block = dagpb::encode(&links, unixfs);
        self.put(Cid::of_node(CidVersion::V1, &block), &block)
    }

    async fn expand(&self, root: &Cid, budget: Budget) -> Result<Vec<u8>, Error> {
        let blocks = Arc::new(Blocks {
            mirror: Some(Mirror::open(
                self.folder.path(),
                false,
                &self.folder.path().join("memory"),
            )?),
            gateways: Vec::new(),
            timeouts: Timeouts::default(),
            may_probe: false,
        });
        let drafts = tempfile::tempdir().unwrap();
        let draft = expand(&blocks, root, &budget, 4, None, Draft::create(drafts.path())?).await?;
        Ok(fs::read(draft.path()).unwrap())
    }

    async fn code(&self, root: &Cid, budget: Budget) -> &'static str {
        self.expand(root, budget).await.unwrap_err().code()
    }
}

/// UnixFS data with every field free to lie.
fn unixfs(kind: u64, data: &[u8], file_bytes: Option<u64>, link_bytes: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    put_number(&mut out, 1, kind);
    put_bytes(&mut out, 2, data);
    if let Some(bytes) = file_bytes {
        put_number(&mut out, 3, bytes);
    }
    for bytes in link_bytes {
        put_number(&mut out, 4, *bytes);
    }
    out
}

const FILE: u64 = 2;

#[tokio::test]
async fn links_are_read_in_their_order_at_any_depth() {
    let shelf = Shelf::new();
    let (a, b) = (shelf.raw(b"aa"), shelf.raw(b"b"));
    let inner = shelf.node(&[&a, &b, &a], &unixfs(FILE, b"", Some(5), &[2, 1, 2]));
    let old_leaf = shelf.node(&[], &unixfs(0, b"r", Some(1), &[]));
    let leaf = shelf.node(&[], &unixfs(FILE, b"zz", Some(2), &[]));
    let root =
        shelf.node(&[&inner, &b, &old_leaf, &leaf], &unixfs(FILE, b"", Some(9), &[5, 1, 1, 2]));
    assert_eq!(shelf.expand(&root, Budget::default()).await.unwrap(), b"aabaabrzz");
}

#[tokio::test]
async fn i3_data_beside_links_is_refused_at_any_depth() {
    let shelf = Shelf::new();
    let leaf = shelf.raw(b"abc");
    let both = shelf.node(&[&leaf], &unixfs(FILE, b"xyz", Some(6), &[3]));
    assert_eq!(shelf.code(&both, Budget::default()).await, "malformed_block");
    let parent = shelf.node(&[&both], &unixfs(FILE, b"", Some(6), &[6]));
    assert_eq!(shelf.code(&parent, Budget::default()).await, "malformed_block");
    // The old type for leaves has none.
    let raw = shelf.node(&[&leaf], &unixfs(0, b"", Some(3), &[3]));
    assert_eq!(shelf.code(&raw, Budget::default()).await, "malformed_block");
}

#[tokio::test]
async fn i10_a_link_with_a_name_is_refused_and_an_empty_name_is_none() {
    let shelf = Shelf::new();
    let leaf = shelf.raw(b"abc");
    for (name, wanted) in [("", Ok(b"abc".to_vec())), ("evil", Err("malformed_block"))] {
        let mut link = Vec::new();
        put_bytes(&mut link, 1, &leaf.to_bytes());
        put_bytes(&mut link, 2, name.as_bytes());
        put_number(&mut link, 3, 3);
        let mut block = Vec::new();
        put_bytes(&mut block, 2, &link);
        put_bytes(&mut block, 1, &unixfs(FILE, b"", Some(3), &[3]));
        let root = shelf.put(Cid::of_node(CidVersion::V1, &block), &block);
        let read = shelf.expand(&root, Budget::default()).await;
        assert_eq!(read.map_err(|error| error.code()), wanted, "{name:?}");
    }
}

#[tokio::test]
async fn i10_an_absent_size_is_zero_and_never_the_content() {
    let shelf = Shelf::new();
    let leaf = shelf.raw(b"abc");
    let sizeless = shelf.node(&[&leaf], &unixfs(FILE, b"", None, &[3]));
    assert_eq!(shelf.expand(&sizeless, Budget::default()).await.unwrap(), b"");
    let inline = shelf.node(&[], &unixfs(FILE, b"abc", None, &[]));
    assert_eq!(shelf.expand(&inline, Budget::default()).await.unwrap(), b"");
    // A parent that counts on the content is wrong about it.
    let parent = shelf.node(&[&sizeless], &unixfs(FILE, b"", Some(3), &[3]));
    assert_eq!(shelf.code(&parent, Budget::default()).await, "malformed_block");
    let parent = shelf.node(&[&sizeless], &unixfs(FILE, b"", Some(0), &[0]));
    assert_eq!(shelf.expand(&parent, Budget::default()).await.unwrap(), b"");
}

#[tokio::test]
async fn an_inline_block_needs_no_place() {
    let shelf = Shelf::new();
    let mut identity = vec![1, 0x55, 0, 3];
    identity.extend(b"abc");
    let inline = Cid::from_bytes(&identity).unwrap();
    assert_eq!(shelf.expand(&inline, Budget::default()).await.unwrap(), b"abc");
    let root = shelf.node(&[&inline], &unixfs(FILE, b"", Some(3), &[3]));
    assert_eq!(shelf.expand(&root, Budget::default()).await.unwrap(), b"abc");
}

#[tokio::test]
async fn sizes_that_lie_are_refused() {
    let shelf = Shelf::new();
    let leaf = shelf.raw(b"abc");
    for (file_bytes, link_bytes) in [
        (Some(4), vec![3]),        // not the sum
        (Some(4), vec![4]),        // more than there is
        (Some(2), vec![2]),        // less
        (Some(3), vec![]),         // no size for the link
        (Some(6), vec![3, 3]),     // a size without a link
        (None, vec![u64::MAX, 2]), // both
    ] {
        let root = shelf.node(&[&leaf], &unixfs(FILE, b"", file_bytes, &link_bytes));
        assert_eq!(
            shelf.code(&root, Budget::default()).await,
            "malformed_block",
            "{file_bytes:?} {link_bytes:?}"
        );
    }
    let overflow = shelf.node(&[&leaf, &leaf], &unixfs(FILE, b"", Some(2), &[u64::MAX, 3]));
    assert_eq!(shelf.code(&overflow, Budget::default()).await, "malformed_block");
}

#[tokio::test]
async fn a_missing_block_is_a_failure_and_never_a_shorter_file() {
    let shelf = Shelf::new();
    let there = shelf.raw(b"abc");
    let missing = raw_cid(b"xyz");
    for links in [[&there, &missing], [&missing, &there]] {
        let root = shelf.node(&links, &unixfs(FILE, b"", Some(6), &[3, 3]));
        assert_eq!(shelf.code(&root, Budget::default()).await, "not_found");
    }
}

#[tokio::test]
async fn what_is_no_file_is_named() {
    let shelf = Shelf::new();
    for (kind, name) in [(1, "directory"), (4, "symbolic link"), (5, "sharded directory")] {
        let root = shelf.node(&[], &unixfs(kind, b"", None, &[]));
        let error = shelf.expand(&root, Budget::default()).await.unwrap_err();
        assert_eq!(error.code(), "not_a_file");
        assert!(error.to_string().contains(name), "{error}");
        let parent = shelf.node(&[&root], &unixfs(FILE, b"", Some(0), &[0]));
        assert_eq!(shelf.code(&parent, Budget::default()).await, "not_a_file");
    }
}

#[tokio::test]
async fn blocks_that_are_no_unixfs_and_links_that_are_no_cids_are_malformed() {
    let shelf = Shelf::new();
    for block in [b"".as_slice(), b"\x0a\x00", b"\xff", b"\x0a\x02\x08\x09"] {
        let root = shelf.put(Cid::of_node(CidVersion::V1, block), block);
        assert_eq!(shelf.code(&root, Budget::default()).await, "malformed_block");
    }
    let data = unixfs(FILE, b"", Some(1), &[1]);
    let cbor = [[1, 0x71, 0x12, 0x20].as_slice(), &[0; 32]].concat();
    for (link, code) in [(b"\x01".as_slice(), "malformed_block"), (&cbor, "unsupported_codec")] {
        let mut link_bytes = Vec::new();
        put_bytes(&mut link_bytes, 1, link);
        let mut block = Vec::new();
        put_bytes(&mut block, 2, &link_bytes);
        put_bytes(&mut block, 1, &data);
        let root = shelf.put(Cid::of_node(CidVersion::V1, &block), &block);
        assert_eq!(shelf.code(&root, Budget::default()).await, code);
    }
}

#[tokio::test]
async fn every_budget_holds_at_its_edge() {
    let shelf = Shelf::new();
    let leaf = shelf.raw(b"abc");
    let inner = shelf.node(&[&leaf, &leaf], &unixfs(FILE, b"", Some(6), &[3, 3]));
    let root = shelf.node(&[&inner], &unixfs(FILE, b"", Some(6), &[6]));
    let exact = Budget { expanded_bytes: 6, nodes: 4, depth: 2, ..Budget::default() };
    assert_eq!(shelf.expand(&root, exact).await.unwrap(), b"abcabc");
    for (budget, code) in [
        (Budget { expanded_bytes: 5, ..exact }, "too_large"),
        (Budget { nodes: 3, ..exact }, "too_many_nodes"),
        (Budget { nodes: 0, ..exact }, "too_many_nodes"),
        (Budget { depth: 1, ..exact }, "too_deep"),
    ] {
        assert_eq!(shelf.code(&root, budget).await, code);
    }
    assert_eq!(shelf.code(&leaf, Budget { block_bytes: 2, ..exact }).await, "block_too_large");
    assert_eq!(shelf.code(&leaf, Budget { expanded_bytes: 2, ..exact }).await, "too_large");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_file_comes_back_as_it_was(length in 0_usize..1_200_000, v1: bool, seed: u8) {
        let content: Vec<u8> = (0..length).map(|at| (at / 4096) as u8 ^ seed).collect();
        let version = if v1 { CidVersion::V1 } else { CidVersion::V0 };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let shelf = Shelf::new();
            let mirror = Mirror::open(shelf.folder.path(), false, &shelf.folder.path().join("memory")).unwrap();
            let cid = mirror.add_bytes(cid_of_bytes(&content, version), content.clone()).await.unwrap();
            assert!(shelf.expand(&cid, Budget::default()).await.unwrap() == content);
        });
    }
}
