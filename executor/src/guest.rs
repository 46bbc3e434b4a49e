//! One run of one module.

use std::io::Write;
use std::time::{Duration, Instant};

use executor_protocol::{Failure, Limits, Outcome, PlainFailure, Value};
use wasmtime::{Engine, Instance, Linker, Store, Trap, Val, WasmBacktrace};

use crate::artifact::Compiled;
use crate::entry::{COMMAND, Call, Invocation};
use crate::limiter::Limiter;
use crate::output::Output;
use crate::value;
use crate::wasi::{self, Wasi};

/// Why the host ended a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// Memory or tables past the limit.
    #[error("the memory limit was passed")]
    MemoryLimit,
    /// Output past the limit.
    #[error("the output limit was passed")]
    OutputTooLarge,
    /// A value past the limit.
    #[error("the result limit was passed")]
    ResultTooLarge,
    /// A host call reached the deadline.
    #[error("the time limit was passed")]
    TimedOut,
    /// The guest ended itself with this code.
    #[error("the guest ended with exit code {0}")]
    Exit(i32),
    /// The machine failed, not the guest.
    #[error("{0}")]
    Host(&'static str),
}

/// A run that says nothing about the guest.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The runtime that WASI needs could not be set up.
    #[error("cannot set up the runtime")]
    Runtime(#[source] std::io::Error),
    /// The engine or the machine failed.
    #[error("the engine failed: {0:#}")]
    Engine(wasmtime::Error),
}

impl Error {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Runtime(_) => "runtime_unavailable",
            Self::Engine(_) => "engine_failed",
        }
    }
}

/// What a store keeps for its guest.
#[derive(Debug)]
pub struct State {
    pub(crate) wasi: Wasi,
    limiter: Limiter,
}

impl State {
    /// The state of a guest that has not started.
    #[must_use]
    pub fn new(wasi: Wasi, limits: &Limits) -> Self {
        Self { wasi, limiter: Limiter::new(limits) }
    }
}

/// What to run.
#[derive(Debug)]
pub struct Guest {
    /// The module.
    pub compiled: Compiled,
    /// The bytes of the input, if there is one.
    pub input: Option<Vec<u8>>,
    /// What the environment says about entry and arguments.
    pub invocation: Invocation,
    /// What bounds it.
    pub limits: Limits,
}

/// How a guest ended, and what it used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// How it ended.
    pub outcome: Outcome,
    /// A sentence for people about a failure.
    pub message: Option<String>,
    /// Fuel used; none when nothing was run.
    pub fuel_used: Option<u64>,
    /// Wall-clock time, in microseconds.
    pub run_us: u64,
    /// Largest linear memory, in bytes.
    pub peak_memory_bytes: u64,
    /// Bytes written to stdout.
    pub stdout_bytes: u64,
    /// Bytes written to stderr.
    pub stderr_bytes: u64,
}

impl Finished {
    /// An outcome of which nothing was measured.
    #[must_use]
    pub fn without_run(outcome: Outcome, message: Option<String>) -> Self {
        Self {
            outcome,
            message,
            fuel_used: None,
            run_us: 0,
            peak_memory_bytes: 0,
            stdout_bytes: 0,
            stderr_bytes: 0,
        }
    }
}

impl Guest {
    /// Runs the guest to its end on this thread, which needs the guest's stack and
    /// [`crate::engine::HOST_STACK_BYTES`]. Loops end when the engine's epoch advances, sleeping host calls end by
    /// themselves; both are `timed_out`. Guest output goes to `log`, see [`Output`].
    pub fn run(self, engine: &Engine, log: Box<dyn Write + Send>) -> Result<Finished, Error> {
        let started = Instant::now();
        let deadline = started + Duration::from_millis(self.limits.timeout_ms);
        let is_function = |name: &str| {
            self.compiled.module.get_export(name).is_some_and(|ty| ty.func().is_some())
        };
        let called = Call::choose(&self.invocation, self.input.as_deref(), is_function);
        let prepared = called.and_then(|call| {
            let ty = self.compiled.module.get_export(&call.entry);
            let ty = ty.as_ref().and_then(|ty| ty.func()).ok_or(PlainFailure::NoEntry)?;
            if ty.results().any(|ty| matches!(ty, wasmtime::ValType::Ref(_))) {
                return Err(PlainFailure::BadArguments);
            }
            let arguments = call.values(ty)?;
            Ok((call, arguments, ty.results().len()))
        });
        let (call, arguments, results) = match prepared {
            Ok(prepared) => prepared,
            Err(failure) => {
                let outcome = Outcome::Failed(failure.into());
                return Ok(Finished::without_run(outcome, None));
            }
        };
        // wasmtime-wasi looks for a runtime even where nothing waits; without one it would start threads.
        let runtime =
            tokio::runtime::Builder::new_current_thread().build().map_err(Error::Runtime)?;
        let _entered = runtime.enter();
        let output = Output::new(log, call.entry == COMMAND, &self.limits);
        let input = self.input.unwrap_or_default();
        let wasi = Wasi::new(&self.compiled.sha256, input, &output, deadline);
        let mut store = Store::new(engine, State::new(wasi, &self.limits));
        store.limiter(|state| &mut state.limiter);
        store.set_fuel(self.limits.fuel).map_err(Error::Engine)?;
        store.set_epoch_deadline(1);
        let mut linker = Linker::new(engine);
        if self.compiled.module.imports().len() > 0 {
            wasi::link(&mut linker).map_err(Error::Engine)?;
        }
        let mut values = vec![Val::I32(0); results];
        let ended = linker
            .instantiate(&mut store, &self.compiled.module)
            .and_then(|instance| invoke(&mut store, &instance, &call, &arguments, &mut values));
        let (outcome, message) = match ended {
            Ok(()) => (returned(&call, &values, &output), None),
            Err(error) => explained(error, &call, &output)?,
        };
        output.finish();
        let (stdout_bytes, stderr_bytes) = output.bytes();
        let fuel_left = store.get_fuel().map_err(Error::Engine)?;
        Ok(Finished {
            outcome,
            message,
            fuel_used: Some(self.limits.fuel.saturating_sub(fuel_left)),
            run_us: u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
            peak_memory_bytes: store.data().limiter.peak_memory_bytes(),
            stdout_bytes,
            stderr_bytes,
        })
    }
}

