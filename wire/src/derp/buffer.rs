//! Cuts a byte stream into frames.
//!
//! The stream arrives in slices that end anywhere. A frame that lies whole in a slice is borrowed from it; one that is
//! cut is put together in a buffer that the [`Deframer`] owns until the frame has been used. A frame that its reader
//! does not understand is skipped as it comes, and never held.

use super::HEADER_LEN;
use super::frame::{Header, PayloadBounds};
use crate::pool::BufferPool;

/// A frame's type and payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawFrame<'a> {
    /// The first byte of the header.
    pub kind: u8,
    /// What followed the header.
    pub payload: &'a [u8],
}

/// A header that announces a payload outside the bounds of its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of type {kind:#04x} announces {len} bytes of payload")]
pub struct BadLength {
    /// The type.
    pub kind: u8,
    /// The announced length.
    pub len: u32,
}

/// The state between two slices of a stream: nothing, part of a frame, or how much of one is still to be skipped.
#[derive(Debug, Default)]
pub struct Deframer {
    partial: Vec<u8>,
    /// `partial` held a whole frame that has been handed out.
    used: bool,
    skip: u32,
    /// How many frames were cut, so that one cut frame can be told from the next.
    begun: u32,
    skipped: u64,
}

impl Deframer {
    /// The next frame of the stream, of which `input` is the next slice; `None` when `input` is used up.
    ///
    /// `bounds` says of a type how long its payload may be, and whether to skip it. A frame that is cut draws a buffer
    /// from `pool` and returns it there on the call after the one that hands it out.
    ///
    /// # Errors
    ///
    /// [`BadLength`] as soon as the header is there. The stream is then of no more use.
    #[inline]
    pub fn next<'s, 'i: 's>(
        &'s mut self,
        input: &mut &'i [u8],
        bounds: impl Fn(u8) -> PayloadBounds,
        pool: &mut BufferPool,
    ) -> Result<Option<RawFrame<'s>>, BadLength> {
        if self.used {
            self.release(pool);
        }
        loop {
            if self.skip > 0 {
                let skipped = input.len().min(self.skip as usize);
                *input = &input[skipped..];
                self.skip -= skipped as u32;
                if self.skip > 0 {
                    return Ok(None);
                }
            }
            if !self.partial.is_empty() {
                match self.continue_partial(input, &bounds, pool)? {
                    Continued::Starved => return Ok(None),
                    Continued::Skipping => continue,
                    Continued::Whole(kind) => {
                        self.used = true;
                        return Ok(Some(RawFrame { kind, payload: &self.partial[HEADER_LEN..] }));
                    }
                }
            }
            let Some(header) = Header::decode(input) else {
                self.keep(input, pool);
                return Ok(None);
            };
            if !check(header, &bounds)? {
                *input = &input[HEADER_LEN..];
                self.start_skip(header);
                continue;
            }
            let end = HEADER_LEN + header.len as usize;
            let Some((frame, rest)) = input.split_at_checked(end) else {
                self.keep(input, pool);
                return Ok(None);
            };
            *input = rest;
            return Ok(Some(RawFrame { kind: header.kind, payload: &frame[HEADER_LEN..] }));
        }
    }

    /// Frames skipped so far.
    #[must_use]
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Bytes of an unfinished frame that are held.
    #[must_use]
    pub const fn held(&self) -> usize {
        if self.used { 0 } else { self.partial.len() }
    }

    /// The number of the unfinished frame that is held; `None` if there is none. The next one has another number.
    #[must_use]
    pub const fn unfinished(&self) -> Option<u32> {
        if self.used || self.partial.is_empty() { None } else { Some(self.begun) }
    }

    /// Gives up an unfinished frame and returns its buffer. The stream is then of no more use.
    pub fn clear(&mut self, pool: &mut BufferPool) {
        self.release(pool);
    }

    fn continue_partial(
        &mut self,
        input: &mut &[u8],
        bounds: &impl Fn(u8) -> PayloadBounds,
        pool: &mut BufferPool,
    ) -> Result<Continued, BadLength> {
        if self.partial.len() < HEADER_LEN {
            self.draw(input, HEADER_LEN, pool);
            let Some(header) = Header::decode(&self.partial) else { return Ok(Continued::Starved) };
            if !check(header, bounds)? {
                self.release(pool);
                self.start_skip(header);
                return Ok(Continued::Skipping);
            }
        }
        let header = Header::decode(&self.partial).expect("five bytes are held");
        let end = HEADER_LEN + header.len as usize;
        self.draw(input, end, pool);
        Ok(if self.partial.len() == end { Continued::Whole(header.kind) } else { Continued::Starved })
    }

    /// Moves bytes from `input` until `until` are held.
    fn draw(&mut self, input: &mut &[u8], until: usize, pool: &mut BufferPool) {
        let (taken, rest) = input.split_at((until - self.partial.len()).min(input.len()));
        pool.reserve(&mut self.partial, taken.len());
        self.partial.extend_from_slice(taken);
        *input = rest;
    }

    fn keep(&mut self, input: &mut &[u8], pool: &mut BufferPool) {
        if !input.is_empty() {
            self.partial = pool.take();
            self.begun = self.begun.wrapping_add(1);
            pool.reserve(&mut self.partial, input.len());
            self.partial.extend_from_slice(input);
            *input = &[];
        }
    }

    fn release(&mut self, pool: &mut BufferPool) {
        self.used = false;
        pool.give(std::mem::take(&mut self.partial));
    }

    fn start_skip(&mut self, header: Header) {
        self.skip = header.len;
        self.skipped += 1;
    }
}

