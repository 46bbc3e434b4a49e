use std::fs;
use std::process::Output;

use executor_protocol::CheckReport;

use crate::task::{Task, executor};

const ADD: &str = r#"(module (func (export "add") (param i64 i64) (result i64)
    (i64.add (local.get 0) (local.get 1))))"#;

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[track_caller]
fn refused(output: &Output, words: &[&str]) {
    assert_ne!(output.status.code(), Some(0));
    assert!(output.stdout.is_empty(), "nothing on stdout: {}", text(&output.stdout));
    for word in words {
        assert!(text(&output.stderr).contains(word), "{word:?} in {}", text(&output.stderr));
    }
}

#[test]
fn what_is_not_the_guests_fault_is_no_document() {
    let folder = tempfile::tempdir().unwrap();
    let module = folder.path().join("module.wasm");
    let missing = folder.path().join("missing");
    fs::write(&module, wat::parse_str(ADD).unwrap()).unwrap();
    let run = |pairs: &[(&str, &str)]| {
        let mut command = executor();
        command.env("WASM_PATH", &module).env("OUTPUT_PATH", "");
        command.envs(pairs.iter().copied()).output().unwrap()
    };
    let missing_text = missing.to_str().unwrap();
    refused(&run(&[("WASM_PATH", missing_text)]), &["cannot read", missing_text]);
    refused(&run(&[("INPUT_PATH", missing_text)]), &["cannot read", missing_text]);
    refused(&run(&[("TIMEOUT_SEC", "soon")]), &["TIMEOUT_SEC", "soon", "seconds from"]);
    refused(&run(&[("MODULE_SHA256", &"0".repeat(64))]), &["SHA-256", &"0".repeat(64)]);
    let nowhere = missing.join("result.json");
    let add = [("ADD_X", "1"), ("ADD_Y", "2"), ("OUTPUT_PATH", nowhere.to_str().unwrap())];
    refused(&run(&add), &["cannot write", "result.json"]);
}

#[test]
fn a_text_file_takes_the_value_alone() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("result.txt");
    let module = folder.path().join("module.wasm");
    for (wat, wanted) in [
        (r#"(module (func (export "f") (result i32) i32.const 144))"#, "144"),
        (r#"(module (func (export "f") (result f64) f64.const nan))"#, "NaN"),
        (
            r#"(module (func (export "f") unreachable))"#,
            r#"{"status":"failed","code":"trap","trap":"unreachable"}"#,
        ),
    ] {
        fs::write(&module, wat::parse_str(wat).unwrap()).unwrap();
        let mut command = executor();
        command.env("WASM_PATH", &module).env("OUTPUT_PATH", &out).env("ENTRY", "f");
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert_eq!(fs::read_to_string(&out).unwrap(), wanted);
    }
}

#[test]
fn check_says_what_a_module_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("module.wasm");
    let check = |module: &[u8]| {
        fs::write(&path, module).unwrap();
        let output = executor().arg("check").arg(&path).arg("--json").output().unwrap();
        let report: CheckReport = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), report)
    };
    let (code, report) = check(&wat::parse_str(ADD).unwrap());
    assert_eq!((code, report.refusal, report.command), (Some(0), None, false));
    assert_eq!(report.exports, ["add"]);
    let (code, report) = check(b"nonsense");
    assert_eq!(code, Some(1));
    assert_eq!(report.refusal.as_deref(), Some(r#"{"status":"failed","code":"invalid_module"}"#));
    assert!(report.message.is_some());
}

#[test]
fn version_names_the_engine() {
    let output = executor().args(["version", "--json"]).output().unwrap();
    let version: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(version["engine"], "wasm-exec/1 wasmtime/48");
    assert!(version["engine_version"].as_str().unwrap().contains("wasmtime 48.0."));
}

#[test]
fn help_has_examples() {
    for arguments in [["--help"].as_slice(), &["run", "--help"]] {
        let output = executor().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert!(text(&output.stdout).contains("Examples:"));
    }
}

#[test]
fn the_cache_is_used_and_a_spoilt_file_in_it_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let run = || {
        let task = Task::text(ADD).set("ADD_X", "1").set("ADD_Y", "2");
        task.set("CACHE_DIR", cache.to_str().unwrap()).run().is(r#"{"status":"ok","value":3}"#);
    };
    let compiled = || {
        let mut files: Vec<_> =
            fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "cwasm"));
        assert_eq!(files.len(), 1);
        files.remove(0)
    };
    run();
    let good = fs::read(compiled()).unwrap();
    let made_at = fs::metadata(compiled()).unwrap().modified().unwrap();
    run();
    assert_eq!(fs::metadata(compiled()).unwrap().modified().unwrap(), made_at, "taken as it is");
    let mut spoilt = good.clone();
    let middle = spoilt.len() / 2;
    spoilt[middle] ^= 1;
    fs::write(compiled(), &spoilt).unwrap();
    run();
    assert_eq!(fs::read(compiled()).unwrap(), good, "made again");
    assert_eq!(fs::read_dir(&cache).unwrap().count(), 2, "one compiled form and the key");
}

#[test]
fn compile_writes_a_form_that_only_the_same_key_opens() {
    use executor::artifact::{self, Key};
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("module.wasm"), wat::parse_str(ADD).unwrap()).unwrap();
    let compile = |cache: &str| {
        let mut command = executor();
        command.arg("compile").args([at("module.wasm"), at("out.cwasm")]);
        command.env("CACHE_DIR", cache).output().unwrap()
    };
    refused(&compile(""), &["CACHE_DIR"]);
    assert_eq!(compile(at("cache").to_str().unwrap()).status.code(), Some(0));
    let engine = executor::engine::build(1 << 20).unwrap();
    let sealed = fs::read(at("out.cwasm")).unwrap();
    let key = Key::load_or_create(&at("cache")).unwrap();
    assert!(artifact::open(&engine, &sealed, &key).is_ok());
    assert!(artifact::open(&engine, &sealed, &Key::random().unwrap()).is_err());

    let run = || {
        let mut command = executor();
        command
            .env("WASM_PATH", at("module.wasm"))
            .env("COMPILED_PATH", at("out.cwasm"))
            .env("CACHE_DIR", at("cache"))
            .env("OUTPUT_PATH", "")
            .envs([("ADD_X", "1"), ("ADD_Y", "2")]);
        command.output().unwrap()
    };
    let output = run();
    assert_eq!(text(&output.stdout), "{\"status\":\"ok\",\"value\":3}\n");
    assert_eq!(text(&output.stderr), "");
    assert_eq!(fs::read_dir(at("cache")).unwrap().count(), 1, "nothing was compiled");
    fs::write(at("out.cwasm"), b"spoilt").unwrap();
    let output = run();
    assert_eq!(text(&output.stdout), "{\"status\":\"ok\",\"value\":3}\n");
    assert!(text(&output.stderr).contains("compiling again"));
}
