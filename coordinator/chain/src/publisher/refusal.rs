//! Pure: what a node's words about a transaction mean. There is no standard for them, so the table is closed: what is
//! not in it is no matter of price and never raises one.

/// What a node says of bytes that were sent to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It has them already.
    Known,
    /// Their nonce is used.
    NonceUsed,
    /// The account cannot pay for them.
    Unfunded,
    /// They pay less than the node asks of every transaction.
    BelowMinimum,
    /// They pay too little for the moment, or to replace what is there.
    Cheap,
    /// Anything else.
    Other,
}

const NONCE_USED: &[&str] = &[
    "nonce too low",
    "nonce is too low",
    "nonce too old",
    "invalid nonce",
    "oldnonce",
    "nonce has already been used",
];
const UNFUNDED: &[&str] = &[
    "insufficient funds",
    "insufficientfunds",
    "insufficient balance",
    "enough funds",
    "exceeds account balance",
];
/// Words that are about gas, not about its price, though they sound alike.
const NOT_PRICE: &[&str] = &[
    "intrinsic gas",
    "gas limit",
    "exceeds the configured cap",
    "higher than max fee per gas",
    "priority fee per gas higher",
    "very high",
];
const CHEAP: &[&str] = &[
    "base fee",
    "basefee",
    "replacement transaction underpriced",
    "replacement fee too low",
    "replacementnotallowed",
    "could not replace existing",
    "feetoolowtocompete",
];
const BELOW_MINIMUM: &[&str] = &[
    "underpriced",
    "gas price below",
    "gas price too low",
    "gas price is too low",
    "gas price is less than",
    "fee too low",
    "feetoolow",
    "tip too low",
    "tip cap too low",
    "priority fee too low",
    "below the minimum",
    "minimum gas price",
];

impl Refusal {
    /// Reads a node's words.
    pub(super) fn of(message: &str) -> Self {
        let words = message.to_lowercase();
        let has = |parts: &[&str]| parts.iter().any(|part| words.contains(part));
        if crate::board::is_known(&words) {
            Self::Known
        } else if has(NONCE_USED) {
            Self::NonceUsed
        } else if has(UNFUNDED) {
            Self::Unfunded
        } else if has(NOT_PRICE) {
            Self::Other
        } else if has(CHEAP) {
            Self::Cheap
        } else if has(BELOW_MINIMUM) {
            Self::BelowMinimum
        } else {
            Self::Other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c13_only_words_about_the_price_are_about_the_price() {
        for (words, meaning) in [
            ("already known", Refusal::Known),
            ("ALREADY_EXISTS: already known", Refusal::Known),
            ("nonce too low: next nonce 7, tx nonce 6", Refusal::NonceUsed),
            ("OldNonce", Refusal::NonceUsed),
            ("insufficient funds for gas * price + value: balance 0", Refusal::Unfunded),
            ("Upfront cost exceeds account balance", Refusal::Unfunded),
            ("sender doesn't have enough funds to send tx", Refusal::Unfunded),
            ("max fee per gas less than block base fee: address 0x…", Refusal::Cheap),
            ("transaction max fee per gas lower than basefee", Refusal::Cheap),
            ("replacement transaction underpriced", Refusal::Cheap),
            ("could not replace existing tx", Refusal::Cheap),
            (
                "transaction underpriced: gas tip cap 1, minimum needed 1000000",
                Refusal::BelowMinimum,
            ),
            ("gas price below minimum", Refusal::BelowMinimum),
            ("Gas price below configured minimum gas price", Refusal::BelowMinimum),
            ("FeeTooLow, MaxFeePerGas too low", Refusal::BelowMinimum),
            ("intrinsic gas too low: have 21000, want 33502", Refusal::Other),
            ("exceeds block gas limit", Refusal::Other),
            ("tx fee (1.20 ether) exceeds the configured cap (1.00 ether)", Refusal::Other),
            ("max priority fee per gas higher than max fee per gas", Refusal::Other),
            ("nonce too high", Refusal::Other),
            ("txpool is full", Refusal::Other),
            ("daily request count exceeded", Refusal::Other),
            ("", Refusal::Other),
        ] {
            assert_eq!(Refusal::of(words), meaning, "{words}");
        }
    }
}
