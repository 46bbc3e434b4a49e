//! Several callers, several places, one cache.

use futures::future::join_all;
use ipfs::{Budget, CidVersion, Error, cid_of_bytes, raw_cid};

use crate::liar::{Liar, Step, ok, status};
use crate::{Scene, content};

#[tokio::test]
async fn twenty_callers_of_one_cid_make_one_request() {
    let server = Liar::always(ok(b"content")).await;
    let scene = Scene::new(&[&server.root]).await;
    let cid = raw_cid(b"content");
    let budget = Budget::default();
    for result in join_all((0..20).map(|_| scene.store.fetch(&cid, &budget))).await {
        assert_eq!(result.unwrap().bytes().await.unwrap(), b"content");
    }
    assert_eq!(server.seen().len(), 1);
    assert_eq!(scene.cached_files().len(), 1);
}

#[tokio::test]
async fn callers_of_one_cid_share_its_failure_and_the_next_one_asks_again() {
    let server = Liar::start(|_, number| match number {
        // A block is asked for three times in one fetch.
        0..3 => status("503 Service Unavailable", ""),
        _ => ok(b"content"),
    })
    .await;
    let scene = Scene::new(&[&server.root]).await;
    let cid = raw_cid(b"content");
    let budget = Budget::default();
    for result in join_all((0..5).map(|_| scene.store.fetch(&cid, &budget))).await {
        assert_eq!(result.unwrap_err().code(), "unavailable");
    }
    assert!(scene.store.fetch(&cid, &budget).await.is_ok());
    assert_eq!(server.seen().len(), 4);
}

#[tokio::test]
async fn a_caller_that_gives_up_does_not_take_the_others_with_it() {
    let server = Liar::start(|_, number| match number {
        0 => vec![Step::Hold],
        _ => ok(b"content"),
    })
    .await;
    let scene = Scene::new(&[&server.root]).await;
    let fetch = || {
        let store = scene.store.clone();
        tokio::spawn(async move { store.fetch(&raw_cid(b"content"), &Budget::default()).await })
    };
    let first = fetch();
    server.requests(1).await;
    let second = fetch();
    tokio::task::yield_now().await;
    first.abort();
    assert!(second.await.unwrap().is_ok());
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn a_cached_file_that_was_changed_is_fetched_again() {
    let server = Liar::always(ok(b"content")).await;
    let scene = Scene::new(&[&server.root]).await;
    let (cid, budget) = (raw_cid(b"content"), Budget::default());
    let path = scene.store.fetch(&cid, &budget).await.unwrap().path().to_owned();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "c0ntent").unwrap();
    let content = scene.store.fetch(&cid, &budget).await.unwrap();
    assert_eq!(content.bytes().await.unwrap(), b"content");
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn cached_content_is_held_against_the_callers_own_size_limit() {
    let server = Liar::always(ok(b"content")).await;
    let scene = Scene::new(&[&server.root]).await;
    let cid = raw_cid(b"content");
    let small = Budget { expanded_bytes: 6, ..Budget::default() };
    assert!(scene.store.fetch(&cid, &Budget::default()).await.is_ok());
    let error = scene.store.fetch(&cid, &small).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { limit_bytes: 6, .. }));
}

#[tokio::test]
async fn the_mirror_is_the_source_without_a_gateway() {
    let mirror = tempfile::tempdir().unwrap();
    std::fs::write(mirror.path().join("input.json"), r#"{"entry":"fib","args":[12]}"#).unwrap();
    std::fs::write(mirror.path().join("big"), content(1_000_000)).unwrap();
    let scene = Scene::with(&[], |options| options.mirror = Some(mirror.path().to_owned())).await;
    let budget = Budget::default();
    let input = "QmbBuEbFrx1vcoPukHStpLG3G1mmX8dpSy8xUAGVFK9AdG".parse().unwrap();
    assert!(scene.store.has(&input).await);
    let fetched = scene.store.fetch(&input, &budget).await.unwrap().bytes().await.unwrap();
    assert_eq!(fetched, br#"{"entry":"fib","args":[12]}"#);
    for version in [CidVersion::V0, CidVersion::V1] {
        let cid = cid_of_bytes(&content(1_000_000), version);
        let fetched = scene.store.fetch(&cid, &budget).await.unwrap().bytes().await.unwrap();
        assert!(fetched == content(1_000_000));
    }
    let result = scene.store.put_raw(b"{}").await.unwrap();
    assert!(scene.store.fetch(&result, &budget).await.is_ok());
    let error = scene.store.fetch(&raw_cid(b"nowhere"), &budget).await.unwrap_err();
    assert_eq!((error.code(), error.retry()), ("not_found", true));
}

#[tokio::test]
async fn with_a_gateway_the_mirror_gives_only_what_was_added_to_it() {
    let mirror = tempfile::tempdir().unwrap();
    std::fs::write(mirror.path().join("plain"), "plain").unwrap();
    let server = Liar::always(status("404 Not Found", "")).await;
    let scene = Scene::with(&[&server.root], |options| {
        options.mirror = Some(mirror.path().to_owned());
    })
    .await;
    let added = scene.store.add_bytes(&content(300_000), CidVersion::V0).await.unwrap();
    assert!(scene.store.fetch(&added, &Budget::default()).await.is_ok());
    assert_eq!(server.seen(), Vec::<String>::new());
    let plain = cid_of_bytes(b"plain", CidVersion::V0);
    let error = scene.store.fetch(&plain, &Budget::default()).await.unwrap_err();
    assert_eq!(error.code(), "not_found");
}

#[tokio::test]
async fn without_any_place_the_error_says_so() {
    let scene = Scene::new(&[]).await;
    let error = scene.store.fetch(&raw_cid(b""), &Budget::default()).await.unwrap_err();
    assert_eq!((error.code(), error.retry()), ("no_source", false));
    let error = scene.store.add_bytes(b"", CidVersion::V0).await.unwrap_err();
    assert_eq!(error.code(), "no_source");
}
