use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// How a task ended. A guest's failure is a value of this type, never an error of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The guest finished; its value as one JSON text.
    Ok(Value),
    /// The guest failed, or the module could not be run as asked.
    Failed(Failure),
    /// The wall-clock limit passed.
    TimedOut,
    /// The coordinator did not run it.
    Rejected(Rejection),
}

impl Outcome {
    /// The status that stands on chain.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::Ok(_) => Status::Ok,
            Self::Failed(_) => Status::Failed,
            Self::TimedOut => Status::TimedOut,
            Self::Rejected(_) => Status::Rejected,
        }
    }

    /// The closed-list code of a failure or a rejection.
    #[must_use]
    pub fn code(&self) -> Option<&'static str> {
        match self {
            Self::Ok(_) | Self::TimedOut => None,
            Self::Failed(failure) => Some(failure.code()),
            Self::Rejected(rejection) => Some(rejection.code()),
        }
    }
}

/// The status of a result, numbered as the contract numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Status {
    /// The guest finished with a value.
    Ok = 1,
    /// The guest failed.
    Failed = 2,
    /// The wall-clock limit passed.
    TimedOut = 3,
    /// The coordinator did not run it.
    Rejected = 4,
}

impl Status {
    /// Every status, in the contract's order.
    pub const ALL: [Self; 4] = [Self::Ok, Self::Failed, Self::TimedOut, Self::Rejected];

    /// The status with the contract's number `number`, if there is one.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|status| *status as u8 == number)
    }

    /// The name in documents, the API and metric labels.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Rejected => "rejected",
        }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// One JSON text without insignificant whitespace; its tokens are kept exactly as they were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value(String);

/// Why a text is not a [`Value`].
#[derive(Debug, thiserror::Error)]
#[error("not one JSON text")]
pub struct ValueError(#[from] serde_json::Error);

impl Value {
    /// Takes one JSON text (RFC 8259), removes insignificant whitespace and leaves every token as it is.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let raw: &RawValue = serde_json::from_str(text)?;
        Ok(Self(compact(raw.get())))
    }

    /// A string value, escaped as JSON.
    #[must_use]
    pub fn string(text: &str) -> Self {
        Self(serde_json::Value::from(text).to_string())
    }

    /// The JSON text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Removes whitespace outside of strings from a valid JSON text.
fn compact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut inside, mut escaped) = (false, false);
    for c in text.chars() {
        if inside {
            out.push(c);
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => inside = false,
                _ => {}
            }
        } else if !matches!(c, ' ' | '\t' | '\n' | '\r') {
            inside = c == '"';
            out.push(c);
        }
    }
    out
}

macro_rules! codes {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $code:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// Every variant.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable code.
            #[must_use]
            pub fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// The variant with this code, if there is one.
            #[must_use]
            pub fn from_code(code: &str) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

/// Why a guest failed, or why its module could not run. A closed list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// A trap; the WebAssembly specification's words for it, for example `unreachable` or `integer divide by zero`.
    Trap(String),
    /// A WASI command ended with this exit code, other than 0.
    Exit(i32),
    /// One of the failures without further data.
    Plain(PlainFailure),
}

codes! {
    /// A failure that its code alone describes.
    PlainFailure {
        /// The fuel limit was used up.
        OutOfFuel = "out_of_fuel",
        /// A memory or table wanted to grow past its limit, or its minimum is above it.
        MemoryLimit = "memory_limit",
        /// The call stack was used up.
        StackOverflow = "stack_overflow",
        /// No entry was named and none could be chosen, or the named export is missing.
        NoEntry = "no_entry",
        /// The arguments do not fit the entry's signature, or the input is not what it must be.
        BadArguments = "bad_arguments",
        /// The bytes are not a valid WebAssembly module.
        InvalidModule = "invalid_module",
        /// The module imports something that does not exist here.
        UnsupportedImport = "unsupported_import",
        /// The bytes are a component, or one of a kind that is not run.
        UnsupportedComponent = "unsupported_component",
        /// Compiling the module would take more than the limits allow.
        ModuleTooComplex = "module_too_complex",
        /// The module uses a feature whose result may differ between machines.
        NonDeterministic = "non_deterministic",
        /// The guest wrote more than its output limit.
        OutputTooLarge = "output_too_large",
        /// The result document would be larger than its limit.
        ResultTooLarge = "result_too_large",
    }
}

impl Failure {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Trap(_) => "trap",
            Self::Exit(_) => "exit",
            Self::Plain(plain) => plain.code(),
        }
    }
}

impl From<PlainFailure> for Failure {
    fn from(plain: PlainFailure) -> Self {
        Self::Plain(plain)
    }
}

codes! {
    /// Why the coordinator answered without running anything. A closed list.
    Rejection {
        /// This coordinator does not run tasks of this kind.
        UnsupportedKind = "unsupported_kind",
        /// The event's format version is not known.
        UnsupportedVersion = "unsupported_version",
        /// The event could not be decoded.
        MalformedRequest = "malformed_request",
        /// A CID is missing, not valid, or of a form that is not served.
        InvalidCid = "invalid_cid",
        /// The content could not be had with the right digest before the deadline.
        ContentUnavailable = "content_unavailable",
        /// The content is not a file, or its blocks are malformed although their digests are right.
        InvalidContent = "invalid_content",
        /// The content is larger than the limits allow.
        ContentTooLarge = "content_too_large",
        /// The request asks for more than this coordinator's limits.
        LimitsTooHigh = "limits_too_high",
        /// The fee is below this coordinator's minimum.
        FeeTooLow = "fee_too_low",
        /// The requester has used up its quota.
        QuotaExceeded = "quota_exceeded",
        /// The deadline had passed before the task was run.
        DeadlinePassed = "deadline_passed",
        /// The infrastructure failed too often; the task was never run to its end.
        RetriesExhausted = "retries_exhausted",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whitespace_goes_and_tokens_stay() {
        for (text, wanted) in [
            (" { \"a b\" : [ 1.0e+2 , \"x \\\" y\" ] }\n", r#"{"a b":[1.0e+2,"x \" y"]}"#),
            ("  -0  ", "-0"),
            ("\"\\u0041 \\\\\"", "\"\\u0041 \\\\\""),
        ] {
            assert_eq!(Value::parse(text).map(|v| v.0).ok().as_deref(), Some(wanted));
        }
        assert!(Value::parse("1 2").is_err());
        assert!(Value::parse("").is_err());
    }

    #[test]
    fn every_code_is_found_again() {
        for failure in PlainFailure::ALL {
            assert_eq!(PlainFailure::from_code(failure.code()), Some(*failure));
        }
        for rejection in Rejection::ALL {
            assert_eq!(Rejection::from_code(rejection.code()), Some(*rejection));
        }
    }
}
