//! What we name, add and fetch, against Kubo's own code.

use ipfs::{Budget, CidVersion, Store, cid_of_bytes, cid_of_file, raw_cid};
use sha2::{Digest, Sha256};

use crate::liar::{Liar, ok, status};
use crate::node::Node;
use crate::{Scene, content};

const CHUNK: usize = 262_144;
const VERSIONS: [CidVersion; 2] = [CidVersion::V0, CidVersion::V1];

async fn scene(node: &Node) -> Scene {
    Scene::with(&[&node.gateway], |options| {
        options.api = Some(node.api.clone());
    })
    .await
}

async fn fetched(store: &Store, cid: &ipfs::Cid) -> Vec<u8> {
    store.fetch(cid, &Budget::default()).await.unwrap().bytes().await.unwrap()
}

/// An addition succeeds only if Kubo names the content as we do.
#[tokio::test]
async fn files_of_every_shape_have_kubos_cids_and_come_back_whole() {
    let node = Node::start();
    let scene = scene(&node).await;
    for length in [0, 1, CHUNK, CHUNK + 1, 1 << 20, 174 * CHUNK, 174 * CHUNK + 1] {
        let bytes = content(length);
        for version in VERSIONS {
            let cid = scene.store.add_bytes(&bytes, version).await.unwrap();
            assert!(fetched(&scene.store, &cid).await == bytes, "{length} {version:?}");
        }
    }
}

#[tokio::test]
async fn a_file_is_streamed_to_kubo_and_its_content_described() {
    let node = Node::start();
    let scene = scene(&node).await;
    let bytes = content(3 * CHUNK + 5);
    let path = scene.folder.path().join("file");
    std::fs::write(&path, &bytes).unwrap();
    for version in VERSIONS {
        let cid = scene.store.add_file(&path, version).await.unwrap();
        assert_eq!(cid, cid_of_file(&path, version).unwrap());
        let content = scene.store.fetch(&cid, &Budget::default()).await.unwrap();
        assert_eq!(content.size_bytes(), bytes.len() as u64);
        assert_eq!(content.sha256().as_slice(), Sha256::digest(&bytes).as_slice());
        assert!(std::fs::read(content.path()).unwrap() == bytes);
    }
}

#[tokio::test]
async fn either_version_of_a_cid_finds_what_was_added_under_the_other() {
    let node = Node::start();
    let scene = scene(&node).await;
    let bytes = content(2 * CHUNK);
    let cid = scene.store.add_bytes(&bytes, CidVersion::V0).await.unwrap();
    let other =
        ipfs::Cid::from_sha256(CidVersion::V1, ipfs::Codec::DagPb, *cid.sha256().unwrap()).unwrap();
    assert!(fetched(&scene.store, &other).await == bytes);
    assert!(scene.store.has(&cid).await);
}

#[tokio::test]
async fn a_result_document_is_one_raw_block_of_at_most_a_mebibyte() {
    let node = Node::start();
    let scene = scene(&node).await;
    let document = content(1 << 20);
    let cid = scene.store.put_raw(&document).await.unwrap();
    assert_eq!(cid, ipfs::Cid::raw(Sha256::digest(&document).into()));
    assert!(fetched(&scene.store, &cid).await == document);
    let error = scene.store.put_raw(&content((1 << 20) + 1)).await.unwrap_err();
    assert_eq!((error.code(), error.retry()), ("too_large", false));
}

#[tokio::test]
async fn what_kubo_does_not_have_is_not_found() {
    let node = Node::start();
    let scene = scene(&node).await;
    let error = scene.store.fetch(&raw_cid(b"nowhere"), &Budget::default()).await.unwrap_err();
    assert_eq!((error.code(), error.retry()), ("not_found", true));
    assert!(!scene.store.has(&raw_cid(b"nowhere")).await);
}

#[tokio::test]
async fn a_directory_is_not_a_file_to_us() {
    let node = Node::start();
    let scene = scene(&node).await;
    // An empty directory, stored as the block that it is.
    let block = [0x0a, 0x02, 0x08, 0x01];
    scene.store.put_raw(&block).await.unwrap();
    let cid =
        ipfs::Cid::from_sha256(CidVersion::V1, ipfs::Codec::DagPb, Sha256::digest(block).into())
            .unwrap();
    let error = scene.store.fetch(&cid, &Budget::default()).await.unwrap_err();
    assert_eq!((error.code(), error.retry()), ("not_a_file", false));
}

#[tokio::test]
async fn an_rpc_that_names_the_content_otherwise_or_fails_is_an_error() {
    let other = cid_of_bytes(b"other", CidVersion::V0);
    let body = format!("{{\"Name\":\"content\",\"Hash\":\"{other}\"}}\n");
    for (steps, code) in [
        (ok(body.as_bytes()), "cid_differs"),
        (ok(b"{\"Name\":\"content\",\"Hash\":\"../../\"}"), "cid_differs"),
        (ok(b"{\"Message\":\"disk full\"}"), "rpc_failed"),
        (ok(&[b'x'; 100_000]), "rpc_failed"),
        (status("500 Internal Server Error", ""), "rpc_failed"),
        (status("302 Found", "Location: http://127.0.0.1:1/\r\n"), "rpc_failed"),
    ] {
        let liar = Liar::always(steps).await;
        let scene = Scene::with(&[], |options| options.api = Some(liar.root.clone())).await;
        let error = scene.store.add_bytes(b"mine", CidVersion::V0).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert_eq!(scene.store.put_raw(b"mine").await.unwrap_err().code(), code);
    }
}
