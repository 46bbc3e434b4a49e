//! What is looked at before anything is compiled.

mod complexity;
mod import;

use executor_protocol::{CheckReport, Document, Limits, Outcome, PlainFailure};
use sha2::{Digest as _, Sha256};
use wasmparser::{BinaryReaderError, ExternalKind, Parser, Payload, Validator, WasmFeatures};

use crate::engine::FEATURES;
use crate::entry::COMMAND;
use complexity::Budget;

pub use import::{PREVIEW1, PREVIEW1_FUNCTIONS};

/// The most exported functions whose names a report lists.
const LISTED_EXPORTS: usize = 1000;
/// The most bytes of these names together.
const LISTED_BYTES: usize = 32 << 10;

/// Why a module can never run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The code for the result document.
    pub failure: PlainFailure,
    /// A sentence for people.
    pub message: String,
}

impl Refusal {
    /// A refusal with its sentence.
    pub(crate) fn new(failure: PlainFailure, message: impl Into<String>) -> Self {
        Self { failure, message: message.into() }
    }

    fn invalid(error: &BinaryReaderError) -> Self {
        Self::new(PlainFailure::InvalidModule, error.to_string())
    }

    /// The outcome of every task with this module.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        Outcome::Failed(self.failure.into())
    }
}

/// What a module that may run looks like from outside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surface {
    /// Whether it exports `_start`.
    pub command: bool,
    /// The names of its exported functions, at most 1,000 and 32 KiB of them.
    pub exports: Vec<String>,
}

/// Looks at a module: its size and complexity first, then whether it is valid, then what it imports.
///
/// - not WebAssembly, malformed or invalid under WebAssembly 2.0 with tail calls, extended constants and relaxed
///   SIMD: `invalid_module` (memory64, several memories, GC and exceptions are among that);
/// - valid only with threads and shared memory: `non_deterministic`;
/// - a component: `unsupported_component`;
/// - an import that WASI preview 1 does not have, or has with another type: `unsupported_import`;
/// - above a bound on size or complexity: `module_too_complex`.
pub fn check(bytes: &[u8], limits: &Limits) -> Result<Surface, Refusal> {
    if bytes.len() as u64 > limits.module_bytes {
        return Err(Refusal::new(
            PlainFailure::ModuleTooComplex,
            format!("{} bytes, allowed are {}", bytes.len(), limits.module_bytes),
        ));
    }
    if Parser::is_component(bytes) {
        return Err(Refusal::new(
            PlainFailure::UnsupportedComponent,
            "a component; only core modules run here",
        ));
    }
    measure(bytes)?;
    validate(bytes)?;
    survey(bytes)
}

/// Holds a module to the complexity bounds, in one pass that allocates nothing of the module's choosing.
fn measure(bytes: &[u8]) -> Result<(), Refusal> {
    let mut budget = Budget::default();
    for payload in parser().parse_all(bytes) {
        budget.take(&payload.map_err(|e| Refusal::invalid(&e))?)?;
    }
    Ok(())
}

fn validate(bytes: &[u8]) -> Result<(), Refusal> {
    let with = |features| Validator::new_with_features(features).validate_all(bytes).map(|_| ());
    with(FEATURES).map_err(|error| {
        if with(FEATURES | WasmFeatures::THREADS).is_ok() {
            Refusal::new(
                PlainFailure::NonDeterministic,
                "threads, shared memory and atomic instructions are not run",
            )
        } else {
            Refusal::invalid(&error)
        }
    })
}

/// Reads the imports and exports of a valid module.
fn survey(bytes: &[u8]) -> Result<Surface, Refusal> {
    let mut surface = Surface::default();
    let mut imports = import::Imports::default();
    let mut room = LISTED_BYTES;
    for payload in parser().parse_all(bytes) {
        let taken = match payload.map_err(|e| Refusal::invalid(&e))? {
            Payload::TypeSection(section) => imports.take_types(section),
            Payload::ImportSection(section) => imports.check(section)?,
            Payload::ExportSection(section) => section.into_iter().try_for_each(|export| {
                let export = export?;
                if matches!(export.kind, ExternalKind::Func | ExternalKind::FuncExact) {
                    surface.command |= export.name == COMMAND;
                    let fits = room.checked_sub(export.name.len());
                    if let (Some(left), true) = (fits, surface.exports.len() < LISTED_EXPORTS) {
                        room = left;
                        surface.exports.push(export.name.to_owned());
                    }
                }
                Ok(())
            }),
            _ => Ok(()),
        };
        taken.map_err(|e| Refusal::invalid(&e))?;
    }
    Ok(surface)
}