/// Calls the entry; a reactor's `_initialize` comes first.
fn invoke(
    store: &mut Store<State>,
    instance: &Instance,
    call: &Call,
    arguments: &[Val],
    results: &mut [Val],
) -> wasmtime::Result<()> {
    if call.entry != COMMAND
        && call.entry != "_initialize"
        && let Ok(initialize) = instance.get_typed_func::<(), ()>(&mut *store, "_initialize")
    {
        initialize.call(&mut *store, ())?;
    }
    let entry = instance.get_func(&mut *store, &call.entry);
    let entry = entry.ok_or_else(|| wasmtime::Error::msg("the entry is gone"))?;
    entry.call(store, arguments, results)
}

/// The outcome of a guest that came back by itself.
fn returned(call: &Call, values: &[Val], output: &Output) -> Outcome {
    if call.entry == COMMAND {
        return Outcome::Ok(command_value(&output.take_value()));
    }
    match value::write(values, call.is_unsigned()) {
        Some(value) => Outcome::Ok(value),
        None => Outcome::Failed(PlainFailure::BadArguments.into()),
    }
}

/// A command's stdout as a value: one JSON text as it is, else its text, else its bytes.
fn command_value(stdout: &[u8]) -> Value {
    let object = |name: &str, text: &str| {
        let text = Value::string(text);
        Value::parse(&format!("{{\"{name}\":{}}}", text.as_str())).unwrap_or(text)
    };
    match std::str::from_utf8(stdout) {
        Ok(text) => Value::parse(text).unwrap_or_else(|_| object("text", text)),
        Err(_) => object("base64", &base64(stdout)),
    }
}

/// RFC 4648 base64 with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte));
        let word = word << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let index = usize::try_from(word >> (18 - 6 * place) & 63).unwrap_or_default();
            let letter = ALPHABET.get(index).copied().filter(|_| place <= chunk.len());
            text.push(char::from(letter.unwrap_or(b'=')));
        }
    }
    text
}

/// The outcome of a guest that was ended: by itself, by a trap or by the host.
fn explained(
    error: wasmtime::Error,
    call: &Call,
    output: &Output,
) -> Result<(Outcome, Option<String>), Error> {
    let message = Some(format!("{error:#}"));
    let failed = |failure: Failure| Outcome::Failed(failure);
    if let Some(stop) = error.downcast_ref::<Stop>() {
        let outcome = match *stop {
            Stop::MemoryLimit => failed(PlainFailure::MemoryLimit.into()),
            Stop::OutputTooLarge => failed(PlainFailure::OutputTooLarge.into()),
            Stop::ResultTooLarge => failed(PlainFailure::ResultTooLarge.into()),
            Stop::TimedOut => Outcome::TimedOut,
            Stop::Exit(0) if call.entry == COMMAND => {
                return Ok((returned(call, &[], output), None));
            }
            Stop::Exit(code) => failed(Failure::Exit(code)),
            Stop::Host(_) => return Err(Error::Engine(error)),
        };
        return Ok((outcome, message));
    }
    let outcome = match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => Outcome::TimedOut,
        Some(Trap::OutOfFuel) => failed(PlainFailure::OutOfFuel.into()),
        Some(Trap::StackOverflow) => failed(PlainFailure::StackOverflow.into()),
        Some(Trap::AllocationTooLarge) => failed(PlainFailure::MemoryLimit.into()),
        Some(trap) => failed(Failure::Trap(kind(*trap).to_owned())),
        // A host function ended the guest for what the guest gave it: the guest was running.
        None if error.is::<WasmBacktrace>() => failed(Failure::Trap("host call".to_owned())),
        None => return Err(Error::Engine(error)),
    };
    Ok((outcome, message))
}

/// The words of the WebAssembly specification's own tests for a trap.
fn kind(trap: Trap) -> &'static str {
    match trap {
        Trap::UnreachableCodeReached => "unreachable",
        Trap::IntegerDivisionByZero => "integer divide by zero",
        Trap::IntegerOverflow => "integer overflow",
        Trap::BadConversionToInteger => "invalid conversion to integer",
        Trap::MemoryOutOfBounds => "out of bounds memory access",
        Trap::TableOutOfBounds => "out of bounds table access",
        Trap::IndirectCallToNull => "uninitialized element",
        Trap::BadSignature => "indirect call type mismatch",
        Trap::NullReference => "null reference",
        // The others belong to features that are off.
        _ => "trap",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stdout_becomes_a_value() {
        for (stdout, wanted) in [
            (b" { \"a\" : 1.0 }\n".as_slice(), r#"{"a":1.0}"#),
            (b"12\n", "12"),
            (b"12 13\n", r#"{"text":"12 13\n"}"#),
            (b"", r#"{"text":""}"#),
            (b"NaN", r#"{"text":"NaN"}"#),
            (b"\xff\xfe", r#"{"base64":"//4="}"#),
            (b"\xff", r#"{"base64":"/w=="}"#),
            (b"\xff\xfe\xfd", r#"{"base64":"//79"}"#),
        ] {
            assert_eq!(command_value(stdout).as_str(), wanted);
        }
    }
}
