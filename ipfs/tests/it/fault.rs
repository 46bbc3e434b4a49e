//! Gateways that lie, stall, flood, cut, redirect or are not there.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use ipfs::{Budget, Cid, CidVersion, Error, Options, Store, Url, raw_cid};
use tokio::net::{TcpSocket, TcpStream};

use crate::liar::{Liar, Step, head, ok, status};
use crate::{Scene, content};

const CONTENT: &[u8] = b"the content that was asked for";

async fn failure(gateways: &[&Url]) -> Error {
    failure_with(gateways, |_| ()).await
}

async fn failure_with(gateways: &[&Url], change: impl FnOnce(&mut Options)) -> Error {
    let scene = Scene::with(gateways, change).await;
    let error = scene.store.fetch(&raw_cid(CONTENT), &Budget::default()).await.unwrap_err();
    assert_eq!(scene.cached_files(), Vec::<std::path::PathBuf>::new(), "{error}");
    error
}

fn flipped() -> Vec<Step> {
    let mut bytes = CONTENT.to_vec();
    bytes[7] ^= 0x10;
    ok(&bytes)
}

#[tokio::test]
async fn i01_a_flipped_bit_sends_us_to_the_next_gateway() {
    let (liar, honest) = (Liar::always(flipped()).await, Liar::always(ok(CONTENT)).await);
    let scene = Scene::new(&[&liar.root, &honest.root]).await;
    let content = scene.store.fetch(&raw_cid(CONTENT), &Budget::default()).await.unwrap();
    assert_eq!(content.bytes().await.unwrap(), CONTENT);
}

#[tokio::test]
async fn i01_when_all_lie_the_error_names_cid_and_gateways_and_nothing_is_kept() {
    let (one, two) = (Liar::always(flipped()).await, Liar::always(flipped()).await);
    let absent = Liar::always(status("404 Not Found", "")).await;
    let error = failure(&[&one.root, &absent.root, &two.root]).await;
    assert_eq!((error.code(), error.retry()), ("digest_mismatch", true));
    for part in [raw_cid(CONTENT).to_string(), one.root.to_string(), two.root.to_string()] {
        assert!(error.to_string().contains(&part), "{error}");
    }
}

#[tokio::test]
async fn i01_a_gateway_with_wrong_leaves_is_passed_over_for_those_blocks_only() {
    let node = crate::node::Node::start();
    let bytes = content(600_000);
    let scene = Scene::with(&[], |options| options.api = Some(node.api.clone())).await;
    let cid = scene.store.add_bytes(&bytes, CidVersion::V1).await.unwrap();
    let leaves: Vec<_> = bytes.chunks(262_144).map(|chunk| raw_cid(chunk).to_string()).collect();
    let liar = Liar::start(move |line, _| {
        if leaves.iter().any(|leaf| line.contains(leaf)) {
            return ok(b"wrong");
        }
        status("404 Not Found", "")
    })
    .await;
    let alone = Scene::new(&[&liar.root]).await;
    assert_eq!(alone.store.fetch(&cid, &Budget::default()).await.unwrap_err().code(), "not_found");
    let both = Scene::new(&[&liar.root, &node.gateway]).await;
    let fetched = both.store.fetch(&cid, &Budget::default()).await.unwrap();
    assert!(fetched.bytes().await.unwrap() == bytes);
    assert_eq!(liar.seen().len(), 1 + 4);
}

#[tokio::test]
async fn i02_every_way_of_not_finishing_has_its_code() {
    let length = format!("Content-Length: {}\r\n", CONTENT.len());
    let part = || Step::Send(CONTENT[..9].to_vec());
    for (name, steps, code) in [
        ("no answer", vec![Step::Hold], "idle_timeout"),
        ("stall after the head", vec![head("200 OK", &length), Step::Hold], "idle_timeout"),
        ("stall in the body", vec![head("200 OK", &length), part(), Step::Hold], "idle_timeout"),
        ("cut short", vec![head("200 OK", &length), part()], "truncated"),
        (
            "chunk cut short",
            vec![
                head("200 OK", "Transfer-Encoding: chunked\r\n"),
                Step::Send(b"5\r\nthe c\r\n".to_vec()),
            ],
            "truncated",
        ),
        ("cut without a length", vec![head("200 OK", ""), part()], "digest_mismatch"),
        ("endless", vec![head("200 OK", ""), Step::Forever(vec![7; 1 << 16])], "block_too_large"),
        ("closed before an answer", vec![], "unreachable"),
        ("no HTTP", vec![Step::Send(b"220 ready\r\n".to_vec())], "unreachable"),
    ] {
        let liar = Liar::always(steps).await;
        let error = failure_with(&[&liar.root], |options| {
            // Where no stall is expected, a busy machine must not look like one.
            if code == "idle_timeout" {
                options.timeouts.idle = Duration::from_millis(300);
            }
        })
        .await;
        assert_eq!((error.code(), error.retry()), (code, true), "{name}: {error}");
    }
}

