//! `executor run`: one task from its files to its result, in this process. It checks, compiles (or takes the
//! compiled form from the cache), runs and delivers.

use std::fs::{self, File};
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};

use executor_protocol::{Isolation, Outcome};
use sha2::{Digest as _, Sha256};
use wasmtime::Engine;

use crate::artifact::{self, Cache, Compiled, Key};
use crate::engine;
use crate::execution::{self, Execution};
use crate::guest::{Finished, Guest};
use crate::module::Refusal;
use crate::settings::{InputPath, Settings};

/// The most bytes Kubernetes takes as a termination message.
const TERMINATION_BYTES: usize = 4096;

/// A task that could not be run or delivered: the machine's fault, not the guest's.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("cannot {0} {path}", path = .1.display())]
    File(&'static str, PathBuf, #[source] io::Error),
    /// The module is another one than was asked for.
    #[error("{path} has SHA-256 {found}, not {wanted}", path = .path.display())]
    OtherModule {
        /// The file.
        path: PathBuf,
        /// What it is.
        found: String,
        /// What it should be.
        wanted: String,
    },
    /// The result could not be printed.
    #[error("cannot write to stdout")]
    Stdout(#[source] io::Error),
    /// The steps themselves failed.
    #[error(transparent)]
    Execution(#[from] execution::Error),
}

impl Error {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::File(..) => "file_failed",
            Self::OtherModule { .. } => "digest_mismatch",
            Self::Stdout(_) => "stdout_failed",
            Self::Execution(error) => error.code(),
        }
    }
}

impl From<artifact::Error> for Error {
    fn from(error: artifact::Error) -> Self {
        Self::Execution(error.into())
    }
}

/// Runs a task: what the guest does is an outcome, and guest output goes to `log`.
pub fn run(settings: &Settings, mut log: Box<dyn Write + Send>) -> Result<Execution, Error> {
    let limits = &settings.limits;
    let isolation = Isolation::none("started by hand, not by a launcher");
    let bytes = read_module(&settings.wasm_path, limits.module_bytes)?;
    let sha256: [u8; 32] = Sha256::digest(&bytes).into();
    let whole = bytes.len() as u64 <= limits.module_bytes;
    if let Some(wanted) = &settings.module_sha256
        && whole
        && *wanted != hex::encode(sha256)
    {
        return Err(Error::OtherModule {
            path: settings.wasm_path.clone(),
            found: hex::encode(sha256),
            wanted: wanted.clone(),
        });
    }
    let input = read_input(&settings.input_path)?;
    let engine = engine::build(limits.stack_bytes).map_err(execution::Error::from)?;
    let finished = match prepare(settings, &engine, &bytes, sha256, &mut log)? {
        Ok(compiled) => {
            let guest =
                Guest { compiled, input, invocation: settings.invocation.clone(), limits: *limits };
            execution::run(&engine, guest, log)?
        }
        Err(refusal) => Finished::without_run(refusal.outcome(), Some(refusal.message)),
    };
    Ok(Execution::of(finished, limits, &isolation))
}

/// The compiled module: from the cache, or checked and compiled now.
fn prepare(
    settings: &Settings,
    engine: &Engine,
    bytes: &[u8],
    sha256: [u8; 32],
    log: &mut impl Write,
) -> Result<Result<Compiled, Refusal>, Error> {
    let cache = settings.cache_dir.as_deref().map(Cache::open).transpose()?;
    let given = match (&cache, &settings.compiled_path) {
        (Some(cache), Some(path)) => load(engine, cache.key(), path, sha256, log)?,
        _ => None,
    };
    let cached = || cache.as_ref().and_then(|cache| cache.load(engine, sha256));
    if let Some(compiled) = given.or_else(cached) {
        // The check depends on the limits; a compiled form from another day does not replace it.
        return Ok(execution::check(bytes, &settings.limits)?.map(|_| compiled));
    }
    let key = match &cache {
        Some(cache) => cache.key().clone(),
        None => Key::random()?,
    };
    let sealed = match execution::compile(engine, bytes, &key, &settings.limits)? {
        Ok(sealed) => sealed,
        Err(refusal) => return Ok(Err(refusal)),
    };
    if let Some(Err(error)) = cache.map(|cache| cache.store(engine, sha256, &sealed)) {
        // It will be compiled again next time.
        let _ = writeln!(log, "executor: {error}; going on without it");
    }
    Ok(Ok(artifact::open(engine, &sealed, &key)?))
}

/// The compiled form in a file; none when it is not one of this module by this engine.
fn load(
    engine: &Engine,
    key: &Key,
    path: &Path,
    sha256: [u8; 32],
    log: &mut impl Write,
) -> Result<Option<Compiled>, Error> {
    let sealed = fs::read(path).map_err(|e| Error::File("read", path.to_owned(), e))?;
    let opened = match artifact::open(engine, &sealed, key) {
        Ok(compiled) if compiled.sha256 != sha256 => Err(artifact::Error::Tampered),
        opened => opened,
    };
    match opened {
        Ok(compiled) => Ok(Some(compiled)),
        Err(error) => {
            let _ = writeln!(log, "executor: {}: {error}; compiling again", path.display());
            Ok(None)
        }
    }
}

/// Reads a module, but not much more than is allowed: of a larger one the check only needs to see that it is.
fn read_module(path: &Path, most: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(most.saturating_add(1)).read_to_end(&mut bytes))
        .map_err(|e| Error::File("read", path.to_owned(), e))?;
    Ok(bytes)
}

fn read_input(path: &InputPath) -> Result<Option<Vec<u8>>, Error> {
    let (path, may_be_missing) = match path {
        InputPath::Named(path) => (path, false),
        InputPath::Default(path) => (path, true),
    };
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if may_be_missing && e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::File("read", path.clone(), e)),
    }
}

/// Hands the result over: the reports, then `OUTPUT_PATH` by rename, then one line on stdout.
pub fn deliver(
    settings: &Settings,
    execution: &Execution,
    stdout: &mut impl Write,
) -> Result<(), Error> {
    if let Some(path) = &settings.record_path {
        replace(path, execution.report_within(usize::MAX).as_bytes())?;
    }
    if let Some(path) = &settings.termination_path {
        // The file of a container's termination message is a mount and cannot be replaced.
        fs::write(path, execution.report_within(TERMINATION_BYTES))
            .map_err(|e| Error::File("write", path.clone(), e))?;
    }
    if let Some(path) = &settings.output_path {
        let text = path.extension().is_some_and(|extension| extension == "txt");
        let bytes =
            if text { value_text(execution) } else { execution.document.as_str().to_owned() };
        replace(path, bytes.as_bytes())?;
    }
    let mut line = execution.document.bytes().to_vec();
    line.push(b'\n');
    stdout.write_all(&line).and_then(|()| stdout.flush()).map_err(Error::Stdout)
}

/// The value alone: a JSON string is its text, anything else its JSON; without a value the document.
fn value_text(execution: &Execution) -> String {
    match &execution.outcome {
        Outcome::Ok(value) => {
            serde_json::from_str(value.as_str()).unwrap_or_else(|_| value.as_str().to_owned())
        }
        _ => execution.document.as_str().to_owned(),
    }
}

/// Puts a file into place at once, so that nobody reads half of it.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(temporary);
    fs::write(&temporary, bytes).and_then(|()| fs::rename(&temporary, path)).map_err(|e| {
        let _ = fs::remove_file(&temporary);
        Error::File("write", path.to_owned(), e)
    })
}
