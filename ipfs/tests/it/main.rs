//! The store against Kubo's own gateway code, and against servers that lie.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

mod fault;
mod graph;
mod health;
mod kubo;
mod liar;
mod node;
mod patience;
mod sharing;

use std::path::{Path, PathBuf};
use std::sync::Once;

use ipfs::{Options, Store, Url};
use tempfile::TempDir;

/// A store in a folder of its own that goes away with it.
struct Scene {
    folder: TempDir,
    store: Store,
}

impl Scene {
    async fn new(gateways: &[&Url]) -> Self {
        Self::with(gateways, |_| ()).await
    }

    /// A store whose options are changed before it is opened.
    async fn with(gateways: &[&Url], change: impl FnOnce(&mut Options)) -> Self {
        static TLS: Once = Once::new();
        TLS.call_once(|| {
            rustls::crypto::aws_lc_rs::default_provider()
                .install_default()
                .expect("no other provider is installed");
        });
        let folder = tempfile::tempdir().expect("a folder");
        let mut options = Options::new(folder.path().join("cache"));
        options.gateways = gateways.iter().map(|root| (*root).clone()).collect();
        change(&mut options);
        let store = Store::open(options).await.expect("a store");
        Self { folder, store }
    }

    /// What lies in the cache, complete or not, but for its lock and key.
    fn cached_files(&self) -> Vec<PathBuf> {
        let mut found = files(&self.folder.path().join("cache"));
        found.retain(|path| !path.ends_with("lock") && !path.ends_with("key"));
        found
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .collect()
}

/// Bytes that differ from chunk to chunk.
fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| ((at / 1000) ^ (at >> 18)) as u8).collect()
}
