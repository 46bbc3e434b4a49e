//! A file being written under a name of its own until it is complete.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

use crate::disk::open_regular;
use crate::error::Error;

const PREFIX: &str = "draft-";

/// A file that nobody reads yet. It is locked while it lives, so that a [`sweep`] by any process tells it from what
/// a killed process left; dropping it removes it.
pub(crate) struct Draft {
    file: File,
    path: PathBuf,
    digest: Sha256,
    size_bytes: u64,
    published: bool,
}

impl Draft {
    pub(crate) fn create(folder: &Path) -> Result<Self, Error> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = COUNTER.fetch_add(1, Ordering::Relaxed);
            let path = folder.join(format!("{PREFIX}{}-{number}", std::process::id()));
            let file = match File::options().read(true).write(true).create_new(true).open(&path) {
                Ok(file) => file,
                // Left by an earlier process of the same number.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(Error::io("creating a draft", &path)(error)),
            };
            // A sweep can come between creation and lock; then it owns the file.
            if file.try_lock().is_ok() && is_at(&file, &path) {
                return Ok(Self {
                    file,
                    path,
                    digest: Sha256::new(),
                    size_bytes: 0,
                    published: false,
                });
            }
        }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes).map_err(Error::io("writing", &self.path))?;
        self.digest.update(bytes);
        self.size_bytes += bytes.len() as u64;
        Ok(())
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn sha256(&self) -> [u8; 32] {
        self.digest.clone().finalize().into()
    }

    /// Makes what is written durable and read-only.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        self.file
            .set_permissions(Permissions::from_mode(0o444))
            .and_then(|()| self.file.sync_all())
            .map_err(Error::io("saving", &self.path))
    }

    /// Gives the content its name unless something has it; then the draft comes back. The file is read-only and
    /// carries a shared lock, but is not durable yet.
    pub(crate) fn place(mut self, name: &Path) -> Result<Result<File, Self>, Error> {
        let saving = || Error::io("saving", name);
        self.file.set_permissions(Permissions::from_mode(0o444)).map_err(saving())?;
        let file = self.file.try_clone().map_err(saving())?;
        // Without a moment in which nobody holds it.
        file.lock_shared().map_err(saving())?;
        match fs::hard_link(&self.path, name) {
            Ok(()) => {
                let _ = fs::remove_file(&self.path);
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                return Ok(Err(self));
            }
            // A file system without second names for a file.
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::Unsupported
                ) =>
            {
                fs::rename(&self.path, name).map_err(saving())?;
            }
            Err(error) => return Err(saving()(error)),
        }
        self.published = true;
        Ok(Ok(file))
    }

    /// Gives the durable content its name, replacing what has it.
    pub(crate) fn publish(mut self, name: &Path) -> Result<(), Error> {
        let saving = || Error::io("saving", name);
        self.sync()?;
        fs::rename(&self.path, name).map_err(saving())?;
        self.published = true;
        if let Some(folder) = name.parent() {
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(saving())?;
        }
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.published {
            // Nothing more can be done here; a sweep gets what is left.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes drafts whose process is gone.
pub(crate) fn sweep(folder: &Path) -> Result<(), Error> {
    let sweeping = || Error::io("sweeping", folder);
    for entry in fs::read_dir(folder).map_err(sweeping())? {
        let entry = entry.map_err(sweeping())?;
        let is_draft = entry.file_name().to_string_lossy().starts_with(PREFIX);
        if !is_draft || !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        let path = entry.path();
        if let Ok(file) = open_regular(&path)
            && file.try_lock().is_ok()
            && is_at(&file, &path)
        {
            fs::remove_file(&path).map_err(Error::io("sweeping", &path))?;
        }
    }
    Ok(())
}

/// Whether the path still leads to this file.
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_takes_what_was_left_and_spares_what_is_being_written() {
        let folder = tempfile::tempdir().unwrap();
        let left = folder.path().join("draft-1-0");
        fs::write(&left, "left").unwrap();
        let kept = folder.path().join("other");
        fs::write(&kept, "kept").unwrap();
        let draft = Draft::create(folder.path()).unwrap();
        sweep(folder.path()).unwrap();
        assert!(!left.exists());
        assert!(kept.exists() && draft.path().exists());
        let path = draft.path().to_owned();
        drop(draft);
        assert!(!path.exists());
    }
}
