//! The part of protobuf's wire format that dag-pb and UnixFS use.

/// What is wrong with an encoded message.
pub(crate) type Malformed = &'static str;

/// A field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    pub(crate) fn number(self) -> Result<u64, Malformed> {
        match self {
            Self::Number(number) => Ok(number),
            Self::Bytes(_) => Err("bytes where a number belongs"),
        }
    }

    pub(crate) fn bytes(self) -> Result<&'a [u8], Malformed> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Number(_) => Err("a number where bytes belong"),
        }
    }
}

/// The fields of an encoded message in their order.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[]; // nothing after a fault means anything
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Result<(u64, Value<'a>), Malformed> {
        let tag = take_varint(&mut self.0)?;
        let value = match tag & 7 {
            0 => Value::Number(take_varint(&mut self.0)?),
            2 => {
                let length = take_varint(&mut self.0)?;
                let (bytes, rest) = usize::try_from(length)
                    .ok()
                    .and_then(|length| self.0.split_at_checked(length))
                    .ok_or("a length runs past the end")?;
                self.0 = rest;
                Value::Bytes(bytes)
            }
            _ => return Err("a wire type that the format does not use"),
        };
        Ok((tag >> 3, value))
    }
}

/// Takes a varint off the front, in its shortest form only.
pub(crate) fn take_varint(input: &mut &[u8]) -> Result<u64, Malformed> {
    let mut number = 0_u64;
    for (index, byte) in input.iter().enumerate().take(10) {
        let bits = u64::from(byte & 0x7f);
        if index == 9 && bits > 1 {
            return Err("a number over 64 bits");
        }
        number |= bits << (7 * index);
        if byte & 0x80 == 0 {
            if *byte == 0 && index > 0 {
                return Err("a number longer than it needs to be");
            }
            *input = input.get(index + 1..).unwrap_or_default();
            return Ok(number);
        }
    }
    Err("a number without an end")
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

pub(crate) fn put_number(out: &mut Vec<u8>, field: u64, number: u64) {
    put_varint(out, field << 3);
    put_varint(out, number);
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(out, field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_varint_reads_back_and_leaves_the_rest(number: u64, rest: Vec<u8>) {
            let mut encoded = Vec::new();
            put_varint(&mut encoded, number);
            encoded.extend(&rest);
            let mut input = encoded.as_slice();
            prop_assert_eq!(take_varint(&mut input), Ok(number));
            prop_assert_eq!(input, rest.as_slice());
        }

        #[test]
        fn arbitrary_bytes_end_the_fields_without_a_panic(bytes: Vec<u8>) {
            prop_assert!(Fields(&bytes).count() <= bytes.len());
        }
    }

    #[test]
    fn long_and_endless_varints_are_refused() {
        assert!(take_varint(&mut [0x80, 0x00].as_slice()).is_err());
        assert!(take_varint(&mut [0x80].as_slice()).is_err());
        assert!(take_varint(&mut [0xff; 11].as_slice()).is_err());
        assert!(
            take_varint(
                &mut [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02].as_slice()
            )
            .is_err()
        );
    }
}
