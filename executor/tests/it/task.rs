use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use executor_protocol::{Document, Report};
use sha2::{Digest as _, Sha256};

/// The executor under test, with an empty environment.
pub(crate) fn executor() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_executor"));
    command.env_clear();
    command
}

/// One task for `executor run`.
pub(crate) struct Task {
    module: Vec<u8>,
    input: Option<Vec<u8>>,
    environment: BTreeMap<String, String>,
}

/// What came out, after everything that must always hold was checked.
pub(crate) struct Ran {
    /// The result document.
    pub(crate) document: String,
    /// What was reported out of band.
    pub(crate) report: Report,
    /// The guest's output lines on stderr.
    pub(crate) log: Vec<serde_json::Value>,
    /// Start to end of the process.
    pub(crate) took: Duration,
}

impl Task {
    pub(crate) fn of(module: &[u8]) -> Self {
        Self { module: module.to_vec(), input: None, environment: BTreeMap::new() }
    }

    pub(crate) fn text(wat: &str) -> Self {
        Self::of(&wat::parse_str(wat).unwrap())
    }

    pub(crate) fn input(mut self, input: impl AsRef<[u8]>) -> Self {
        self.input = Some(input.as_ref().to_vec());
        self
    }

    pub(crate) fn set(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    pub(crate) fn entry(self, entry: &str) -> Self {
        self.set("ENTRY", entry)
    }

    /// Runs it and holds it to the rules of the executor's streams.
    pub(crate) fn run(self) -> Ran {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("module.wasm"), &self.module).unwrap();
        let mut command = executor();
        if let Some(input) = &self.input {
            fs::write(at("input"), input).unwrap();
            command.env("INPUT_PATH", at("input"));
        }
        fs::create_dir(at("out")).unwrap();
        let started = Instant::now();
        let output = command
            .env("WASM_PATH", at("module.wasm"))
            .env("OUTPUT_PATH", at("out/result.json"))
            .env("RECORD_PATH", at("out/record.json"))
            .env("TERMINATION_PATH", at("out/termination"))
            .env("MODULE_SHA256", hex::encode(Sha256::digest(&self.module)))
            .envs(&self.environment)
            .output()
            .unwrap();
        let took = started.elapsed();
        let stderr = String::from_utf8(output.stderr).expect("stderr is text");
        assert_eq!(output.status.code(), Some(0), "{:?}: {stderr}", output.status);

        let document = fs::read_to_string(at("out/result.json")).unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{document}\n"));
        Document::parse(document.as_bytes()).expect("a canonical document");
        let report: Report =
            serde_json::from_slice(&fs::read(at("out/record.json")).unwrap()).unwrap();
        assert_eq!(report.sha256, hex::encode(Sha256::digest(&document)));
        assert_eq!(report.size, document.len() as u64);
        assert!(report.record.is_some());
        let termination = fs::read(at("out/termination")).unwrap();
        assert!(termination.len() <= 4096);
        let short: Report = serde_json::from_slice(&termination).unwrap();
        assert_eq!((short.sha256, short.size), (report.sha256.clone(), report.size));
        let left = fs::read_dir(at("out")).unwrap().count();
        assert_eq!(left, 3, "only result, record and termination message are left behind");

        let log = stderr
            .lines()
            .map(|line| {
                serde_json::from_str(line).unwrap_or_else(|_| panic!("no guest line: {line}"))
            })
            .collect();
        Ran { document, report, log, took }
    }
}

impl Ran {
    /// Requires a failure with this code.
    #[track_caller]
    pub(crate) fn failed(&self, code: &str) -> &Self {
        assert_eq!(self.document, format!(r#"{{"status":"failed","code":"{code}"}}"#));
        self
    }

    /// Requires this document.
    #[track_caller]
    pub(crate) fn is(&self, document: &str) -> &Self {
        assert_eq!(self.document, document);
        self
    }

    /// Requires an end within so many seconds.
    #[track_caller]
    pub(crate) fn within(&self, seconds: f64) -> &Self {
        assert!(self.took.as_secs_f64() < seconds, "took {:?}", self.took);
        self
    }

    /// What the guest wrote to one of its streams, joined.
    pub(crate) fn logged(&self, stream: &str) -> String {
        self.log
            .iter()
            .filter(|line| line["guest"] == stream)
            .map(|line| line["text"].as_str().unwrap())
            .collect()
    }
}
