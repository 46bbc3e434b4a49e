//! Checking, compiling and running within their time limits, and what comes out: document, record, report.

use std::io::Write;
use std::time::Duration;

use executor_protocol::{
    CheckReport, Document, Isolation, Limits, Outcome, PlainFailure, Record, Report,
};
use wasmtime::Engine;

use crate::artifact::{self, Key};
use crate::engine::{self, HOST_STACK_BYTES};
use crate::guest::{self, Finished, Guest};
use crate::module::{self, Refusal, Surface};
use crate::watch::{self, Bounds};

/// How long a guest may take to notice that its time is over, before its outcome is written without it.
const GRACE: Duration = Duration::from_secs(1);

/// Stack of the thread that checks or compiles, in bytes.
const COMPILER_STACK_BYTES: usize = 16 << 20;

/// The longest message for people, in characters: names in a module are the guest's choice.
const MESSAGE_CHARS: usize = 2000;

/// Documents up to this size also stand in the report, in bytes.
const REPORTED_DOCUMENT_BYTES: usize = 32 << 10;

/// Something failed that says nothing about the guest.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine could not be set up.
    #[error(transparent)]
    Engine(#[from] engine::Error),
    /// The compiled form could not be used.
    #[error(transparent)]
    Artifact(#[from] artifact::Error),
    /// The run could not be finished.
    #[error(transparent)]
    Guest(#[from] guest::Error),
    /// The work's thread was lost.
    #[error(transparent)]
    Watch(#[from] watch::Error),
}

impl Error {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Engine(error) => error.code(),
            Self::Artifact(error) => error.code(),
            Self::Guest(error) => error.code(),
            Self::Watch(error) => error.code(),
        }
    }
}

/// The time limit of checking and compiling; past it a module is too complex.
fn compiler_bounds(limits: &Limits) -> Bounds {
    Bounds {
        limit: Duration::from_millis(limits.compile_ms),
        grace: Duration::ZERO,
        stack_bytes: COMPILER_STACK_BYTES,
    }
}

fn too_slow(limits: &Limits) -> Refusal {
    Refusal::new(
        PlainFailure::ModuleTooComplex,
        format!("not looked through or compiled after {} ms", limits.compile_ms),
    )
}

/// Checks a module within its time limit, see [`module::check`].
pub fn check(bytes: &[u8], limits: &Limits) -> Result<Result<Surface, Refusal>, Error> {
    let (bytes, held) = (bytes.to_vec(), *limits);
    let work = move || module::check(&bytes, &held);
    let finding = watch::within("check", compiler_bounds(limits), || (), work)?;
    Ok(finding.unwrap_or_else(|| Err(too_slow(limits))))
}

/// Checks a module within its time limit and reports it.
pub fn check_report(bytes: &[u8], limits: &Limits) -> Result<CheckReport, Error> {
    Ok(module::report_of(bytes, check(bytes, limits)?))
}

/// Checks a module and compiles it, each within its time limit, and seals the compiled form.
pub fn compile(
    engine: &Engine,
    bytes: &[u8],
    key: &Key,
    limits: &Limits,
) -> Result<Result<Vec<u8>, Refusal>, Error> {
    if let Err(refusal) = check(bytes, limits)? {
        return Ok(Err(refusal));
    }
    let (engine, bytes, key) = (engine.clone(), bytes.to_vec(), key.clone());
    let work = move || artifact::compile(&engine, &bytes, &key);
    let sealed = watch::within("compile", compiler_bounds(limits), || (), work)?;
    Ok(sealed.unwrap_or_else(|| Err(too_slow(limits))))
}

/// Runs a guest within its time limit. A loop is ended at the limit; what a host call holds up is given up one
/// second later, and this process should then end soon.
pub fn run(engine: &Engine, guest: Guest, log: Box<dyn Write + Send>) -> Result<Finished, Error> {
    let limits = guest.limits;
    let stack_bytes = usize::try_from(limits.stack_bytes).unwrap_or(usize::MAX);
    let bounds = Bounds {
        limit: Duration::from_millis(limits.timeout_ms),
        grace: GRACE,
        stack_bytes: stack_bytes.saturating_add(HOST_STACK_BYTES),
    };
    let guests_engine = engine.clone();
    let work = move || guest.run(&guests_engine, log);
    match watch::within("guest", bounds, || engine.increment_epoch(), work)? {
        Some(finished) => Ok(finished?),
        None => Ok(Finished {
            run_us: limits.timeout_ms.saturating_mul(1000),
            ..Finished::without_run(
                Outcome::TimedOut,
                Some("a host call was still busy one second after the time limit".to_owned()),
            )
        }),
    }
}

/// A message of bounded length.
#[must_use]
pub fn cut(message: &str) -> String {
    let mut short: String = message.chars().take(MESSAGE_CHARS).collect();
    if short.len() < message.len() {
        short.push('…');
    }
    short
}

/// A finished task: what goes on chain, and what stands next to it.
#[derive(Debug, Clone)]
pub struct Execution {
    /// The result document.
    pub document: Document,
    /// Its outcome.
    pub outcome: Outcome,
    /// Measurements, limits and isolation.
    pub record: Record,
}

impl Execution {
    /// Writes the document and the record of what has finished.
    #[must_use]
    pub fn of(finished: Finished, limits: &Limits, isolation: &Isolation) -> Self {
        let mut outcome = finished.outcome;
        let mut document = Document::of(&outcome);
        let most = usize::try_from(limits.result_bytes).unwrap_or(usize::MAX);
        if matches!(outcome, Outcome::Ok(_)) && document.bytes().len() > most {
            document = Document::of(&Outcome::Failed(PlainFailure::ResultTooLarge.into()));
        }
        if let Ok((_, written)) = Document::parse(document.bytes()) {
            outcome = written;
        }
        Self {
            document,
            outcome,
            record: Record {
                engine: engine::name(),
                engine_version: engine::version(),
                limits: *limits,
                isolation: isolation.clone(),
                fuel_used: finished.fuel_used,
                run_us: finished.run_us,
                peak_memory_bytes: finished.peak_memory_bytes,
                stdout_bytes: finished.stdout_bytes,
                stderr_bytes: finished.stderr_bytes,
                message: finished.message.map(|message| cut(&message)),
            },
        }
    }

    /// What goes out of band.
    #[must_use]
    pub fn report(&self) -> Report {
        let text = self.document.as_str();
        Report {
            sha256: hex::encode(self.document.digest()),
            size: text.len() as u64,
            document: (text.len() <= REPORTED_DOCUMENT_BYTES).then(|| text.to_owned()),
            record: Some(self.record.clone()),
        }
    }

    /// The report as JSON of at most `most` bytes: first the record is left out, then the document.
    #[must_use]
    pub fn report_within(&self, most: usize) -> String {
        let mut report = self.report();
        let json = |report: &Report| serde_json::to_string(report).unwrap_or_default();
        let mut text = json(&report);
        if text.len() > most {
            report.record = None;
            text = json(&report);
        }
        if text.len() > most {
            report.document = None;
            text = json(&report);
        }
        text
    }
}
