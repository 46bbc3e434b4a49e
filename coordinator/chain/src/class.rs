//! What to do about a failed call: there is no standard for how providers say it, so method, code and words are read.

/// Where the same question may be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// By the same endpoint, a moment later.
    Here,
    /// By another endpoint, or by this one after a rest.
    Elsewhere,
    /// By an endpoint that is asked for fewer blocks; when one block is still too much, by another endpoint.
    SmallerRange,
    /// Nowhere: it is the answer, or nothing that asking again heals.
    Never,
}

/// A range of blocks or an answer that is too large, in the words that were seen in use.
const RANGE: &[&str] = &[
    "range",
    "query returned more than",
    "too many results",
    "too many logs",
    "too many blocks",
    "too many block",
    "max results",
    "results limit",
    "block limit",
    "blocks limit",
    "response size",
    "response is too big",
    "response too large",
    "response too big",
    "result is too big",
    "result too large",
    "result set too large",
    "too large",
    "too wide",
    "logs matched by query exceeds",
    "reduce the number of blocks",
    "query timeout",
    "timed out",
    "timeout",
    "deadline exceeded",
];

/// A quota, a rate or a bill.
const QUOTA: &[&str] = &[
    "rate limit",
    "rate-limit",
    "ratelimit",
    "request count",
    "requests per",
    "request limit",
    "too many requests",
    "requests limit",
    "call limit",
    "per second",
    "per minute",
    "per day",
    "daily",
    "monthly",
    "quota",
    "capacity",
    "compute units",
    "throughput",
    "throttl",
    "credits",
    "upgrade",
    "your plan",
    "billing",
    "payment",
    "subscription",
    "api key",
    "apikey",
    "access token",
    "unauthorized",
    "forbidden",
    "not allowed",
    "blocked",
];

/// An answer about the transaction or the call itself: every node would say the same.
const ANSWER: &[&str] = &["revert", "invalid opcode", "out of gas", "stack underflow"];

/// A node that does not do what is asked, or is not at work.
const ABSENT: &[&str] = &[
    "method not found",
    "method is not",
    "does not exist/is not available",
    "not supported",
    "unsupported method",
    "missing trie node",
    "syncing",
    "timeout",
    "timed out",
];

/// What another node behind the same address may have, or this one a moment later.
const MOMENTARY: &[&str] = &[
    "header not found",
    "unknown block",
    "block not found",
    "not currently canonical",
    "internal error",
    "temporarily",
    "unavailable",
    "overloaded",
    "no backend",
    "upstream",
];

fn has(words: &str, list: &[&str]) -> bool {
    list.iter().any(|part| words.contains(part))
}

/// Whether an error is about a range of blocks that is too wide or has too much in it.
pub(crate) fn is_range(code: i64, message: &str) -> bool {
    let words = message.to_lowercase();
    has(&words, RANGE) && !is_quota_words(code, &words)
}

fn is_quota_words(code: i64, words: &str) -> bool {
    // "Your plan allows ranges of 10 blocks, upgrade" is about the range.
    let about_range = has(words, &["block range", "blocks range", "range of", "query returned"]);
    !about_range && (has(words, QUOTA) || matches!(code, -32_029 | 402 | 429))
}

/// The class of a JSON-RPC error.
pub(crate) fn of_rpc(method: &str, code: i64, message: &str, has_data: bool) -> Class {
    let words = message.to_lowercase();
    if method == "eth_getLogs" {
        // Whatever else a node says to a range: fewer blocks may do.
        return if is_quota_words(code, &words) { Class::Elsewhere } else { Class::SmallerRange };
    }
    if has_data || code == 3 || has(&words, ANSWER) {
        return Class::Never;
    }
    let is_nodes = is_quota_words(code, &words)
        || has(&words, ABSENT)
        || has(&words, MOMENTARY)
        || matches!(code, -32_601 | -32_603 | -32_005);
    match method {
        // Most of what is said to a transaction is about the transaction.
        "eth_sendRawTransaction" if !is_nodes => Class::Never,
        _ => Class::Elsewhere,
    }
}

