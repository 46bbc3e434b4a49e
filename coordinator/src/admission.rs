//! Whom this coordinator works for, pure: kind, limits, CIDs, fee, deadline and quota, each with a recorded reason. A
//! client asks the same before it sends anything.

use executor_protocol::{Limits, Rejection};
use ipfs::Cid;
use store::Use;
use task::{Kind, Request};

use crate::work::{LimitPolicy, Refused};

/// What a request must bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// The smallest fee, in wei; 0 takes free tasks.
    pub min_fee_wei: u128,
    /// Free tasks that one requester may submit in an hour.
    pub free_tasks_per_hour: u32,
    /// Run time that one requester's free tasks of an hour may take, in milliseconds.
    pub free_run_time_per_hour_ms: i64,
}

/// The window of the quota, in milliseconds.
pub const QUOTA_WINDOW_MS: i64 = 3_600_000;
/// The longest name of an entry, in bytes.
pub const MOST_ENTRY_BYTES: usize = 1024;

/// What a request asks for, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// The module.
    pub module: Cid,
    /// The input.
    pub input: Option<Cid>,
    /// What bounds the run.
    pub limits: Limits,
}

fn refuse<T>(rejection: Rejection, message: impl Into<String>) -> Result<T, Refused> {
    Err(Refused { rejection, message: message.into() })
}

/// Whether a request can be run at all under these limits: its kind, its limits, its entry, its CIDs.
pub fn check(request: &Request, limits: &LimitPolicy) -> Result<Admitted, Refused> {
    if request.kind != Kind::Wasm {
        let message = format!("tasks of kind {} are not run here", request.kind.name());
        return refuse(Rejection::UnsupportedKind, message);
    }
    let limits = limits.of(request)?;
    if let Some(entry) = &request.entry {
        if entry.is_empty() || entry.contains('\0') {
            return refuse(Rejection::MalformedRequest, "the entry is empty or has a zero byte");
        }
        if entry.len() > MOST_ENTRY_BYTES {
            let message =
                format!("the entry has {} bytes; {MOST_ENTRY_BYTES} are allowed", entry.len());
            return refuse(Rejection::MalformedRequest, message);
        }
    }
    let parse = |role: &str, text: &str| {
        Cid::parse(text).map_err(|error| Refused {
            rejection: Rejection::InvalidCid,
            message: format!("the {role}'s CID: {error}"),
        })
    };
    let Some(module) = request.module.as_deref() else {
        return refuse(Rejection::InvalidCid, "the request names no module");
    };
    let module = parse("module", module)?;
    let input = request.input.as_deref().map(|text| parse("input", text)).transpose()?;
    Ok(Admitted { module, input, limits })
}

/// Whether the fee covers the gas that the callback may take, at today's price in wei.
pub fn pays_for_callback(request: &Request, price_wei: u128) -> Result<(), Refused> {
    let cost_wei = price_wei.saturating_mul(u128::from(request.callback_gas));
    if request.callback_gas != 0 && request.fee_wei < cost_wei {
        let message = format!(
            "the fee is {} wei; a callback with {} gas costs {cost_wei} wei at today's price",
            request.fee_wei, request.callback_gas
        );
        return refuse(Rejection::FeeTooLow, message);
    }
    Ok(())
}

/// Whether the request is taken. `earlier` is what its requester's free tasks of the hour before it came to, counted
/// up to the quota; `now_ms` is Unix time in milliseconds.
pub fn admit(terms: &Terms, request: &Request, earlier: Use, now_ms: i64) -> Result<(), Refused> {
    if request.fee_wei < terms.min_fee_wei {
        let message =
            format!("the fee is {} wei; {} are asked", request.fee_wei, terms.min_fee_wei);
        return refuse(Rejection::FeeTooLow, message);
    }
    if has_passed(request.deadline_at, now_ms) {
        return refuse(Rejection::DeadlinePassed, "the deadline had passed already");
    }
    if request.fee_wei == 0 && earlier.tasks >= i64::from(terms.free_tasks_per_hour) {
        let message =
            format!("{} free tasks an hour, and they are used up", terms.free_tasks_per_hour);
        return refuse(Rejection::QuotaExceeded, message);
    }
    has_run_time(terms, request, earlier)
}

/// Whether the requester has run time left.
pub fn has_run_time(terms: &Terms, request: &Request, earlier: Use) -> Result<(), Refused> {
    if request.fee_wei == 0 && earlier.ran_ms >= terms.free_run_time_per_hour_ms {
        let seconds = terms.free_run_time_per_hour_ms / 1000;
        let message =
            format!("{seconds} s of run time for free tasks an hour, and they are used up");
        return refuse(Rejection::QuotaExceeded, message);
    }
    Ok(())
}

/// Whether a deadline (Unix seconds) has passed at `now_ms` (Unix milliseconds).
#[must_use]
pub fn has_passed(deadline_at: Option<u64>, now_ms: i64) -> bool {
    deadline_at
        .is_some_and(|at| i64::try_from(at).unwrap_or(i64::MAX).saturating_mul(1000) <= now_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_has_its_code() {
        let terms =
            Terms { min_fee_wei: 0, free_tasks_per_hour: 2, free_run_time_per_hour_ms: 60_000 };
        let free = Request {
            kind: task::Kind::Wasm,
            module: None,
            input: None,
            entry: None,
            timeout_s: None,
            memory_mib: None,
            fuel: None,
            deadline_at: None,
            fee_wei: 0,
            callback_gas: 0,
            environment: Vec::new(),
        };
        let paid = Request { fee_wei: 5, ..free.clone() };
        let late = Request { deadline_at: Some(10), ..free.clone() };
        let dear = Terms { min_fee_wei: 6, ..terms };
        for (terms, request, earlier, wanted) in [
            (terms, &free, (1, 59_999), None),
            (terms, &free, (2, 0), Some(Rejection::QuotaExceeded)),
            (terms, &free, (1, 60_000), Some(Rejection::QuotaExceeded)),
            (terms, &paid, (2, 60_000), None),
            (terms, &late, (0, 0), Some(Rejection::DeadlinePassed)),
            (dear, &paid, (0, 0), Some(Rejection::FeeTooLow)),
        ] {
            let earlier = Use { tasks: earlier.0, ran_ms: earlier.1 };
            let got =
                admit(&terms, request, earlier, 10_000).err().map(|refused| refused.rejection);
            assert_eq!(got, wanted);
        }
    }

    #[test]
    fn t1_a_callback_is_paid_for_at_todays_price() {
        let request = |fee_wei, callback_gas| Request {
            kind: Kind::Wasm,
            module: None,
            input: None,
            entry: None,
            timeout_s: None,
            memory_mib: None,
            fuel: None,
            deadline_at: None,
            fee_wei,
            callback_gas,
            environment: Vec::new(),
        };
        for (fee_wei, gas, price_wei, taken) in [
            (0, 0, 10, true),
            (0, 1, 10, false),
            (0, 1, 0, true),
            (9_999_999, 1_000_000, 10, false),
            (10_000_000, 1_000_000, 10, true),
            (u128::MAX - 1, u32::MAX, u128::MAX, false),
        ] {
            let got = pays_for_callback(&request(fee_wei, gas), price_wei);
            let wanted = if taken { Ok(()) } else { Err(Rejection::FeeTooLow) };
            assert_eq!(got.map_err(|refused| refused.rejection), wanted, "{fee_wei} {gas}");
        }
    }
}
