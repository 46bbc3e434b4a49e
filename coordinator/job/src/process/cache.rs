//! The folder of compiled modules. A file is named by module, engine and processor; its tag is made and checked by
//! confined children, each with a key of its module alone, which is derived from the one in this folder. So a child
//! that a hostile module has taken over can spoil its own module's file and no other.

use std::collections::HashMap;
use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use executor_protocol::launcher::ModuleKey;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use crate::Error;

const KEY_BYTES: usize = 32;
/// The block of SHA-256.
const BLOCK_BYTES: usize = 64;
const KEY_FILE: &str = "key";
const COMPILED: &str = "compiled";
const UNFINISHED: &str = "unfinished";

pub(super) struct Cache {
    folder: PathBuf,
    most_bytes: u64,
    key: [u8; KEY_BYTES],
    entries: Mutex<HashMap<PathBuf, Entry>>,
    next: AtomicU64,
}

struct Entry {
    bytes: u64,
    used_at: SystemTime,
}

/// A file that is being written. It is removed unless it is kept.
pub(super) struct Unfinished {
    path: PathBuf,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Renamed when it was kept.
        let _ = fs::remove_file(&self.path);
    }
}

fn failed<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Error + 'a {
    move |source| Error::File { doing, path: path.to_owned(), source }
}

