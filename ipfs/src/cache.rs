//! Whole verified contents on disk, by CID: `content/CID/SHA256`, so that what is read can be checked by its name.
//!
//! Safe for several tasks and processes: files appear complete by rename; a reader holds a shared lock on its file,
//! and only what nobody holds is evicted; whoever adds or removes names holds the cache's own lock, readers need it
//! not. The kernel takes every lock from a process that ends. Use is remembered as the file's modification time.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use crate::cid::Cid;
use crate::draft::{Draft, is_at, sweep};
use crate::error::{Error, blocking};

/// Verified content in the cache. While it or a clone lives, the file stays.
#[derive(Clone, Debug)]
pub struct Content(Arc<Held>);

#[derive(Debug)]
struct Held {
    /// Carries the shared lock.
    file: File,
    path: PathBuf,
    size_bytes: u64,
    sha256: [u8; 32],
}

impl Content {
    /// The file, read-only, to be read while this lives.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Bytes of the whole content.
    pub fn size_bytes(&self) -> u64 {
        self.0.size_bytes
    }

    /// SHA-256 of the whole content.
    pub fn sha256(&self) -> [u8; 32] {
        self.0.sha256
    }

    /// The whole content in memory, checked once more.
    ///
    /// # Errors
    /// `io`, also when somebody changed the file since.
    pub async fn bytes(&self) -> Result<Vec<u8>, Error> {
        let held = Arc::clone(&self.0);
        blocking("reading", self.path(), move || {
            let reading = || Error::io("reading", &held.path);
            let changed = || reading()(io::Error::other("the cached file was changed"));
            let size = usize::try_from(held.size_bytes).map_err(|_| changed())?;
            let mut bytes = vec![0; size];
            held.file.read_exact_at(&mut bytes, 0).map_err(reading())?;
            if Sha256::digest(&bytes).as_slice() != held.sha256 {
                return Err(changed());
            }
            Ok(bytes)
        })
        .await
    }
}

/// The cache's folders. All methods block.
pub(crate) struct Cache {
    contents: PathBuf,
    drafts: PathBuf,
    lock: PathBuf,
    limit_bytes: u64,
    /// What this process believes is stored: it counts again when this passes the limit.
    used_bytes: AtomicU64,
}

/// What a stored file turned out to be.
enum Checked {
    Whole(Content),
    Corrupt(File),
    Gone,
}

/// A stored file, as eviction sees it.
struct Stored {
    path: PathBuf,
    size_bytes: u64,
    used_at: SystemTime,
}

impl Cache {
    pub(crate) fn open(folder: &Path, limit_bytes: u64) -> Result<Self, Error> {
        let cache = Self {
            contents: folder.join("content"),
            drafts: folder.join("draft"),
            lock: folder.join("lock"),
            limit_bytes,
            used_bytes: AtomicU64::new(0),
        };
        for path in [&cache.contents, &cache.drafts] {
            fs::create_dir_all(path).map_err(Error::io("creating", path))?;
        }
        sweep(&cache.drafts)?;
        let names = cache.lock_names()?;
        cache.evict()?;
        drop(names);
        Ok(cache)
    }

    pub(crate) fn draft(&self) -> Result<Draft, Error> {
        Draft::create(&self.drafts)
    }

    /// Content that is there and, read to its end, is what it was.
    pub(crate) fn lookup(&self, cid: &Cid) -> Result<Option<Content>, Error> {
        for path in list(&self.folder(cid))? {
            match check(&path)? {
                Checked::Whole(content) => return Ok(Some(content)),
                Checked::Gone => {}
                Checked::Corrupt(file) => {
                    tracing::warn!(path = %path.display(), "a cached file is not what it was and is removed");
                    let _names = self.lock_names()?;
                    if is_at(&file, &path) {
                        remove(&path)?;
                    }
                }
            }
        }
        Ok(None)
    }

