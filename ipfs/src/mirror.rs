//! A local folder as a content store: plain files are found by the CIDs `ipfs add` would give them, and `blocks/`
//! holds what was added here, each file under its CID. Symbolic links are never followed. A folder that is missing
//! is an empty one.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::budget::Budget;
use crate::cid::{Cid, CidVersion, Codec};
use crate::disk::open_regular;
use crate::draft::{Draft, sweep};
use crate::error::{Error, blocking};
use crate::import::{CHUNK_BYTES, Piece, Profile, cid_of_file, import, wrap};
use crate::memory::Memory;

/// The subfolder of what was added.
const ADDED: &str = "blocks";
/// Larger files are neither looked at nor added.
const MAX_FILE_BYTES: u64 = 1 << 30;
/// Plain files beyond this many are not looked at.
const MAX_FILES: usize = 10_000;
/// Folders below this depth are not looked at.
const MAX_DEPTH: usize = 8;
/// A file that changed so shortly before it was read may change again without another time stamp.
const SETTLED_AFTER: Duration = Duration::from_secs(2);
/// Added files of several blocks whose inner blocks are remembered at once.
const MAX_ADDED_INDEXED: usize = 64;

/// The folder and what is known of it.
#[derive(Clone)]
pub(crate) struct Mirror {
    root: Arc<PathBuf>,
    /// Whether plain files count, or only what was added.
    plain_files: bool,
    index: Arc<Mutex<Index>>,
}

struct Index {
    files: HashMap<Arc<Path>, Indexed>,
    /// By version 1 of the CID.
    blocks: HashMap<Cid, (Arc<Path>, Piece)>,
    /// Which of the files are added ones, oldest first.
    added: VecDeque<Arc<Path>>,
    /// What earlier processes found in large files.
    memory: Memory,
    /// What was not looked at, as it was told last.
    note: String,
}

struct Indexed {
    stamp: Stamp,
    /// Whether the stamp tells of every later change.
    is_settled: bool,
    pieces: Vec<(Cid, Piece)>,
}

/// A file that has the same stamp is taken for unchanged; its bytes are verified all the same when they are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) size_bytes: u64,
    pub(crate) modified: (i64, i64),
    pub(crate) inode: u64,
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        Self {
            size_bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            inode: metadata.ino(),
        }
    }
}

impl Stamp {
    /// Whether the file was left alone for a while.
    fn is_settled(&self) -> bool {
        let Ok(seconds) = u64::try_from(self.modified.0) else { return true };
        let modified_at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        SystemTime::now().duration_since(modified_at).is_ok_and(|age| age > SETTLED_AFTER)
    }
}

/// Plain files that count, and what does not.
#[derive(Default)]
struct Found {
    files: Vec<(PathBuf, Stamp)>,
    is_full: bool,
    large: Option<PathBuf>,
    deep: Option<PathBuf>,
}

impl Found {
    /// What was not looked at, for the error of whoever misses something.
    fn note(&self) -> String {
        let mut note = String::new();
        if self.is_full {
            note += &format!("; only its first {MAX_FILES} files were looked at");
        }
        if let Some(path) = &self.large {
            let path = path.display();
            note += &format!("; {path} is larger than 1 GiB and was not looked at");
        }
        if let Some(path) = &self.deep {
            let path = path.display();
            note +=
                &format!("; {path} is more than {MAX_DEPTH} folders deep and was not looked at");
        }
        note
    }
}

impl Mirror {
    /// Opens the folder and sweeps what a killed process left in it. What is found in large plain files is remembered
    /// in the folder `memory`.
    pub(crate) fn open(root: &Path, plain_files: bool, memory: &Path) -> Result<Self, Error> {
        let added = root.join(ADDED);
        if added.is_dir() {
            sweep(&added)?;
        }
        let index = Index {
            files: HashMap::new(),
            blocks: HashMap::new(),
            added: VecDeque::new(),
            memory: Memory::new(memory, root),
            note: String::new(),
        };
        Ok(Self {
            root: Arc::new(root.to_owned()),
            plain_files,
            index: Arc::new(Mutex::new(index)),
        })
    }