/// Whether the same endpoint may well answer a moment later.
pub(crate) fn is_momentary(method: &str, code: i64, message: &str, has_data: bool) -> bool {
    let words = message.to_lowercase();
    method != "eth_getLogs"
        && !has_data
        && has(&words, MOMENTARY)
        && !has(&words, ABSENT)
        && !has(&words, ANSWER)
        && !is_quota_words(code, &words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c7_quotas_send_to_another_endpoint_whatever_their_code() {
        for (code, message) in [
            (-32_005, "daily request count exceeded, request rate limited"),
            (-32_000, "rate limit exceeded"),
            (-32_603, "Your app has exceeded its compute units per second capacity"),
            (-32_601, "The method is not available on your plan, upgrade your plan"),
            (-32_005, "project ID request rate exceeded: too many requests"),
            (429, "whatever"),
            (-32_029, "Too many requests"),
            (-32_000, "monthly capacity limit exceeded"),
        ] {
            for method in ["eth_getLogs", "eth_call", "eth_sendRawTransaction"] {
                assert_eq!(of_rpc(method, code, message, false), Class::Elsewhere, "{message}");
            }
            assert!(!is_range(code, message), "{message}");
        }
    }

    #[test]
    fn c9_limits_of_ranges_ask_for_fewer_blocks() {
        for (code, message) in [
            (-32_005, "query returned more than 10000 results"),
            (-32_602, "Block range is too wide"),
            (-32_000, "eth_getLogs is limited to a 10,000 blocks range"),
            (
                -32_600,
                "Under the Free tier plan, you can make requests with up to a 10 block range. Upgrade your plan",
            ),
            (-32_000, "response too large"),
            (-32_008, "response size exceeded"),
            (-32_000, "range too wide"),
            (
                -32_602,
                "Log response size exceeded. You can make requests with up to a 2K block range",
            ),
            (-32_000, "query timeout exceeded"),
            (-32_614, "eth_getLogs is limited to a 10,000 range"),
        ] {
            assert_eq!(
                of_rpc("eth_getLogs", code, message, false),
                Class::SmallerRange,
                "{message}"
            );
            assert!(is_range(code, message), "{message}");
        }
        // Words that nobody has seen yet.
        assert_eq!(of_rpc("eth_getLogs", -32_000, "nope", false), Class::SmallerRange);
    }

    #[test]
    fn what_passes_in_a_moment_is_told_from_what_does_not() {
        for (method, code, message, wanted) in [
            ("eth_call", -32_000, "header not found", true),
            ("eth_call", -32_603, "Internal error", true),
            ("eth_sendRawTransaction", -32_603, "upstream connect error", true),
            ("eth_call", -32_603, "upstream quota exhausted", false),
            ("eth_call", -32_601, "method not found", false),
            ("eth_getLogs", -32_603, "Internal error", false),
            ("eth_call", -32_000, "missing trie node", false),
            ("eth_call", 3, "execution reverted: service unavailable", false),
        ] {
            assert_eq!(is_momentary(method, code, message, false), wanted, "{message}");
        }
        assert!(!is_momentary("eth_call", 3, "execution reverted: unavailable", true));
    }

    #[test]
    fn answers_are_told_from_failures() {
        assert_eq!(of_rpc("eth_call", 3, "execution reverted", false), Class::Never);
        assert_eq!(of_rpc("eth_call", -32_000, "oops", true), Class::Never);
        assert_eq!(of_rpc("eth_call", -32_000, "header not found", false), Class::Elsewhere);
        let send = |message| of_rpc("eth_sendRawTransaction", -32_000, message, false);
        for message in ["nonce too low", "insufficient funds for gas", "already known", "nope"] {
            assert_eq!(send(message), Class::Never, "{message}");
        }
        assert_eq!(send("internal error"), Class::Elsewhere);
    }
}
