//! Whole verified contents on disk, each file sealed to the CID under which it came: its name has a tag, made with
//! the cache's own key, of CID and SHA-256. A file that was changed, renamed or put there by somebody is not served.
//!
//! Safe for several tasks and processes: files appear complete and never replace one another; a reader holds a shared
//! lock on its file, and only what nobody holds is evicted. No lock is waited for, and nothing but regular files is
//! opened, so that whatever else lies in the folder, or a process that was stopped, holds nobody up. The kernel takes
//! every lock from a process that ends. Use is remembered as the file's modification time. Nothing is made durable:
//! what a lost write leaves behind is found out when it is read.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

use crate::cid::Cid;
use crate::disk::{list, open_regular, size_on_disk};
use crate::draft::{Draft, is_at, sweep};
use crate::error::{Error, blocking};

/// Most files that are kept, however small they are.
const MAX_FILES: usize = 65_536;
/// Files that are removed whenever one is added, while there are any to go.
const EVICTED: usize = 16;
/// The most that are removed then, when the cache is over its limits.
const MOST_EVICTED: usize = 512;
/// How often a place that others fill and empty meanwhile is tried.
const ATTEMPTS: usize = 4;

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
    folder: PathBuf,
    contents: PathBuf,
    drafts: PathBuf,
    lock: PathBuf,
    limit_bytes: u64,
    key: Key,
    /// What this process believes is stored: counted when something is added, and again when this passes a limit.
    used: Mutex<Option<Used>>,
}

/// What is stored, in bytes of the disk and in files.
struct Used {
    bytes: u64,
    files: usize,
    /// What is to go, in its order: a disk takes its time to remove many files.
    doomed: VecDeque<Stored>,
}

/// What a stored file turned out to be.
enum Checked {
    Whole(Content),
    /// Not what its name says.
    Wrong,
    Gone,
}

/// A stored file, as eviction sees it.
struct Stored {
    path: PathBuf,
    bytes: u64,
    used_at: SystemTime,
}

impl Cache {
    pub(crate) fn open(folder: &Path, limit_bytes: u64) -> Result<Self, Error> {
        let contents = folder.join("sealed");
        let drafts = folder.join("draft");
        for path in [&contents, &drafts] {
            make_folder(path)?;
        }
        sweep(&drafts)?;
        Ok(Self {
            folder: folder.to_owned(),
            contents,
            drafts,
            lock: folder.join("lock"),
            limit_bytes,
            key: Key::load_or_create(folder)?,
            used: Mutex::default(),
        })
    }

    pub(crate) fn draft(&self) -> Result<Draft, Error> {
        // Somebody may have cleared the folder away.
        make_folder(&self.drafts)?;
        Draft::create(&self.drafts)
    }

    /// Sees whether a draft can be written.
    pub(crate) fn try_writing(&self) -> Result<(), Error> {
        let mut draft = self.draft()?;
        draft.write(&[0; 4096])?;
        draft.sync()
    }