impl Cache {
    /// Opens the folder, makes what is missing, removes what an earlier process left unfinished.
    pub(super) fn open(folder: &Path, most_bytes: u64) -> Result<Self, Error> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed("create", folder))?;
        let mut entries = HashMap::new();
        for entry in fs::read_dir(folder).map_err(failed("list", folder))?.flatten() {
            let path = entry.path();
            let kind = path.extension().and_then(|kind| kind.to_str());
            match (kind, entry.metadata()) {
                (Some(UNFINISHED), _) => fs::remove_file(&path).map_err(failed("remove", &path))?,
                (Some(COMPILED), Ok(meta)) => {
                    let entry = Entry {
                        bytes: meta.len(),
                        used_at: meta.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                    };
                    entries.insert(path, entry);
                }
                _ => {}
            }
        }
        Ok(Self {
            key: key(folder)?,
            folder: folder.to_owned(),
            most_bytes,
            entries: Mutex::new(entries),
            next: AtomicU64::new(0),
        })
    }

    /// The key of one module's tags.
    pub(super) fn key(&self, module_sha256: [u8; 32]) -> ModuleKey {
        // A short key is filled up with zeros, as HMAC itself does.
        let mut block = [0; BLOCK_BYTES];
        block.iter_mut().zip(self.key).for_each(|(to, from)| *to = from);
        let mut mac = <Hmac<Sha256> as hmac::digest::KeyInit>::new(&block.into());
        mac.update(b"compiled form of ");
        mac.update(&module_sha256);
        ModuleKey(hex::encode(mac.finalize().into_bytes()))
    }

    /// The file of a module's compiled form.
    pub(super) fn path(&self, module_sha256: [u8; 32], fingerprint: &str) -> PathBuf {
        let engine: String = fingerprint.chars().take(32).collect();
        self.folder.join(format!("{}-{engine}.{COMPILED}", hex::encode(module_sha256)))
    }

    /// Opens a compiled form, if there is one, and counts that as a use of it.
    pub(super) fn load(&self, path: &Path) -> Result<Option<OwnedFd>, Error> {
        match File::open(path) {
            Ok(file) => {
                let now = SystemTime::now();
                if let Some(entry) = self.lock().get_mut(path) {
                    entry.used_at = now;
                }
                // For the order after a restart only.
                let _ = file.set_times(FileTimes::new().set_modified(now));
                Ok(Some(file.into()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("open", path)(error)),
        }
    }

    /// A file that a compilation may write to.
    pub(super) fn begin(&self) -> Result<(Unfinished, OwnedFd), Error> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(format!("{}-{number}.{UNFINISHED}", std::process::id()));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed("create", &path))?;
        Ok((Unfinished { path }, file.into()))
    }

    /// Keeps what a compilation wrote, once its writer is gone, and removes what was not used for longest when the
    /// folder has become too large. What is in use stays readable by its users.
    pub(super) fn keep(&self, unfinished: &Unfinished, path: &Path) -> Result<(), Error> {
        let meta = fs::metadata(&unfinished.path).map_err(failed("look at", &unfinished.path))?;
        // Not synced: what a power failure leaves half written has a wrong tag and is compiled again.
        fs::rename(&unfinished.path, path).map_err(failed("rename", path))?;
        let mut entries = self.lock();
        let entry = Entry { bytes: meta.len(), used_at: SystemTime::now() };
        entries.insert(path.to_owned(), entry);
        let mut total: u64 = entries.values().map(|entry| entry.bytes).sum();
        while total > self.most_bytes && entries.len() > 1 {
            let oldest = entries
                .iter()
                .filter(|(other, _)| *other != path)
                .min_by_key(|(_, entry)| entry.used_at)
                .map(|(path, entry)| (path.clone(), entry.bytes));
            let Some((oldest, bytes)) = oldest else {
                break;
            };
            remove(&oldest)?;
            entries.remove(&oldest);
            total -= bytes;
        }
        Ok(())
    }

    /// Removes a compiled form that turned out to be no good.
    pub(super) fn discard(&self, path: &Path) -> Result<(), Error> {
        self.lock().remove(path);
        remove(path)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PathBuf, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

/// The folder's key; made on first use. Readable by its owner only.
fn key(folder: &Path) -> Result<[u8; KEY_BYTES], Error> {
    let path = folder.join(KEY_FILE);
    let mut key = [0; KEY_BYTES];
    let read = |path: &Path, key: &mut [u8; KEY_BYTES]| File::open(path)?.read_exact(key);
    match read(&path, &mut key) {
        Ok(()) => return Ok(key),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        // A short one is a crash's: everything under it is compiled again.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => remove(&path)?,
        Err(error) => return Err(failed("read", &path)(error)),
    }
    read(Path::new("/dev/urandom"), &mut key).map_err(failed("read", Path::new("/dev/urandom")))?;
    let temporary = folder.join(format!("{KEY_FILE}-{}.{UNFINISHED}", std::process::id()));
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| {
            file.write_all(&key)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)
        });
    written.map_err(failed("write", &path))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn compile(cache: &Cache, module: u8, bytes: usize) -> PathBuf {
        let (unfinished, file) = cache.begin().unwrap();
        File::from(file).write_all(&vec![module; bytes]).unwrap();
        let path = cache.path([module; 32], "feed");
        cache.keep(&unfinished, &path).unwrap();
        path
    }

    fn files(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), 250).unwrap();
        let [one, two] = [1, 2].map(|module| compile(&cache, module, 100));
        assert!(cache.load(&one).unwrap().is_some());
        let three = compile(&cache, 3, 100);
        assert!(cache.load(&two).unwrap().is_none());
        assert!(cache.load(&one).unwrap().is_some());
        assert!(cache.load(&three).unwrap().is_some());
        // One that is larger than the cache alone still serves its job.
        let four = compile(&cache, 4, 1000);
        assert!(cache.load(&four).unwrap().is_some());
        assert_eq!(files(folder.path()), 2);
    }

    #[test]
    fn each_module_has_a_key_of_its_own_that_outlives_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), 1).unwrap();
        let key = cache.key([1; 32]);
        assert_ne!(key, cache.key([2; 32]));
        assert_eq!(key, Cache::open(folder.path(), 1).unwrap().key([1; 32]));
        let mode = fs::metadata(folder.path().join(KEY_FILE)).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::mode(&mode) & 0o777, 0o600);
    }

    #[test]
    fn what_a_dead_process_left_unfinished_goes_and_the_rest_stays() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), 1000).unwrap();
        let kept = compile(&cache, 1, 10);
        let (unfinished, _) = cache.begin().unwrap();
        std::mem::forget(unfinished);
        drop(cache);
        let cache = Cache::open(folder.path(), 1000).unwrap();
        assert!(cache.load(&kept).unwrap().is_some());
        assert_eq!(files(folder.path()), 2);
    }
}
