//! What a confined child of the launcher does. It gets open files, never paths, and works in an empty root.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};

use executor_protocol::launcher::{
    EXIT_INFRASTRUCTURE, EXIT_STALE_ARTIFACT, EXIT_WRONG_DIGEST, Step,
};
use executor_protocol::{Isolation, Limits};

use crate::artifact::{self, Key};
use crate::engine;
use crate::entry::Invocation;
use crate::execution::{self, Execution};
use crate::guest::Guest;
use crate::module;

/// Where a child writes.
#[derive(Debug)]
pub struct Streams {
    /// Takes one JSON text: a `CheckReport`, `{}` or a `Report`.
    pub report: File,
    /// Takes the result document and a newline, at the very end.
    pub stdout: File,
    /// Takes guest output, one JSON object per line, and what the child itself has to say.
    pub stderr: File,
}

/// One step of one task.
#[derive(Debug)]
pub struct Job<'a> {
    /// What to do.
    pub step: Step,
    /// What bounds it.
    pub limits: &'a Limits,
    /// `ENTRY`, `ARGS_JSON`, `ADD_X`, `ADD_Y`, `MODULE_SHA256`.
    pub environment: &'a BTreeMap<String, String>,
    /// What confines this process; it goes into the record.
    pub isolation: &'a Isolation,
    /// The key of compiled forms.
    pub key: &'a Key,
}

/// Why a step failed; never the guest's doing.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0} has no descriptor")]
    Missing(&'static str),
    #[error("cannot {0}")]
    File(&'static str, #[source] io::Error),
    #[error("the module is {found}, not {wanted}")]
    OtherModule { found: String, wanted: String },
    #[error(transparent)]
    Execution(#[from] execution::Error),
    #[error(transparent)]
    Engine(#[from] engine::Error),
    #[error(transparent)]
    Artifact(#[from] artifact::Error),
}

impl Error {
    fn exit_code(&self) -> i32 {
        match self {
            Self::Artifact(error) if error.is_stale() => EXIT_STALE_ARTIFACT,
            Self::OtherModule { .. } => EXIT_WRONG_DIGEST,
            _ => EXIT_INFRASTRUCTURE,
        }
    }
}

/// Does the step and answers the process's exit code: 0 when the report is complete.
///
/// `inputs` are, by step: the module; the module and the file that takes the compiled form; the compiled form and
/// the input if there is one. A module that cannot be compiled leaves its file empty and a `CheckReport` with the
/// refusal as report.
#[must_use]
pub fn execute(job: &Job<'_>, inputs: Vec<File>, streams: Streams) -> i32 {
    let stderr = streams.stderr.try_clone();
    match attempt(job, inputs.into_iter(), streams) {
        Ok(()) => 0,
        Err(error) => {
            if let Ok(mut stderr) = stderr {
                // There is nobody else to tell.
                let _ = writeln!(stderr, "executor: {error}{}", Causes(&error));
            }
            error.exit_code()
        }
    }
}

/// The causes of an error, each after a colon.
struct Causes<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::iter::successors(self.0.source(), |error| error.source())
            .try_for_each(|cause| write!(f, ": {cause}"))
    }
}

fn attempt(
    job: &Job<'_>,
    mut inputs: impl Iterator<Item = File>,
    mut streams: Streams,
) -> Result<(), Error> {
    let mut next = |name| inputs.next().ok_or(Error::Missing(name));
    match job.step {
        Step::Check => {
            let bytes = contents(next("the module")?)?;
            let report = execution::check_report(&bytes, job.limits)?;
            answer(&mut streams.report, &json(&report))
        }
        Step::Compile => {
            let bytes = contents(next("the module")?)?;
            let mut compiled = next("the compiled form")?;
            let engine = engine::build(job.limits.stack_bytes)?;
            let report = match execution::compile(&engine, &bytes, job.key, job.limits)? {
                Ok(sealed) => {
                    answer(&mut compiled, &sealed)?;
                    b"{}".to_vec()
                }
                Err(refusal) => json(&module::report_of(&bytes, Err(refusal))),
            };
            answer(&mut streams.report, &report)
        }
        Step::Run { has_input } => {
            let sealed = contents(next("the compiled form")?)?;
            let input = has_input.then(|| next("the input").and_then(contents)).transpose()?;
            let engine = engine::build(job.limits.stack_bytes)?;
            let compiled = artifact::open(&engine, &sealed, job.key)?;
            drop(sealed);
            if let Some(wanted) = job.environment.get("MODULE_SHA256") {
                let found = hex::encode(compiled.sha256);
                if !wanted.is_empty() && *wanted != found {
                    let wanted = wanted.clone();
                    return Err(Error::OtherModule { found, wanted });
                }
            }
            let guest = Guest {
                compiled,
                input,
                invocation: Invocation::from_environment(job.environment),
                limits: *job.limits,
            };
            let finished = execution::run(&engine, guest, Box::new(streams.stderr))?;
            let execution = Execution::of(finished, job.limits, job.isolation);
            answer(&mut streams.report, &json(&execution.report()))?;
            let mut line = execution.document.bytes().to_vec();
            line.push(b'\n');
            answer(&mut streams.stdout, &line)
        }
    }
}

fn contents(mut file: File) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|e| Error::File("read an input", e))?;
    Ok(bytes)
}

fn answer(file: &mut File, bytes: &[u8]) -> Result<(), Error> {
    file.write_all(bytes).map_err(|e| Error::File("write an answer", e))
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}
