//! A file to blocks, as `ipfs add` cuts it under an import profile. By default (version 0) and with
//! `--cid-version=1` that is 256 KiB chunks and a balanced tree of at most 174 links a node; wrapped leaves in
//! version 0, raw ones in version 1.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::cid::{Cid, CidVersion};
use crate::dagpb::{self, Link};
use crate::error::Error;
use crate::unixfs;

/// Bytes of a chunk, unless a profile says otherwise.
pub(crate) const CHUNK_BYTES: usize = 262_144;

/// All that decides which CID a file has. The tree is balanced, the hash SHA-256, nothing is inlined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// The form of the CIDs.
    pub version: CidVersion,
    /// Whether leaves are the chunks themselves; version 0 wraps them.
    pub raw_leaves: bool,
    /// Bytes of a chunk.
    pub chunk_bytes: usize,
    /// Most links of a node.
    pub max_links: usize,
}

impl Profile {
    /// Default `ipfs add`; Kubo's profiles `unixfs-v0-2015` and `legacy-cid-v0`.
    pub const V0: Self = Self {
        version: CidVersion::V0,
        raw_leaves: false,
        chunk_bytes: CHUNK_BYTES,
        max_links: 174,
    };
    /// `ipfs add --cid-version=1` on a node with default settings.
    pub const V1: Self = Self { version: CidVersion::V1, raw_leaves: true, ..Self::V0 };
    /// The names that Kubo gives to profiles, newest first. The last two are those of Kubo 0.29 to 0.39.
    pub const NAMED: [(&'static str, Self); 5] = [
        ("unixfs-v1-2025", Self { chunk_bytes: 1 << 20, max_links: 1024, ..Self::V1 }),
        ("unixfs-v0-2015", Self::V0),
        ("legacy-cid-v0", Self::V0),
        ("test-cid-v1", Self { chunk_bytes: 1 << 20, ..Self::V1 }),
        ("test-cid-v1-wide", Self { chunk_bytes: 1 << 20, max_links: 1024, ..Self::V1 }),
    ];

    /// The profile of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMED.iter().find(|(known, _)| *known == name).map(|(_, profile)| *profile)
    }

    /// What `ipfs add` does for a version.
    pub fn of_version(version: CidVersion) -> Self {
        match version {
            CidVersion::V0 => Self::V0,
            CidVersion::V1 => Self::V1,
        }
    }
}

/// Where a block of an imported file comes from.
#[derive(Clone, Debug)]
pub(crate) enum Piece {
    /// A chunk of the file, wrapped if its CID says dag-pb.
    Leaf { offset: u64, size_bytes: usize },
    /// An inner node.
    Node(Bytes),
}

/// A finished subtree.
struct Subtree {
    link: Link,
    file_bytes: u64,
}

/// Reads to the end and answers the root, after each block was given to `keep`.
pub(crate) fn import(
    mut reader: impl Read,
    profile: Profile,
    mut keep: impl FnMut(Cid, Piece),
) -> io::Result<Cid> {
    // levels[0] holds leaves; a full level becomes one node of the next.
    let mut levels: Vec<Vec<Subtree>> = Vec::new();
    let mut chunk = Vec::with_capacity(profile.chunk_bytes);
    let mut offset = 0;
    loop {
        chunk.clear();
        reader.by_ref().take(profile.chunk_bytes as u64).read_to_end(&mut chunk)?;
        if chunk.is_empty() && offset > 0 {
            break;
        }
        let leaf = leaf(profile, &chunk);
        let size_bytes = chunk.len();
        keep(leaf.link.cid.clone(), Piece::Leaf { offset, size_bytes });
        offset += size_bytes as u64;
        let mut finished = leaf;
        for level in 0.. {
            if levels.len() == level {
                levels.push(Vec::new());
            }
            let Some(siblings) = levels.get_mut(level) else { break };
            siblings.push(finished);
            if siblings.len() < profile.max_links {
                break;
            }
            finished = node(profile, std::mem::take(siblings), &mut keep);
        }
        if size_bytes < profile.chunk_bytes {
            break;
        }
    }
    // What is left over is folded from below; the last subtree alone is the root.
    let mut below: Option<Subtree> = None;
    let mut rest = levels.into_iter().peekable();
    while let Some(mut siblings) = rest.next() {
        siblings.extend(below.take());
        let is_top = rest.peek().is_none();
        below = match siblings.len() {
            0 => None,
            1 if is_top => siblings.pop(),
            _ => Some(node(profile, siblings, &mut keep)),
        };
    }
    below.map(|root| root.link.cid).ok_or_else(|| io::Error::other("an import without a root"))
}

fn leaf(profile: Profile, chunk: &[u8]) -> Subtree {
    let (cid, total_bytes) = if profile.raw_leaves {
        (raw_cid(chunk), chunk.len())
    } else {
        let block = wrap(chunk);
        (Cid::of_node(profile.version, &block), block.len())
    };
    Subtree { link: Link { cid, total_bytes: total_bytes as u64 }, file_bytes: chunk.len() as u64 }
}

