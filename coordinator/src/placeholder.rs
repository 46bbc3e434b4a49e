//! The placeholder task source, for use without a chain: it emits the sample tasks of a mirror once. Their results are
//! recorded and served; there is nowhere to publish them.

use std::{path::Path, sync::Arc};

use ipfs::{Cid, CidVersion, cid_of_file};
use sha2::{Digest as _, Sha256};
use store::Store;
use task::{BlockRef, Event, Hex, Identity, Kind, Request, Submission, TaskId};
use tokio::sync::Notify;

/// One sample: a module of the mirror, its input, and environment for the executor.
struct Sample {
    module: &'static str,
    input: Option<&'static str>,
    environment: &'static [(&'static str, &'static str)],
}

const SAMPLES: [Sample; 3] = [
    Sample { module: "fib.wasm", input: Some("fib-input.json"), environment: &[] },
    Sample { module: "affine.wasm", input: Some("affine-input.json"), environment: &[] },
    Sample { module: "module.wasm", input: None, environment: &[("ADD_X", "2"), ("ADD_Y", "40")] },
];

/// Why the samples could not be emitted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A sample's file is missing or cannot be read.
    #[error("cannot read the sample {path}; is COORDINATOR_IPFS_MIRROR the folder host/wasm?")]
    Sample {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: Box<ipfs::Error>,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// Inserts the sample tasks, unless they are there from an earlier run, and wakes the pipeline.
pub async fn emit(store: &Store, mirror: &Path, pipeline: &Arc<Notify>) -> Result<(), Error> {
    for (sequence, sample) in (1..).zip(&SAMPLES) {
        let (identity, submission) = task_of(mirror, sample, sequence)?;
        let now_ms = store::now_ms();
        let mut writer = store.begin().await?;
        let inserted = writer.insert_task(&identity, &submission, now_ms).await?;
        if inserted.is_new {
            let block = BlockRef { number: 0, hash: Hex([0; 32]) };
            writer.append(inserted.local_id, &Event::Included { block }, now_ms).await?;
        }
        writer.commit().await?;
    }
    pipeline.notify_one();
    Ok(())
}

fn task_of(mirror: &Path, sample: &Sample, sequence: u64) -> Result<(Identity, Submission), Error> {
    let cid = |name: &str| -> Result<Cid, Error> {
        let path = mirror.join(name);
        cid_of_file(&path, CidVersion::V0).map_err(|source| Error::Sample {
            path: path.display().to_string(),
            source: source.into(),
        })
    };
    let request = Request {
        kind: Kind::Wasm,
        module: Some(cid(sample.module)?.to_string()),
        input: sample.input.map(cid).transpose()?.map(|cid| cid.to_string()),
        entry: None,
        timeout_s: None,
        memory_mib: None,
        fuel: None,
        deadline_at: None,
        fee_wei: 0,
        callback_gas: 0,
        environment: sample
            .environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
    };
    let mut payload = Sha256::new();
    for part in [&request.module, &request.input].into_iter().flatten() {
        payload.update(part.as_bytes());
    }
    let identity = Identity {
        chain_id: 0,
        contract: Hex([0; 20]),
        task_id: TaskId::new(0, false, sequence),
        payload: Hex(payload.finalize().into()),
    };
    let submission =
        Submission { requester: Hex([0; 20]), transaction: None, request: Ok(request) };
    Ok((identity, submission))
}
