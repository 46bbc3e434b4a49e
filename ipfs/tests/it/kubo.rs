//! What we name, add and fetch, against Kubo's own code.

use ipfs::{
    Budget, CidVersion, Profile, Store, cid_of_bytes, cid_of_file, cid_under_profile, raw_cid,
};
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

#[tokio::test]
async fn i9_a_node_with_another_import_profile_names_content_as_we_do() {
    for defaults in [
        "chunker=size-1048576&max-file-links=1024&raw-leaves=true&cid-version=1",
        "trickle=true&raw-leaves=true&max-file-links=2",
    ] {
        let node = Node::with_import(defaults);
        let scene = scene(&node).await;
        let bytes = content(9 * CHUNK + 1);
        for version in VERSIONS {
            let cid = scene.store.add_bytes(&bytes, version).await.unwrap();
            assert_eq!(cid, cid_of_bytes(&bytes, version));
            assert!(fetched(&scene.store, &cid).await == bytes);
        }
    }
}

#[tokio::test]
async fn i9_content_that_came_out_differently_does_not_stay_pinned() {
    let other = cid_of_bytes(b"other", CidVersion::V0);
    let body = format!("{{\"Name\":\"content\",\"Hash\":\"{other}\"}}\n");
    let kubo = Liar::always(ok(body.as_bytes())).await;
    let scene = Scene::with(&[], |options| options.api = Some(kubo.root.clone())).await;
    let error = scene.store.add_bytes(b"mine", CidVersion::V0).await.unwrap_err();
    assert_eq!(error.code(), "cid_differs");
    let calls = kubo.seen();
    assert_eq!(calls.len(), 2);
    for option in [
        "chunker=size-262144",
        "max-file-links=174",
        "raw-leaves=false",
        "trickle=false",
        "inline=false",
    ] {
        assert!(calls[0].contains(option), "{option}: {}", calls[0]);
    }
    assert!(calls[1].contains(&format!("/api/v0/pin/rm?arg={other}")), "{}", calls[1]);
}

#[tokio::test]
async fn i5_an_rpc_is_found_however_its_address_is_written() {
    let node = Node::start();
    for end in ["", "api/v0", "api/v0/"] {
        let root = node.api.join(end).unwrap();
        let scene = Scene::with(&[], |options| options.api = Some(root)).await;
        let added = scene.store.add_bytes(end.as_bytes(), CidVersion::V0).await;
        assert!(added.is_ok(), "{end}: {added:?}");
    }
}

#[tokio::test]
async fn the_words_of_an_rpc_stay_on_one_line() {
    let text = b"no\nERROR forged\r\x1b[2J";
    let length = format!("Content-Length: {}\r\n", text.len());
    let kubo = Liar::always(vec![
        crate::liar::head("500 Internal Server Error", &length),
        crate::liar::Step::Send(text.to_vec()),
    ])
    .await;
    let scene = Scene::with(&[], |options| options.api = Some(kubo.root.clone())).await;
    let error = scene.store.add_bytes(b"mine", CidVersion::V0).await.unwrap_err();
    assert_eq!(error.code(), "rpc_failed");
    assert!(!error.to_string().chars().any(char::is_control), "{error:?}");
}

/// Kubo's importer under the parameters of each named profile.
#[tokio::test]
async fn i9_every_named_profile_gives_kubos_cids() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let node = Node::start();
    // Over and under a chunk, and over the links of a node in the narrow profiles.
    for length in [0, 1, CHUNK, (1 << 20) + 1, 175 << 18] {
        let bytes = content(length);
        std::fs::write(&path, &bytes).unwrap();
        for (name, profile) in Profile::NAMED {
            let raw = profile.raw_leaves;
            let version = u8::from(profile.version == CidVersion::V1);
            let (chunk, links) = (profile.chunk_bytes, profile.max_links);
            let url = format!(
                "{}api/v0/add?cid-version={version}&raw-leaves={raw}&chunker=size-{chunk}&max-file-links={links}",
                node.api
            );
            let part = reqwest::multipart::Part::bytes(bytes.clone()).file_name("file");
            let form = reqwest::multipart::Form::new().part("file", part);
            let answer = http.post(url).multipart(form).send().await.unwrap().text().await.unwrap();
            let cid = cid_under_profile(&path, profile).unwrap();
            assert!(answer.contains(&format!("\"{cid}\"")), "{name} {length}: {cid} {answer}");
        }
    }
}

