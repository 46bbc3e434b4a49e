//! Whom this coordinator works for, pure: fee, deadline and quota, each with a recorded reason.

use executor_protocol::Rejection;
use task::Request;

use crate::work::Refused;

/// What a request must bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// The smallest fee, in wei; 0 takes free tasks.
    pub min_fee_wei: u128,
    /// Free tasks that one requester may submit in an hour.
    pub free_tasks_per_hour: u32,
}

/// The window of the quota, in milliseconds.
pub const QUOTA_WINDOW_MS: i64 = 3_600_000;

/// Whether the request is taken. `earlier` is how many tasks its requester has submitted in the hour before it, counted
/// up to the quota; `now_ms` is Unix time in milliseconds.
pub fn admit(terms: &Terms, request: &Request, earlier: i64, now_ms: i64) -> Result<(), Refused> {
    let refuse = |rejection, message| Err(Refused { rejection, message });
    if request.fee_wei < terms.min_fee_wei {
        return refuse(
            Rejection::FeeTooLow,
            format!("the fee is {} wei; {} are asked", request.fee_wei, terms.min_fee_wei),
        );
    }
    if has_passed(request.deadline_at, now_ms) {
        return refuse(Rejection::DeadlinePassed, "the deadline had passed already".to_owned());
    }
    if request.fee_wei == 0 && earlier >= i64::from(terms.free_tasks_per_hour) {
        return refuse(
            Rejection::QuotaExceeded,
            format!("{} free tasks an hour, and they are used up", terms.free_tasks_per_hour),
        );
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
        let terms = Terms { min_fee_wei: 0, free_tasks_per_hour: 2 };
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
            (terms, &free, 1, None),
            (terms, &free, 2, Some(Rejection::QuotaExceeded)),
            (terms, &paid, 2, None),
            (terms, &late, 0, Some(Rejection::DeadlinePassed)),
            (dear, &paid, 0, Some(Rejection::FeeTooLow)),
        ] {
            let got =
                admit(&terms, request, earlier, 10_000).err().map(|refused| refused.rejection);
            assert_eq!(got, wanted);
        }
    }
}
