//! Gateways that refuse now and then, are slow, or stop: what was fetched stays, and others are asked.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ipfs::{Budget, Cid, CidVersion, Class, Codec, Options, Store, raw_cid};
use ipld_dagpb::{PbLink, PbNode};
use sha2::{Digest, Sha256};

use crate::Scene;
use crate::liar::{Liar, Step, head, ok, status};

/// A file of one root and raw leaves, by the text of their CIDs.
#[derive(Clone)]
struct Whole {
    root: Cid,
    content: Vec<u8>,
    blocks: Arc<HashMap<String, Vec<u8>>>,
}

impl Whole {
    fn of(leaves: usize) -> Self {
        let mut blocks = HashMap::new();
        let mut content = Vec::new();
        let mut links = Vec::new();
        let mut unixfs = vec![0x08, 2, 0x18];
        put(&mut unixfs, leaves * 1000);
        for number in 0..leaves {
            let leaf: Vec<u8> = (0..1000).map(|at| (at ^ number) as u8).collect();
            let cid = raw_cid(&leaf);
            links.push(PbLink {
                cid: cid.to_string().parse().unwrap(),
                name: Some(String::new()),
                size: Some(1000),
            });
            unixfs.push(0x20);
            put(&mut unixfs, 1000);
            content.extend(&leaf);
            blocks.insert(cid.to_string(), leaf);
        }
        let block = PbNode { links, data: Some(unixfs.into()) }.into_bytes();
        let digest = Sha256::digest(&block).into();
        let root = Cid::from_sha256(CidVersion::V1, Codec::DagPb, digest).unwrap();
        blocks.insert(root.to_string(), block);
        Self { root, content, blocks: Arc::new(blocks) }
    }

    /// The honest answer to a request.
    fn answer(&self, line: &str) -> Vec<Step> {
        self.blocks.get(asked(line)).map_or_else(|| status("404 Not Found", ""), |block| ok(block))
    }

    async fn is_served(&self, store: &Store) {
        let content = store.fetch(&self.root, &Budget::default()).await.unwrap();
        assert!(content.bytes().await.unwrap() == self.content);
    }
}

