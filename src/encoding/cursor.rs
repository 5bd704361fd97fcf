//! Reading bytes that may say anything, and writing varints.
//!
//! A varint is LEB128: seven bits a byte, the lowest first, the top bit set on
//! all bytes but the last. Only the shortest spelling of a number is read, so
//! that equal messages are equal bytes.

use bytes::Bytes;

use super::Refusal;

/// How many bytes the longest varint takes.
pub const VARINT_LIMIT_BYTES: usize = 10;

/// Appends `value` as a varint.
pub fn put_varint(out: &mut Vec<u8>, value: u64) {
    each_varint_byte(value, |byte| out.push(byte));
}

/// The bytes of `value` as a varint, in order.
pub fn each_varint_byte(mut value: u64, mut put: impl FnMut(u8)) {
    while value >= 0x80 {
        put(value as u8 | 0x80);
        value >>= 7;
    }
    put(value as u8);
}

/// Takes a varint off the front.
pub fn take_varint(bytes: &mut &[u8]) -> Result<u64, Refusal> {
    let (mut value, mut at) = (0, 0);
    while at < VARINT_LIMIT_BYTES {
        let byte = *bytes.get(at).ok_or(Refusal::TooShort)?;
        value |= u64::from(byte & 0x7f) << (7 * at);
        at += 1;
        if byte < 0x80 {
            // A last byte of zero adds nothing: the number has a shorter spelling. The tenth
            // has room for one bit.
            if (byte == 0 && at > 1) || (byte > 1 && at == VARINT_LIMIT_BYTES) {
                break;
            }
            *bytes = &bytes[at..];
            return Ok(value);
        }
    }
    Err(Refusal::Varint)
}

/// How many bytes `value` takes as a varint.
pub const fn varint_len(value: u64) -> usize {
    let bits = (64 - value.leading_zeros()) as usize;
    if bits == 0 { 1 } else { bits.div_ceil(7) }
}

/// Where the `Bytes` come from that share what is read.
enum Backing<'a> {
    /// They are there already: the message was put together from fragments.
    Given(&'a Bytes),
    /// The bytes lie in a buffer that will be used again. They are copied once,
    /// whole, when the first of them has to outlive it; most messages need none.
    Lazy(Option<Bytes>),
}

/// Reads from the front of some bytes and never past their end.
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    backing: Backing<'a>,
}

impl<'a> Cursor<'a> {
    /// Reads a buffer that will be used again.
    pub fn over(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { bytes, at: 0, backing: Backing::Lazy(None) }
    }