    /// Its path.
    pub(crate) fn name(&self) -> String {
        self.root.display().to_string()
    }

    /// Whether it can be read; it may be missing unless it is the only source.
    pub(crate) async fn look(&self, is_only: bool) -> Result<(), Error> {
        let root = Arc::clone(&self.root);
        blocking("reading", &self.root, move || match fs::read_dir(&*root) {
            Err(error) if is_only || error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io("reading", &root)(error))
            }
            _ => Ok(()),
        })
        .await
    }

    /// Whether there is a folder to look into.
    pub(crate) fn is_there(&self) -> bool {
        self.root.is_dir()
    }

    /// One block, checked against its CID.
    pub(crate) async fn block(&self, cid: &Cid, max_bytes: u64) -> Result<Bytes, Error> {
        let (mirror, cid) = (self.clone(), cid.clone());
        blocking("reading", &self.root, move || mirror.find(&cid, max_bytes)).await
    }

    /// Adds a file and answers its CID. What is there already is not copied.
    pub(crate) async fn add_file(&self, file: &Path, version: CidVersion) -> Result<Cid, Error> {
        let (mirror, file) = (self.clone(), file.to_owned());
        blocking("adding", &file.clone(), move || {
            let metadata = fs::metadata(&file).map_err(Error::io("reading", &file))?;
            if !metadata.is_file() {
                let special = io::Error::other("it is not a regular file");
                return Err(Error::io("reading", &file)(special));
            }
            let cid = cid_of_file(&file, version)?;
            if metadata.len() > MAX_FILE_BYTES {
                return Err(Error::TooLarge { cid, limit_bytes: MAX_FILE_BYTES });
            }
            let source = File::open(&file).map_err(Error::io("reading", &file))?;
            mirror.store(&cid, source, metadata.len(), &file)
        })
        .await
    }

    /// Keeps content under the CID that it was found to have.
    pub(crate) async fn add_bytes(&self, cid: Cid, content: Vec<u8>) -> Result<Cid, Error> {
        let mirror = self.clone();
        let place = Arc::clone(&self.root);
        blocking("adding", &place.clone(), move || {
            mirror.store(&cid, content.as_slice(), content.len() as u64, &place)
        })
        .await
    }

    fn store(
        &self,
        cid: &Cid,
        mut source: impl Read,
        size_bytes: u64,
        from: &Path,
    ) -> Result<Cid, Error> {
        if self.find_sized(cid, Budget::default().block_bytes, Some(size_bytes)).is_ok() {
            return Ok(cid.clone());
        }
        let folder = self.root.join(ADDED);
        fs::create_dir_all(&folder).map_err(Error::io("creating", &folder))?;
        let mut draft = Draft::create(&folder)?;
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        loop {
            chunk.clear();
            let mut next = source.by_ref().take(CHUNK_BYTES as u64);
            next.read_to_end(&mut chunk).map_err(Error::io("reading", from))?;
            if chunk.is_empty() {
                break;
            }
            draft.write(&chunk)?;
        }
        // The copy is what must have the CID: the source can have changed since it was read first.
        let copied = match cid.codec() {
            Codec::Raw if cid.sha256() == Some(&draft.sha256()) => cid.clone(),
            _ => cid_of_file(draft.path(), cid.version())?,
        };
        if copied != *cid {
            let changed = io::Error::other("the file changed while it was added");
            return Err(Error::io("adding", from)(changed));
        }
        draft.publish(&folder.join(cid.to_string()))?;
        Ok(copied)
    }

    fn find(&self, cid: &Cid, max_bytes: u64) -> Result<Bytes, Error> {
        self.find_sized(cid, max_bytes, None)
    }

    /// A block; with a size only where it is the root of a file of that size.
    fn find_sized(
        &self,
        cid: &Cid,
        max_bytes: u64,
        file_bytes: Option<u64>,
    ) -> Result<Bytes, Error> {
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(block) = index.read(cid, max_bytes) {
            return Ok(block);
        }
        for name in [Some(cid.clone()), cid.other_version()].into_iter().flatten() {
            let path = self.root.join(ADDED).join(name.to_string());
            if fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_file()) {
                return self.find_added(&mut index, &name, &path, max_bytes);
            }
        }
        let mut note = String::new();
        if self.plain_files {
            note = index.scan(&self.root, cid, file_bytes);
            if let Some(block) = index.read(cid, max_bytes) {
                return Ok(block);
            }
        }
        let place = self.root.display().to_string();
        Err(Error::NotFound { cid: cid.clone(), place, note })
    }

    /// A file in `blocks/` under this name is the block itself, or a file whose root the block is.
    fn find_added(
        &self,
        index: &mut MutexGuard<'_, Index>,
        cid: &Cid,
        path: &Path,
        max_bytes: u64,
    ) -> Result<Bytes, Error> {
        let reading = || Error::io("reading", path);
        let mut file = open_regular(path).map_err(reading())?;
        let metadata = file.metadata().map_err(reading())?;
        let place = || path.display().to_string();
        let mut whole = None;
        if metadata.len() <= max_bytes {
            let mut content = Vec::new();
            let mut bounded = file.by_ref().take(max_bytes);
            bounded.read_to_end(&mut content).map_err(reading())?;
            if cid.verify(&content) {
                return Ok(content.into());
            }
            whole = Some(content);
        } else if cid.codec() == Codec::Raw {
            return Err(Error::BlockTooLarge {
                cid: cid.clone(),
                place: place(),
                limit_bytes: max_bytes,
            });
        }
        let mismatch = || Error::DigestMismatch { cid: cid.clone(), place: place() };
        if cid.codec() == Codec::Raw {
            return Err(mismatch());
        }
        if let Some(content) = whole.filter(|content| content.len() <= CHUNK_BYTES) {
            let block = wrap(&content);
            return if cid.verify(&block) { Ok(block.into()) } else { Err(mismatch()) };
        }
        let pieces = index_file(path, &[cid.version()]).map_err(reading())?;
        index.add(path, Stamp::from(&metadata), pieces);
        index.read(cid, max_bytes).ok_or_else(mismatch)
    }
}

