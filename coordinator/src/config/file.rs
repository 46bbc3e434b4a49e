//! Files that hold secrets. What is wrong with one is said as what is wanted instead.

use std::{os::unix::fs::MetadataExt as _, path::Path};

use super::Secret;

/// Others may not write them: whoever can would choose the key or the tokens.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Whether a file can be trusted with a secret.
pub(super) fn guarded(path: &Path) -> Result<(), String> {
    let unread = |error: std::io::Error| format!("a file that can be read ({error})");
    let mode = std::fs::metadata(path).map_err(unread)?.mode() & 0o777;
    if mode & WRITABLE_BY_OTHERS != 0 {
        return Err(format!(
            "a file that nobody else can write (its mode is {mode:04o}; chmod 600 heals that)"
        ));
    }
    Ok(())
}

/// The text of such a file.
pub(super) fn text(path: &Path) -> Result<String, String> {
    guarded(path)?;
    std::fs::read_to_string(path).map_err(|error| format!("a file that can be read ({error})"))
}

/// Bearer tokens, one a line.
pub fn tokens(path: &Path) -> Result<Vec<Secret>, String> {
    let text = text(path)?;
    let tokens: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let fits = |token: &&str| token.len() >= 16 && token.bytes().all(|b| b.is_ascii_graphic());
    if tokens.is_empty() || !tokens.iter().all(fits) {
        return Err("a file with one token a line, each of at least 16 printable ASCII characters"
            .to_owned());
    }
    Ok(tokens.into_iter().map(|token| Secret::new(token.to_owned())).collect())
}