#[tokio::test]
async fn i02_a_drip_ends_at_the_total_time_while_other_fetches_go_on() {
    let liar = Liar::start(|line, _| {
        if line.contains(&raw_cid(b"other").to_string()) {
            return ok(b"other");
        }
        let drip = Step::Drip(CONTENT.to_vec(), Duration::from_millis(100));
        vec![head("200 OK", ""), drip]
    })
    .await;
    let scene =
        Scene::with(&[&liar.root], |options| options.timeouts.total = Duration::from_secs(1)).await;
    let budget = Budget::default();
    let slow = async {
        let start = Instant::now();
        let error = scene.store.fetch(&raw_cid(CONTENT), &budget).await.unwrap_err();
        (error.code(), start.elapsed())
    };
    let other = async {
        liar.requests(1).await;
        let start = Instant::now();
        scene.store.fetch(&raw_cid(b"other"), &budget).await.unwrap();
        start.elapsed()
    };
    let ((code, slow), other) = tokio::join!(slow, other);
    assert_eq!(code, "total_timeout");
    assert!(slow >= Duration::from_secs(1), "{slow:?}");
    assert!(other < slow, "{other:?}");
}

#[tokio::test]
async fn i03_sizes_over_the_limit_are_refused_before_they_are_read() {
    let large = vec![1; (2 << 20) + 1];
    let encoded = |encoding: &str| {
        let headers = format!("Content-Encoding: {encoding}\r\n");
        vec![head("200 OK", &headers), Step::Forever(vec![0; 1 << 16])]
    };
    let gigabyte = vec![head("200 OK", "Content-Length: 1000000000\r\n"), Step::Hold];
    let untold = vec![head("200 OK", ""), Step::Send(large.clone())];
    for (cid, steps, code) in [
        (raw_cid(&large), ok(&large), "block_too_large"),
        (raw_cid(&large), untold, "block_too_large"),
        (raw_cid(CONTENT), gigabyte, "block_too_large"),
        (raw_cid(CONTENT), encoded("gzip"), "encoding_refused"),
        (raw_cid(CONTENT), encoded("zstd"), "encoding_refused"),
    ] {
        let liar = Liar::always(steps).await;
        let scene = Scene::new(&[&liar.root]).await;
        let error = scene.store.fetch(&cid, &Budget::default()).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
    }
    let exact = vec![1; 2 << 20];
    let honest = Liar::always(ok(&exact)).await;
    let scene = Scene::new(&[&honest.root]).await;
    assert!(scene.store.fetch(&raw_cid(&exact), &Budget::default()).await.is_ok());
}

#[tokio::test]
async fn i09_a_redirect_is_refused_and_its_target_never_asked() {
    let target = Liar::always(ok(CONTENT)).await;
    let places = [
        format!("{}/{}", target.root, raw_cid(CONTENT)),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        "file:///etc/passwd".to_owned(),
        "/elsewhere".to_owned(),
    ];
    for place in places {
        for code in ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"] {
            let liar = Liar::always(status(code, &format!("Location: {place}\r\n"))).await;
            let error = failure(&[&liar.root]).await;
            assert_eq!((error.code(), error.retry()), ("redirect_refused", true));
            assert_eq!(liar.seen().len(), 1);
        }
    }
    assert_eq!(target.seen(), Vec::<String>::new());
}

