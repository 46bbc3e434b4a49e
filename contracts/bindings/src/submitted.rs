//! Reading `Submitted` logs. Whoever deploys a contract decides what is in its logs, so everything here is total: any
//! bytes give a task or an error, at a cost bounded by their length, and nothing is copied before it was measured.

use alloy::primitives::{Address, B256, Keccak256, U256};
use alloy::sol_types::SolEvent;
use serde::{Deserialize, Serialize};

use crate::terms::{ENFORCE_DEADLINE, FORMAT_VERSION};
use crate::{CidForm, DecodeError, Extra, MAX_EXTRA_BYTES, Tag, TaskBoard, TaskId, Terms, entry};

const WORD: usize = 32;
/// Words before `extra`: terms, module, input, entry, fee, offset, length.
const HEAD_WORDS: usize = 7;
/// Where the offset of `extra` points to: its length.
const EXTRA_OFFSET: u64 = 6 * WORD as u64;

/// A task as its `Submitted` event says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submitted {
    /// The task's id.
    pub id: TaskId,
    /// Who asked.
    pub requester: Address,
    /// Format version.
    pub version: u8,
    /// Kind's number; other numbers than those of [`Kind`](crate::Kind) are possible.
    pub kind: u8,
    /// Index of the domain.
    pub domain: u16,
    /// The module's CID in binary, not checked further than its form.
    pub module: Option<Vec<u8>>,
    /// A path below the module's CID.
    pub module_path: Option<String>,
    /// The input's CID in binary, not checked further than its form.
    pub input: Option<Vec<u8>>,
    /// A path below the input's CID.
    pub input_path: Option<String>,
    /// The exported function's name; `None` when the input names it.
    pub entry: Option<String>,
    /// Wall-clock limit in seconds; 0 takes the coordinator's default.
    pub timeout_s: u32,
    /// Memory limit in MiB; 0 takes the coordinator's default.
    pub memory_mib: u32,
    /// Fuel limit; 0 takes the coordinator's default.
    pub fuel: u64,
    /// Unix time in seconds after which the result is worthless; 0 for none.
    pub deadline: u64,
    /// Gas of the call to the requester; 0 for none.
    pub callback_gas: u32,
    /// Flag bits, see [`ENFORCE_DEADLINE`].
    pub flags: u8,
    /// Fee in wei.
    pub fee: U256,
    /// See [`payload_hash`].
    pub payload_hash: B256,
}

/// What every `Submitted` log says, also one whose payload cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The task's id.
    pub id: TaskId,
    /// Who asked.
    pub requester: Address,
    /// See [`payload_hash`].
    pub payload_hash: B256,
}

impl Header {
    /// Reads the topics and hashes the payload.
    ///
    /// # Errors
    /// [`DecodeError::NotSubmitted`] when the topics are not those of the event.
    pub fn of(topics: &[B256], data: &[u8]) -> Result<Self, DecodeError> {
        let [signature, id, requester] = topics else { return Err(DecodeError::NotSubmitted) };
        if *signature != TaskBoard::Submitted::SIGNATURE_HASH {
            return Err(DecodeError::NotSubmitted);
        }
        let id = u64::try_from(U256::from_be_bytes(id.0)).map_err(|_| DecodeError::NotSubmitted)?;
        let (zeros, address) = requester.split_at_checked(12).ok_or(DecodeError::NotSubmitted)?;
        if zeros.iter().any(|byte| *byte != 0) {
            return Err(DecodeError::NotSubmitted);
        }
        let requester = Address::try_from(address).map_err(|_| DecodeError::NotSubmitted)?;
        Ok(Self { id: TaskId::new(id), requester, payload_hash: payload_hash(topics, data) })
    }

    /// The task's tag.
    pub fn tag(&self) -> Tag {
        Tag::of(self.payload_hash)
    }
}

/// keccak-256 of topics 1 and 2 followed by the data. Together with chain id, contract and id it is a task's identity:
/// after a reorg the same id with another payload is another task.
pub fn payload_hash(topics: &[B256], data: &[u8]) -> B256 {
    let mut hasher = Keccak256::new();
    for topic in topics.iter().skip(1).take(2) {
        hasher.update(topic);
    }
    hasher.update(data);
    hasher.finalize()
}

