//! What a confined child does: checks the digests it was told, then its step.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};

use executor_protocol::Isolation;
use executor_protocol::launcher::{EXIT_INFRASTRUCTURE, EXIT_WRONG_DIGEST, Start, Step};
use sha2::{Digest as _, Sha256};

use crate::artifact::Key;
use crate::step::{self, Job, Streams};

/// The child's work; answers its exit code. It is sent a [`Start`]; the descriptors are the step's inputs and then
/// the report pipe, and the standard streams are the two others.
pub(super) fn work(message: &[u8], isolation: &Isolation, descriptors: Vec<OwnedFd>) -> i32 {
    serde_json::from_slice(message)
        .map_err(io::Error::from)
        .and_then(|start| prepare(&start, isolation, descriptors))
        .unwrap_or_else(|error| {
            let _ = writeln!(io::stderr(), "executor: {error}");
            EXIT_INFRASTRUCTURE
        })
}

fn prepare(start: &Start, isolation: &Isolation, descriptors: Vec<OwnedFd>) -> io::Result<i32> {
    let mut inputs: Vec<File> = descriptors.into_iter().map(File::from).collect();
    let report = inputs.pop().ok_or_else(|| io::Error::other("no report pipe"))?;
    let streams = Streams {
        report,
        stdout: io::stdout().as_fd().try_clone_to_owned()?.into(),
        stderr: io::stderr().as_fd().try_clone_to_owned()?.into(),
    };
    let mut told = vec![match start.step {
        Step::Check | Step::Compile => Some(start.module_sha256.as_str()),
        // A compiled form carries the digest of its module in its tag.
        Step::Run { .. } => None,
    }];
    if matches!(start.step, Step::Run { has_input: true }) {
        told.push(start.input_sha256.as_deref());
    }
    for (input, told) in inputs.iter_mut().zip(told) {
        if told.is_some_and(|told| digest(input).is_ok_and(|digest| digest == told))
            || told.is_none()
        {
            continue;
        }
        writeln!(io::stderr(), "executor: the bytes do not have the digest {told:?}")?;
        return Ok(EXIT_WRONG_DIGEST);
    }
    let mut key = [0; 32];
    hex::decode_to_slice(&start.key.0, &mut key).map_err(io::Error::other)?;
    let mut environment = start.environment.clone();
    environment.insert("MODULE_SHA256".to_owned(), start.module_sha256.clone());
    let job = Job {
        step: start.step,
        limits: &start.limits,
        environment: &environment,
        isolation,
        key: &Key::from(key),
    };
    Ok(step::execute(&job, inputs, streams))
}

/// SHA-256 of a file from its start, in lower-case hex; leaves it at its start.
fn digest(file: &mut File) -> io::Result<String> {
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    file.rewind()?;
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            length => digest.update(buffer.get(..length).unwrap_or_default()),
        }
    }
    file.rewind()?;
    Ok(hex::encode(digest.finalize()))
}
