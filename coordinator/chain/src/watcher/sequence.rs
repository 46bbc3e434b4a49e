//! Tasks are numbered without a gap: that tells of submissions that were left out, now or later.

use super::{Progress, Watcher, event, look::Span};
use crate::{Alarm, Error, block::Log, endpoint::Endpoint};

/// Looks that find the same hole until it is an alarm.
const PATIENCE: u32 = 3;

/// What is known of the sequence after a range of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sequence {
    /// The next task has this one; 0 while none is known.
    pub(super) next: u64,
    /// The block up to which no task is missing.
    pub(super) whole: u64,
}

/// A hole: the sequence that should have come, and the one that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hole {
    pub(super) expected: u64,
    pub(super) seen: u64,
}

impl Sequence {
    /// Goes on with the tasks of a range, as pairs of block and sequence in their order, and with the contract's count
    /// at the range's last block.
    pub(super) fn extend(
        self,
        tasks: impl IntoIterator<Item = (u64, u64)>,
        end: u64,
        count: Option<u64>,
    ) -> Result<Self, Hole> {
        let Self { mut next, mut whole } = self;
        for (block, sequence) in tasks {
            if next != 0 && sequence > next {
                return Err(Hole { expected: next, seen: sequence });
            }
            if next == 0 || sequence == next {
                next = sequence + 1;
                // The block may hold more of them; every one before it is seen.
                whole = whole.max(block.saturating_sub(1));
            }
        }
        match count {
            Some(count) if next != 0 && count >= next => {
                Err(Hole { expected: next, seen: count.saturating_add(1) })
            }
            // Nothing was known so far: the contract's count is where the sequence goes on.
            Some(count) if next == 0 || count + 1 == next => {
                Ok(Self { next: count.saturating_add(1), whole: end })
            }
            // A count below what stands in the logs proves nothing.
            _ => Ok(Self { next, whole }),
        }
    }
}

/// The tasks of logs, as pairs of block and sequence.
pub(super) fn tasks(logs: &[Log]) -> impl Iterator<Item = (u64, u64)> {
    logs.iter().filter_map(|log| Some((log.block()?.number, event::sequence(log)?)))
}

impl Watcher {
    /// Takes what was read, unless a task is missing in it.
    pub(super) async fn take(
        &mut self,
        endpoint: &Endpoint,
        span: Span,
        more: bool,
    ) -> Result<Progress, Error> {
        let before = Sequence { next: self.row.next_sequence, whole: self.row.sequence_block };
        let end = span.end.block().number;
        let sequence = match before.extend(tasks(&span.logs), end, span.count) {
            Ok(sequence) => sequence,
            Err(hole) => return Err(self.tell_hole(endpoint, hole)),
        };
        if self.gaps > 0 {
            tracing::info!("the missing events are here");
            self.gaps = 0;
            self.alarms.clear(Alarm::SequenceGap);
        }
        let events = self.commit(&span.logs, &span.end, sequence).await?;
        self.client.announce_head();
        Ok(Progress { cursor: self.row.cursor, events, more })
    }

    /// Events are missing. The cursor stays; when reading the same blocks again does not help, everything since the
    /// sequence was proved to be whole is read again.
    fn tell_hole(&mut self, endpoint: &Endpoint, Hole { expected, seen }: Hole) -> Error {
        self.gaps = self.gaps.saturating_add(1);
        let error = Error::SequenceGap { expected, seen };
        metrics::counter!("wasm_exec_chain_sequence_gaps_total").increment(1);
        tracing::warn!(endpoint = endpoint.shown(), tries = self.gaps, %error, "events are missing");
        if self.gaps >= PATIENCE {
            self.alarms.raise(Alarm::SequenceGap, error.to_string());
        }
        if self.gaps.is_multiple_of(2) && self.row.sequence_block < self.row.cursor.number {
            self.again_from = Some(self.row.sequence_block + 1);
            tracing::warn!(
                from = self.row.sequence_block + 1,
                "reading again from where the sequence was whole"
            );
        }
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extend(
        next: u64,
        whole: u64,
        tasks: &[(u64, u64)],
        count: Option<u64>,
    ) -> Result<(u64, u64), (u64, u64)> {
        Sequence { next, whole }
            .extend(tasks.iter().copied(), 100, count)
            .map(|after| (after.next, after.whole))
            .map_err(|hole| (hole.expected, hole.seen))
    }

    #[test]
    fn c5_what_is_whole_is_what_was_proved() {
        // A count that fits proves everything up to its block, logs only what is before the newest one.
        assert_eq!(extend(1, 10, &[(50, 1), (60, 2)], Some(2)), Ok((3, 100)));
        assert_eq!(extend(1, 10, &[(50, 1), (60, 2)], None), Ok((3, 59)));
        assert_eq!(extend(1, 10, &[], None), Ok((1, 10)));
        assert_eq!(extend(1, 10, &[], Some(0)), Ok((1, 100)));
    }

    #[test]
    fn c5_holes_are_seen_by_order_and_by_count() {
        assert_eq!(extend(1, 10, &[(50, 2)], None), Err((1, 2)));
        assert_eq!(extend(1, 10, &[(50, 1), (60, 3)], Some(3)), Err((2, 3)));
        assert_eq!(extend(1, 10, &[(50, 1)], Some(2)), Err((2, 3)));
    }

    #[test]
    fn c5_what_is_known_is_never_forgotten() {
        // A count that fails or is behind changes nothing, and what is read twice neither.
        assert_eq!(extend(7, 10, &[], None), Ok((7, 10)));
        assert_eq!(extend(7, 10, &[], Some(3)), Ok((7, 10)));
        assert_eq!(extend(7, 10, &[(50, 2), (51, 3)], None), Ok((7, 10)));
        assert_eq!(extend(0, 10, &[], Some(6)), Ok((7, 100)));
        assert_eq!(extend(0, 10, &[(50, 6)], None), Ok((7, 49)));
    }
}
