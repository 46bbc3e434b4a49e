//! How a binary CID is packed. Only the three usual shapes are told apart here; what a CID means is for others to say.

use alloy::primitives::B256;

/// The form of a CID in `terms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CidForm {
    /// No CID.
    None = 0,
    /// CIDv0: dag-pb and sha2-256.
    V0 = 1,
    /// CIDv1 with codec raw and sha2-256.
    V1Raw = 2,
    /// CIDv1 with codec dag-pb and sha2-256.
    V1DagPb = 3,
    /// Anything else; the CID is in `extra`.
    Extra = 255,
}

const V0: &[u8] = &[0x12, 0x20];
const V1_RAW: &[u8] = &[0x01, 0x55, 0x12, 0x20];
const V1_DAG_PB: &[u8] = &[0x01, 0x70, 0x12, 0x20];

impl CidForm {
    /// The form with this number; `None` for a number without one.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::None),
            1 => Some(Self::V0),
            2 => Some(Self::V1Raw),
            3 => Some(Self::V1DagPb),
            255 => Some(Self::Extra),
            _ => None,
        }
    }

    /// The number in `terms`.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Form and digest word of a binary CID. With [`CidForm::Extra`] the word is 0 and the CID belongs into `extra`.
    pub fn pack(cid: &[u8]) -> (Self, B256) {
        for form in [Self::V0, Self::V1Raw, Self::V1DagPb] {
            let digest = cid.strip_prefix(form.prefix()).and_then(|rest| B256::try_from(rest).ok());
            if let Some(digest) = digest {
                return (form, digest);
            }
        }
        (Self::Extra, B256::ZERO)
    }

    /// The binary CID of a form that holds its digest in the word; `None` for [`CidForm::None`] and [`CidForm::Extra`].
    pub fn unpack(self, word: B256) -> Option<Vec<u8>> {
        match self {
            Self::None | Self::Extra => None,
            Self::V0 | Self::V1Raw | Self::V1DagPb => {
                Some([self.prefix(), word.as_slice()].concat())
            }
        }
    }

    const fn prefix(self) -> &'static [u8] {
        match self {
            Self::None | Self::Extra => &[],
            Self::V0 => V0,
            Self::V1Raw => V1_RAW,
            Self::V1DagPb => V1_DAG_PB,
        }
    }
}