    /// Keeps a draft as the content of `cid` and makes room for it.
    pub(crate) fn insert(&self, cid: &Cid, draft: Draft) -> Result<Content, Error> {
        draft.sync()?; // what takes long is done before the lock
        let folder = self.folder(cid);
        let path = folder.join(hex::encode(draft.sha256()));
        let _names = self.lock_names()?;
        fs::create_dir_all(&folder).map_err(Error::io("creating", &folder))?;
        // Replacing a file that another process was faster to add would take it from under its readers.
        if let Checked::Whole(content) = check(&path)? {
            return Ok(content);
        }
        let published = draft.publish(&path)?;
        published.file.lock_shared().map_err(Error::io("saving", &path))?;
        let content = Content(Arc::new(Held {
            file: published.file,
            path,
            size_bytes: published.size_bytes,
            sha256: published.sha256,
        }));
        let used = self.used_bytes.fetch_add(published.size_bytes, Ordering::Relaxed);
        if used + published.size_bytes > self.limit_bytes {
            self.evict()?;
        }
        Ok(content)
    }

    /// While the answer lives, nobody else adds or removes names.
    fn lock_names(&self) -> Result<File, Error> {
        let locking = || Error::io("locking", &self.lock);
        let mut options = File::options();
        let file =
            options.write(true).create(true).truncate(false).open(&self.lock).map_err(locking())?;
        file.lock().map_err(locking())?;
        Ok(file)
    }

    /// Counts what is stored and, if it is too much, removes what was not used for longest and is not held, down to
    /// nine tenths of the limit. The caller holds the lock.
    fn evict(&self) -> Result<(), Error> {
        let mut stored = Vec::new();
        for folder in list(&self.contents)? {
            for path in list(&folder)? {
                // What another process evicted meanwhile has no size.
                if let Ok(metadata) = fs::symlink_metadata(&path) {
                    stored.push(Stored {
                        path,
                        size_bytes: metadata.len(),
                        used_at: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                    });
                }
            }
        }
        let mut used: u64 = stored.iter().map(|file| file.size_bytes).sum();
        if used > self.limit_bytes {
            stored.sort_by_key(|file| file.used_at);
            for file in &stored {
                if used <= self.limit_bytes / 10 * 9 {
                    break;
                }
                // Kept until after the removal: a reader that opened the file meanwhile waits and sees it gone.
                if let Ok(opened) = File::open(&file.path)
                    && opened.try_lock().is_ok()
                {
                    remove(&file.path)?;
                    used -= file.size_bytes;
                }
            }
        }
        self.used_bytes.store(used, Ordering::Relaxed);
        Ok(())
    }

    fn folder(&self, cid: &Cid) -> PathBuf {
        let cid = cid.as_v1();
        self.contents.join(match cid.inline() {
            None => cid.to_string(),
            // Its text can be longer than a file name may be.
            Some(_) => format!("identity-{}", hex::encode(Sha256::digest(cid.to_bytes()))),
        })
    }
}

/// Takes hold of a stored file and reads it to its end.
fn check(path: &Path) -> Result<Checked, Error> {
    let reading = || Error::io("reading", path);
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Checked::Gone),
        Err(error) => return Err(reading()(error)),
    };
    file.lock_shared().map_err(reading())?;
    if !is_at(&file, path) {
        return Ok(Checked::Gone); // evicted between opening and locking
    }
    let (sha256, size_bytes) = digest(&mut file).map_err(reading())?;
    if path.file_name() != Some(hex::encode(sha256).as_ref()) {
        return Ok(Checked::Corrupt(file));
    }
    // Only the order of eviction depends on it.
    let _ = file.set_modified(SystemTime::now());
    let path = path.to_owned();
    Ok(Checked::Whole(Content(Arc::new(Held { file, path, size_bytes, sha256 }))))
}

/// The paths in a folder; none if there is no such folder.
fn list(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        // A stray file among the folders.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("listing", folder)(error)),
    };
    entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .map_err(Error::io("listing", folder))
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Error::io("removing", path)(error));
        }
        _ => {}
    }
    if let Some(folder) = path.parent() {
        let _ = fs::remove_dir(folder); // stays when something else is in it
    }
    Ok(())
}

fn digest(file: &mut File) -> io::Result<([u8; 32], u64)> {
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    let mut size_bytes = 0;
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok((digest.finalize().into(), size_bytes));
        }
        digest.update(buffer.get(..count).unwrap_or_default());
        size_bytes += count as u64;
    }
}

#[cfg(test)]
mod tests;
