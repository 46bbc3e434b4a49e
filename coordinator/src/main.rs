//! `coordinator`: see `coordinator --help`.

use std::process::ExitCode;

use anyhow::Context as _;
use coordinator::command;

fn main() -> anyhow::Result<ExitCode> {
    // An error here means that a provider is installed already, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let invocation = command::parse(std::env::args_os());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    let code = runtime.block_on(command::execute(invocation));
    // A blocking read that nobody waits for any more does not hold the process.
    runtime.shutdown_background();
    Ok(code)
}