    /// Reads bytes that can be shared as they are.
    pub fn shared(bytes: &'a Bytes) -> Cursor<'a> {
        Cursor { bytes, at: 0, backing: Backing::Given(bytes) }
    }

    /// How many bytes are left.
    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Refusal> {
        if count > self.left() {
            return Err(Refusal::TooShort);
        }
        let taken = &self.bytes[self.at..self.at + count];
        self.at += count;
        Ok(taken)
    }

    /// The next `count` bytes, to be kept.
    pub fn take_shared(&mut self, count: usize) -> Result<Bytes, Refusal> {
        let start = self.at;
        self.take(count)?;
        let whole: &Bytes = match &mut self.backing {
            Backing::Given(whole) => whole,
            Backing::Lazy(copy) => copy.get_or_insert_with(|| Bytes::copy_from_slice(self.bytes)),
        };
        Ok(whole.slice(start..start + count))
    }

    /// The next bytes, as many as the array has.
    pub fn array<const COUNT: usize>(&mut self) -> Result<[u8; COUNT], Refusal> {
        let mut array = [0; COUNT];
        array.copy_from_slice(self.take(COUNT)?);
        Ok(array)
    }

    /// The next byte.
    pub fn u8(&mut self) -> Result<u8, Refusal> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// The next two bytes, little endian.
    pub fn u16(&mut self) -> Result<u16, Refusal> {
        self.array().map(u16::from_le_bytes)
    }

    /// The next four bytes, little endian.
    pub fn u32(&mut self) -> Result<u32, Refusal> {
        self.array().map(u32::from_le_bytes)
    }

    /// The next eight bytes, little endian.
    pub fn u64(&mut self) -> Result<u64, Refusal> {
        self.array().map(u64::from_le_bytes)
    }

    /// The next byte, which is 0 or 1.
    pub fn flag(&mut self) -> Result<bool, Refusal> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Refusal::Malformed),
        }
    }

    /// The next varint.
    pub fn varint(&mut self) -> Result<u64, Refusal> {
        let mut rest = &self.bytes[self.at..];
        let value = take_varint(&mut rest)?;
        self.at = self.bytes.len() - rest.len();
        Ok(value)
    }

    /// The next varint, a length of bytes that are still to come.
    pub fn length(&mut self) -> Result<usize, Refusal> {
        let length = self.varint()?;
        if length > self.left() as u64 { Err(Refusal::TooShort) } else { Ok(length as usize) }
    }

    /// The next varint, a number of things that each take a byte or more and of
    /// which at most `limit` are taken.
    pub fn count(&mut self, limit: usize) -> Result<usize, Refusal> {
        let count = self.varint()?;
        if count > limit as u64 {
            return Err(Refusal::TooMany);
        }
        if count > self.left() as u64 { Err(Refusal::TooShort) } else { Ok(count as usize) }
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        let rest = &self.bytes[self.at..];
        self.at = self.bytes.len();
        rest
    }

    /// Nothing may be left.
    pub fn finish(self) -> Result<(), Refusal> {
        if self.left() == 0 { Ok(()) } else { Err(Refusal::Trailing) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> Result<u64, Refusal> {
        let mut cursor = Cursor::over(bytes);
        let value = cursor.varint()?;
        cursor.finish()?;
        Ok(value)
    }

    #[test]
    fn numbers_at_the_borders_come_back() {
        let borders = (0..64).flat_map(|bit| {
            let power = 1u64 << bit;
            [power - 1, power, power + 1]
        });
        for value in borders.chain([u64::MAX - 1, u64::MAX]) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(read(&out), Ok(value));
            assert_eq!(out.len(), varint_len(value));
            assert!(out.len() <= VARINT_LIMIT_BYTES);
            for cut in 0..out.len() {
                assert_eq!(read(&out[..cut]), Err(Refusal::TooShort));
            }
        }
    }

    #[test]
    fn a_longer_spelling_is_refused() {
        assert_eq!(read(&[0x80, 0x00]), Err(Refusal::Varint));
        assert_eq!(read(&[0xff, 0x80, 0x00]), Err(Refusal::Varint));
        let mut ten = [0x80; 10];
        ten[9] = 0;
        assert_eq!(read(&ten), Err(Refusal::Varint));
    }

    #[test]
    fn a_number_beyond_64_bits_is_refused() {
        let mut ten = [0xff; 10];
        ten[9] = 1;
        assert_eq!(read(&ten), Ok(u64::MAX));
        for last in 2..=0xff {
            ten[9] = last;
            assert_eq!(read(&ten), Err(Refusal::Varint), "{last:#x}");
        }
    }

    #[test]
    fn what_is_kept_of_one_buffer_shares_one_copy() {
        let buffer = *b"abcdef";
        let mut cursor = Cursor::over(&buffer);
        let first = cursor.take_shared(2).unwrap();
        cursor.take(1).unwrap();
        let second = cursor.take_shared(3).unwrap();
        assert_eq!((&first[..], &second[..]), (&b"ab"[..], &b"def"[..]));
        assert_eq!(second.as_ptr() as usize - first.as_ptr() as usize, 3);
        assert_eq!(cursor.take_shared(1), Err(Refusal::TooShort));
    }

    proptest! {
        #[test]
        fn one_number_has_one_spelling(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            if let Ok(value) = read(&bytes) {
                let mut out = Vec::new();
                put_varint(&mut out, value);
                prop_assert_eq!(out, bytes);
            }
        }
    }
}
