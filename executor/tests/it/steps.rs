//! The steps as a confined child does them: open files in, open files out.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};

use executor::artifact::Key;
use executor::step::{Job, Streams, execute};
use executor_protocol::launcher::{
    EXIT_INFRASTRUCTURE, EXIT_STALE_ARTIFACT, EXIT_WRONG_DIGEST, Step,
};
use executor_protocol::{CheckReport, Isolation, Limits, Report};

const FIB: &[u8] = include_bytes!("../../../host/wasm/fib.wasm");
const COUNT: &[u8] = include_bytes!("../../../host/wasm/wordcount.wasm");

/// A file without a name.
fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

fn contents(mut file: File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

struct Done {
    code: i32,
    report: Vec<u8>,
    stdout: String,
    stderr: String,
}

fn step(step: Step, key: &Key, environment: &[(&str, &str)], inputs: &[&File]) -> Done {
    let [report, stdout, stderr] = [file(b""), file(b""), file(b"")];
    let clone = |file: &File| file.try_clone().unwrap();
    let job = Job {
        step,
        limits: &Limits::default(),
        environment: &environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect::<BTreeMap<_, _>>(),
        isolation: &Isolation::none("a test"),
        key,
    };
    let streams =
        Streams { report: clone(&report), stdout: clone(&stdout), stderr: clone(&stderr) };
    let code = execute(&job, inputs.iter().map(|file| clone(file)).collect(), streams);
    Done {
        code,
        report: contents(report),
        stdout: String::from_utf8(contents(stdout)).unwrap(),
        stderr: String::from_utf8(contents(stderr)).unwrap(),
    }
}

fn compiled(module: &[u8], key: &Key) -> File {
    let mut target = file(b"");
    let done = step(Step::Compile, key, &[], &[&file(module), &target]);
    assert_eq!((done.code, done.report.as_slice()), (0, b"{}".as_slice()), "{}", done.stderr);
    target.rewind().unwrap();
    target
}

#[test]
fn a_module_is_checked_compiled_and_run_in_three_steps() {
    let key = Key::random().unwrap();
    let done = step(Step::Check, &key, &[], &[&file(FIB)]);
    let report: CheckReport = serde_json::from_slice(&done.report).unwrap();
    assert_eq!((done.code, report.refusal), (0, None));
    let code = compiled(FIB, &key);
    let input = file(br#"{"entry":"fib","args":[12]}"#);
    let done = step(Step::Run { has_input: true }, &key, &[], &[&code, &input]);
    assert_eq!((done.code, done.stdout.as_str()), (0, "{\"status\":\"ok\",\"value\":144}\n"));
    let report: Report = serde_json::from_slice(&done.report).unwrap();
    assert_eq!(report.document.as_deref(), done.stdout.strip_suffix('\n'));
    assert_eq!(report.record.unwrap().isolation, Isolation::none("a test"));
    let count = compiled(COUNT, &key);
    let done = step(Step::Run { has_input: false }, &key, &[], &[&count]);
    assert_eq!(
        done.stdout,
        "{\"status\":\"ok\",\"value\":{\"lines\":0,\"words\":0,\"bytes\":0}}\n"
    );
}

#[test]
fn a_module_that_cannot_be_compiled_is_refused_in_the_report() {
    let key = Key::random().unwrap();
    let target = file(b"");
    let done = step(Step::Compile, &key, &[], &[&file(b"nonsense"), &target]);
    let report: CheckReport = serde_json::from_slice(&done.report).unwrap();
    assert_eq!((done.code, report.refusal.is_some()), (0, true));
    assert!(contents(target).is_empty());
}

#[test]
fn a_compiled_form_that_is_not_ours_is_not_run() {
    let (key, other) = (Key::random().unwrap(), Key::random().unwrap());
    let run = Step::Run { has_input: false };
    let done = step(run, &other, &[("ENTRY", "fib")], &[&compiled(FIB, &key)]);
    assert_eq!((done.code, done.stdout.as_str()), (EXIT_STALE_ARTIFACT, ""));
    assert!(done.stderr.contains("integrity tag"), "{}", done.stderr);
    let wanted = "0".repeat(64);
    let done = step(run, &key, &[("MODULE_SHA256", &wanted)], &[&compiled(FIB, &key)]);
    assert_eq!((done.code, done.stdout.as_str()), (EXIT_WRONG_DIGEST, ""));
    let done = step(run, &key, &[], &[]);
    assert_eq!((done.code, done.stdout.as_str()), (EXIT_INFRASTRUCTURE, ""));
}
