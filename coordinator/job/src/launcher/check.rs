//! Looking at a module before anything is created for it: for every runtime, by a confined child of the launcher.

use std::collections::{BTreeMap, VecDeque};
use std::sync::PoisonError;

use executor_protocol::launcher::{End, ModuleKey, Step};
use executor_protocol::{CheckReport, Document, Failure, Limits, Outcome, PlainFailure, Record};
use tokio_util::sync::CancellationToken;

use super::child::{Ran, Work, open};
use super::{Launcher, Ready};
use crate::log::Ring;
use crate::{Blob, Cause, Error};

/// How many answers are remembered.
const REMEMBERED: usize = 64;

/// What looking at a module came to.
#[derive(Debug, Clone)]
pub enum Checked {
    /// It may run.
    Runnable(CheckReport),
    /// It can never run; this is its result.
    Refused(Box<Refusal>),
}

/// The result of a module that can never run.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// The result document.
    pub document: Document,
    /// What it says.
    pub outcome: Outcome,
    /// A sentence for people.
    pub message: Option<String>,
    /// Limits and isolation; nothing was run.
    pub record: Record,
}

/// The last answers: the same bytes under the same limits have the same one.
#[derive(Default)]
pub(super) struct Remembered(VecDeque<([u8; 32], Limits, Checked)>);

impl Remembered {
    fn find(&self, sha256: [u8; 32], limits: &Limits) -> Option<Checked> {
        self.0
            .iter()
            .find(|(of, under, _)| *of == sha256 && under == limits)
            .map(|(_, _, checked)| checked.clone())
    }

    fn keep(&mut self, sha256: [u8; 32], limits: Limits, checked: Checked) {
        self.0.truncate(REMEMBERED - 1);
        self.0.push_front((sha256, limits, checked));
    }
}

impl Launcher {
    /// Has a module looked at. A module whose look takes more than its limits is refused like any other that can
    /// never run; an error is the infrastructure's.
    pub async fn check(&self, module: &Blob, limits: &Limits) -> Result<Checked, Error> {
        let remembered = |checks: &std::sync::Mutex<Remembered>| {
            let checks = checks.lock().unwrap_or_else(PoisonError::into_inner);
            checks.find(module.sha256, limits)
        };
        if let Some(checked) = remembered(&self.0.checks) {
            return Ok(checked);
        }
        let ready = self.ready().await?;
        let log = Ring::default();
        let work = Work {
            step: Step::Check,
            limits: *limits,
            environment: BTreeMap::new(),
            // It seals nothing.
            key: ModuleKey("00".repeat(32)),
            module_sha256: module.sha256,
            input_sha256: None,
            inputs: vec![open(&module.path)?],
        };
        let ran = self.run(work, &log, &CancellationToken::new(), |_| ()).await?;
        if ran.was_too_complex() {
            // Not remembered: another machine's load may have been in it.
            return Ok(Checked::Refused(Box::new(too_complex(&ready, &ran, limits))));
        }
        if ran.end != End::Exited(0) {
            let loss = ran.loss(&log);
            return Err(match loss.cause {
                Cause::ContentMismatch => Error::Check(format!(
                    "{} has another digest than it was verified with",
                    module.path.display()
                )),
                _ => Error::Check(loss.reason),
            });
        }
        let report: CheckReport =
            serde_json::from_slice(&ran.report).map_err(|e| Error::Check(e.to_string()))?;
        if report.module_sha256 != hex::encode(module.sha256) {
            return Err(Error::Check("the report is of another module".to_owned()));
        }
        let checked = match report.refusal.clone() {
            None => Checked::Runnable(report),
            Some(text) => {
                Checked::Refused(Box::new(refused(&ready, &ran, limits, &text, report.message)?))
            }
        };
        let mut checks = self.0.checks.lock().unwrap_or_else(PoisonError::into_inner);
        checks.keep(module.sha256, *limits, checked.clone());
        Ok(checked)
    }
}

/// The result of a module whose compilation, or the look before it, used up what it was allowed.
pub(crate) fn too_complex(ready: &Ready, ran: &Ran, limits: &Limits) -> Refusal {
    let outcome = Outcome::Failed(Failure::Plain(PlainFailure::ModuleTooComplex));
    let message = Some(format!(
        "the module took more than {} ms or {} MiB to compile",
        limits.compile_ms, limits.compile_mib
    ));
    Refusal {
        document: Document::of(&outcome),
        outcome,
        message: message.clone(),
        record: unmeasured(ready, ran, limits, message),
    }
}

/// The result that a child's report names.
pub(crate) fn refused(
    ready: &Ready,
    ran: &Ran,
    limits: &Limits,
    text: &str,
    message: Option<String>,
) -> Result<Refusal, Error> {
    let (document, outcome) =
        Document::parse(text.as_bytes()).map_err(|e| Error::Check(e.to_string()))?;
    Ok(Refusal {
        document,
        outcome,
        message: message.clone(),
        record: unmeasured(ready, ran, limits, message),
    })
}

/// The record of a run in which no guest ran to its own end.
pub(crate) fn unmeasured(
    ready: &Ready,
    ran: &Ran,
    limits: &Limits,
    message: Option<String>,
) -> Record {
    Record {
        engine: ready.engine.clone(),
        engine_version: ready.engine_version.clone(),
        limits: *limits,
        isolation: ran.isolation.clone(),
        fuel_used: None,
        run_us: 0,
        peak_memory_bytes: ran.peak_memory_bytes,
        stdout_bytes: 0,
        stderr_bytes: 0,
        message,
    }
}
