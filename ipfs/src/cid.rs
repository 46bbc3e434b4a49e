//! Content identifiers, parsed strictly at the edge: a [`Cid`] that exists can be fetched and verified.

use std::fmt;
use std::str::FromStr;

use ::cid::CidGeneric;
use ::cid::multibase::{self, Base};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::wire::put_varint;

const RAW: u64 = 0x55;
const DAG_PB: u64 = 0x70;
const IDENTITY: u64 = 0x00;
const SHA2_256: u64 = 0x12;
/// The longest content that a CID may carry inside itself.
const MAX_IDENTITY_BYTES: usize = 128;
/// No CID accepted here has a longer text: 133 bytes in base 16.
const MAX_TEXT_BYTES: usize = 300;

/// The two forms of a CID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CidVersion {
    /// `Qm…`: dag-pb and sha2-256, nothing else.
    V0,
    /// `b…`: says which codec and hash it uses.
    V1,
}

/// How a block's bytes are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Codec {
    /// The bytes are the content.
    Raw,
    /// The bytes are a dag-pb node.
    DagPb,
}

impl Codec {
    fn code(self) -> u64 {
        match self {
            Self::Raw => RAW,
            Self::DagPb => DAG_PB,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Hash {
    Sha256([u8; 32]),
    Identity(Box<[u8]>),
}

/// A checked content identifier: raw or dag-pb, sha2-256 or (up to 128 bytes) identity.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cid {
    version: CidVersion,
    codec: Codec,
    hash: Hash,
}

impl Cid {
    /// Reads the text of a CID: `Qm…`, or version 1 in base 32 (`b`), 58 (`z`), 36 (`k`) or 16 (`f`), in lower case
    /// where the base has no case of its own. Only the one text that the bytes give in that base is accepted: no
    /// path, query, blank or padding.
    ///
    /// # Errors
    /// `invalid_cid`, `unsupported_codec`, `unsupported_hash`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let invalid =
            |reason: &str| Error::InvalidCid { text: shortened(text), reason: reason.to_owned() };
        if text.len() > MAX_TEXT_BYTES {
            return Err(invalid("it is too long"));
        }
        if !text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(invalid("only letters and digits belong in it"));
        }
        if text.len() == 46 && text.starts_with("Qm") {
            let bytes =
                Base::Base58Btc.decode(text).map_err(|error| invalid(&error.to_string()))?;
            let cid = Self::from_named_bytes(&bytes, text)?;
            return match cid.version {
                CidVersion::V0 if cid.to_string() == text => Ok(cid),
                _ => Err(invalid("it is not a version 0 CID")),
            };
        }
        let base = match text.chars().next() {
            Some('b') => Base::Base32Lower,
            Some('z') => Base::Base58Btc,
            Some('k') => Base::Base36Lower,
            Some('f') => Base::Base16Lower,
            _ => return Err(invalid("it is neither Qm… nor version 1 in base 32, 58, 36 or 16")),
        };
        let (_, bytes) = multibase::decode(text).map_err(|error| invalid(&error.to_string()))?;
        let cid = Self::from_named_bytes(&bytes, text)?;
        if cid.version != CidVersion::V1 || multibase::encode(base, &bytes) != text {
            return Err(invalid("it is not in the one form that its bytes have"));
        }
        Ok(cid)
    }