#[tokio::test]
async fn i09_only_a_strict_cid_and_the_one_format_reach_the_gateway() {
    let server = Liar::always(ok(CONTENT)).await;
    let scene = Scene::new(&[&server.root]).await;
    let long = format!("b{}", "a".repeat(10_240));
    for text in [
        "../../api/v0/shutdown",
        "?format=car&x=",
        "%2f",
        "http://127.0.0.1/",
        " \t\n",
        &long,
        &format!("{}?format=car", raw_cid(CONTENT)),
        &format!("{}/..", raw_cid(CONTENT)),
    ] {
        // There is no way from a text to a request but through this.
        assert_eq!(Cid::parse(text).unwrap_err().code(), "invalid_cid", "{text}");
    }
    scene.store.fetch(&raw_cid(CONTENT), &Budget::default()).await.unwrap();
    let line = format!("GET /ipfs/{}?format=raw HTTP/1.1", raw_cid(CONTENT));
    assert_eq!(server.seen(), [line]);
}

#[tokio::test]
async fn every_status_has_its_code() {
    for (line, headers, code, seconds) in [
        ("404 Not Found", "", "not_found", None),
        ("410 Gone", "", "not_found", None),
        ("429 Too Many Requests", "Retry-After: 1\r\n", "unavailable", Some(1)),
        ("500 Internal Server Error", "", "unavailable", None),
        ("503 Service Unavailable", "Retry-After: 120\r\n", "unavailable", Some(120)),
        ("504 Gateway Timeout", "Retry-After: soon\r\n", "unavailable", None),
        ("304 Not Modified", "", "gateway_refused", None),
        ("206 Partial Content", "", "gateway_refused", None),
        ("204 No Content", "", "gateway_refused", None),
        ("400 Bad Request", "", "gateway_refused", None),
        ("451 Unavailable For Legal Reasons", "", "gateway_refused", None),
    ] {
        let liar = Liar::always(status(line, headers)).await;
        let error = failure(&[&liar.root]).await;
        assert_eq!((error.code(), error.retry()), (code, true), "{line}");
        assert_eq!(error.retry_after(), seconds.map(Duration::from_secs), "{line}");
    }
}

#[tokio::test]
async fn nobody_listening_is_unreachable_and_the_next_gateway_is_asked() {
    let honest = Liar::always(ok(CONTENT)).await;
    let closed = {
        let gone = Liar::always(vec![]).await;
        gone.root.clone()
    };
    let error = failure(&[&closed]).await;
    assert_eq!((error.code(), error.retry()), ("unreachable", true));
    let mut no_tls = honest.root.clone();
    no_tls.set_scheme("https").unwrap();
    assert_eq!(failure(&[&no_tls]).await.code(), "unreachable");
    let scene = Scene::new(&[&closed, &no_tls, &honest.root]).await;
    assert!(scene.store.fetch(&raw_cid(CONTENT), &Budget::default()).await.is_ok());
}

#[tokio::test]
async fn a_connection_that_is_never_accepted_times_out_by_its_own_code() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    // The queue of connections is filled until the kernel takes no more.
    let mut waiting = Vec::new();
    let patience = Duration::from_millis(300);
    while let Ok(stream) = tokio::time::timeout(patience, TcpStream::connect(address)).await {
        waiting.push(stream.unwrap());
    }
    let gateway = format!("http://{address}/ipfs").parse().unwrap();
    let scene = Scene::with(&[&gateway], |options| {
        options.timeouts.connect = Duration::from_millis(300);
    })
    .await;
    let error = scene.store.fetch(&raw_cid(CONTENT), &Budget::default()).await.unwrap_err();
    assert_eq!((error.code(), error.retry()), ("connect_timeout", true));
}

#[tokio::test]
async fn roots_that_are_no_plain_http_address_are_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    for root in [
        "ftp://127.0.0.1/ipfs",
        "file:///ipfs",
        "data:text/plain,x",
        "http://user:secret@127.0.0.1/ipfs",
        "http://127.0.0.1/ipfs?x=1",
        "http://127.0.0.1/ipfs#x",
    ] {
        let mut options = Options::new(folder.path());
        options.gateways = vec![root.parse().unwrap()];
        let Err(error) = Store::open(options).await else { panic!("{root} was accepted") };
        assert_eq!(error.code(), "invalid_url");
        assert!(!error.to_string().contains("secret"));
    }
}

