//! Verified blocks of content that is not whole yet, on disk, so that the next attempt goes on where this one ended.
//! Each file has its block's CID for a name and is checked against it when it is read: nothing here is believed.

use std::collections::HashSet;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::cid::Cid;
use crate::disk::{list, open_regular, size_on_disk};

/// Most blocks that are kept.
const MAX_BLOCKS: usize = 65_536;
/// Blocks that nobody asked for in so long are given up.
const MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// The start of names that are not complete yet.
const DRAFT: &str = "draft-";

/// The folder. What cannot be kept is not: only time is lost.
pub(crate) struct Shelf {
    folder: PathBuf,
    limit_bytes: u64,
    /// What is believed to be kept; counted anew when it passes the limit.
    used: Mutex<Option<Used>>,
    counter: AtomicU64,
}

#[derive(Clone, Copy)]
struct Used {
    bytes: u64,
    blocks: usize,
}

impl Shelf {
    pub(crate) fn new(folder: PathBuf, limit_bytes: u64) -> Self {
        Self { folder, limit_bytes, used: Mutex::default(), counter: AtomicU64::new(0) }
    }

    fn path(&self, cid: &Cid) -> Option<PathBuf> {
        // Two hex digits spread the names over folders.
        let [first, ..] = cid.sha256()?;
        Some(self.folder.join(format!("{first:02x}")).join(cid.as_v1().to_string()))
    }

    /// A block that was kept. Blocks.
    pub(crate) fn get(&self, cid: &Cid, max_bytes: u64) -> Option<Bytes> {
        let path = self.path(cid)?;
        let file = open_regular(&path).ok()?;
        let size_bytes = file.metadata().ok()?.len();
        if size_bytes > max_bytes {
            return None;
        }
        let mut block = Vec::with_capacity(usize::try_from(size_bytes).ok()?);
        file.take(max_bytes).read_to_end(&mut block).ok()?;
        if cid.verify(&block) {
            return Some(block.into());
        }
        let _ = fs::remove_file(&path);
        None
    }

    fn put(&self, cid: &Cid, block: &[u8]) -> io::Result<()> {
        let Some(path) = self.path(cid) else { return Ok(()) };
        let Some(folder) = path.parent() else { return Ok(()) };
        fs::create_dir_all(folder)?;
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let draft = folder.join(format!("{DRAFT}{}-{number}", std::process::id()));
        let written = File::options()
            .write(true)
            .create_new(true)
            .open(&draft)
            .and_then(|mut file| file.write_all(block).and_then(|()| file.metadata()))
            .and_then(|metadata| fs::rename(&draft, &path).map(|()| metadata));
        let metadata = written.inspect_err(|_| {
            let _ = fs::remove_file(&draft);
        })?;
        self.count(&metadata);
        Ok(())
    }

    fn count(&self, added: &Metadata) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let known = match *used {
            Some(known) => Used {
                bytes: known.bytes.saturating_add(size_on_disk(added)),
                blocks: known.blocks + 1,
            },
            None => self.scan(),
        };
        *used = Some(if known.bytes > self.limit_bytes || known.blocks > MAX_BLOCKS {
            self.scan()
        } else {
            known
        });
    }

    /// Counts what is kept, and removes the oldest down to half of the limits if it is too much.
    fn scan(&self) -> Used {
        let now = SystemTime::now();
        let mut found = Vec::new();
        for folder in list(&self.folder).unwrap_or_default() {
            for path in list(&folder).unwrap_or_default() {
                let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
                let written_at = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                if now.duration_since(written_at).is_ok_and(|age| age > MAX_AGE) {
                    let _ = fs::remove_file(&path);
                } else {
                    found.push((written_at, size_on_disk(&metadata), path));
                }
            }
        }
        let mut used =
            Used { bytes: found.iter().map(|(_, bytes, _)| bytes).sum(), blocks: found.len() };
        if used.bytes > self.limit_bytes || used.blocks > MAX_BLOCKS {
            found.sort();
            for (_, bytes, path) in found {
                if used.bytes <= self.limit_bytes / 2 && used.blocks <= MAX_BLOCKS / 2 {
                    break;
                }
                if fs::remove_file(&path).is_ok() {
                    used.bytes -= bytes;
                    used.blocks -= 1;
                }
            }
        }
        used
    }

    fn remove(&self, cid: &Cid) {
        let Some(path) = self.path(cid) else { return };
        let size_bytes = fs::symlink_metadata(&path).map_or(0, |metadata| size_on_disk(&metadata));
        if fs::remove_file(&path).is_err() {
            return;
        }
        if let Some(used) = self.used.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            used.bytes = used.bytes.saturating_sub(size_bytes);
            used.blocks = used.blocks.saturating_sub(1);
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

/// The blocks that one fetch has put on the shelf.
#[derive(Clone)]
pub(crate) struct Tray {
    shelf: Arc<Shelf>,
    /// None once the fetch has no more use for them.
    kept: Arc<Mutex<Option<HashSet<Cid>>>>,
}

impl Tray {
    pub(crate) fn new(shelf: &Arc<Shelf>) -> Self {
        Self { shelf: Arc::clone(shelf), kept: Arc::new(Mutex::new(Some(HashSet::new()))) }
    }

    /// A block of an earlier attempt. Blocks.
    pub(crate) fn get(&self, cid: &Cid, max_bytes: u64) -> Option<Bytes> {
        let block = self.shelf.get(cid, max_bytes)?;
        if let Some(kept) = self.kept.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            kept.insert(cid.clone());
        }
        Some(block)
    }

    /// Keeps a verified block for the next attempt. Blocks.
    pub(crate) fn put(&self, cid: &Cid, block: &[u8]) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(kept) = kept.as_mut() else { return };
        if kept.contains(cid) {
            return;
        }
        match self.shelf.put(cid, block) {
            Ok(()) => {
                kept.insert(cid.clone());
            }
            Err(error) => {
                let path = self.shelf.folder().display();
                tracing::debug!(%path, %error, "a block is not kept for the next attempt");
            }
        }
    }

    /// Takes everything off the shelf: the content is whole, or never will be. Blocks.
    pub(crate) fn clear(&self) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        for cid in kept.into_iter().flatten() {
            self.shelf.remove(&cid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::raw_cid;

    #[test]
    fn i4_what_is_kept_is_checked_when_it_is_read_and_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Arc::new(Shelf::new(folder.path().to_owned(), 40 * 4096));
        let tray = Tray::new(&shelf);
        for number in 0..100_u8 {
            tray.put(&raw_cid(&[number; 4096]), &[number; 4096]);
        }
        let kept = (0..100_u8).filter(|number| {
            shelf.get(&raw_cid(&[*number; 4096]), 4096).is_some_and(|block| block[0] == *number)
        });
        assert!((20..=40).contains(&kept.count()));
        let cid = raw_cid(&[99; 4096]);
        let path = shelf.path(&cid).unwrap();
        fs::write(&path, [98; 4096]).unwrap();
        assert!(shelf.get(&cid, 4096).is_none());
        assert!(!path.exists());
        tray.clear();
        for folder in list(folder.path()).unwrap() {
            assert_eq!(list(&folder).unwrap(), Vec::<PathBuf>::new());
        }
        tray.put(&cid, &[99; 4096]);
        assert!(!path.exists(), "what comes late is not kept");
    }
}