    /// Content that is there and, read to its end, is what it was.
    pub(crate) fn lookup(&self, cid: &Cid) -> Result<Option<Content>, Error> {
        let cid = cid.as_v1();
        let name = Name::of(&cid);
        let folder = self.contents.join(&name.folder);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(Error::io("listing", &folder)(error)),
        };
        for entry in entries.flatten() {
            if !entry.file_name().as_encoded_bytes().starts_with(name.start.as_bytes()) {
                continue;
            }
            let path = entry.path();
            match self.check(&cid, &name, &path)? {
                Checked::Whole(content) => return Ok(Some(content)),
                Checked::Gone => {}
                Checked::Wrong => self.discard(&path),
            }
        }
        Ok(None)
    }

    /// Keeps a draft as the content of `cid` and makes room for it.
    pub(crate) fn insert(&self, cid: &Cid, mut draft: Draft) -> Result<Content, Error> {
        let cid = cid.as_v1();
        let name = Name::of(&cid);
        let folder = self.contents.join(&name.folder);
        if fs::symlink_metadata(&folder).is_ok_and(|metadata| !metadata.is_dir()) {
            self.discard(&folder);
        }
        make_folder(&folder)?;
        let (sha256, size_bytes) = (draft.sha256(), draft.size_bytes());
        let sealed = name.sealed(&self.key, &cid, &sha256, size_bytes);
        let path = folder.join(&sealed);
        for attempt in 0..ATTEMPTS {
            // Whoever removes what is there, and takes its time over it, is not waited for: what follows the seal
            // makes another name of it.
            let path = match attempt {
                0 => path.clone(),
                _ => folder.join(format!("{sealed}.{}", unique())),
            };
            // Replacing a file that another process was faster to add would take it from under its readers.
            match draft.place(&path)? {
                Ok(file) => {
                    let metadata = file.metadata().map_err(Error::io("saving", &path))?;
                    let held = Held { file, path, size_bytes, sha256 };
                    self.count(size_on_disk(&metadata))?;
                    return Ok(Content(Arc::new(held)));
                }
                Err(unplaced) => draft = unplaced,
            }
            match self.check(&cid, &name, &path)? {
                Checked::Whole(content) => return Ok(content),
                Checked::Gone => {}
                Checked::Wrong => self.discard(&path),
            }
        }
        Err(Error::io("saving", &path)(io::Error::other("something else is in its place")))
    }

    /// Takes hold of a stored file and reads it to its end.
    fn check(&self, cid: &Cid, name: &Name, path: &Path) -> Result<Checked, Error> {
        let reading = || Error::io("reading", path);
        let mut file = match open_regular(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Checked::Gone),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(Checked::Wrong),
            Err(error) => return Err(reading()(error)),
        };
        // Whoever holds it alone is about to remove it.
        if file.try_lock_shared().is_err() || !is_at(&file, path) {
            return Ok(Checked::Gone);
        }
        let (sha256, size_bytes) = digest(&mut file).map_err(reading())?;
        let sealed = name.sealed(&self.key, cid, &sha256, size_bytes);
        let found = path.file_name().map(OsStr::as_encoded_bytes).unwrap_or_default();
        let rest = found.strip_prefix(sealed.as_bytes());
        if !rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b".")) {
            return Ok(Checked::Wrong);
        }
        // Only the order of eviction depends on it.
        let _ = file.set_modified(SystemTime::now());
        let path = path.to_owned();
        Ok(Checked::Whole(Content(Arc::new(Held { file, path, size_bytes, sha256 }))))
    }

    fn discard(&self, path: &Path) {
        tracing::warn!(path = %path.display(), "a cached file is not what was put there and is removed");
        if let Err(error) = fs::remove_file(path).or_else(|_| fs::remove_dir_all(path)) {
            tracing::warn!(path = %path.display(), %error, "it cannot be removed");
        }
    }

    fn count(&self, added_bytes: u64) -> Result<(), Error> {
        let mut held = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let mut used = match held.take() {
            Some(mut known) => {
                known.bytes = known.bytes.saturating_add(added_bytes);
                known.files += 1;
                known
            }
            None => self.scan()?,
        };
        if self.is_over(&used) && used.doomed.is_empty() {
            used = self.scan()?;
        }
        self.evict(held.insert(used))
    }

    fn is_over(&self, used: &Used) -> bool {
        used.bytes > self.limit_bytes || used.files > MAX_FILES
    }

    /// Removes some of what is to go and is not held: as much as must be, and a little more.
    fn evict(&self, used: &mut Used) -> Result<(), Error> {
        if used.doomed.is_empty() {
            return Ok(());
        }
        // One process at a time is enough.
        let Some(_alone) = self.lock_alone()? else { return Ok(()) };
        for step in 0..MOST_EVICTED {
            if step >= EVICTED && !self.is_over(used) {
                break;
            }
            let Some(file) = used.doomed.pop_front() else { break };
            // What was used since stays, and what another process removed is gone.
            let used_at = fs::symlink_metadata(&file.path).and_then(|metadata| metadata.modified());
            let removed = match used_at {
                Ok(used_at) if used_at > file.used_at => false,
                Ok(_) => match open_regular(&file.path) {
                    // Kept until after the removal: a reader that opened the file meanwhile sees it gone.
                    Ok(opened) => opened.try_lock().is_ok() && remove(&file.path)?,
                    // Not one of ours.
                    Err(_) => remove(&file.path).unwrap_or(false),
                },
                Err(_) => true,
            };
            if removed {
                used.bytes = used.bytes.saturating_sub(file.bytes);
                used.files = used.files.saturating_sub(1);
            }
        }
        Ok(())
    }

    /// Counts what is stored and, if it is too much, says what is to go: what was not used for longest, down to nine
    /// tenths of the limits.
    fn scan(&self) -> Result<Used, Error> {
        // Earlier versions kept their files there.
        let _ = fs::remove_dir_all(self.folder.join("content"));
        let mut stored = Vec::new();
        let mut used = Used { bytes: 0, files: 0, doomed: VecDeque::new() };
        for folder in list(&self.contents)? {
            if let Ok(metadata) = fs::symlink_metadata(&folder) {
                used.bytes += size_on_disk(&metadata);
            }
            for path in list(&folder)? {
                // What another process evicted meanwhile has no size.
                if let Ok(metadata) = fs::symlink_metadata(&path) {
                    let bytes = size_on_disk(&metadata);
                    used.bytes += bytes;
                    used.files += 1;
                    let used_at = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                    stored.push(Stored { path, bytes, used_at });
                }
            }
        }
        if !self.is_over(&used) {
            return Ok(used);
        }
        stored.sort_by_key(|file| file.used_at);
        let mut left = (used.bytes, used.files);
        for file in stored {
            if left.0 <= self.limit_bytes / 10 * 9 && left.1 <= MAX_FILES / 10 * 9 {
                break;
            }
            left = (left.0.saturating_sub(file.bytes), left.1.saturating_sub(1));
            used.doomed.push_back(file);
        }
        Ok(used)
    }

    /// The lock of whoever evicts; none when somebody else does.
    fn lock_alone(&self) -> Result<Option<File>, Error> {
        let locking = || Error::io("locking", &self.lock);
        let written = File::options().write(true).create_new(true).mode(0o600).open(&self.lock);
        match written {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(locking()(error));
            }
            _ => {}
        }
        match open_regular(&self.lock) {
            Ok(file) => Ok(file.try_lock().is_ok().then_some(file)),
            // Next time there is one.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                self.discard(&self.lock);
                Ok(None)
            }
            Err(error) => Err(locking()(error)),
        }
    }
}

