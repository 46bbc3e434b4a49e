//! Modules and inputs as they are named on a command line: a CID, or a file, which is added first. What is a CID is
//! never taken for a file that has its name; a path has a separator in it.

use std::path::{Path, PathBuf};

use ipfs::{Cid, CidVersion, Store};

use super::{Error, Output};
use crate::config::Config;

/// Opens the content store that commands share with a coordinator on the same data folder.
pub(super) async fn open(config: &Config) -> Result<Store, Error> {
    Ok(Store::open(config.content_options(&config.content_cache())).await?)
}

/// What a text names.
#[derive(Debug, PartialEq, Eq)]
enum Named {
    Cid(Cid),
    File(PathBuf),
}

/// The CID that a text is, or that of the file it names, which is added; says which of the two it was.
pub(super) async fn resolve(
    store: &Store,
    role: &str,
    text: &str,
    output: Output,
) -> Result<Cid, Error> {
    match named(role, text)? {
        Named::Cid(cid) => {
            let also = if Path::new(text).exists() {
                format!("; the file of that name is ./{text}")
            } else {
                String::new()
            };
            output.say(&format!("{role}: CID {cid}{also}"));
            Ok(cid)
        }
        Named::File(path) => {
            let cid = store.add_file(&path, CidVersion::V0).await?;
            output.say(&format!("{role}: file {}, CID {cid}", path.display()));
            Ok(cid)
        }
    }
}

fn named(role: &str, text: &str) -> Result<Named, Error> {
    let is_path = text.contains(std::path::MAIN_SEPARATOR);
    let path = Path::new(text);
    let reason = match Cid::parse(text) {
        Ok(cid) => return Ok(Named::Cid(cid)),
        _ if is_path && path.is_file() => return Ok(Named::File(path.to_owned())),
        Err(_) if is_path => {
            let last = text.rsplit(std::path::MAIN_SEPARATOR).next().unwrap_or_default();
            let hint = if Cid::parse(last).is_ok() {
                format!("; for the CID write {last}")
            } else {
                String::new()
            };
            return Err(Error::Usage(format!("the {role} {text:?} is no file here{hint}")));
        }
        Err(reason) => reason,
    };
    // Another codec or hash, or another way to write it: a CID all the same.
    if ipfs::is_any_cid(text) {
        let also =
            if path.is_file() { format!("; for the file write ./{text}") } else { String::new() };
        return Err(Error::Usage(format!("the {role} is a CID that is not taken: {reason}{also}")));
    }
    if path.is_file() {
        return Ok(Named::File(path.to_owned()));
    }
    Err(Error::Usage(format!("the {role} {text:?} is no file here, and no CID either: {reason}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i7_a_cid_is_never_a_file_and_a_file_with_such_a_name_is_a_path() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("module.wasm");
        std::fs::write(&file, "content").unwrap();
        let path = file.to_str().unwrap();
        assert_eq!(named("module", path).unwrap(), Named::File(file.clone()));
        let text = ipfs::cid_of_bytes(b"content", CidVersion::V0).to_string();
        assert!(
            matches!(named("module", &text).unwrap(), Named::Cid(cid) if cid.to_string() == text)
        );
        let below = format!("{}/{text}", folder.path().display());
        std::fs::write(&below, "content").unwrap();
        assert_eq!(named("module", &below).unwrap(), Named::File(below.into()));
        // Upper case, and another codec: CIDs that are not taken are no files either.
        let upper = ipfs::raw_cid(b"content").to_string().to_uppercase();
        let cbor = "bafyreigbtj4x7ip5legnfznufuopl4sg4knzc2cof6duas4b3q2fy6swua";
        for text in [upper.as_str(), cbor] {
            let error = named("module", text).unwrap_err().to_string();
            assert!(error.contains("is a CID that is not taken"), "{error}");
        }
        let error = named("input", &format!("/ipfs/{text}")).unwrap_err().to_string();
        assert!(error.contains(&format!("for the CID write {text}")), "{error}");
        assert!(named("input", "nothing-like-it").is_err());
        assert!(named("input", folder.path().to_str().unwrap()).is_err());
    }
}