    /// Reads a binary CID, all of the bytes.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let named = bytes.get(..MAX_IDENTITY_BYTES).unwrap_or(bytes);
        Self::from_named_bytes(bytes, &hex::encode(named))
    }

    fn from_named_bytes(bytes: &[u8], name: &str) -> Result<Self, Error> {
        let invalid = |reason: String| Error::InvalidCid { text: shortened(name), reason };
        let parsed = CidGeneric::<MAX_IDENTITY_BYTES>::try_from(bytes)
            .map_err(|error| invalid(error.to_string()))?;
        if parsed.to_bytes() != bytes {
            return Err(invalid("bytes follow it".to_owned()));
        }
        let codec = match parsed.codec() {
            RAW => Codec::Raw,
            DAG_PB => Codec::DagPb,
            codec => {
                return Err(Error::UnsupportedCodec { text: shortened(name), codec });
            }
        };
        let digest = parsed.hash().digest();
        let hash = match parsed.hash().code() {
            SHA2_256 => Hash::Sha256(
                digest
                    .try_into()
                    .map_err(|_| invalid(format!("a sha2-256 of {} bytes", digest.len())))?,
            ),
            IDENTITY => Hash::Identity(digest.into()),
            hash => {
                return Err(Error::UnsupportedHash { text: shortened(name), hash });
            }
        };
        let version = match parsed.version() {
            ::cid::Version::V0 => CidVersion::V0,
            ::cid::Version::V1 => CidVersion::V1,
        };
        Ok(Self { version, codec, hash })
    }

    /// The CID of the block with this digest.
    ///
    /// # Errors
    /// `invalid_cid` for version 0 of a raw block, which does not exist.
    pub fn from_sha256(version: CidVersion, codec: Codec, digest: [u8; 32]) -> Result<Self, Error> {
        if version == CidVersion::V0 && codec == Codec::Raw {
            return Err(Error::InvalidCid {
                text: hex::encode(digest),
                reason: "version 0 has no raw blocks".to_owned(),
            });
        }
        Ok(Self { version, codec, hash: Hash::Sha256(digest) })
    }

    /// The CID of the raw block with this digest: the address of a result document.
    pub fn raw(digest: [u8; 32]) -> Self {
        Self { version: CidVersion::V1, codec: Codec::Raw, hash: Hash::Sha256(digest) }
    }

    /// The CID that carries a short raw block in itself.
    pub(crate) fn identity(content: &[u8]) -> Self {
        Self { version: CidVersion::V1, codec: Codec::Raw, hash: Hash::Identity(content.into()) }
    }

    pub(crate) fn of_node(version: CidVersion, block: &[u8]) -> Self {
        Self { version, codec: Codec::DagPb, hash: Hash::Sha256(Sha256::digest(block).into()) }
    }

    /// The binary form.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(36);
        if self.version == CidVersion::V1 {
            put_varint(&mut out, 1);
            put_varint(&mut out, self.codec.code());
        }
        let (code, digest) = match &self.hash {
            Hash::Sha256(digest) => (SHA2_256, digest.as_slice()),
            Hash::Identity(content) => (IDENTITY, content.as_ref()),
        };
        put_varint(&mut out, code);
        put_varint(&mut out, digest.len() as u64);
        out.extend_from_slice(digest);
        out
    }

    /// The same block by version 1: what content is filed under, since both versions name the same bytes.
    pub(crate) fn as_v1(&self) -> Self {
        Self { version: CidVersion::V1, ..self.clone() }
    }

    /// The same block by the other version, if it has one.
    pub(crate) fn other_version(&self) -> Option<Self> {
        let version = match (self.version, self.codec, &self.hash) {
            (CidVersion::V0, ..) => CidVersion::V1,
            (CidVersion::V1, Codec::DagPb, Hash::Sha256(_)) => CidVersion::V0,
            _ => return None,
        };
        Some(Self { version, ..self.clone() })
    }

    /// Which of the two forms it has.
    pub fn version(&self) -> CidVersion {
        self.version
    }

    /// How the block is to be read.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// The SHA-256 of the block, unless the CID carries the block itself.
    pub fn sha256(&self) -> Option<&[u8; 32]> {
        match &self.hash {
            Hash::Sha256(digest) => Some(digest),
            Hash::Identity(_) => None,
        }
    }

    /// The block that the CID itself carries.
    pub(crate) fn inline(&self) -> Option<&[u8]> {
        match &self.hash {
            Hash::Sha256(_) => None,
            Hash::Identity(content) => Some(content),
        }
    }

    /// Whether these bytes are the block that the CID names.
    pub fn verify(&self, block: &[u8]) -> bool {
        match &self.hash {
            Hash::Sha256(digest) => Sha256::digest(block).as_slice() == digest,
            Hash::Identity(content) => block == content.as_ref(),
        }
    }
}

impl fmt::Display for Cid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.to_bytes();
        out.write_str(&match self.version {
            CidVersion::V0 => Base::Base58Btc.encode(bytes),
            CidVersion::V1 => multibase::encode(Base::Base32Lower, bytes),
        })
    }
}

impl fmt::Debug for Cid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Cid({self})")
    }
}

impl FromStr for Cid {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text)
    }
}

impl Serialize for Cid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Whether any reader of CIDs takes this text for one, also where [`Cid::parse`] does not.
pub fn is_any_cid(text: &str) -> bool {
    text.len() <= MAX_TEXT_BYTES && text.parse::<CidGeneric<MAX_IDENTITY_BYTES>>().is_ok()
}

