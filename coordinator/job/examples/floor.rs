//! What a job costs beside what a process costs: `cargo run --release -p job --example floor`. Prints the median of
//! 200 of each, taken in turns, in microseconds: starting `/bin/true`, and a cached `fib(12)` through the process
//! runtime (`ensure`, `wait`, `remove`).
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a measurement"
)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Instant, SystemTime};

use executor_protocol::Limits;
use job::launcher::{Launcher, Options};
use job::process::{self, Process};
use job::{Blob, Instance, Name, Runtime as _, Spec, Status};
use sha2::{Digest as _, Sha256};

const ROUNDS: u64 = 200;
const FIB: &str = r#"(module (func $fib (export "fib") (param i32) (result i32)
    (if (result i32) (i32.lt_s (local.get 0) (i32.const 2))
        (then (local.get 0))
        (else (i32.add (call $fib (i32.sub (local.get 0) (i32.const 1)))
                       (call $fib (i32.sub (local.get 0) (i32.const 2))))))))"#;

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = wat::parse_str(FIB).unwrap();
    let path = folder.path().join("fib.wasm");
    std::fs::write(&path, &bytes).unwrap();
    let executor = std::env::var_os("EXECUTOR_BIN").map_or_else(
        || {
            let program = std::env::current_exe().unwrap();
            program.parent().unwrap().parent().unwrap().join("executor")
        },
        PathBuf::from,
    );
    let launcher = Launcher::new(Options::new(executor));
    let options =
        process::Options { cache_dir: folder.path().join("cache"), cache_bytes: 64 << 20 };
    let runtime = Process::open(launcher.clone(), options).await.unwrap();
    let instance = Instance::parse("00000000").unwrap();
    let spec = |task| Spec {
        name: Name::new(&instance, task, 1),
        module: Blob { path: path.clone(), sha256: Sha256::digest(&bytes).into() },
        input: None,
        environment: BTreeMap::from([
            ("ENTRY".to_owned(), "fib".to_owned()),
            ("ARGS_JSON".to_owned(), "[12]".to_owned()),
        ]),
        limits: Limits::default(),
    };
    let mut floor = Vec::new();
    let mut guest = Vec::new();
    let mut jobs = Vec::new();
    let mut confined = Vec::new();
    // The first round compiles.
    for task in 0..=ROUNDS {
        let begun = Instant::now();
        let status = tokio::process::Command::new("/bin/true").status().await;
        assert!(status.unwrap().success());
        let process = begun.elapsed();

        let spec = spec(task);
        let (begun, begun_at) = (Instant::now(), SystemTime::now());
        runtime.ensure(&spec).await.unwrap();
        let Status::Finished(finished) = runtime.wait(&spec.name).await.unwrap() else {
            unreachable!("a job of fib was lost");
        };
        let job = begun.elapsed();
        assert_eq!(finished.document.as_str(), r#"{"status":"ok","value":144}"#);
        runtime.remove(&spec.name).await.unwrap();
        if task > 0 {
            floor.push(process.as_micros());
            jobs.push(job.as_micros());
            let start = finished.started_at.duration_since(begun_at);
            confined.push(start.unwrap_or_default().as_micros());
            guest.push(u128::from(finished.record.unwrap().run_us));
        }
    }
    let median = |mut all: Vec<u128>| {
        all.sort_unstable();
        all[all.len() / 2]
    };
    let (floor, jobs) = (median(floor), median(jobs));
    let (confined, guest) = (median(confined), median(guest));
    println!("/bin/true {floor} us");
    println!(
        "cached fib(12) as a job {jobs} us (confined after {confined} us, in the guest {guest} us)"
    );
    println!("ratio {:.2}", jobs as f64 / floor as f64);
    launcher.close().await;
}