/// Blocks on whose bytes readers could differ: either we give what Kubo's gateway gives, or we refuse.
#[tokio::test]
async fn i3_no_file_reads_differently_here_than_in_kubo() {
    let node = Node::start();
    let scene = scene(&node).await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let leaf = scene.store.put_raw(b"abc").await.unwrap();
    let link = |name: Option<&str>, tsize: Option<u8>| {
        let mut link = vec![0x0a, 36];
        link.extend(leaf.to_bytes());
        if let Some(name) = name {
            link.extend([0x12, name.len() as u8]);
            link.extend(name.as_bytes());
        }
        link.extend(tsize.into_iter().flat_map(|tsize| [0x18, tsize]));
        [vec![0x12, link.len() as u8], link].concat()
    };
    let node_of = |links: &[Vec<u8>], unixfs: &str| {
        let data = hex::decode(unixfs.replace(' ', "")).unwrap();
        [links.concat(), vec![0x0a, data.len() as u8], data].concat()
    };
    let plain = link(Some(""), Some(3));
    let (one, two) = ([plain.clone()], [plain.clone(), plain.clone()]);
    let mut read = 0;
    for (what, block, wanted) in [
        ("a file", node_of(&one, "0802 1803 2003"), Some("abc")),
        ("the same twice", node_of(&two, "0802 1806 2003 2003"), Some("abcabc")),
        ("data and links", node_of(&one, "0802 1203 78797a 1806 2003"), None),
        ("raw with links", node_of(&one, "0800 1803 2003"), None),
        ("a named link", node_of(&[link(Some("evil"), Some(3))], "0802 1803 2003"), None),
        (
            "no name, no size of the link",
            node_of(&[link(None, None)], "0802 1803 2003"),
            Some("abc"),
        ),
        (
            "a link's size that lies",
            node_of(&[link(Some(""), Some(99))], "0802 1803 2003"),
            Some("abc"),
        ),
        ("no file size", node_of(&one, "0802 2003"), Some("")),
        ("no file size, own data", node_of(&[], "0802 1203 78797a"), Some("")),
        ("raw", node_of(&[], "0800 1203 78797a 1803"), Some("xyz")),
        ("a file size too small", node_of(&one, "0802 1802 2003"), None),
        ("a file size too large", node_of(&one, "0802 1804 2003"), None),
        ("a block size too small", node_of(&one, "0802 1802 2002"), None),
        ("no block sizes", node_of(&one, "0802 1803"), None),
        ("too many block sizes", node_of(&one, "0802 1803 2003 2000"), None),
        ("two types", node_of(&one, "0801 0802 1803 2003"), None),
        ("two sizes", node_of(&one, "0802 1803 1800 2003"), None),
        ("two datas", node_of(&[], "0802 1201 78 1201 79 1801"), None),
        ("a long number", node_of(&one, "0802 188300 2003"), None),
        ("an unknown field", node_of(&one, "0802 1803 2003 4801"), None),
        ("metadata", node_of(&one, "0803"), None),
        ("a directory", node_of(&one, "0801"), None),
        ("a symbolic link", node_of(&[], "0804 1203 78797a"), None),
        (
            "data before links",
            [vec![0x0a, 6, 8, 2, 0x18, 3, 0x20, 3], plain.clone()].concat(),
            Some("abc"),
        ),
        ("packed block sizes", node_of(&one, "0802 1803 2201 03"), Some("abc")),
        ("a time of change", node_of(&one, "0802 1803 2003 38a403 42020801"), Some("abc")),
    ] {
        let raw = scene.store.put_raw(&block).await.unwrap();
        let digest = *raw.sha256().unwrap();
        let cid = ipfs::Cid::from_sha256(CidVersion::V1, ipfs::Codec::DagPb, digest).unwrap();
        let ours = scene.store.fetch(&cid, &Budget::default()).await;
        match wanted {
            None => {
                let error = ours.unwrap_err();
                assert_eq!(
                    (error.class(), error.retry()),
                    (ipfs::Class::Content, false),
                    "{what}: {error}"
                );
            }
            Some(wanted) => {
                assert_eq!(ours.unwrap().bytes().await.unwrap(), wanted.as_bytes(), "{what}");
                let url = format!("{}/{cid}", node.gateway);
                let theirs = http.get(url).send().await.unwrap().bytes().await.unwrap();
                assert_eq!(theirs, wanted.as_bytes(), "{what}");
                read += 1;
            }
        }
    }
    assert_eq!(read, 10);
}

