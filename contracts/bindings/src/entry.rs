//! The entry word: an exported function's name of at most 32 bytes, left-aligned, padded with zeros.

use alloy::primitives::B256;

use crate::DecodeError;

/// The name's word; `None` when it does not fit (then it goes into `extra`), is empty or has a zero byte.
pub fn pack(name: &str) -> Option<B256> {
    if name.is_empty() || name.len() > 32 || name.contains('\0') {
        return None;
    }
    Some(B256::right_padding_from(name.as_bytes()))
}

/// The name in a word; `None` for the zero word, which means that the input names the entry.
///
/// # Errors
/// [`DecodeError::EntryPadding`] when something follows the first zero byte, [`DecodeError::InvalidUtf8`].
pub fn unpack(word: B256) -> Result<Option<String>, DecodeError> {
    let bytes = word.as_slice();
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (name, padding) = bytes.split_at_checked(end).unwrap_or((bytes, &[]));
    if padding.iter().any(|byte| *byte != 0) {
        return Err(DecodeError::EntryPadding);
    }
    if name.is_empty() {
        return Ok(None);
    }
    match str::from_utf8(name) {
        Ok(name) => Ok(Some(name.to_owned())),
        Err(_) => Err(DecodeError::InvalidUtf8 { field: "entry" }),
    }
}
