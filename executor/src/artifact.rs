//! Compiled modules. A compiled form is machine code: one that was not made by this very engine must never be
//! loaded. So each is sealed with the digest of its module, the engine's fingerprint and an HMAC-SHA256 under a key
//! that only this coordinator's executors have.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use executor_protocol::PlainFailure;
use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};
use wasmtime::{CodeBuilder, Engine, Module};

use crate::engine;
use crate::module::Refusal;

const MAGIC: &[u8; 16] = b"wasm-exec code 1";
const DIGEST_BYTES: usize = 32;
const HEADER_BYTES: usize = MAGIC.len() + 2 * DIGEST_BYTES;

/// Why a compiled form, or its key, cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not sealed by us, changed since, or of another module.
    #[error("a compiled form with a wrong integrity tag, or of another module")]
    Tampered,
    /// Made by another engine, on another processor, or with another configuration.
    #[error("a compiled form of another engine or processor")]
    Stale,
    /// Sealed by us and still not loadable.
    #[error("cannot load a compiled form: {0}")]
    Load(wasmtime::Error),
    /// The key file can be read by others.
    #[error("the key file {0} must be readable by its owner only (mode 0600)")]
    OpenKey(PathBuf),
    /// The key file has not 32 bytes.
    #[error("the key file {0} is not a key")]
    BadKey(PathBuf),
    /// A file could not be read or written.
    #[error("cannot {0} {path}", path = .1.display())]
    File(&'static str, PathBuf, #[source] io::Error),
}

impl Error {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Tampered => "artifact_tampered",
            Self::Stale => "artifact_stale",
            Self::Load(_) => "artifact_unloadable",
            Self::OpenKey(_) | Self::BadKey(_) => "artifact_key",
            Self::File(..) => "artifact_file",
        }
    }

    /// Whether compiling again helps.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        matches!(self, Self::Tampered | Self::Stale | Self::Load(_))
    }
}

/// The key of the integrity tag.
#[derive(Clone)]
pub struct Key([u8; DIGEST_BYTES]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(redacted)")
    }
}

impl From<[u8; DIGEST_BYTES]> for Key {
    /// A key that somebody else keeps: the coordinator gives each child the one of its module.
    fn from(bytes: [u8; DIGEST_BYTES]) -> Self {
        Self(bytes)
    }
}

impl Key {
    /// A key for this process alone.
    pub fn random() -> Result<Self, Error> {
        let path = Path::new("/dev/urandom");
        let mut bytes = [0; DIGEST_BYTES];
        File::open(path)
            .and_then(|mut file| file.read_exact(&mut bytes))
            .map_err(|e| Error::File("read", path.to_owned(), e))?;
        Ok(Self(bytes))
    }

    /// The key in the file `key` of a folder; made there if it is missing. Of two processes that make it at the
    /// same time, both get the same.
    pub fn load_or_create(folder: &Path) -> Result<Self, Error> {
        let path = folder.join("key");
        let failed = |doing| move |path: PathBuf| move |e| Error::File(doing, path, e);
        if !path.exists() {
            fs::create_dir_all(folder).map_err(failed("create")(folder.to_owned()))?;
            let Self(bytes) = Self::random()?;
            let temporary = folder.join(format!(".key.{}", std::process::id()));
            write_new(&temporary, &bytes).map_err(failed("write")(temporary.clone()))?;
            let linked = fs::hard_link(&temporary, &path);
            let _ = fs::remove_file(&temporary);
            match linked {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(Error::File("create", path, e));
                }
                _ => {}
            }
        }
        let meta = fs::metadata(&path).map_err(failed("read")(path.clone()))?;
        if meta.permissions().mode() & 0o077 != 0 {
            return Err(Error::OpenKey(path));
        }
        let bytes = fs::read(&path).map_err(failed("read")(path.clone()))?;
        Ok(Self(bytes.try_into().map_err(|_| Error::BadKey(path))?))
    }

    fn tag(&self, parts: &[u8]) -> Hmac<Sha256> {
        // HMAC pads a key to its block with zeros itself.
        let mut block = hmac::digest::Key::<Hmac<Sha256>>::default();
        for (to, from) in block.iter_mut().zip(self.0) {
            *to = from;
        }
        let mut mac = <Hmac<Sha256> as hmac::digest::KeyInit>::new(&block);
        mac.update(parts);
        mac
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let _ = fs::remove_file(path);
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(bytes)
}

/// Compiles a module that passed its check and seals the compiled form.
pub fn compile(engine: &Engine, module: &[u8], key: &Key) -> Result<Vec<u8>, Refusal> {
    // Valid, and still not compiled: it passes one of the compiler's own limits.
    let code = CodeBuilder::new(engine)
        .wasm_binary(module, None)
        .and_then(|builder| builder.compile_module_serialized())
        .map_err(|error| {
            Refusal::new(PlainFailure::ModuleTooComplex, format!("cannot be compiled: {error:#}"))
        })?;
    let mut sealed = Vec::with_capacity(HEADER_BYTES + code.len() + DIGEST_BYTES);
    sealed.extend_from_slice(MAGIC);
    sealed.extend_from_slice(&engine::fingerprint(engine));
    sealed.extend_from_slice(&Sha256::digest(module));
    sealed.extend_from_slice(&code);
    let tag = key.tag(&sealed).finalize().into_bytes();
    sealed.extend_from_slice(&tag);
    Ok(sealed)
}

