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

#[test]
fn i7_what_is_a_cid_is_not_the_file_of_that_name() {
    let folder = folder();
    let cid = ipfs::cid_of_bytes(b"what the CID names", ipfs::CidVersion::V0).to_string();
    std::fs::write(folder.path().join(&cid), "what the file has").unwrap();
    std::fs::create_dir(folder.path().join("mirror")).unwrap();
    let run = |module: &str, input: &[&str]| {
        let output = coordinator(folder.path())
            .args(["run", module, "--ipfs-mirror", "mirror"])
            .args(input)
            .output()
            .unwrap();
        text(&output.stderr)
    };
    let words = run(&cid, &[]);
    assert!(
        words.contains(&format!("module: CID {cid}; the file of that name is ./{cid}")),
        "{words}"
    );
    assert!(words.contains("does not have"), "{words}");
    let file = ipfs::cid_of_bytes(b"what the file has", ipfs::CidVersion::V0);
    let words = run(&format!("./{cid}"), &["--input", &cid]);
    assert!(words.contains(&format!("module: file ./{cid}, CID {file}")), "{words}");
    assert!(words.contains(&format!("input: CID {cid}")), "{words}");
}

#[test]
fn i9_a_profile_is_named_as_kubo_names_it() {
    let folder = folder();
    std::fs::write(folder.path().join("file"), vec![7; (1 << 20) + 1]).unwrap();
    let cid = |arguments: &[&str]| {
        let output =
            coordinator(folder.path()).args(["cid", "file"]).args(arguments).output().unwrap();
        (output.status.code(), text(&output.stdout))
    };
    assert_eq!(cid(&["--profile", "legacy-cid-v0"]), cid(&[]));
    assert_eq!(cid(&["--profile", "unixfs-v0-2015"]), cid(&["--cid-version", "0"]));
    // Kubo's importer under the same parameters says the same: the tests of the content crate ask it.
    let wide = cid(&["--profile", "unixfs-v1-2025"]);
    assert!(wide.1.starts_with("bafybei"), "{wide:?}");
    assert_ne!(wide, cid(&["--cid-version", "1"]));
    assert_eq!(cid(&["--profile", "nothing"]).0, Some(2));
    assert_eq!(cid(&["--profile", "test-cid-v1", "--cid-version", "1"]).0, Some(2));
}

#[test]
fn i13_what_a_mirror_does_not_look_at_is_said() {
    let folder = folder();
    let mirror = folder.path().join("mirror");
    std::fs::create_dir(&mirror).unwrap();
    std::fs::File::create(mirror.join("large")).unwrap().set_len((1 << 30) + 1).unwrap();
    let cid = ipfs::cid_of_bytes(b"nowhere", ipfs::CidVersion::V0).to_string();
    let output =
        coordinator(folder.path()).args(["run", &cid, "--ipfs-mirror", "mirror"]).output().unwrap();
    let words = text(&output.stderr);
    assert!(words.contains("large is larger than 1 GiB and was not looked at"), "{words}");
}
