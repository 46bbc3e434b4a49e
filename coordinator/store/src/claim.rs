use std::{
    fs::{File, TryLockError},
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

use crate::Error;

/// A database that this process alone works on, until this goes: a locked file beside it. A process that is suspended
/// keeps its claim, and one that was killed has none: the lock is the kernel's, the file stays and means nothing.
#[derive(Debug)]
pub struct Claim {
    _file: File,
}

impl Claim {
    /// Claims a database, which need not be there yet; its folder has to be.
    ///
    /// # Errors
    /// [`Error::InUse`] when another process has claimed it.
    pub fn take(database: &Path) -> Result<Self, Error> {
        // Whatever way leads to the file, it is one database.
        let database = database.canonicalize().unwrap_or_else(|_| database.to_owned());
        let mut path = database.clone().into_os_string();
        path.push(".lock");
        let path = PathBuf::from(path);
        let failed = |source: std::io::Error| Error::Open {
            path: path.display().to_string(),
            source: source.into(),
        };
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(source)) => return Err(failed(source)),
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Only for people: what cannot be read is not told.
                let _ = file.take(100).read_to_string(&mut holder);
                return Err(Error::InUse { path: database.display().to_string(), holder });
            }
        }
        file.set_len(0).map_err(failed)?;
        write!(file, "process {}", std::process::id()).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn c12_a_database_is_claimed_once_whatever_way_leads_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("a.sqlite");
        std::fs::write(&database, "").unwrap();
        let other = folder.path().join("link");
        std::os::unix::fs::symlink(&database, &other).unwrap();
        let claim = Claim::take(&database).unwrap();
        for path in [&database, &other] {
            let error = Claim::take(path).unwrap_err();
            assert_eq!(error.code(), "database_in_use");
            let holder = format!("process {}", std::process::id());
            assert!(error.to_string().contains(&holder), "{error}");
        }
        drop(claim);
        Claim::take(&other).unwrap();
    }
}