/// A compiled module, ready to run.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// The module.
    pub module: Module,
    /// SHA-256 of the bytes it was compiled from.
    pub sha256: [u8; DIGEST_BYTES],
}

/// Opens a sealed form: checks its tag, then whose it is, then loads it.
pub fn open(engine: &Engine, sealed: &[u8], key: &Key) -> Result<Compiled, Error> {
    let (body, tag) = sealed
        .len()
        .checked_sub(DIGEST_BYTES)
        .and_then(|end| sealed.split_at_checked(end))
        .ok_or(Error::Tampered)?;
    key.tag(body).verify_slice(tag).map_err(|_| Error::Tampered)?;
    let (header, code) = body.split_at_checked(HEADER_BYTES).ok_or(Error::Tampered)?;
    let mut parts = header.strip_prefix(MAGIC).ok_or(Error::Stale)?.chunks_exact(DIGEST_BYTES);
    if parts.next() != Some(engine::fingerprint(engine).as_slice()) {
        return Err(Error::Stale);
    }
    let sha256 = parts.next().and_then(|part| part.try_into().ok()).ok_or(Error::Tampered)?;
    #[expect(unsafe_code, reason = "loading machine code is what this module is for")]
    // SAFETY: `deserialize` trusts its bytes. These carry our HMAC, checked above over exactly this slice, and only
    // `compile` makes one; the fingerprint says that an engine of this version, target and configuration made it.
    let module = unsafe { Module::deserialize(engine, code) }.map_err(Error::Load)?;
    Ok(Compiled { module, sha256 })
}

/// A folder of sealed forms. Files appear by rename and are never changed; a wrong one is compiled again.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
    key: Key,
}

impl Cache {
    /// The cache in a folder, which is made if it is missing.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        Ok(Self { key: Key::load_or_create(folder)?, folder: folder.to_owned() })
    }

    /// The key of its tags.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Where the compiled form of a module is: named by the module's digest and the engine's fingerprint.
    #[must_use]
    pub fn path(&self, engine: &Engine, module_sha256: [u8; DIGEST_BYTES]) -> PathBuf {
        let mut name = Sha256::new();
        name.update(module_sha256);
        name.update(engine::fingerprint(engine));
        self.folder.join(format!("{}.cwasm", hex::encode(name.finalize())))
    }

    /// The compiled form of a module, if there is a good one. A wrong one is removed.
    #[must_use]
    pub fn load(&self, engine: &Engine, module_sha256: [u8; DIGEST_BYTES]) -> Option<Compiled> {
        let path = self.path(engine, module_sha256);
        let sealed = fs::read(&path).ok()?;
        match open(engine, &sealed, &self.key) {
            Ok(compiled) if compiled.sha256 == module_sha256 => Some(compiled),
            _ => {
                let _ = fs::remove_file(&path);
                None
            }
        }
    }

    /// Keeps a sealed form.
    pub fn store(
        &self,
        engine: &Engine,
        module_sha256: [u8; DIGEST_BYTES],
        sealed: &[u8],
    ) -> Result<(), Error> {
        let path = self.path(engine, module_sha256);
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        write_new(&temporary, sealed).and_then(|()| fs::rename(&temporary, &path)).map_err(|e| {
            let _ = fs::remove_file(&temporary);
            Error::File("write", path, e)
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    fn module() -> Vec<u8> {
        wat::parse_str("(module (func (export \"f\") (result i32) i32.const 7))").unwrap()
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        let engine = engine::build(1 << 20).unwrap();
        let key = Key::random().unwrap();
        let sealed = compile(&engine, &module(), &key).unwrap();
        assert!(open(&engine, &sealed, &key).is_ok());
        for at in [0, 16, 48, HEADER_BYTES, sealed.len() / 2, sealed.len() - 1] {
            let mut wrong = sealed.clone();
            wrong[at] ^= 1;
            assert!(matches!(open(&engine, &wrong, &key), Err(Error::Tampered)), "byte {at}");
        }
        for end in [0, 31, 32, 100, sealed.len() - 1] {
            assert!(matches!(open(&engine, &sealed[..end], &key), Err(Error::Tampered)));
        }
        let other = Key::random().unwrap();
        assert!(matches!(open(&engine, &sealed, &other), Err(Error::Tampered)));
    }

    #[test]
    fn a_spoilt_file_is_discarded_and_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let engine = engine::build(1 << 20).unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        let sha256: [u8; 32] = Sha256::digest(module()).into();
        let sealed = compile(&engine, &module(), cache.key()).unwrap();
        cache.store(&engine, sha256, &sealed).unwrap();
        assert!(cache.load(&engine, sha256).is_some());
        fs::write(cache.path(&engine, sha256), b"spoilt").unwrap();
        assert!(cache.load(&engine, sha256).is_none());
        assert!(!cache.path(&engine, sha256).exists());
        // A good file under the name of another module is not taken either.
        cache.store(&engine, [9; 32], &sealed).unwrap();
        assert!(cache.load(&engine, [9; 32]).is_none());
    }

    #[test]
    fn the_key_is_made_once_and_kept_private() {
        let folder = tempfile::tempdir().unwrap();
        let key = Key::load_or_create(folder.path()).unwrap();
        assert_eq!(Key::load_or_create(folder.path()).unwrap().0, key.0);
        let path = folder.path().join("key");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Key::load_or_create(folder.path()), Err(Error::OpenKey(_))));
        assert!(!format!("{key:?}").contains(&hex::encode(key.0)));
    }
}
