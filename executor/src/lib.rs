//! Runs one WebAssembly module as if it had never met the machine: the same bytes and the same input give the same
//! result document everywhere.
//!
//! The modules in reading order:
//! - [`settings`]: the environment of `executor run`, checked. The only reader of names and defaults.
//! - [`module`]: what is looked at before anything is compiled: validity, imports, complexity.
//! - [`engine`]: the one configuration of the engine and its fingerprint.
//! - [`artifact`]: compiled modules, sealed with an integrity tag, and the folder that caches them.
//! - [`entry`]: which export runs, with which arguments; [`value`]: numbers from and to JSON.
//! - [`guest`]: one run of one module, with [`wasi`], [`output`] and [`limiter`] around it.
//! - [`watch`]: a limit in wall-clock time for anything.
//! - [`execution`]: an outcome, its document and its report.
//! - [`step`]: what a confined child of the launcher does; [`task`]: `executor run`, all steps in one process.
//! - [`launcher`]: the process that starts confined children for a coordinator; `confine` is how.

pub mod artifact;
mod confine;
pub mod engine;
pub mod entry;
pub mod execution;
pub mod guest;
pub mod launcher;
pub mod limiter;
pub mod module;
pub mod output;
pub mod settings;
pub mod step;
pub mod task;
pub mod value;
pub mod wasi;
pub mod watch;