/// Reads a `Submitted` log strictly: only what the contract's own encoding of a valid request gives is accepted.
///
/// # Errors
/// Any [`DecodeError`]; unless it is [`DecodeError::NotSubmitted`], [`Header::of`] the same log succeeds.
pub fn decode_submitted(topics: &[B256], data: &[u8]) -> Result<Submitted, DecodeError> {
    let Header { id, requester, payload_hash } = Header::of(topics, data)?;
    let ([terms, module, input, entry, fee], extra) = payload(data)?;
    let terms = Terms::unpack(U256::from_be_bytes(terms.0));
    if terms.version != FORMAT_VERSION {
        return Err(DecodeError::UnsupportedVersion(terms.version));
    }
    if terms.flags & !ENFORCE_DEADLINE != 0 {
        return Err(DecodeError::UndefinedFlags(terms.flags));
    }
    let extra = Extra::decode(extra)?;
    let entry = match (entry::unpack(entry)?, extra.entry) {
        (Some(_), Some(_)) => return Err(DecodeError::EntryTwice),
        (Some(entry), None) | (None, Some(entry)) => Some(entry),
        (None, None) => None,
    };
    let module =
        cid("module", terms.module_form, module, extra.module, extra.module_path.as_deref())?;
    let input = cid("input", terms.input_form, input, extra.input, extra.input_path.as_deref())?;
    Ok(Submitted {
        id,
        requester,
        version: terms.version,
        kind: terms.kind,
        domain: terms.domain,
        module,
        module_path: extra.module_path,
        input,
        input_path: extra.input_path,
        entry,
        timeout_s: terms.timeout_s,
        memory_mib: terms.memory_mib,
        fuel: terms.fuel,
        deadline: terms.deadline,
        callback_gas: terms.callback_gas,
        flags: terms.flags,
        fee: U256::from_be_bytes(fee.0),
        payload_hash,
    })
}

/// The five words and `extra`, unread.
fn payload(data: &[u8]) -> Result<([B256; 5], &[u8]), DecodeError> {
    let wrong_length = DecodeError::PayloadLength { bytes: data.len() };
    let Some((head, tail)) = data.split_first_chunk::<{ HEAD_WORDS * WORD }>() else {
        return Err(wrong_length);
    };
    let mut words = head.chunks_exact(WORD).map(B256::from_slice);
    let mut next = || words.next().unwrap_or_default();
    let fields = [next(), next(), next(), next(), next()];
    let (offset, length) = (next(), next());
    if U256::from_be_bytes(offset.0) != U256::from(EXTRA_OFFSET) {
        return Err(DecodeError::PayloadOffset);
    }
    let length = match usize::try_from(U256::from_be_bytes(length.0)) {
        Ok(length) if length <= MAX_EXTRA_BYTES => length,
        _ => return Err(DecodeError::ExtraTooLong),
    };
    if tail.len() != length.next_multiple_of(WORD) {
        return Err(wrong_length);
    }
    let (extra, padding) = tail.split_at_checked(length).ok_or(wrong_length)?;
    if padding.iter().any(|byte| *byte != 0) {
        return Err(DecodeError::PayloadPadding);
    }
    Ok((fields, extra))
}

/// The binary CID that form, word and `extra` together say.
fn cid(
    field: &'static str,
    form: u8,
    word: B256,
    extra: Option<Vec<u8>>,
    path: Option<&str>,
) -> Result<Option<Vec<u8>>, DecodeError> {
    let form = CidForm::from_code(form).ok_or(DecodeError::CidForm { field, form })?;
    let packed = form.unpack(word);
    if packed.is_none() && word != B256::ZERO {
        return Err(DecodeError::CidWord { field });
    }
    match (form, extra) {
        (CidForm::Extra, None) => Err(DecodeError::CidMissing { field }),
        (CidForm::Extra, extra) => Ok(extra),
        (_, Some(_)) => Err(DecodeError::CidUnexpected { field }),
        (CidForm::None, None) if path.is_some() => Err(DecodeError::PathWithoutCid { field }),
        (_, None) => Ok(packed),
    }
}
