//! What `submit` and `run` have in common: a module, what it is given, and its limits.

use std::time::{SystemTime, UNIX_EPOCH};

use executor_protocol::Value;
use ipfs::{Cid, CidVersion, Store};

use super::{Error, Output, content};
use crate::config::value;

#[derive(Debug, clap::Args)]
#[group(skip)] // flattened into arguments whose group has the same name
pub(super) struct Arguments {
    /// The module: a CID, or a file, which is added to the content store first; ./NAME if it is called like a CID
    pub(super) module: String,
    /// The input: a CID, or a file, which is added first
    #[arg(long, value_name = "FILE|CID", conflicts_with = "args")]
    pub(super) input: Option<String>,
    /// The exported function
    #[arg(long, value_name = "NAME")]
    pub(super) entry: Option<String>,
    /// The arguments as a JSON array: makes an input with entry and arguments
    #[arg(long, value_name = "JSON")]
    pub(super) args: Option<String>,
    /// Index of the domain that answers
    #[arg(long, value_name = "D", default_value_t = 0)]
    pub(super) domain: u16,
    /// Fee in wei, paid into escrow
    #[arg(long, value_name = "WEI", default_value_t = 0)]
    pub(super) fee: u128,
    /// Wall-clock limit in whole seconds, for example 30s
    #[arg(long, value_name = "TIME", value_parser = whole_seconds)]
    pub(super) timeout: Option<u32>,
    /// Memory limit in MiB
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) memory: Option<u32>,
    /// Fuel limit
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) fuel: Option<u64>,
    /// When the result becomes worthless: a time from now (10m), or an instant (2030-01-01T00:00:00Z)
    #[arg(long, value_name = "TIME|INSTANT", value_parser = instant)]
    pub(super) deadline: Option<u64>,
    /// Gas of a call to the requester with the result
    #[arg(long, value_name = "GAS", default_value_t = 0)]
    pub(super) callback_gas: u32,
}

fn whole_seconds(text: &str) -> Result<u32, String> {
    value::duration(text)
        .filter(|time| time.subsec_nanos() == 0 && !time.is_zero())
        .and_then(|time| u32::try_from(time.as_secs()).ok())
        .ok_or_else(|| format!("allowed: {}, in whole seconds from 1", value::DURATION))
}

fn instant(text: &str) -> Result<u64, String> {
    let from_now = value::duration(text).and_then(|time| {
        Some(SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs() + time.as_secs())
    });
    let at = || u64::try_from(text.parse::<jiff::Timestamp>().ok()?.as_second()).ok();
    from_now
        .or_else(at)
        .ok_or_else(|| format!("allowed: {}, or an instant in RFC 3339", value::DURATION))
}

/// A request whose content is in the store.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    pub(super) module: Cid,
    pub(super) input: Option<Cid>,
    pub(super) entry: Option<String>,
}

impl Arguments {
    /// Adds what has to be added.
    pub(super) async fn prepare(&self, store: &Store, output: Output) -> Result<Prepared, Error> {
        let written = self.args.as_deref().map(|args| input(self.entry.as_deref(), args));
        let written = written.transpose()?;
        let module = content::resolve(store, "module", &self.module, output).await?;
        let (input, entry) = match (&self.input, written) {
            (_, Some(text)) => {
                (Some(store.add_bytes(text.as_bytes(), CidVersion::V0).await?), None)
            }
            (Some(text), None) => {
                (Some(content::resolve(store, "input", text, output).await?), self.entry.clone())
            }
            (None, None) => (None, self.entry.clone()),
        };
        Ok(Prepared { module, input, entry })
    }

    /// What the contract is given.
    pub(super) fn submission(&self, prepared: &Prepared) -> task_board::Submission {
        task_board::Submission {
            kind: task_board::Kind::Wasm.code(),
            domain: self.domain,
            module: Some(prepared.module.to_bytes()),
            input: prepared.input.as_ref().map(Cid::to_bytes),
            entry: prepared.entry.clone(),
            timeout_s: self.timeout.unwrap_or(0),
            memory_mib: self.memory.unwrap_or(0),
            fuel: self.fuel.unwrap_or(0),
            deadline: self.deadline.unwrap_or(0),
            callback_gas: self.callback_gas,
            fee: alloy::primitives::U256::from(self.fee),
            ..task_board::Submission::default()
        }
    }

    /// The same as the coordinator sees it.
    pub(super) fn request(&self, prepared: &Prepared) -> task::Request {
        task::Request {
            kind: task::Kind::Wasm,
            module: Some(prepared.module.to_string()),
            input: prepared.input.as_ref().map(Cid::to_string),
            entry: prepared.entry.clone(),
            timeout_s: self.timeout,
            memory_mib: self.memory,
            fuel: self.fuel,
            deadline_at: self.deadline,
            fee_wei: self.fee,
            callback_gas: self.callback_gas,
            environment: Vec::new(),
        }
    }
}

/// The input that names entry and arguments, without insignificant whitespace; the arguments' tokens stay.
fn input(entry: Option<&str>, args: &str) -> Result<String, Error> {
    let bad =
        || Error::Usage(format!("--args {args:?} is no JSON array; allowed: [12], [\"a\",2]"));
    let args = Value::parse(args).map_err(|_| bad())?;
    if !args.as_str().starts_with('[') {
        return Err(bad());
    }
    Ok(match entry {
        Some(entry) => {
            format!(r#"{{"entry":{},"args":{}}}"#, Value::string(entry).as_str(), args.as_str())
        }
        None => format!(r#"{{"args":{}}}"#, args.as_str()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_become_the_sample_inputs_byte_for_byte() {
        for (entry, args, wanted, cid) in [
            (
                "fib",
                " [ 12 ] ",
                r#"{"entry":"fib","args":[12]}"#,
                "QmbBuEbFrx1vcoPukHStpLG3G1mmX8dpSy8xUAGVFK9AdG",
            ),
            (
                "affine",
                "[13,9,2]",
                r#"{"entry":"affine","args":[13,9,2]}"#,
                "Qmcs5AR22G2VFBDiqH4jK7viJeNLHvxHn9LYuw8H4tegQi",
            ),
        ] {
            let text = input(Some(entry), args).unwrap();
            assert_eq!(text, wanted);
            assert_eq!(ipfs::cid_of_bytes(text.as_bytes(), CidVersion::V0).to_string(), cid);
        }
        assert!(input(None, "12").is_err());
        assert!(input(None, "[12").is_err());
    }

    #[test]
    fn limits_are_whole_seconds() {
        assert_eq!(whole_seconds("30s"), Ok(30));
        assert_eq!(whole_seconds("2m"), Ok(120));
        assert!(whole_seconds("1500ms").is_err());
        assert!(whole_seconds("0s").is_err());
    }
}