impl Index {
    /// A block by what is known, if the bytes are still what they were.
    fn read(&mut self, cid: &Cid, max_bytes: u64) -> Option<Bytes> {
        let (path, piece) = self.blocks.get(&cid.as_v1())?;
        let block = match piece {
            Piece::Node(block) => Some(block.clone()),
            Piece::Leaf { offset, size_bytes } => {
                read_leaf(path, *offset, *size_bytes, cid.codec())
            }
        };
        match block {
            Some(block) if cid.verify(&block) => {
                Some(block).filter(|block| block.len() as u64 <= max_bytes)
            }
            _ => {
                // Changed or gone: forget the file, so that it is read anew.
                let path = Arc::clone(path);
                self.files.remove(&path);
                self.memory.forget(&path);
                self.added.retain(|added| *added != path);
                self.rebuild();
                None
            }
        }
    }

    fn add(&mut self, path: &Path, stamp: Stamp, pieces: Vec<(Cid, Piece)>) {
        let path: Arc<Path> = path.into();
        self.added.retain(|added| *added != path);
        self.added.push_back(Arc::clone(&path));
        self.files.insert(path, Indexed { stamp, is_settled: stamp.is_settled(), pieces });
        while self.added.len() > MAX_ADDED_INDEXED
            && let Some(oldest) = self.added.pop_front()
        {
            self.files.remove(&oldest);
        }
        self.rebuild();
    }

