use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// How much of what a job wrote is kept, in bytes.
const KEPT_BYTES: usize = 64 << 10;

/// What a job wrote to stderr: the guest's lines, escaped, and the executor's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// The last 64 KiB of it.
    pub bytes: Vec<u8>,
    /// Whether more was written before.
    pub truncated: bool,
}

/// The end of a stream that is still being written.
#[derive(Clone, Default)]
pub(crate) struct Ring(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    bytes: VecDeque<u8>,
    truncated: bool,
}

impl Ring {
    pub(crate) fn push(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes.extend(bytes);
        let excess = kept.bytes.len().saturating_sub(KEPT_BYTES);
        kept.bytes.drain(..excess);
        kept.truncated |= excess > 0;
    }

    pub(crate) fn read(&self) -> Log {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Log { bytes: kept.bytes.iter().copied().collect(), truncated: kept.truncated }
    }

    /// The last line, for a message about a failure of ours. Never a guest's: those are JSON objects.
    pub(crate) fn last_line(&self) -> String {
        let log = self.read();
        String::from_utf8_lossy(&log.bytes)
            .lines()
            .rfind(|line| !line.trim().is_empty() && !line.starts_with('{'))
            .map(|line| line.chars().take(300).collect())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_a_long_log_is_kept() {
        let ring = Ring::default();
        ring.push(b"first\n");
        assert!(!ring.read().truncated);
        ring.push(&vec![b'x'; KEPT_BYTES]);
        let log = ring.read();
        assert!(log.truncated);
        assert_eq!(log.bytes, vec![b'x'; KEPT_BYTES]);
    }

    #[test]
    fn a_guest_line_is_never_our_own_message() {
        let ring = Ring::default();
        ring.push(b"executor: no such digest\n{\"guest\":\"stderr\",\"text\":\"all is well\"}\n\n");
        assert_eq!(ring.last_line(), "executor: no such digest");
    }
}