/// What a frame that was cut comes to with the next slice.
enum Continued {
    Starved,
    Skipping,
    Whole(u8),
}

/// Whether the frame is one to read (and not to skip).
#[inline]
fn check(header: Header, bounds: impl Fn(u8) -> PayloadBounds) -> Result<bool, BadLength> {
    match bounds(header.kind) {
        PayloadBounds::Read { least, most } if (least..=most).contains(&header.len) => Ok(true),
        PayloadBounds::Skip(most) if header.len <= most => Ok(false),
        PayloadBounds::Read { .. } | PayloadBounds::Skip(_) => {
            Err(BadLength { kind: header.kind, len: header.len })
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn bounds(kind: u8) -> PayloadBounds {
        match kind {
            1 => PayloadBounds::Read { least: 0, most: 100 },
            2 => PayloadBounds::Read { least: 3, most: 3 },
            3 => PayloadBounds::Skip(70),
            _ => PayloadBounds::Skip(u32::MAX),
        }
    }

    fn stream(frames: &[(u8, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, payload) in frames {
            bytes.extend(Header { kind: *kind, len: payload.len() as u32 }.encode());
            bytes.extend(payload);
        }
        bytes
    }

    fn read_all(deframer: &mut Deframer, mut input: &[u8], pool: &mut BufferPool) -> Vec<(u8, Vec<u8>)> {
        let mut frames = Vec::new();
        while let Some(frame) = deframer.next(&mut input, bounds, pool).expect("good lengths") {
            frames.push((frame.kind, frame.payload.to_vec()));
        }
        assert!(input.is_empty());
        frames
    }

    proptest! {
        #[test]
        fn frames_survive_any_cut(
            frames in prop::collection::vec((1u8..4, prop::collection::vec(any::<u8>(), 0..60)), 0..8),
            cuts in prop::collection::vec(0usize..200, 0..12),
        ) {
            let frames: Vec<_> = frames
                .into_iter()
                .map(|(kind, payload)| if kind == 2 { (kind, vec![7, 8, 9]) } else { (kind, payload) })
                .collect();
            let bytes = stream(&frames);
            let (mut deframer, mut pool) = (Deframer::default(), BufferPool::default());
            let mut read = Vec::new();
            let mut rest = &bytes[..];
            for cut in cuts {
                let (slice, later) = rest.split_at(cut.min(rest.len()));
                read.extend(read_all(&mut deframer, slice, &mut pool));
                rest = later;
            }
            read.extend(read_all(&mut deframer, rest, &mut pool));
            let known: Vec<_> = frames.iter().filter(|(kind, _)| *kind != 3).cloned().collect();
            prop_assert_eq!(read, known);
            prop_assert_eq!(deframer.skipped(), frames.iter().filter(|(kind, _)| *kind == 3).count() as u64);
        }
    }

    #[test]
    fn a_bad_length_is_refused_before_its_payload_is_here() {
        let (mut deframer, mut pool) = (Deframer::default(), BufferPool::default());
        for (kind, len) in [(1, 101), (2, 2), (2, 4), (3, 71), (3, u32::MAX)] {
            let header = Header { kind, len }.encode();
            let refused = Err(BadLength { kind, len });
            assert_eq!(deframer.next(&mut &header[..], bounds, &mut pool), refused);

            let mut cut = Deframer::default();
            assert_eq!(cut.next(&mut &header[..3], bounds, &mut pool), Ok(None));
            assert_eq!(cut.next(&mut &header[3..], bounds, &mut pool), refused);
        }
    }

    #[test]
    fn a_skipped_frame_is_never_held() {
        let (mut deframer, mut pool) = (Deframer::default(), BufferPool::default());
        let header = Header { kind: 9, len: u32::MAX }.encode();
        assert_eq!(deframer.next(&mut &header[..], bounds, &mut pool), Ok(None));
        let chunk = vec![0; 1 << 20];
        for _ in 0..64 {
            assert_eq!(deframer.next(&mut &chunk[..], bounds, &mut pool), Ok(None));
            assert_eq!(deframer.held(), 0);
        }
    }
}
