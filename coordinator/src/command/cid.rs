use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use ipfs::{CidVersion, Profile};
use serde_json::json;

use super::{Error, Output};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  coordinator cid host/wasm/fib.wasm
  coordinator cid host/wasm/fib.wasm --cid-version 1
  coordinator cid host/wasm/fib.wasm --profile unixfs-v1-2025")]
pub(super) struct Arguments {
    /// The file
    file: PathBuf,
    /// 0 as `ipfs add` gives it, 1 as `ipfs add --cid-version=1` does
    #[arg(long, value_name = "VERSION", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=1))]
    cid_version: u8,
    /// An import profile of Kubo instead, by its name
    #[arg(long, value_name = "NAME", conflicts_with = "cid_version", value_parser = profiles())]
    profile: Option<String>,
}

fn profiles() -> PossibleValuesParser {
    PossibleValuesParser::new(Profile::NAMED.map(|(name, _)| name))
}

pub(super) fn cid(arguments: &Arguments, output: Output) -> Result<(), Error> {
    let version = if arguments.cid_version == 0 { CidVersion::V0 } else { CidVersion::V1 };
    let named = arguments.profile.as_deref().and_then(Profile::named);
    let profile = named.unwrap_or_else(|| Profile::of_version(version));
    let cid = ipfs::cid_under_profile(&arguments.file, profile)?;
    output
        .data(&cid.to_string(), &json!({"cid": cid, "file": arguments.file.display().to_string()}));
    Ok(())
}
