//! From a `Submitted` log to a task. Whatever is in the log, something comes out, so that no log stops the watcher.

use alloy::{primitives::B256, sol_types::SolEvent as _};
use cid::Cid;
use executor_protocol::Rejection;
use task::{Hash, Identity, Kind, Malformed, Request, Submission, TaskId};
use task_board::{DecodeError, Header, Submitted, Tag, TaskBoard};

use crate::block::{Log, b256};

/// What a publication, a cancellation and an expiry of a task name beside its id.
pub(crate) fn tag(identity: &Identity) -> Tag {
    Tag::of(b256(identity.payload))
}

/// What a log says; an error means that not even an id can be read from it.
pub(crate) fn read(
    chain_id: u64,
    contract: task::Address,
    log: &Log,
) -> Result<(Identity, Submission), DecodeError> {
    let header = Header::of(&log.topics, &log.data)?;
    let request = submitted(&log.topics, &log.data);
    let identity = Identity {
        chain_id,
        contract,
        task_id: TaskId(header.id.get()),
        payload: task::Hex(header.payload_hash.0),
    };
    let submission = Submission {
        requester: task::Hex(header.requester.into_array()),
        transaction: Some(transaction(log.transaction())),
        request,
    };
    Ok((identity, submission))
}

/// What a coordinator will read of a submission, told before it is sent: the same code reads it.
pub fn read_back(
    submission: &task_board::Submission,
) -> Result<Result<Request, Malformed>, task_board::EncodeError> {
    let request = submission.encode()?;
    let event = TaskBoard::Submitted {
        id: TaskId::new(submission.domain, false, 1).0,
        requester: alloy::primitives::Address::ZERO,
        terms: request.terms,
        module: request.module,
        input: request.input,
        entry: request.entry,
        fee: submission.fee,
        extra: request.extra,
    };
    let log = event.encode_log_data();
    Ok(submitted(log.topics(), &log.data))
}

fn submitted(topics: &[B256], data: &[u8]) -> Result<Request, Malformed> {
    task_board::decode_submitted(topics, data).map_err(|error| malformed(&error)).and_then(request)
}

fn transaction(hash: Hash) -> String {
    hash.to_string()
}

fn malformed(error: &DecodeError) -> Malformed {
    let code = match error {
        DecodeError::UnsupportedVersion(_) => Rejection::UnsupportedVersion,
        DecodeError::CidForm { .. }
        | DecodeError::CidWord { .. }
        | DecodeError::CidMissing { .. }
        | DecodeError::CidUnexpected { .. } => Rejection::InvalidCid,
        _ => Rejection::MalformedRequest,
    };
    Malformed { code, message: error.to_string() }
}

fn request(submitted: Submitted) -> Result<Request, Malformed> {
    let none_if_zero = |number: u32| (number != 0).then_some(number);
    Ok(Request {
        kind: Kind::from_number(submitted.kind),
        module: content("module", submitted.module.as_deref(), submitted.module_path)?,
        input: content("input", submitted.input.as_deref(), submitted.input_path)?,
        entry: submitted.entry,
        timeout_s: none_if_zero(submitted.timeout_s),
        memory_mib: none_if_zero(submitted.memory_mib),
        fuel: (submitted.fuel != 0).then_some(submitted.fuel),
        deadline_at: (submitted.deadline != 0).then_some(submitted.deadline),
        fee_wei: submitted.fee.saturating_to(),
        callback_gas: submitted.callback_gas,
        environment: Vec::new(),
    })
}

/// A binary CID as text, with the path below it.
fn content(
    field: &str,
    cid: Option<&[u8]>,
    path: Option<String>,
) -> Result<Option<String>, Malformed> {
    let Some(bytes) = cid else { return Ok(None) };
    let invalid = |reason: String| Malformed {
        code: Rejection::InvalidCid,
        message: format!("the {field} CID cannot be read: {reason}"),
    };
    let cid = Cid::try_from(bytes).map_err(|error| invalid(error.to_string()))?;
    if cid.to_bytes() != bytes {
        return Err(invalid("something follows it".to_owned()));
    }
    Ok(Some(match path {
        Some(path) => format!("{cid}/{path}"),
        None => cid.to_string(),
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_two_forms_of_a_cid_come_out_as_text() {
        let digest = [7; 32];
        let v0 = [&[0x12, 0x20][..], &digest].concat();
        let v1 = [&[0x01, 0x55, 0x12, 0x20][..], &digest].concat();
        let text = |bytes: &[u8], path: Option<&str>| {
            content("module", Some(bytes), path.map(str::to_owned)).unwrap().unwrap()
        };
        assert!(text(&v0, None).starts_with("Qm"));
        assert!(text(&v1, None).starts_with("bafkrei"));
        assert!(text(&v1, Some("a/b")).ends_with("/a/b"));
        assert_eq!(content("module", None, None).unwrap(), None);
        for bad in [&v1[..20], &[v1.clone(), vec![0]].concat(), b"../../api/v0/shutdown"] {
            let error = content("module", Some(bad), None).unwrap_err();
            assert_eq!(error.code, Rejection::InvalidCid);
        }
    }
}