/// Three files that readers were seen to differ on, by their published CIDs.
#[tokio::test]
async fn i3_i10_the_files_that_readers_were_seen_to_differ_on() {
    let affine = hex::decode(
        "0061736d0100000001080160037e7e7e017e03020100070a0106616666696e6500000a0c010a00200020017e20027c0b0013046e616d65020c010003000161010162020163",
    )
    .unwrap();
    let fib = hex::decode(
        "0061736d0100000001060160017e017e030201000707010366696200000a2d012b01027e420121020240034020004200570d012002200120027c21022101200042017d21000c000b0b20010b0024046e616d65020c01000300016e010161020162030f0100020004646f6e6501047374657000470178",
    )
    .unwrap();
    let node_of = |leaf: &[u8], name: &str, unixfs: Vec<u8>| {
        let mut link = [vec![0x0a, 36], raw_cid(leaf).to_bytes()].concat();
        link.extend([0x12, name.len() as u8]);
        link.extend(name.as_bytes());
        link.extend([0x18, leaf.len() as u8]);
        let mut block = [vec![0x12, link.len() as u8], link].concat();
        block.push(0x0a);
        // The length of what follows, in one or two bytes.
        let length = unixfs.len();
        if length >= 0x80 {
            block.extend([length as u8 | 0x80, (length >> 7) as u8]);
        } else {
            block.push(length as u8);
        }
        [block, unixfs].concat()
    };
    let both =
        [vec![8, 2, 0x12, fib.len() as u8], fib.clone(), vec![0x18, 0xbb, 1, 0x20, 69]].concat();
    let text = vec![b'x'; 100];
    for (leaf, block, cid, code) in [
        (
            &affine,
            node_of(&affine, "", both),
            "bafybeif42t5r2j4krczskx7axnfm5zezetutl5mzfsxt35z2uhgelgpbfy",
            "malformed_block",
        ),
        (
            &text,
            node_of(&text, "evil", vec![8, 2, 0x18, 100, 0x20, 100]),
            "bafybeia6mhjbog3jaenqtyzfiq73y2ru5bq4oghtrezvg5jsyt4kwkwbn4",
            "malformed_block",
        ),
        (
            &text,
            node_of(&text, "", vec![8, 2, 0x20, 100]),
            "bafybeiafncchyg3xgyfjihazru44kszpl347meumqlzijfeetknlccxv5m",
            "empty",
        ),
    ] {
        let cid: ipfs::Cid = cid.parse().unwrap();
        assert!(cid.verify(&block), "{cid}");
        let leaf = leaf.clone();
        let gateway = Liar::start(move |line, _| {
            if line.contains(&raw_cid(&leaf).to_string()) { ok(&leaf) } else { ok(&block) }
        })
        .await;
        let scene = Scene::new(&[&gateway.root]).await;
        match scene.store.fetch(&cid, &Budget::default()).await {
            Ok(content) => assert_eq!((content.size_bytes(), code), (0, "empty")),
            Err(error) => assert_eq!((error.code(), error.retry()), (code, false), "{error}"),
        }
    }
}
