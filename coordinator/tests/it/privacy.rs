//! What others on the machine, and web pages, can do to a running coordinator: nothing.

use std::{
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use harness::wait_for;
use reqwest::{Client, StatusCode, header};

use crate::stage::{PATIENCE, client, listens, run, stage, stop};

const FIRST: &str = "the-first-of-the-tokens";
const SECOND: &str = "the-second-of-the-tokens";

fn write(path: &Path, text: &str, mode: u32) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// The modes of everything below a folder that others may use.
fn open_to_others(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (path, metadata) = (entry.path(), entry.metadata().unwrap());
        if metadata.mode() & 0o077 != 0 {
            found.push(format!("{} {:o}", path.display(), metadata.mode()));
        }
        if metadata.is_dir() {
            found.extend(open_to_others(&path));
        }
    }
    found
}

#[tokio::test]
async fn x6_nobody_else_reads_the_data_and_no_web_page_the_api() {
    let scene = stage().await;
    let mut daemon = scene.coordinator().unwrap();
    listens(&scene, &mut daemon).await;
    assert_eq!(std::fs::metadata(scene.data()).unwrap().mode() & 0o777, 0o700);
    assert_eq!(open_to_others(&scene.data()), Vec::<String>::new());

    let ask = async |path: &str, host: Option<&str>| {
        let mut request = Client::new().get(format!("{}{path}", scene.api_url()));
        if let Some(host) = host {
            request = request.header(header::HOST, host);
        }
        request.send().await.unwrap().status()
    };
    for path in ["/api/v1/tasks", "/readyz", "/metrics"] {
        assert_eq!(ask(path, Some("evil.example")).await, StatusCode::FORBIDDEN, "{path}");
        assert_ne!(ask(path, Some("localhost:8480")).await, StatusCode::FORBIDDEN, "{path}");
        assert_ne!(ask(path, None).await, StatusCode::FORBIDDEN, "{path}");
    }

    let pid = rustix::process::Pid::from_raw(i32::try_from(daemon.pid().unwrap()).unwrap());
    rustix::process::kill_process(pid.unwrap(), rustix::process::Signal::HUP).unwrap();
    wait_for("the signal to be told", PATIENCE, async || {
        let log = daemon.tail();
        if log.contains("SIGHUP") { Ok(()) } else { Err(log) }
    })
    .await;
    assert_eq!(ask("/healthz", None).await, StatusCode::OK);
    stop(daemon).await;
}

#[tokio::test]
async fn x6_tokens_are_read_again_when_they_change_and_never_from_a_file_that_others_write() {
    let scene = stage().await;
    let file = scene.folder().join("tokens");
    write(&file, FIRST, 0o600);
    let path = file.display().to_string();
    let variables = [("COORDINATOR_API_TOKEN_FILE", path.as_str())];
    let mut daemon = scene.coordinator_with(&variables).unwrap();
    listens(&scene, &mut daemon).await;
    let ask = async |token: &str| {
        let url = format!("{}/api/v1/tasks", scene.api_url());
        let request = Client::new().get(url).header(header::HOST, "a.proxy.example");
        request.bearer_auth(token).send().await.unwrap().status()
    };
    assert_eq!((ask(FIRST).await, ask(SECOND).await), (StatusCode::OK, StatusCode::UNAUTHORIZED));

    // A file that cannot be used changes nothing.
    write(&file, SECOND, 0o666);
    let pid = rustix::process::Pid::from_raw(i32::try_from(daemon.pid().unwrap()).unwrap());
    rustix::process::kill_process(pid.unwrap(), rustix::process::Signal::HUP).unwrap();
    wait_for("the refusal to be told", PATIENCE, async || {
        let log = daemon.tail();
        if log.contains("0666") { Ok(()) } else { Err(log) }
    })
    .await;
    assert_eq!(ask(FIRST).await, StatusCode::OK);

    write(&file, SECOND, 0o600);
    rustix::process::kill_process(pid.unwrap(), rustix::process::Signal::HUP).unwrap();
    wait_for("the new token to be let in", PATIENCE, async || match ask(SECOND).await {
        StatusCode::OK => Ok(()),
        other => Err(other.to_string()),
    })
    .await;
    assert_eq!(ask(FIRST).await, StatusCode::UNAUTHORIZED);
    stop(daemon).await;

    write(&file, SECOND, 0o666);
    let refused = run(&client(&scene, &variables), &["status", "1"]).await;
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("0666"));
}
