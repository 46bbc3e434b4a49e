//! Why something cannot be packed or read.

/// Why a `Submitted` log is not a task that can be worked on. The task itself still exists: its id, requester and
/// payload hash are in the [`Header`](crate::Header).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The topics are not those of `Submitted`.
    #[error("the log is not a Submitted event")]
    NotSubmitted,
    /// The data is shorter or longer than its own lengths say.
    #[error("the payload has {bytes} bytes, not what its fields need")]
    PayloadLength {
        /// Length of the log's data in bytes.
        bytes: usize,
    },
    /// The offset of `extra` is not where the encoding has it.
    #[error("the offset of extra is not 192")]
    PayloadOffset,
    /// Bytes between `extra` and the end of its last word are not zero.
    #[error("the padding of extra is not zero")]
    PayloadPadding,
    /// `extra` is longer than the contract allows.
    #[error("extra is longer than 1024 bytes")]
    ExtraTooLong,
    /// A record of `extra` ends after `extra` does.
    #[error("a record of extra is cut off")]
    ExtraTruncated,
    /// `extra` has a record that this version does not know.
    #[error("extra has a record with the unknown tag {0}")]
    ExtraTag(u8),
    /// `extra` has two records of one tag.
    #[error("extra has two records with the tag {0}")]
    ExtraDuplicate(u8),
    /// A record of `extra` has no bytes.
    #[error("the {field} in extra is empty")]
    ExtraEmpty {
        /// Which record.
        field: &'static str,
    },
    /// The terms are of another format version.
    #[error("format version {0} is not supported")]
    UnsupportedVersion(u8),
    /// Flags that have no meaning are set.
    #[error("the flags {0:#04x} have undefined bits")]
    UndefinedFlags(u8),
    /// The number of a CID form means nothing.
    #[error("the {field} CID has the unknown form {form}")]
    CidForm {
        /// Whose CID.
        field: &'static str,
        /// The number.
        form: u8,
    },
    /// The form has no digest word, but the word is not 0.
    #[error("the {field} CID has a word that its form does not use")]
    CidWord {
        /// Whose CID.
        field: &'static str,
    },
    /// The form says that the CID is in `extra`, where it is not.
    #[error("the {field} CID is missing in extra")]
    CidMissing {
        /// Whose CID.
        field: &'static str,
    },
    /// `extra` has a CID although the form has none or has it in the word.
    #[error("extra has a {field} CID that the form does not announce")]
    CidUnexpected {
        /// Whose CID.
        field: &'static str,
    },
    /// There is a path but no CID that it could start at.
    #[error("there is a path below the {field} CID but no such CID")]
    PathWithoutCid {
        /// Whose path.
        field: &'static str,
    },
    /// Text is not UTF-8.
    #[error("the {field} is not UTF-8")]
    InvalidUtf8 {
        /// Which text.
        field: &'static str,
    },
    /// Something follows the zero byte that ends the entry.
    #[error("the entry is not padded with zeros")]
    EntryPadding,
    /// The entry is in the word and in `extra`.
    #[error("there are two entries")]
    EntryTwice,
}

impl DecodeError {
    /// A stable name for logs, metrics, API and the result document's record.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotSubmitted => "not_submitted",
            Self::PayloadLength { .. } => "payload_length",
            Self::PayloadOffset => "payload_offset",
            Self::PayloadPadding => "payload_padding",
            Self::ExtraTooLong => "extra_too_long",
            Self::ExtraTruncated => "extra_truncated",
            Self::ExtraTag(_) => "extra_tag",
            Self::ExtraDuplicate(_) => "extra_duplicate",
            Self::ExtraEmpty { .. } => "extra_empty",
            Self::UnsupportedVersion(_) => "unsupported_version",
            Self::UndefinedFlags(_) => "undefined_flags",
            Self::CidForm { .. } => "cid_form",
            Self::CidWord { .. } => "cid_word",
            Self::CidMissing { .. } => "cid_missing",
            Self::CidUnexpected { .. } => "cid_unexpected",
            Self::PathWithoutCid { .. } => "path_without_cid",
            Self::InvalidUtf8 { .. } => "invalid_utf8",
            Self::EntryPadding => "entry_padding",
            Self::EntryTwice => "entry_twice",
        }
    }
}

/// Why a request cannot be packed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The deadline does not fit into 40 bits.
    #[error("the deadline {0} is too far away")]
    DeadlineTooFar(u64),
    /// The fee does not fit into 96 bits.
    #[error("the fee is more than 2^96 - 1 wei")]
    FeeTooHigh,
    /// A field is there but empty.
    #[error("the {field} is empty")]
    Empty {
        /// Which field.
        field: &'static str,
    },
    /// A name has a zero byte.
    #[error("the {field} has a zero byte")]
    ZeroByte {
        /// Which field.
        field: &'static str,
    },
    /// A path without the CID it starts at.
    #[error("there is a path below the {field} but no CID of it")]
    PathWithoutCid {
        /// Whose path.
        field: &'static str,
    },
    /// What does not fit into words needs more than `extra` holds.
    #[error("the request's long fields need {bytes} bytes; at most 1024 fit")]
    ExtraTooLong {
        /// What they need in bytes.
        bytes: usize,
    },
}

impl EncodeError {
    /// A stable name for logs and output.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::DeadlineTooFar(_) => "deadline_too_far",
            Self::FeeTooHigh => "fee_too_high",
            Self::Empty { .. } => "empty_field",
            Self::ZeroByte { .. } => "zero_byte",
            Self::PathWithoutCid { .. } => "path_without_cid",
            Self::ExtraTooLong { .. } => "extra_too_long",
        }
    }
}
