use std::{fmt, str::FromStr};

/// How deep a block has to be before it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmations {
    /// This many blocks, the block itself among them: 1 is the newest block.
    Blocks(u64),
    /// What the node calls safe.
    Safe,
    /// What the node calls finalized.
    Finalized,
}

/// A text that is no number of blocks from 1, `safe` or `finalized`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a number of blocks from 1, \"safe\" or \"finalized\"")]
pub struct ConfirmationsError(String);

impl Confirmations {
    /// 1 on development chains, else finalized.
    #[must_use]
    pub fn default_for(chain_id: u64) -> Self {
        if is_development(chain_id) { Self::Blocks(1) } else { Self::Finalized }
    }
}

/// Whether it is the chain id of Anvil, Hardhat or Geth's development mode.
pub(crate) fn is_development(chain_id: u64) -> bool {
    matches!(chain_id, 31_337 | 1_337)
}

impl FromStr for Confirmations {
    type Err = ConfirmationsError;

    fn from_str(text: &str) -> Result<Self, ConfirmationsError> {
        match text {
            "safe" => Ok(Self::Safe),
            "finalized" => Ok(Self::Finalized),
            number => match number.parse() {
                Ok(blocks) if blocks > 0 => Ok(Self::Blocks(blocks)),
                _ => Err(ConfirmationsError(text.to_owned())),
            },
        }
    }
}

impl fmt::Display for Confirmations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blocks(blocks) => blocks.fmt(f),
            Self::Safe => f.write_str("safe"),
            Self::Finalized => f.write_str("finalized"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn confirmations_read_back_as_they_are_written() {
        for text in ["1", "12", "safe", "finalized"] {
            assert_eq!(text.parse::<Confirmations>().unwrap().to_string(), text);
        }
        for text in ["0", "-1", "", "latest", "1.5"] {
            assert!(text.parse::<Confirmations>().is_err(), "{text}");
        }
    }
}
