//! What was found in the large files of a mirror, kept on disk so that no other process has to read them again. It is
//! only a hint: whatever is taken from it is checked against its CID when it is used.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::cid::Cid;
use crate::disk::open_regular;
use crate::import::Piece;
use crate::mirror::Stamp;

/// Smaller files are read anew by each process.
const LEAST_BYTES: u64 = 1 << 20;
/// A memory that grows above this is forgotten: some 20 GiB of files.
const MAX_BYTES: u64 = 32 << 20;

/// The memory of one mirror.
pub(crate) struct Memory {
    /// None until it is needed.
    files: Option<HashMap<String, Remembered>>,
    path: PathBuf,
    is_changed: bool,
}

/// One file.
#[derive(Serialize, Deserialize)]
struct Remembered {
    size_bytes: u64,
    modified: (i64, i64),
    inode: u64,
    pieces: Vec<RememberedPiece>,
}

/// A block: a leaf by its place in the file, or an inner node by its bytes, in hex.
#[derive(Serialize, Deserialize)]
struct RememberedPiece {
    cid: Cid,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    leaf: Option<(u64, usize)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<String>,
}

impl Memory {
    pub(crate) fn new(folder: &Path, mirror: &Path) -> Self {
        let mirror = fs::canonicalize(mirror).unwrap_or_else(|_| mirror.to_owned());
        let mut name = hex::encode(Sha256::digest(mirror.as_os_str().as_encoded_bytes()));
        name.truncate(16);
        Self { files: None, path: folder.join(format!("{name}.json")), is_changed: false }
    }

    /// The blocks of a file that has not changed since.
    pub(crate) fn recall(&mut self, path: &Path, stamp: Stamp) -> Option<Vec<(Cid, Piece)>> {
        if stamp.size_bytes < LEAST_BYTES {
            return None;
        }
        let key = path.to_str()?;
        let known = self.files().get(key)?;
        let then =
            Stamp { size_bytes: known.size_bytes, modified: known.modified, inode: known.inode };
        if then != stamp {
            return None;
        }
        known
            .pieces
            .iter()
            .map(|piece| {
                let what = match (&piece.leaf, &piece.node) {
                    (Some((offset, size_bytes)), None) => {
                        Piece::Leaf { offset: *offset, size_bytes: *size_bytes }
                    }
                    (None, Some(node)) => Piece::Node(hex::decode(node).ok()?.into()),
                    _ => return None,
                };
                Some((piece.cid.clone(), what))
            })
            .collect()
    }

    /// Takes note of a file's blocks.
    pub(crate) fn learn(&mut self, path: &Path, stamp: Stamp, pieces: &[(Cid, Piece)]) {
        let Some(key) = path.to_str().filter(|_| stamp.size_bytes >= LEAST_BYTES) else { return };
        let pieces = pieces.iter().map(|(cid, piece)| match piece {
            Piece::Leaf { offset, size_bytes } => {
                RememberedPiece { cid: cid.clone(), leaf: Some((*offset, *size_bytes)), node: None }
            }
            Piece::Node(block) => {
                RememberedPiece { cid: cid.clone(), leaf: None, node: Some(hex::encode(block)) }
            }
        });
        let remembered = Remembered {
            size_bytes: stamp.size_bytes,
            modified: stamp.modified,
            inode: stamp.inode,
            pieces: pieces.collect(),
        };
        self.files().insert(key.to_owned(), remembered);
        self.is_changed = true;
    }

    /// A file that is not what it was.
    pub(crate) fn forget(&mut self, path: &Path) {
        if let Some(key) = path.to_str()
            && self.files().remove(key).is_some()
        {
            self.is_changed = true;
        }
    }

    /// Writes down what was learned; what cannot be written is found out again.
    pub(crate) fn save(&mut self) {
        if !std::mem::take(&mut self.is_changed) {
            return;
        }
        let files = self.files();
        files.retain(|path, _| Path::new(path).exists());
        let Ok(text) = serde_json::to_vec(files) else { return };
        if text.len() as u64 > MAX_BYTES {
            return;
        }
        let draft = self.path.with_extension(format!("draft-{}", std::process::id()));
        let written = self
            .path
            .parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| {
                let _ = fs::remove_file(&draft);
                File::options().write(true).create_new(true).open(&draft)?.write_all(&text)
            })
            .and_then(|()| fs::rename(&draft, &self.path));
        if let Err(error) = written {
            let _ = fs::remove_file(&draft);
            tracing::debug!(path = %self.path.display(), %error, "what is in the mirror is not remembered");
        }
    }

    fn files(&mut self) -> &mut HashMap<String, Remembered> {
        let path = &self.path;
        self.files.get_or_insert_with(|| load(path).unwrap_or_default())
    }
}

fn load(path: &Path) -> io::Result<HashMap<String, Remembered>> {
    let mut text = Vec::new();
    open_regular(path)?.take(MAX_BYTES).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}
