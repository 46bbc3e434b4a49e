//! Modules and inputs as they are named on a command line: a file, which is added first, or a CID.

use std::path::Path;

use ipfs::{Cid, CidVersion, Store};

use super::Error;
use crate::config::Config;

/// Opens the content store that commands share with a coordinator on the same data folder.
pub(super) async fn open(config: &Config) -> Result<Store, Error> {
    Ok(Store::open(config.content_options(&config.content_cache())).await?)
}

/// The CID of a file, which is added, or of a CID.
pub(super) async fn resolve(store: &Store, role: &str, text: &str) -> Result<Cid, Error> {
    let path = Path::new(text);
    if path.is_file() {
        return Ok(store.add_file(path, CidVersion::V0).await?);
    }
    Cid::parse(text).map_err(|error| {
        Error::Usage(format!("the {role} {text:?} is no file here, and no CID either: {error}"))
    })
}
