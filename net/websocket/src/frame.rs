//! The bits of a frame's header, and its mask (RFC 6455 sections 5.2 and 5.3).

pub(crate) const FINAL: u8 = 0x80;
pub(crate) const MASKED: u8 = 0x80;
/// The lengths that say that two, or eight, bytes of length follow.
pub(crate) const LENGTH_16: u8 = 126;
pub(crate) const LENGTH_64: u8 = 127;
/// Bytes of a mask.
pub(crate) const MASK: usize = 4;

/// Puts the mask on, or takes it off, eight bytes at a time.
pub(crate) fn mask(bytes: &mut [u8], mask: [u8; MASK]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}