    /// Brings the plain files up to date until the block is found, the small ones first; only new and changed ones
    /// are read (of those with a size, if it is known), and large ones only once, whatever process did it. Answers
    /// what was not looked at.
    fn scan(&mut self, root: &Path, wanted: &Cid, file_bytes: Option<u64>) -> String {
        let mut found = Found::default();
        collect(root, root, 0, &mut found);
        let note = found.note();
        if note != self.note {
            if !note.is_empty() {
                let path = root.display();
                tracing::warn!(%path, "a part of the mirror does not count{note}");
            }
            self.note.clone_from(&note);
        }
        let mut known = std::mem::take(&mut self.files);
        for path in &self.added {
            if let Some(indexed) = known.remove(path) {
                self.files.insert(Arc::clone(path), indexed);
            }
        }
        let mut unread = Vec::new();
        for (path, stamp) in found.files {
            let path: Arc<Path> = path.into();
            let same = |indexed: &Indexed| indexed.is_settled && indexed.stamp == stamp;
            if let Some(indexed) = known.remove(&path).filter(same) {
                self.files.insert(path, indexed);
            } else if let Some(pieces) = self.memory.recall(&path, stamp) {
                self.files.insert(path, Indexed { stamp, is_settled: true, pieces });
            } else if file_bytes.is_none_or(|bytes| bytes == stamp.size_bytes) {
                unread.push((stamp.size_bytes, path, stamp));
            }
        }
        self.rebuild();
        unread.sort_by_key(|(size_bytes, ..)| *size_bytes);
        let wanted = wanted.as_v1();
        for (_, path, stamp) in unread {
            if self.blocks.contains_key(&wanted) {
                break;
            }
            let is_settled = stamp.is_settled();
            match index_file(&path, &[CidVersion::V0, CidVersion::V1]) {
                Ok(pieces) => {
                    for (cid, piece) in &pieces {
                        self.blocks.insert(cid.clone(), (Arc::clone(&path), piece.clone()));
                    }
                    if is_settled {
                        self.memory.learn(&path, stamp, &pieces);
                    }
                    self.files.insert(path, Indexed { stamp, is_settled, pieces });
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "a file of the mirror cannot be read")
                }
            }
        }
        self.memory.save();
        note
    }

    fn rebuild(&mut self) {
        self.blocks.clear();
        for (path, indexed) in &self.files {
            for (cid, piece) in &indexed.pieces {
                self.blocks.insert(cid.clone(), (Arc::clone(path), piece.clone()));
            }
        }
    }
}

fn index_file(path: &Path, versions: &[CidVersion]) -> io::Result<Vec<(Cid, Piece)>> {
    let mut pieces = Vec::new();
    for version in versions {
        let file = open_regular(path)?;
        import(file.take(MAX_FILE_BYTES), Profile::of_version(*version), |cid, piece| {
            pieces.push((cid.as_v1(), piece))
        })?;
    }
    Ok(pieces)
}

/// The regular files of a folder and those below it that count; hidden ones and added ones do not.
fn collect(root: &Path, folder: &Path, depth: usize, found: &mut Found) {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            tracing::warn!(path = %folder.display(), %error, "a folder of the mirror cannot be read");
            return;
        }
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if hidden || path == root.join(ADDED) {
            continue;
        }
        if metadata.is_dir() {
            if depth < MAX_DEPTH {
                collect(root, &path, depth + 1, found);
            } else {
                found.deep.get_or_insert(path);
            }
        } else if metadata.is_file() {
            if metadata.len() > MAX_FILE_BYTES {
                found.large.get_or_insert(path);
            } else if found.files.len() < MAX_FILES {
                found.files.push((path, Stamp::from(&metadata)));
            } else {
                found.is_full = true;
            }
        }
        if found.is_full {
            return;
        }
    }
}

fn read_leaf(path: &Path, offset: u64, size_bytes: usize, codec: Codec) -> Option<Bytes> {
    let mut chunk = vec![0; size_bytes];
    open_regular(path).ok()?.read_exact_at(&mut chunk, offset).ok()?;
    Some(match codec {
        Codec::Raw => chunk.into(),
        Codec::DagPb => wrap(&chunk).into(),
    })
}

#[cfg(test)]
mod tests;
