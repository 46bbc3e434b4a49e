//! What is known of the places, and what an error says of the content when they work.

use std::time::Duration;

use ipfs::{Budget, Class, Fault, Options, Place, PlaceKind, PlaceState, Store, Url, raw_cid};

use crate::Scene;
use crate::liar::{Liar, Step, head, ok, status};
use crate::node::Node;

fn fault(place: &Place) -> &Fault {
    match &place.state {
        PlaceState::Failed(fault) => fault,
        other => panic!("{} is {other:?}", place.name),
    }
}

async fn gateway(root: &Url) -> Place {
    let scene = Scene::new(&[root]).await;
    let places = scene.store.probe().await;
    let gateway = places.into_iter().next().unwrap();
    assert_eq!(gateway.kind, PlaceKind::Gateway);
    gateway
}

#[tokio::test]
async fn i5_kubo_is_read_from_however_its_address_is_written() {
    let node = Node::start();
    let port = node.api.port().unwrap();
    let scene = Scene::with(&[], |options| options.api = Some(node.api.clone())).await;
    let cid = scene.store.put_raw(b"content").await.unwrap();
    // Whoever names it localhost is sent elsewhere.
    let http = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .unwrap();
    let plain = format!("http://localhost:{port}/ipfs/{cid}?format=raw");
    assert_eq!(http.get(plain).send().await.unwrap().status(), 301);
    for root in [
        format!("http://127.0.0.1:{port}/ipfs"),
        format!("http://127.0.0.1:{port}"),
        format!("http://localhost:{port}/ipfs"),
        format!("http://localhost:{port}/ipfs/"),
        format!("http://localhost:{port}"),
    ] {
        let root = root.parse().unwrap();
        let scene = Scene::new(&[&root]).await;
        let fetched = scene.store.fetch(&cid, &Budget::default()).await;
        assert!(fetched.is_ok(), "{root}: {fetched:?}");
        assert_eq!(gateway(&root).await.state, PlaceState::Works, "{root}");
    }
}

#[tokio::test]
async fn i5_a_root_that_lacks_its_end_is_put_right_by_the_first_look() {
    let content = b"content".to_vec();
    let server = Liar::start(move |line, _| {
        let Some(rest) = line.strip_prefix("GET /deep/ipfs/") else {
            return status("404 Not Found", "");
        };
        if rest.starts_with(&raw_cid(&content).to_string()) {
            return ok(&content);
        }
        vec![head("200 OK", "Content-Length: 0\r\nContent-Type: application/vnd.ipld.raw\r\n")]
    })
    .await;
    let mut root = server.root.clone();
    root.set_path("/deep");
    let scene = Scene::new(&[&root]).await;
    let error = scene.store.fetch(&raw_cid(b"content"), &Budget::default()).await.unwrap_err();
    assert!(error.to_string().contains("the address of a gateway ends in /ipfs"), "{error}");
    let places = scene.store.probe().await;
    assert_eq!(places[0].state, PlaceState::Works);
    assert!(places[0].name.ends_with("/deep/ipfs"));
    assert!(scene.store.fetch(&raw_cid(b"content"), &Budget::default()).await.is_ok());
}