/// Enough of a hostile text to recognise it by.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const V0: &str = "QmbBuEbFrx1vcoPukHStpLG3G1mmX8dpSy8xUAGVFK9AdG";
    const V1: &str = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku";

    fn v1_bytes(codec: u64, hash: u64, digest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![1];
        for number in [codec, hash, digest.len() as u64] {
            put_varint(&mut bytes, number);
        }
        bytes.extend(digest);
        bytes
    }

    #[test]
    fn both_versions_read_back_in_text_and_bytes() {
        for (text, version, codec) in
            [(V0, CidVersion::V0, Codec::DagPb), (V1, CidVersion::V1, Codec::Raw)]
        {
            let cid = Cid::parse(text).unwrap();
            assert_eq!((cid.version(), cid.codec()), (version, codec));
            assert_eq!(cid.to_string(), text);
            assert_eq!(Cid::from_bytes(&cid.to_bytes()).unwrap(), cid);
            assert_eq!(serde_json::to_string(&cid).unwrap(), format!("\"{text}\""));
        }
    }

    #[test]
    fn version_one_reads_alike_in_every_accepted_base() {
        let cid = Cid::parse(V1).unwrap();
        for base in [Base::Base58Btc, Base::Base36Lower, Base::Base16Lower] {
            assert_eq!(Cid::parse(&multibase::encode(base, cid.to_bytes())).unwrap(), cid);
        }
    }

    #[test]
    fn i09_hostile_text_is_no_cid() {
        let long = format!("b{}", "a".repeat(10_240));
        let wrong_bases: Vec<String> =
            [Base::Base64, Base::Base32Upper, Base::Base16Upper, Base::Base2, Base::Base36Upper]
                .map(|base| multibase::encode(base, Cid::parse(V1).unwrap().to_bytes()))
                .into();
        // The last symbol of 36 bytes in base 32 has unused bits.
        let unused_bits = format!("{}v", &V1[..V1.len() - 1]);
        let prefixed = format!("z{V0}");
        let hostile = [
            "",
            "b",
            "Q",
            "../../api/v0/shutdown",
            "?format=car&x=",
            "%2f",
            &format!("{V0}/../../api/v0/shutdown"),
            &format!("{V0}?format=car&x="),
            &format!("{V0}%2f"),
            &format!("/ipfs/{V0}"),
            &format!("ipfs://{V0}"),
            "http://169.254.169.254/",
            "file:///etc/passwd",
            &format!(" {V0}"),
            &format!("{V0}\n"),
            &format!("{V0}\0"),
            &format!("{V1}="),
            &V0[..45],
            &format!("{V0}1"),
            &V0.replace('Q', "q"),
            &V0.replace("bBu", "0Ol"),
            &V1.to_uppercase(),
            &unused_bits,
            &prefixed,
            &long,
            "Ｑmb",
        ];
        for text in hostile.into_iter().chain(wrong_bases.iter().map(String::as_str)) {
            let error = Cid::parse(text).unwrap_err();
            assert_eq!(error.code(), "invalid_cid", "{text:?}");
            assert!(!error.retry());
            assert!(error.to_string().len() < 500);
        }
    }

    #[test]
    fn other_codecs_and_hashes_have_their_own_codes() {
        for (codec, hash, digest, code) in [
            (0x71, SHA2_256, 32, "unsupported_codec"),
            (0x0129, SHA2_256, 32, "unsupported_codec"),
            (RAW, 0x13, 64, "unsupported_hash"),
            (DAG_PB, 0x1e, 32, "unsupported_hash"),
            (RAW, SHA2_256, 20, "invalid_cid"),
            (RAW, IDENTITY, 129, "invalid_cid"),
        ] {
            let bytes = v1_bytes(codec, hash, &vec![0; digest]);
            assert_eq!(Cid::from_bytes(&bytes).unwrap_err().code(), code);
            let text = multibase::encode(Base::Base32Lower, &bytes);
            assert_eq!(Cid::parse(&text).unwrap_err().code(), code);
        }
    }

    #[test]
    fn identity_carries_up_to_128_bytes() {
        for length in [0, 1, 127, 128] {
            let content = vec![7; length];
            let cid = Cid::from_bytes(&v1_bytes(RAW, IDENTITY, &content)).unwrap();
            assert_eq!(cid.inline(), Some(content.as_slice()));
            assert!(cid.verify(&content) && !cid.verify(b"other"));
            assert_eq!(Cid::parse(&cid.to_string()).unwrap(), cid);
        }
    }

    #[test]
    fn a_raw_block_has_no_version_zero() {
        assert!(Cid::from_sha256(CidVersion::V0, Codec::Raw, [0; 32]).is_err());
    }

    proptest! {
        #[test]
        fn bytes_that_are_accepted_are_the_only_form(bytes in prop::collection::vec(any::<u8>(), 0..48)) {
            if let Ok(cid) = Cid::from_bytes(&bytes) {
                prop_assert_eq!(cid.to_bytes(), bytes);
            }
        }

        #[test]
        fn text_that_is_accepted_needs_no_escaping(text in "[bzkfQ][a-zA-Z0-9/%?. ]{0,70}") {
            if let Ok(cid) = Cid::parse(&text) {
                prop_assert!(cid.to_string().bytes().all(|byte| byte.is_ascii_alphanumeric()));
            }
        }
    }
}
