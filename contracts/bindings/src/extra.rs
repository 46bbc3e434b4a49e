//! The records of `extra`: what is rare and has no place in the words.

use crate::{DecodeError, EncodeError};

/// The longest `extra` in bytes.
pub const MAX_EXTRA_BYTES: usize = 1024;

const MODULE_CID: u8 = 1;
const INPUT_CID: u8 = 2;
const MODULE_PATH: u8 = 3;
const INPUT_PATH: u8 = 4;
const ENTRY: u8 = 5;

/// The records of `extra`; empty in the common case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extra {
    /// The module's CID in binary, when no form holds it.
    pub module: Option<Vec<u8>>,
    /// The input's CID in binary, when no form holds it.
    pub input: Option<Vec<u8>>,
    /// A path below the module's CID.
    pub module_path: Option<String>,
    /// A path below the input's CID.
    pub input_path: Option<String>,
    /// An entry that does not fit into its word.
    pub entry: Option<String>,
}

impl Extra {
    /// The records in the order of their tags.
    ///
    /// # Errors
    /// [`EncodeError::Empty`] for a record without bytes, [`EncodeError::ExtraTooLong`].
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let records = [
            (MODULE_CID, "module CID", self.module.as_deref()),
            (INPUT_CID, "input CID", self.input.as_deref()),
            (MODULE_PATH, "module path", self.module_path.as_ref().map(String::as_bytes)),
            (INPUT_PATH, "input path", self.input_path.as_ref().map(String::as_bytes)),
            (ENTRY, "entry", self.entry.as_ref().map(String::as_bytes)),
        ];
        let bytes =
            records.iter().filter_map(|(_, _, value)| *value).map(|value| 3 + value.len()).sum();
        if bytes > MAX_EXTRA_BYTES {
            return Err(EncodeError::ExtraTooLong { bytes });
        }
        let mut extra = Vec::with_capacity(bytes);
        for (tag, field, value) in records {
            let Some(value) = value else { continue };
            if value.is_empty() {
                return Err(EncodeError::Empty { field });
            }
            let length =
                u16::try_from(value.len()).map_err(|_| EncodeError::ExtraTooLong { bytes })?;
            extra.push(tag);
            extra.extend_from_slice(&length.to_be_bytes());
            extra.extend_from_slice(value);
        }
        Ok(extra)
    }

    /// Reads the records, in any order, and refuses whatever the format does not say.
    ///
    /// # Errors
    /// The `Extra…` variants of [`DecodeError`] and [`DecodeError::InvalidUtf8`].
    pub fn decode(mut bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_EXTRA_BYTES {
            return Err(DecodeError::ExtraTooLong);
        }
        let mut extra = Self::default();
        while !bytes.is_empty() {
            let ([tag, high, low], rest) =
                bytes.split_first_chunk().ok_or(DecodeError::ExtraTruncated)?;
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            let (value, rest) = rest.split_at_checked(length).ok_or(DecodeError::ExtraTruncated)?;
            bytes = rest;
            let fresh = match *tag {
                MODULE_CID => put(&mut extra.module, binary(value, "module CID")?),
                INPUT_CID => put(&mut extra.input, binary(value, "input CID")?),
                MODULE_PATH => put(&mut extra.module_path, text(value, "module path")?),
                INPUT_PATH => put(&mut extra.input_path, text(value, "input path")?),
                ENTRY => put(&mut extra.entry, text(value, "entry")?),
                tag => return Err(DecodeError::ExtraTag(tag)),
            };
            if !fresh {
                return Err(DecodeError::ExtraDuplicate(*tag));
            }
        }
        Ok(extra)
    }
}

fn put<T>(slot: &mut Option<T>, value: T) -> bool {
    slot.replace(value).is_none()
}

fn binary(value: &[u8], field: &'static str) -> Result<Vec<u8>, DecodeError> {
    if value.is_empty() {
        return Err(DecodeError::ExtraEmpty { field });
    }
    Ok(value.to_vec())
}

fn text(value: &[u8], field: &'static str) -> Result<String, DecodeError> {
    String::from_utf8(binary(value, field)?).map_err(|_| DecodeError::InvalidUtf8 { field })
}
