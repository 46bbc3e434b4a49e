use crate::{coordinator, folder, text};

#[test]
fn the_cid_of_a_file_is_the_one_that_ipfs_add_gives() {
    let folder = folder();
    std::fs::write(folder.path().join("input.json"), r#"{"entry":"fib","args":[12]}"#).unwrap();
    let output = coordinator(folder.path()).args(["cid", "input.json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stdout), "QmbBuEbFrx1vcoPukHStpLG3G1mmX8dpSy8xUAGVFK9AdG\n");
    assert!(output.stderr.is_empty());

    let output = coordinator(folder.path())
        .args(["cid", "input.json", "--cid-version", "1", "--json"])
        .output()
        .unwrap();
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(value["cid"].as_str().unwrap().starts_with("bafkrei"), "{value}");
}

#[test]
fn a_file_that_is_not_there_has_no_cid() {
    let folder = folder();
    let output = coordinator(folder.path()).args(["cid", "none"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    assert!(text(&output.stderr).starts_with("error: "));
}

#[test]
fn a_status_without_coordinator_and_chain_is_an_error() {
    let folder = folder();
    // A port that nobody listens on any more.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let output = coordinator(folder.path())
        .args(["status", "1", "--json", "--api", &format!("http://127.0.0.1:{port}")])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(error["error"]["code"], "coordinator_unreachable");
}

#[test]
fn a_module_that_is_neither_file_nor_cid_is_a_wrong_command_line() {
    let folder = folder();
    let output = coordinator(folder.path()).args(["run", "none.wasm"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("none.wasm"));
}
