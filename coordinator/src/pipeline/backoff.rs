//! When a failed step is tried again, and when it is given up, pure.

use std::time::Duration;

use store::Versioned;

use super::Options;

/// The pause after the `failures`-th failure in a row (from 1): doubling, bounded, and spread by a tenth so that tasks
/// that failed together do not come back together.
#[must_use]
pub(super) fn pause(options: &Options, failures: u32, spread: u64) -> Duration {
    let doubled = options
        .first_pause
        .saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1).min(20)))
        .min(options.longest_pause);
    let tenth = doubled / 10;
    doubled + tenth.mul_f64((spread % 100) as f64 / 100.0)
}

/// Until when content that is proved to be missing is tried for, in Unix milliseconds: for a while after that was
/// first proved, whatever deadline the task names. The deadline of a kept task is the contract's: its rejection must be
/// on chain before it, so the last minute (at most a tenth) is left for that.
#[must_use]
pub(super) fn content_until_ms(options: &Options, versioned: &Versioned, now_ms: i64) -> i64 {
    let task = &versioned.task;
    let most = i64::try_from(options.content_deadline.as_millis()).unwrap_or(i64::MAX);
    let since_ms =
        if versioned.missing_since_ms == 0 { now_ms } else { versioned.missing_since_ms };
    let own = since_ms.saturating_add(most);
    let deadline = task.submission.request.as_ref().ok().and_then(|request| request.deadline_at);
    let Some(deadline_ms) =
        deadline.map(|at| i64::try_from(at).unwrap_or(i64::MAX).saturating_mul(1000))
    else {
        return own;
    };
    if !task.identity.task_id.is_kept() {
        return deadline_ms.min(own);
    }
    let window = deadline_ms.saturating_sub(task.seen_at_ms).max(0);
    (deadline_ms - (window / 10).min(60_000)).min(own)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::admission::Terms;

    fn options() -> Options {
        Options {
            concurrency: NonZeroUsize::MIN,
            fetches: NonZeroUsize::MIN,
            publishes: true,
            rejection_budget_wei: None,
            rejection_batch: Duration::from_secs(1),
            slow_rejection_batch: Duration::from_secs(1),
            terms: Terms { min_fee_wei: 0, free_tasks_per_hour: 1, free_run_time_per_hour_ms: 1 },
            retries: 5,
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(60),
            content_deadline: Duration::from_secs(600),
            retention: Duration::from_secs(600),
        }
    }

    #[test]
    fn pauses_double_and_stay_bounded() {
        let options = options();
        for (failures, seconds) in [(1, 1), (2, 2), (3, 4), (7, 60), (1000, 60)] {
            assert_eq!(pause(&options, failures, 0), Duration::from_secs(seconds));
            assert!(pause(&options, failures, 99) < Duration::from_secs(seconds).mul_f64(1.1));
        }
    }
}
