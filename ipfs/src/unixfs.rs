//! UnixFS: what the bytes of a dag-pb node mean.

use crate::wire::{Fields, Malformed, Value, put_bytes, put_number, take_varint};

/// What kind of thing a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A file or a piece of one.
    File,
    /// Bytes alone: what wrapped the pieces of a file once. It is read like a file without links.
    Raw,
    /// Anything else, by its name.
    Other(&'static str),
}

/// A decoded entry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) kind: Kind,
    /// Bytes of its own.
    pub(crate) data: &'a [u8],
    /// Announced bytes of the whole.
    pub(crate) file_bytes: Option<u64>,
    /// Announced bytes below each link.
    pub(crate) link_bytes: Vec<u64>,
}

impl Entry<'_> {
    /// The bytes of this piece of a file by its parts, if they agree with what it announces as a whole.
    pub(crate) fn checked_bytes(&self) -> Result<u64, Malformed> {
        let total = self
            .link_bytes
            .iter()
            .try_fold(self.data.len() as u64, |sum, bytes| sum.checked_add(*bytes))
            .ok_or("sizes that add up to more than 64 bits")?;
        match self.file_bytes {
            Some(announced) if announced != total => {
                Err("the file's size is not the sum of its parts")
            }
            _ => Ok(total),
        }
    }
}

/// Reads an entry: nothing unknown, nothing but block sizes twice.
pub(crate) fn decode(bytes: &[u8]) -> Result<Entry<'_>, Malformed> {
    let mut kind = None;
    let mut data = None;
    let mut file_bytes = None;
    let mut link_bytes = Vec::new();
    let mut rest = [None; 4];
    for field in Fields(bytes) {
        let (number, value) = field?;
        let earlier = match (number, value) {
            (1, value) => kind.replace(kind_of(value.number()?)?).is_some(),
            (2, value) => data.replace(value.bytes()?).is_some(),
            (3, value) => file_bytes.replace(value.number()?).is_some(),
            (4, Value::Number(size)) => {
                link_bytes.push(size);
                false
            }
            (4, Value::Bytes(mut packed)) => {
                while !packed.is_empty() {
                    link_bytes.push(take_varint(&mut packed)?);
                }
                false
            }
            // Hash type, fan-out, mode and modification time say nothing about a file's bytes, but a reader that
            // minds their form reads nothing at all.
            (5..=8, value) => {
                if number == 8 {
                    check_time(value.bytes()?)?;
                } else {
                    value.number()?;
                }
                rest.get_mut(number as usize - 5).is_some_and(|slot| slot.replace(value).is_some())
            }
            _ => return Err("an unknown field in UnixFS data"),
        };
        if earlier {
            return Err("a field of UnixFS data twice");
        }
    }
    Ok(Entry {
        kind: kind.ok_or("UnixFS data without a type")?,
        data: data.unwrap_or_default(),
        file_bytes,
        link_bytes,
    })
}

/// A modification time: seconds, and perhaps nanoseconds in four bytes.
fn check_time(mut bytes: &[u8]) -> Result<(), Malformed> {
    const WRONG: Malformed = "a modification time that is none";
    if take_varint(&mut bytes)? != 0x08 {
        return Err(WRONG);
    }
    take_varint(&mut bytes)?;
    match bytes {
        [] | [0x15, _, _, _, _] => Ok(()),
        _ => Err(WRONG),
    }
}

fn kind_of(number: u64) -> Result<Kind, Malformed> {
    Ok(match number {
        0 => Kind::Raw,
        2 => Kind::File,
        1 => Kind::Other("directory"),
        3 => Kind::Other("metadata node"),
        4 => Kind::Other("symbolic link"),
        5 => Kind::Other("sharded directory"),
        _ => return Err("an unknown UnixFS type"),
    })
}

/// Writes a file node as Kubo does: no data field when there is no data.
pub(crate) fn encode_file(data: &[u8], link_bytes: &[u64]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + link_bytes.len() * 5 + 24);
    put_number(&mut out, 1, 2);
    if !data.is_empty() {
        put_bytes(&mut out, 2, data);
    }
    let total = data.len() as u64 + link_bytes.iter().sum::<u64>();
    put_number(&mut out, 3, total);
    for bytes in link_bytes {
        put_number(&mut out, 4, *bytes);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_file_reads_back_with_its_sizes(data: Vec<u8>, sizes in prop::collection::vec(0_u64..1 << 40, 0..9)) {
            let encoded = encode_file(&data, &sizes);
            let entry = decode(&encoded).unwrap();
            prop_assert_eq!(entry.kind, Kind::File);
            prop_assert_eq!(entry.data, data.as_slice());
            prop_assert_eq!(entry.checked_bytes(), Ok(data.len() as u64 + sizes.iter().sum::<u64>()));
            prop_assert_eq!(entry.link_bytes, sizes);
        }

        #[test]
        fn arbitrary_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn packed_sizes_mode_and_time_are_read() {
        // File, file size 3, packed sizes [1, 2], mode 0644, modification time {seconds 1}
        let bytes = hex::decode("0802180322020102 38a403 42020801".replace(' ', "")).unwrap();
        let entry = decode(&bytes).unwrap();
        assert_eq!(entry.link_bytes, [1, 2]);
        assert_eq!(entry.checked_bytes(), Ok(3));
    }

    #[test]
    fn what_the_format_forbids_is_refused() {
        for bad in ["08023a0100", "0802380038", "08024200", "0802420308011d", "08024001"] {
            assert!(decode(&hex::decode(bad).unwrap()).is_err(), "{bad}");
        }
        assert!(decode(&hex::decode("0802420708011500000001").unwrap()).is_ok());
        for bad in
            ["", "1800", "0806", "08020802", "080218001800", "08024801", "0802120aff", "08022201ff"]
        {
            assert!(decode(&hex::decode(bad).unwrap()).is_err(), "{bad}");
        }
        let overflow = hex::decode("080220ffffffffffffffffff012001").unwrap();
        assert!(decode(&overflow).unwrap().checked_bytes().is_err());
        let lie = hex::decode("0802120161180a").unwrap();
        assert!(decode(&lie).unwrap().checked_bytes().is_err());
    }
}
