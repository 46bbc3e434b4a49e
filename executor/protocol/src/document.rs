use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::outcome::{Failure, Outcome, PlainFailure, Rejection, Value};

/// The largest result document, in bytes: it must fit one block. A larger one is `result_too_large`.
pub const MAX_DOCUMENT_BYTES: usize = 1 << 20;

/// The largest document that the contract takes itself, in bytes; of a larger one it takes the digest.
pub const INLINE_DOCUMENT_BYTES: usize = 256;

/// A result document: one JSON object, keys in a fixed order, no insignificant whitespace, no trailing newline.
/// Its SHA-256 is what goes on chain, so it is kept as the bytes it was written with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document(Vec<u8>);

/// Why bytes are not a result document.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// More than [`MAX_DOCUMENT_BYTES`].
    #[error("a result document of {0} bytes is larger than {MAX_DOCUMENT_BYTES}")]
    TooLarge(usize),
    /// Not JSON, or not an object of this shape.
    #[error("not a result document")]
    Malformed(#[source] serde_json::Error),
    /// JSON, but no status or code of the closed lists.
    #[error("a result document with the unknown status or code {0:?}")]
    Unknown(String),
    /// The right fields, but not in the canonical form.
    #[error("a result document that is not in canonical form")]
    NotCanonical,
}

/// The shape of every document; which fields may stand together is checked by writing it again.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Shape<'a> {
    status: &'a str,
    #[serde(borrow, default)]
    value: Option<&'a RawValue>,
    #[serde(default)]
    code: Option<&'a str>,
    #[serde(default)]
    trap: Option<String>,
    #[serde(default)]
    exit: Option<i32>,
}

impl Document {
    /// Writes the canonical form of an outcome. One whose document would be too large becomes `result_too_large`.
    #[must_use]
    pub fn of(outcome: &Outcome) -> Self {
        let text = match outcome {
            Outcome::Ok(value) => format!(r#"{{"status":"ok","value":{}}}"#, value.as_str()),
            Outcome::Failed(Failure::Trap(kind)) => format!(
                r#"{{"status":"failed","code":"trap","trap":{}}}"#,
                serde_json::Value::from(kind.as_str())
            ),
            Outcome::Failed(Failure::Exit(code)) => {
                format!(r#"{{"status":"failed","code":"exit","exit":{code}}}"#)
            }
            Outcome::Failed(Failure::Plain(plain)) => {
                format!(r#"{{"status":"failed","code":"{}"}}"#, plain.code())
            }
            Outcome::TimedOut => r#"{"status":"timed_out"}"#.to_owned(),
            Outcome::Rejected(rejection) => {
                format!(r#"{{"status":"rejected","code":"{}"}}"#, rejection.code())
            }
        };
        if text.len() > MAX_DOCUMENT_BYTES {
            return Self::of(&Outcome::Failed(PlainFailure::ResultTooLarge.into()));
        }
        Self(text.into_bytes())
    }

    /// Takes bytes that somebody else wrote; anything but the canonical form is refused, never repaired.
    pub fn parse(bytes: &[u8]) -> Result<(Self, Outcome), DocumentError> {
        if bytes.len() > MAX_DOCUMENT_BYTES {
            return Err(DocumentError::TooLarge(bytes.len()));
        }
        let shape: Shape<'_> = serde_json::from_slice(bytes).map_err(DocumentError::Malformed)?;
        let unknown = || DocumentError::Unknown(format!("{} {:?}", shape.status, shape.code));
        let outcome = match (shape.status, shape.code) {
            ("ok", None) => {
                let raw = shape.value.map_or("null", RawValue::get);
                Outcome::Ok(Value::parse(raw).map_err(|_| DocumentError::NotCanonical)?)
            }
            ("failed", Some("trap")) => {
                Outcome::Failed(Failure::Trap(shape.trap.clone().ok_or_else(unknown)?))
            }
            ("failed", Some("exit")) => {
                Outcome::Failed(Failure::Exit(shape.exit.ok_or_else(unknown)?))
            }
            ("failed", Some(code)) => {
                Outcome::Failed(PlainFailure::from_code(code).ok_or_else(unknown)?.into())
            }
            ("timed_out", None) => Outcome::TimedOut,
            ("rejected", Some(code)) => {
                Outcome::Rejected(Rejection::from_code(code).ok_or_else(unknown)?)
            }
            _ => return Err(unknown()),
        };
        let document = Self::of(&outcome);
        if document.0 == bytes { Ok((document, outcome)) } else { Err(DocumentError::NotCanonical) }
    }

    /// The document's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// SHA-256 of the bytes: what goes on chain.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(&self.0).into()
    }

    /// Whether the contract takes the document itself.
    #[must_use]
    pub fn fits_inline(&self) -> bool {
        self.0.len() <= INLINE_DOCUMENT_BYTES
    }

    /// The document as text. It is JSON and therefore UTF-8.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    fn outcomes() -> impl Strategy<Value = Outcome> {
        prop_oneof![
            any::<i64>().prop_map(|n| Outcome::Ok(Value::parse(&n.to_string()).unwrap())),
            ".*".prop_map(|text| Outcome::Ok(Value::string(&text))),
            ".*".prop_map(|kind| Outcome::Failed(Failure::Trap(kind))),
            any::<i32>().prop_map(|code| Outcome::Failed(Failure::Exit(code))),
            proptest::sample::select(PlainFailure::ALL)
                .prop_map(|plain| Outcome::Failed(plain.into())),
            Just(Outcome::TimedOut),
            proptest::sample::select(Rejection::ALL).prop_map(Outcome::Rejected),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_the_same(outcome in outcomes()) {
            let document = Document::of(&outcome);
            let (again, read) = Document::parse(document.bytes()).unwrap();
            prop_assert_eq!(again, document);
            prop_assert_eq!(read, outcome);
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Document::parse(&bytes);
        }
    }

    #[test]
    fn another_form_of_the_same_document_is_refused() {
        for text in [
            r#"{"status": "ok","value":1}"#,
            r#"{"value":1,"status":"ok"}"#,
            "{\"status\":\"ok\",\"value\":1}\n",
            r#"{"status":"ok","value":1,"more":2}"#,
            r#"{"status":"ok"}"#,
            r#"{"status":"ok","value":1,"code":"trap"}"#,
            r#"{"status":"timed_out","value":1}"#,
            r#"{"status":"rejected","code":"no_such"}"#,
        ] {
            assert!(Document::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