/// Where the content of a CID lies.
struct Name {
    folder: String,
    start: String,
}

impl Name {
    fn of(cid: &Cid) -> Self {
        // The text of a CID can be longer than a file name may be.
        let mut start = hex::encode(Sha256::digest(cid.to_bytes()));
        start.truncate(40);
        Self { folder: start.chars().take(1).collect(), start: format!("{start}-") }
    }

    fn sealed(&self, key: &Key, cid: &Cid, sha256: &[u8; 32], size_bytes: u64) -> String {
        let mut tag = key.tag();
        tag.update(sha256);
        tag.update(&size_bytes.to_be_bytes());
        tag.update(&cid.to_bytes());
        format!("{}{}", self.start, hex::encode(tag.finalize().into_bytes()))
    }
}

/// What the seals are made with.
struct Key([u8; 32]);

impl Key {
    /// The key of a folder, made there if it is missing; of processes that make it at the same time, all get the same.
    /// One that cannot be used, or that others can read, is replaced: what it sealed is fetched again.
    fn load_or_create(folder: &Path) -> Result<Self, Error> {
        let path = folder.join("key");
        match Self::load(&path) {
            Ok(key) => return Ok(key),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the cache's key is replaced");
                fs::remove_file(&path)
                    .or_else(|_| fs::remove_dir_all(&path))
                    .map_err(Error::io("removing", &path))?;
            }
        }
        match Self::create(folder, &path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::io("creating", &path)(error));
            }
            _ => {}
        }
        Self::load(&path).map_err(Error::io("reading", &path))
    }

    fn load(path: &Path) -> io::Result<Self> {
        let mut file = open_regular(path)?;
        if file.metadata()?.mode() & 0o077 != 0 {
            return Err(io::Error::other("others than its owner can read it"));
        }
        let mut bytes = [0; 32];
        file.read_exact(&mut bytes)?;
        Ok(Self(bytes))
    }

    fn create(folder: &Path, path: &Path) -> io::Result<()> {
        let mut bytes = [0; 32];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        let draft = folder.join(format!(".key-{}", unique()));
        let _ = fs::remove_file(&draft);
        let mut options = File::options();
        let created = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft)
            .and_then(|mut file| file.write_all(&bytes))
            .and_then(|()| fs::hard_link(&draft, path));
        let _ = fs::remove_file(&draft);
        created
    }

    fn tag(&self) -> Hmac<Sha256> {
        // HMAC pads a key to its block with zeros itself.
        let mut block = hmac::digest::Key::<Hmac<Sha256>>::default();
        for (to, from) in block.iter_mut().zip(self.0) {
            *to = from;
        }
        <Hmac<Sha256> as hmac::digest::KeyInit>::new(&block)
    }
}

fn make_folder(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(Error::io("creating", path))
}

/// A name that no other task or process has now.
fn unique() -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    format!("{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
}

/// Whether the file was still there.
fn remove(path: &Path) -> Result<bool, Error> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("removing", path)(error)),
    }
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