fn parser() -> Parser {
    let mut parser = Parser::new(0);
    parser.set_features(FEATURES | WasmFeatures::THREADS);
    parser
}

/// What `executor check` says of a module.
#[must_use]
pub fn report(bytes: &[u8], limits: &Limits) -> CheckReport {
    report_of(bytes, check(bytes, limits))
}

/// The report of a finding that was made in another way, for example by a time limit.
#[must_use]
pub fn report_of(bytes: &[u8], finding: Result<Surface, Refusal>) -> CheckReport {
    let (surface, refusal) = match finding {
        Ok(surface) => (surface, None),
        Err(refusal) => (Surface::default(), Some(refusal)),
    };
    CheckReport {
        refusal: refusal
            .as_ref()
            .map(|refusal| Document::of(&refusal.outcome()).as_str().to_owned()),
        message: refusal.map(|refusal| crate::execution::cut(&refusal.message)),
        module_sha256: hex::encode(Sha256::digest(bytes)),
        command: surface.command,
        exports: surface.exports,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn finding(bytes: &[u8]) -> Result<Surface, PlainFailure> {
        check(bytes, &Limits::default()).map_err(|refusal| refusal.failure)
    }

    fn check_text(text: &str, wanted: PlainFailure) {
        let bytes = wat::parse_str(text).unwrap();
        assert_eq!(finding(&bytes), Err(wanted), "{text}");
    }

    #[test]
    fn each_kind_of_bad_module_has_its_code() {
        use PlainFailure::{
            InvalidModule, NonDeterministic, UnsupportedComponent, UnsupportedImport,
        };
        assert_eq!(finding(b""), Err(InvalidModule));
        assert_eq!(finding(b"(module)"), Err(InvalidModule));
        check_text("(component)", UnsupportedComponent);
        check_text("(module (memory 1 1 shared))", NonDeterministic);
        check_text("(module (memory i64 1))", InvalidModule);
        check_text("(module (table i64 1 funcref))", InvalidModule);
        check_text("(module (func (result i32)))", InvalidModule);
        check_text("(module (import \"env\" \"f\" (func)))", UnsupportedImport);
        check_text("(module (import \"wasi_unstable\" \"fd_write\" (func)))", UnsupportedImport);
        check_text(
            "(module (import \"wasi_snapshot_preview1\" \"no_such\" (func)))",
            UnsupportedImport,
        );
        check_text(
            "(module (import \"wasi_snapshot_preview1\" \"fd_close\" (func (param i64) (result i32))))",
            UnsupportedImport,
        );
        check_text(
            "(module (import \"wasi_snapshot_preview1\" \"memory\" (memory 1)))",
            UnsupportedImport,
        );
    }

    #[test]
    fn a_good_module_shows_its_surface() {
        let text = r#"(module
            (import "wasi_snapshot_preview1" "fd_close" (func (param i32) (result i32)))
            (import "wasi_snapshot_preview1" "proc_exit" (func (param i32)))
            (memory (export "memory") 1)
            (func (export "_start")) (func (export "f")))"#;
        let surface = finding(&wat::parse_str(text).unwrap()).unwrap();
        assert!(surface.command);
        assert_eq!(surface.exports, ["_start", "f"]);
    }

    #[test]
    fn every_truncation_of_a_module_is_invalid() {
        let bytes = wat::parse_str(
            r#"(module (memory 1) (data (i32.const 0) "0123456789") (func (export "f") (result i64) i64.const 7))"#,
        )
        .unwrap();
        for end in 0..bytes.len() {
            // A cut between two sections leaves a module that is valid in itself, or misses a part.
            if let Err(failure) = finding(bytes.get(..end).unwrap()) {
                assert_eq!(failure, PlainFailure::InvalidModule, "cut at {end}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_check_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let mut module = b"\0asm\x01\0\0\0".to_vec();
            module.extend(bytes);
            let _ = finding(&module);
        }
    }
}