#[tokio::test]
async fn i1_what_is_no_gateway_is_told_with_what_to_write_instead() {
    let page = b"<html>please log in</html>";
    let page = vec![
        head("200 OK", &format!("Content-Type: text/html\r\nContent-Length: {}\r\n", page.len())),
        Step::Send(page.to_vec()),
    ];
    let blank = vec![head("200 OK", "Content-Length: 0\r\n")];
    let subdomain = status("301 Moved", "Location: http://bafkqaaa.ipfs.example.com/\r\n");
    for (steps, code, hint) in [
        (status("404 Not Found", ""), "not_found", Some("write the address of its /ipfs")),
        (page, "digest_mismatch", Some("needs no login")),
        (blank, "digest_mismatch", Some("it is no IPFS gateway")),
        (subdomain, "redirect_refused", Some("serves paths")),
        (status("403 Forbidden", ""), "gateway_refused", Some("write the address of its /ipfs")),
        (status("503 Service Unavailable", ""), "unavailable", None),
        (vec![], "unreachable", Some("see whether the gateway runs")),
    ] {
        let liar = Liar::always(steps).await;
        let place = gateway(&liar.root).await;
        let fault = fault(&place);
        assert_eq!((fault.code, fault.class), (code, Class::Source), "{fault:?}");
        match (hint, &fault.hint) {
            (Some(part), Some(hint)) => assert!(hint.contains(part), "{hint}"),
            (None, None) => {}
            other => panic!("{code}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn i1_an_absence_counts_only_from_a_gateway_that_works() {
    let cid = raw_cid(b"nowhere");
    let node = Node::start();
    let wrong = Liar::always(status("404 Not Found", "")).await;
    for (root, class) in [(&node.gateway, Class::Content), (&wrong.root, Class::Source)] {
        let scene = Scene::with(&[root], |options| {
            options.probe_every = Some(Duration::from_secs(3600));
        })
        .await;
        let error = scene.store.fetch(&cid, &Budget::default()).await.unwrap_err();
        assert_eq!(
            (error.code(), error.class(), error.retry()),
            ("not_found", class, true),
            "{root}"
        );
        let tells = error.to_string().contains("write the address of its /ipfs");
        assert_eq!(tells, class == Class::Source, "{error}");
    }
    // One that works is enough, whatever the others are.
    let scene = Scene::with(&[&wrong.root, &node.gateway], |options| {
        options.probe_every = Some(Duration::from_secs(3600));
    })
    .await;
    let error = scene.store.fetch(&cid, &Budget::default()).await.unwrap_err();
    assert_eq!(error.class(), Class::Content);
}

#[tokio::test]
async fn i1_a_gateway_that_works_and_is_silent_about_one_content_says_something_about_it() {
    let silent = raw_cid(b"silent").to_string();
    let gateway = Liar::start(move |line, _| {
        if line.contains(&silent) {
            return vec![Step::Hold];
        }
        vec![head("200 OK", "Content-Length: 0\r\nContent-Type: application/vnd.ipld.raw\r\n")]
    })
    .await;
    let scene = Scene::with(&[&gateway.root], |options| {
        options.probe_every = Some(Duration::from_secs(3600));
        options.timeouts.idle = Duration::from_millis(500);
    })
    .await;
    let error = scene.store.fetch(&raw_cid(b"silent"), &Budget::default()).await.unwrap_err();
    assert_eq!(
        (error.code(), error.class(), error.retry()),
        ("idle_timeout", Class::Content, true)
    );
}

#[tokio::test]
async fn i1_nobody_there_is_never_the_contents_fault() {
    let closed = Liar::always(vec![]).await.root.clone();
    let scene = Scene::with(&[&closed], |options| {
        options.probe_every = Some(Duration::from_secs(3600));
    })
    .await;
    let error = scene.store.fetch(&raw_cid(b""), &Budget::default()).await.unwrap_err();
    assert_eq!((error.code(), error.class()), ("unreachable", Class::Source));
    let none = Scene::new(&[]).await;
    let error = none.store.fetch(&raw_cid(b""), &Budget::default()).await.unwrap_err();
    assert_eq!((error.code(), error.class()), ("no_source", Class::Local));
}

#[tokio::test]
async fn i1_a_mirror_says_something_of_content_only_while_it_is_there() {
    let folder = tempfile::tempdir().unwrap();
    for (path, class, works) in [
        (folder.path().to_owned(), Class::Content, true),
        (folder.path().join("not-mounted"), Class::Source, false),
    ] {
        let scene = Scene::with(&[], |options| options.mirror = Some(path)).await;
        let error = scene.store.fetch(&raw_cid(b"nowhere"), &Budget::default()).await.unwrap_err();
        assert_eq!((error.code(), error.class()), ("not_found", class));
        let places = scene.store.probe().await;
        let mirror = places.iter().find(|place| place.kind == PlaceKind::Mirror).unwrap();
        assert_eq!(mirror.state == PlaceState::Works, works, "{mirror:?}");
    }
}

/// A device on which every write finds no room stands in for a full disk.
#[tokio::test]
async fn i1_a_cache_that_cannot_be_written_is_this_machines_matter_and_passes() {
    let server = Liar::always(ok(b"content")).await;
    let scene = Scene::new(&[&server.root]).await;
    let drafts = scene.folder.path().join("cache/draft");
    std::fs::remove_dir(&drafts).unwrap();
    std::fs::write(&drafts, "in the way").unwrap();
    let (cid, budget) = (raw_cid(b"content"), Budget::default());
    let error = scene.store.fetch(&cid, &budget).await.unwrap_err();
    assert_eq!((error.code(), error.class(), error.retry()), ("io", Class::Local, true));
    let cache = |places: Vec<Place>| {
        places.into_iter().find(|place| place.kind == PlaceKind::Cache).unwrap()
    };
    assert_eq!(fault(&cache(scene.store.probe().await)).class, Class::Local);
    std::fs::remove_file(&drafts).unwrap();
    std::fs::create_dir(&drafts).unwrap();
    assert!(scene.store.fetch(&cid, &budget).await.is_ok());
    assert_eq!(cache(scene.store.probe().await).state, PlaceState::Works);
}

#[tokio::test]
async fn i1_places_are_looked_at_when_the_store_is_opened_and_again() {
    let server = Liar::start(|_, number| match number {
        0 => status("503 Service Unavailable", ""),
        _ => vec![head("200 OK", "Content-Length: 0\r\nX-Ipfs-Path: /ipfs/bafkqaaa\r\n")],
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let mut options = Options::new(folder.path());
    options.gateways = vec![server.root.clone()];
    options.probe_every = Some(Duration::from_millis(50));
    let store = Store::open(options).await.unwrap();
    // The watch looks by itself; one request for each look.
    server.requests(3).await;
    let works = async {
        while store.health()[0].state != PlaceState::Works {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), works).await.unwrap();
    drop(store);
}

#[tokio::test]
async fn i1_the_rpc_is_looked_at_as_well() {
    let node = Node::start();
    let wrong = Liar::always(status("404 Not Found", "")).await;
    for (root, works) in [(node.api.clone(), true), (wrong.root.clone(), false)] {
        let scene = Scene::with(&[], |options| options.api = Some(root)).await;
        let places = scene.store.probe().await;
        let api = places.iter().find(|place| place.kind == PlaceKind::Api).unwrap();
        assert_eq!(api.state == PlaceState::Works, works, "{api:?}");
    }
}
