use std::path::Path;

use ipfs::{Cid, CidVersion, Store};
use task_board::{Kind, Submission};

use crate::command::Error;

/// One task of the demo.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) name: &'static str,
    module: &'static str,
    input: Option<Input>,
    entry: Option<&'static str>,
    timeout_s: u32,
    fuel: u64,
    fee_wei: u64,
    /// Whether its module's bytes are damaged in the mirror after they were added.
    corrupt: bool,
    /// The result document that it should have.
    pub(super) wanted: &'static str,
}

#[derive(Debug)]
enum Input {
    File(&'static str),
    Text(&'static str),
}

const USUAL: Sample = Sample {
    name: "",
    module: "",
    input: None,
    entry: None,
    timeout_s: 0,
    fuel: 0,
    fee_wei: 0,
    corrupt: false,
    wanted: "",
};

pub(super) static SAMPLES: &[Sample] = &[
    Sample {
        name: "fib",
        module: "fib.wasm",
        input: Some(Input::File("fib-input.json")),
        wanted: r#"{"status":"ok","value":144}"#,
        ..USUAL
    },
    Sample {
        name: "affine",
        module: "affine.wasm",
        input: Some(Input::File("affine-input.json")),
        wanted: r#"{"status":"ok","value":119}"#,
        ..USUAL
    },
    Sample {
        name: "add",
        module: "module.wasm",
        input: Some(Input::Text(r#"{"entry":"add","args":[2,40]}"#)),
        wanted: r#"{"status":"ok","value":42}"#,
        ..USUAL
    },
    Sample {
        name: "a WASI program, counting words",
        module: "wordcount.wasm",
        input: Some(Input::Text("one line\nand another one\n")),
        wanted: r#"{"status":"ok","value":{"lines":2,"words":5,"bytes":25}}"#,
        ..USUAL
    },
    Sample {
        name: "one that traps",
        module: "trap.wasm",
        entry: Some("trap"),
        wanted: r#"{"status":"failed","code":"trap","trap":"unreachable"}"#,
        ..USUAL
    },
    Sample {
        name: "one that never ends",
        module: "loop.wasm",
        entry: Some("loop"),
        timeout_s: 2,
        fuel: 1_000_000_000_000,
        wanted: r#"{"status":"timed_out"}"#,
        ..USUAL
    },
    // It pays a fee, so that its rejection is published and the fee goes back.
    Sample {
        name: "one whose bytes are corrupt",
        module: "affine.wasm",
        input: Some(Input::Text(r#"{"entry":"affine","args":[1,2,3]}"#)),
        fee_wei: 1_000_000_000,
        corrupt: true,
        wanted: r#"{"status":"rejected","code":"content_unavailable"}"#,
        ..USUAL
    },
];

impl Sample {
    /// Adds the sample's content and makes its request.
    pub(super) async fn submission(
        &self,
        store: &Store,
        mirror: &Path,
        domain: u16,
    ) -> Result<Submission, Error> {
        let module = if self.corrupt {
            corrupt(store, mirror, self.module).await?
        } else {
            store.add_file(&mirror.join(self.module), CidVersion::V0).await?
        };
        let input = match self.input {
            None => None,
            Some(Input::File(name)) => {
                Some(store.add_file(&mirror.join(name), CidVersion::V0).await?)
            }
            Some(Input::Text(text)) => {
                Some(store.add_bytes(text.as_bytes(), CidVersion::V0).await?)
            }
        };
        Ok(Submission {
            kind: Kind::Wasm.code(),
            domain,
            module: Some(module.to_bytes()),
            input: input.as_ref().map(Cid::to_bytes),
            entry: self.entry.map(str::to_owned),
            timeout_s: self.timeout_s,
            fuel: self.fuel,
            fee: alloy::primitives::U256::from(self.fee_wei),
            ..Submission::default()
        })
    }
}

/// Adds a module and a byte, then damages the added block in the mirror: its CID is right, its bytes are not.
async fn corrupt(store: &Store, mirror: &Path, module: &str) -> Result<Cid, Error> {
    let path = mirror.join(module);
    let mut bytes =
        std::fs::read(&path).map_err(Error::doing(format!("read {}", path.display())))?;
    // An empty custom section: other bytes, the same module.
    bytes.extend_from_slice(&[0, 1, 0]);
    let cid = store.add_bytes(&bytes, CidVersion::V1).await?;
    let block = mirror.join("blocks").join(cid.to_string());
    if let Some(byte) = bytes.get_mut(10) {
        *byte ^= 0xff;
    }
    std::fs::write(&block, bytes).map_err(Error::doing(format!("write {}", block.display())))?;
    Ok(cid)
}

/// Copies the samples into a mirror of the demo's own.
pub(super) fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(to).map_err(Error::doing(format!("make {}", to.display())))?;
    let names = SAMPLES.iter().flat_map(|sample| {
        let input = match sample.input {
            Some(Input::File(name)) => Some(name),
            _ => None,
        };
        [Some(sample.module), input].into_iter().flatten()
    });
    for name in names {
        let path = from.join(name);
        std::fs::copy(&path, to.join(name)).map_err(Error::doing(format!(
            "copy the sample {}; COORDINATOR_IPFS_MIRROR names the folder host/wasm",
            path.display()
        )))?;
    }
    Ok(())
}