fn put(out: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// The CID in a request's line.
fn asked(line: &str) -> &str {
    line.trim_start_matches("GET /ipfs/").split('?').next().unwrap_or_default()
}

/// A gateway that answers so many requests in each second and refuses the others.
async fn limited(whole: &Whole, most: usize, refusal: &'static str) -> Liar {
    let whole = whole.clone();
    let window = Mutex::new((Instant::now(), 0));
    Liar::start(move |line, _| {
        let mut window = window.lock().unwrap();
        if window.0.elapsed() >= Duration::from_secs(1) {
            *window = (Instant::now(), 0);
        }
        window.1 += 1;
        if window.1 > most { status("429 Too Many Requests", refusal) } else { whole.answer(line) }
    })
    .await
}

#[tokio::test]
async fn i4_a_gateway_with_a_rate_limit_gives_the_whole_file_in_one_fetch() {
    let whole = Whole::of(65);
    for refusal in ["Retry-After: 1\r\n", ""] {
        let gateway = limited(&whole, 30, refusal).await;
        let scene = Scene::new(&[&gateway.root]).await;
        whole.is_served(&scene.store).await;
        // Nothing but the content stays.
        assert_eq!(scene.cached_files().len(), 1);
    }
}

#[tokio::test]
async fn i4_single_refusals_and_resets_cost_a_block_and_not_the_file() {
    let whole = Whole::of(100);
    let served = whole.clone();
    let gateway = Liar::start(move |line, number| match number {
        0 => served.answer(line),
        _ if number % 50 == 7 => status("503 Service Unavailable", ""),
        _ if number % 50 == 31 => vec![],
        _ if number % 50 == 43 => {
            vec![head("200 OK", "Content-Length: 1000\r\n"), Step::Send(vec![1; 10])]
        }
        _ => served.answer(line),
    })
    .await;
    let scene = Scene::new(&[&gateway.root]).await;
    whole.is_served(&scene.store).await;
}

#[tokio::test]
async fn i4_what_was_fetched_stays_for_the_next_attempt_the_next_gateway_and_the_next_process() {
    let whole = Whole::of(60);
    let served = whole.clone();
    let fails = Liar::start(move |line, number| {
        if number < 40 { served.answer(line) } else { status("500 Internal Server Error", "") }
    })
    .await;
    let scene = Scene::new(&[&fails.root]).await;
    let error = scene.store.fetch(&whole.root, &Budget::default()).await.unwrap_err();
    assert_eq!((error.code(), error.retry()), ("unavailable", true));
    let given: HashSet<String> =
        fails.seen().iter().take(40).map(|line| asked(line).to_owned()).collect();
    let served = whole.clone();
    let works = Liar::start(move |line, _| served.answer(line)).await;
    let mut options = Options::new(scene.folder.path().join("cache"));
    options.gateways = vec![works.root.clone()];
    let later = Store::open(options).await.unwrap();
    whole.is_served(&later).await;
    for line in works.seen() {
        assert!(!given.contains(asked(&line)), "{line} was there already");
    }
    assert_eq!(scene.cached_files().len(), 1);
}

#[tokio::test]
async fn i2_a_gateway_that_drips_is_left_for_the_next_one() {
    let whole = Whole::of(60);
    let drip = vec![
        head("200 OK", "Content-Length: 1000\r\n"),
        Step::Drip(vec![7; 1000], Duration::from_secs(1)),
    ];
    let drips = Liar::always(drip).await;
    let served = whole.clone();
    let works = Liar::start(move |line, _| served.answer(line)).await;
    let scene = Scene::with(&[&drips.root, &works.root], |options| {
        options.timeouts.idle = Duration::from_secs(4);
    })
    .await;
    whole.is_served(&scene.store).await;
    // Once it was too slow it is asked after the other.
    assert_eq!(drips.seen().len(), 1);
    assert_eq!(works.seen().len(), 61);
}

#[tokio::test]
async fn i2_a_gateway_that_drips_alone_is_too_slow() {
    let drip = vec![head("200 OK", ""), Step::Drip(vec![7; 1000], Duration::from_millis(100))];
    let drips = Liar::always(drip).await;
    let scene = Scene::with(&[&drips.root], |options| {
        options.timeouts.idle = Duration::from_secs(1);
    })
    .await;
    let error = scene.store.fetch(&raw_cid(b"content"), &Budget::default()).await.unwrap_err();
    assert_eq!((error.code(), error.class(), error.retry()), ("too_slow", Class::Source, true));
}

#[tokio::test]
async fn i11_the_idle_time_of_a_stalled_gateway_is_not_paid_again_and_again() {
    let whole = Whole::of(60);
    let stalls = Liar::always(vec![Step::Hold]).await;
    let served = whole.clone();
    let works = Liar::start(move |line, _| served.answer(line)).await;
    let scene = Scene::with(&[&stalls.root, &works.root], |options| {
        options.timeouts.idle = Duration::from_secs(4);
    })
    .await;
    whole.is_served(&scene.store).await;
    assert_eq!(stalls.seen().len(), 1);
}

#[tokio::test]
async fn i11_a_gateway_that_rests_is_not_asked_while_another_answers() {
    let whole = Whole::of(30);
    let refusal = || status("503 Service Unavailable", "Retry-After: 3600\r\n");
    let rests = Liar::always(refusal()).await;
    let served = whole.clone();
    let works = Liar::start(move |line, _| served.answer(line)).await;
    let scene = Scene::new(&[&rests.root, &works.root]).await;
    whole.is_served(&scene.store).await;
    assert_eq!(rests.seen().len(), 1);
    // Alone it is not waited for, and says when to come back.
    let alone = Scene::new(&[&rests.root]).await;
    for _ in 0..2 {
        let error = alone.store.fetch(&whole.root, &Budget::default()).await.unwrap_err();
        assert_eq!((error.code(), error.class()), ("unavailable", Class::Source));
        assert!(error.retry_after().is_some_and(|pause| pause > Duration::from_secs(3000)));
    }
    assert_eq!(rests.seen().len(), 2, "the second fetch does not even ask");
}
