//! Files that others may have put in place of ours.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::error::Error;

/// Opens a regular file for reading. Never waits: a pipe, device, socket, link or folder in its place is an error.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    // The flags are those of the system's headers, which fit the type that the standard library takes.
    let flags = (OFlags::NONBLOCK | OFlags::NOFOLLOW).bits().cast_signed();
    let file = match File::options().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        // A link, or a socket or device without its other end.
        Err(error) if is_special(path) => return Err(special(error)),
        Err(error) => return Err(error),
    };
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(special("it was opened"))
}

fn is_special(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.is_file())
}

fn special(cause: impl std::fmt::Display) -> io::Error {
    let message = format!("it is not a regular file ({cause})");
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

/// Bytes that a file takes from the disk: at least a block, however small it is.
pub(crate) fn size_on_disk(metadata: &Metadata) -> u64 {
    /// Systems that count no blocks still have them.
    const LEAST: u64 = 4096;
    metadata.blocks().saturating_mul(512).max(metadata.len()).max(LEAST)
}

/// The paths in a folder, in the order of their names; none if there is no such folder.
pub(crate) fn list(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        // A stray file among the folders.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("listing", folder)(error)),
    };
    let mut paths: Vec<_> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .map_err(Error::io("listing", folder))?;
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn i8_nothing_but_a_regular_file_is_opened_and_nothing_waits() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "content").unwrap();
        fs::create_dir(at("folder")).unwrap();
        std::os::unix::fs::symlink(at("file"), at("link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        assert!(open_regular(&at("file")).is_ok());
        let missing = open_regular(&at("missing")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        for name in ["folder", "link", "socket", "pipe"] {
            let error = open_regular(&at(name)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name}: {error}");
        }
        assert!(open_regular(Path::new("/dev/zero")).is_err());
    }
}