/// A chunk as a block of its own in version 0.
pub(crate) fn wrap(chunk: &[u8]) -> Vec<u8> {
    dagpb::encode(&[], &unixfs::encode_file(chunk, &[]))
}

fn node(profile: Profile, children: Vec<Subtree>, keep: &mut impl FnMut(Cid, Piece)) -> Subtree {
    let sizes: Vec<u64> = children.iter().map(|child| child.file_bytes).collect();
    let links: Vec<Link> = children.into_iter().map(|child| child.link).collect();
    let block = dagpb::encode(&links, &unixfs::encode_file(&[], &sizes));
    let cid = Cid::of_node(profile.version, &block);
    let below: u64 = links.iter().map(|link| link.total_bytes).sum();
    let total_bytes = below + block.len() as u64;
    keep(cid.clone(), Piece::Node(block.into()));
    Subtree { link: Link { cid, total_bytes }, file_bytes: sizes.iter().sum() }
}

/// The CID that `ipfs add` gives to what the reader yields.
///
/// # Errors
/// The reader's.
pub fn cid_of_reader(reader: impl Read, version: CidVersion) -> io::Result<Cid> {
    import(reader, Profile::of_version(version), |_, _| ())
}

/// The CID that a file has under a profile, read in the calling thread.
///
/// # Errors
/// `io`.
pub fn cid_under_profile(path: &Path, profile: Profile) -> Result<Cid, Error> {
    File::open(path)
        .and_then(|file| import(file, profile, |_, _| ()))
        .map_err(Error::io("reading", path))
}

/// The CID that `ipfs add` gives to these bytes.
pub fn cid_of_bytes(bytes: &[u8], version: CidVersion) -> Cid {
    #[expect(clippy::expect_used, reason = "reading a slice cannot fail")]
    cid_of_reader(bytes, version).expect("a slice is read")
}

/// The CID that `ipfs add` gives to a file, read in the calling thread.
///
/// # Errors
/// `io`.
pub fn cid_of_file(path: &Path, version: CidVersion) -> Result<Cid, Error> {
    File::open(path)
        .and_then(|file| cid_of_reader(file, version))
        .map_err(Error::io("reading", path))
}

/// The CID of one raw block of these bytes, however many: that of a result document.
pub fn raw_cid(bytes: &[u8]) -> Cid {
    Cid::raw(Sha256::digest(bytes).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use CidVersion::{V0, V1};

    #[test]
    fn the_sample_inputs_have_their_known_cids() {
        for (bytes, cid) in [
            (r#"{"entry":"fib","args":[12]}"#, "QmbBuEbFrx1vcoPukHStpLG3G1mmX8dpSy8xUAGVFK9AdG"),
            (
                r#"{"entry":"affine","args":[13,9,2]}"#,
                "Qmcs5AR22G2VFBDiqH4jK7viJeNLHvxHn9LYuw8H4tegQi",
            ),
            ("", "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH"),
        ] {
            assert_eq!(cid_of_bytes(bytes.as_bytes(), V0).to_string(), cid);
        }
        assert_eq!(
            cid_of_bytes(b"", V1).to_string(),
            "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
        );
    }

    #[test]
    fn a_reader_that_gives_little_at_a_time_changes_nothing() {
        struct Dribble<'a>(&'a [u8]);
        impl Read for Dribble<'_> {
            fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
                let some = out.len().min(1000);
                self.0.read(&mut out[..some])
            }
        }
        let bytes = vec![5; CHUNK_BYTES + 7];
        for version in [V0, V1] {
            assert_eq!(
                cid_of_reader(Dribble(&bytes), version).unwrap(),
                cid_of_bytes(&bytes, version)
            );
        }
    }

    #[test]
    fn every_block_of_a_file_of_three_levels_is_kept_once_and_verifies() {
        // 175 chunks: two inner nodes below the root, the second with one leaf.
        let bytes: Vec<u8> =
            (0..174 * CHUNK_BYTES + 1).map(|at| (at / CHUNK_BYTES) as u8).collect();
        for version in [V0, V1] {
            let mut leaves = 0;
            let mut nodes = 0;
            let root =
                import(bytes.as_slice(), Profile::of_version(version), |cid, piece| match piece {
                    Piece::Leaf { offset, size_bytes } => {
                        let chunk = &bytes[offset as usize..][..size_bytes];
                        assert!(cid.verify(chunk) || cid.verify(&wrap(chunk)));
                        leaves += 1;
                    }
                    Piece::Node(block) => {
                        assert!(cid.verify(&block));
                        nodes += 1;
                    }
                })
                .unwrap();
            assert_eq!((leaves, nodes), (175, 3));
            assert_eq!(root, cid_of_bytes(&bytes, version));
        }
    }
}
