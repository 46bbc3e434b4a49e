//! The coordinator: tasks of a contract are fetched, verified, run confined, and answered on chain.
//!
//! The modules, in reading order:
//! - [`config`]: the only reader of environment, flags and file.
//! - [`command`]: the command line; [`serve`] puts the daemon together.
//! - [`lifecycle`], [`telemetry`], [`metrics`]: how the process lives, and what it says of itself.
//! - [`work`]: one task's work, from its request to its result document; [`admission`]: whom it is done for.
//! - [`pipeline`]: the plot, with the database as queue; [`placeholder`]: tasks without a chain.
//! - [`api`]: the same store over HTTP.
//!
//! The crates below: `task` (the state machine, pure), `store` (SQL), `chain` (providers), `job` (runtimes), `ipfs`.

pub mod admission;
pub mod api;
pub mod command;
pub mod config;
pub mod health;
pub mod lifecycle;
mod link;
pub mod metrics;
pub mod pipeline;
pub mod placeholder;
pub mod price;
pub mod serve;
pub mod telemetry;
mod tokens;
pub mod work;
