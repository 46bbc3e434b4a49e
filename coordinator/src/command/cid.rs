use std::path::PathBuf;

use ipfs::CidVersion;
use serde_json::json;

use super::{Error, Output};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  coordinator cid host/wasm/fib.wasm
  coordinator cid host/wasm/fib.wasm --cid-version 1")]
pub(super) struct Arguments {
    /// The file
    file: PathBuf,
    /// 0 as `ipfs add` gives it, 1 as `ipfs add --cid-version=1` does
    #[arg(long, value_name = "VERSION", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=1))]
    cid_version: u8,
}

pub(super) fn cid(arguments: &Arguments, output: Output) -> Result<(), Error> {
    let version = if arguments.cid_version == 0 { CidVersion::V0 } else { CidVersion::V1 };
    let cid = ipfs::cid_of_file(&arguments.file, version)?;
    output
        .data(&cid.to_string(), &json!({"cid": cid, "file": arguments.file.display().to_string()}));
    Ok(())
}