/// The variables are read by a second run of this program: a process must not change its own environment.
#[test]
fn proxy_variables_of_the_environment_are_ignored() {
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "fault::a_root_with_or_without_a_slash_at_its_end_is_the_same"])
        .envs(["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"].map(
            // Nobody listens there: whoever follows it fails.
            |name| (name, "http://127.0.0.1:1"),
        ))
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && output.contains("1 passed"), "{output}");
}

#[tokio::test]
async fn a_root_with_or_without_a_slash_at_its_end_is_the_same() {
    let server = Liar::always(ok(CONTENT)).await;
    for root in [server.root.to_string(), format!("{}/", server.root)] {
        let root = root.parse().unwrap();
        let scene = Scene::new(&[&root]).await;
        assert!(scene.store.fetch(&raw_cid(CONTENT), &Budget::default()).await.is_ok());
    }
    assert_eq!(server.seen()[0], server.seen()[1]);
}

#[tokio::test]
async fn i14_a_pause_is_read_in_every_form_and_is_an_hour_at_the_most() {
    let date = |seconds| {
        let at = std::time::SystemTime::now() + Duration::from_secs(seconds);
        httpdate::fmt_http_date(at)
    };
    for (text, least, most) in [
        ("120".to_owned(), 119, 120),
        (date(600), 590, 600),
        (date(100_000), 3599, 3600),
        (u64::MAX.to_string(), 3599, 3600),
        ("99999999999999999999999".to_owned(), 3599, 3600),
    ] {
        let refusal = format!("Retry-After: {text}\r\n");
        let liar = Liar::always(status("503 Service Unavailable", &refusal)).await;
        let pause = failure(&[&liar.root]).await.retry_after().unwrap();
        let (least, most) = (Duration::from_secs(least), Duration::from_secs(most));
        assert!((least..=most).contains(&pause), "{text}: {pause:?}");
        assert_eq!(liar.seen().len(), 1, "{text}");
    }
    for text in ["soon", "-1", "1.5", ""] {
        let refusal = format!("Retry-After: {text}\r\n");
        let liar = Liar::always(status("503 Service Unavailable", &refusal)).await;
        assert_eq!(failure(&[&liar.root]).await.retry_after(), None, "{text}");
    }
}

#[tokio::test]
async fn i14_an_encoding_that_is_none_is_no_encoding() {
    for header in [
        "Content-Encoding: \r\n",
        "Content-Encoding: identity\r\n",
        "Content-Encoding: , Identity\r\n",
    ] {
        let length = format!("{header}Content-Length: {}\r\n", CONTENT.len());
        let honest =
            Liar::always(vec![head("200 OK", &length), Step::Send(CONTENT.to_vec())]).await;
        let scene = Scene::new(&[&honest.root]).await;
        assert!(scene.store.fetch(&raw_cid(CONTENT), &Budget::default()).await.is_ok(), "{header}");
    }
}

#[tokio::test]
async fn i14_every_broken_answer_has_the_right_words() {
    let send = |text: &str| vec![Step::Send(text.as_bytes().to_vec())];
    for (steps, words) in [
        (send("220 ready\r\n\r\n"), "does not answer in HTTP"),
        (send("HTTP/1.1 abc OK\r\n\r\n"), "does not answer in HTTP"),
        (send("HTTP/1.1 200 OK\r\nno header\r\n\r\n"), "does not answer in HTTP"),
        (vec![], "closed the connection before it answered"),
        (send("HTTP/1.1 200 OK\r\nConte"), "closed the connection before it answered"),
        (
            vec![
                head("200 OK", "Transfer-Encoding: chunked\r\n"),
                Step::Send(b"zz\r\nxx\r\n".to_vec()),
            ],
            "is malformed",
        ),
        (vec![head("200 OK", "Content-Length: 9\r\n"), Step::Send(vec![1])], "was cut short"),
        (status("304 Not Modified", ""), "HTTP 304"),
    ] {
        let liar = Liar::always(steps).await;
        let error = failure(&[&liar.root]).await.to_string();
        assert!(error.contains(words), "{words}: {error}");
        assert!(!error.contains("redirect") && !error.contains("reached"), "{error}");
    }
}
