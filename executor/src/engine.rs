//! The one configuration of the engine, its name, version and fingerprint.

use std::hash::{Hash as _, Hasher};

use sha2::{Digest as _, Sha256};
use wasmparser::WasmFeatures;
use wasmtime::{Config, Engine, OptLevel, Strategy, WasmBacktraceDetails};

/// The major version of wasmtime this executor is built on. It stands in the engine's registered name.
pub const WASMTIME_MAJOR: u32 = 48;

/// The exact version of wasmtime; a test holds it equal to the lock file's.
pub const WASMTIME_VERSION: &str = "48.0.8";

/// What a module may use: WebAssembly 2.0, tail calls, extended constant expressions and relaxed SIMD (whose
/// choices are fixed, see [`config`]). No threads, no memory64, no multiple memories, no GC, no exceptions.
pub const FEATURES: WasmFeatures = WasmFeatures::WASM2
    .union(WasmFeatures::TAIL_CALL)
    .union(WasmFeatures::EXTENDED_CONST)
    .union(WasmFeatures::RELAXED_SIMD);

/// Room on the guest's thread beyond the guest's own stack, in bytes: for host calls and the engine.
pub const HOST_STACK_BYTES: usize = 2 << 20;

/// The engine cannot be set up: a fault of the machine or of this build, never of a guest.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up the engine: {0}")]
pub struct Error(pub wasmtime::Error);

impl Error {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        "engine_unavailable"
    }
}

/// The engine's printable name, as registered on chain.
#[must_use]
pub fn name() -> String {
    executor_protocol::engine_name(WASMTIME_MAJOR)
}

/// The exact version, for people.
#[must_use]
pub fn version() -> String {
    format!("executor {}, wasmtime {WASMTIME_VERSION}", env!("CARGO_PKG_VERSION"))
}

/// The one configuration. Only `stack_bytes`, the guest's stack, differs between runs; it does not change what is
/// compiled, so that it is not in the [`fingerprint`].
fn config(stack_bytes: u32) -> Config {
    let stack_bytes = usize::try_from(stack_bytes).unwrap_or(usize::MAX);
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .cranelift_opt_level(OptLevel::Speed)
        .concurrency_support(false)
        // What a guest may see is the same on every machine.
        .wasm_features(WasmFeatures::all(), false)
        .wasm_features(FEATURES, true)
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        // Every guest can be stopped.
        .consume_fuel(true)
        .epoch_interruption(true)
        .max_wasm_stack(stack_bytes)
        .async_stack_size(stack_bytes.saturating_add(HOST_STACK_BYTES))
        // Nothing that needs another thread, a file or /proc.
        .parallel_compilation(false)
        .memory_init_cow(false)
        .native_unwind_info(false)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable);
    config
}

/// An engine that compiles and runs.
pub fn build(stack_bytes: u32) -> Result<Engine, Error> {
    Engine::new(&config(stack_bytes)).map_err(Error)
}

/// SHA-256 over everything that decides how a module is compiled: our semantics, the exact version of the engine,
/// the target with its processor features, the configuration. Two engines with one fingerprint can use each
/// other's compiled forms.
pub fn fingerprint(engine: &Engine) -> [u8; 32] {
    struct Digester(Sha256);
    impl Hasher for Digester {
        fn finish(&self) -> u64 {
            0
        }
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
    }
    let mut digester = Digester(Sha256::new());
    digester.0.update(name());
    digester.0.update(version());
    engine.precompile_compatibility_hash().hash(&mut digester);
    digester.0.finalize().into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_version_is_the_lock_files() {
        let lock = include_str!("../../Cargo.lock");
        let wanted = format!("name = \"wasmtime\"\nversion = \"{WASMTIME_VERSION}\"");
        assert!(lock.contains(&wanted));
        assert!(WASMTIME_VERSION.starts_with(&format!("{WASMTIME_MAJOR}.")));
    }

    #[test]
    fn the_stack_does_not_change_the_fingerprint() {
        let small = fingerprint(&build(64 << 10).unwrap());
        assert_eq!(small, fingerprint(&build(4 << 20).unwrap()));
    }

    #[test]
    fn the_engine_accepts_exactly_the_features_that_are_checked() {
        let engine = build(1 << 20).unwrap();
        for (text, wanted) in [
            ("(module (func (export \"f\") return_call 0))", true),
            ("(module (memory 1) (memory 1))", false),
            ("(module (memory i64 1))", false),
            ("(module (memory 1 1 shared))", false),
            ("(module (tag))", false),
            ("(module (type (struct)))", false),
            (
                "(module (func (result v128) v128.const i64x2 1 2 v128.const i64x2 1 2 i8x16.relaxed_swizzle))",
                true,
            ),
        ] {
            let bytes = wat::parse_str(text).unwrap();
            let ours =
                wasmparser::Validator::new_with_features(FEATURES).validate_all(&bytes).is_ok();
            assert_eq!(ours, wanted, "{text}");
            assert_eq!(wasmtime::Module::validate(&engine, &bytes).is_ok(), wanted, "{text}");
        }
    }
}
