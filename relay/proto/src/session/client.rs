//! The client's side of a session: cuts the relay's stream into frames.

use towpath_wire::derp::buffer::{BadLength, Deframer};
use towpath_wire::derp::frame::{Malformed, ServerFrame};
use towpath_wire::pool::BufferPool;

/// A stream that is not DERP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// A frame of more than 1 MiB.
    #[error(transparent)]
    BadLength(#[from] BadLength),
    /// A frame that breaks the layout of its type.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// The client's side of one connection.
#[derive(Debug, Default)]
pub struct ClientSession {
    deframer: Deframer,
}

impl ClientSession {
    /// The next frame from the relay; `None` when `input` is used up. Unknown types are left out.
    ///
    /// # Errors
    ///
    /// See [`StreamError`]. The connection is then no longer usable.
    pub fn next<'s, 'i: 's>(
        &'s mut self,
        input: &mut &'i [u8],
        pool: &mut BufferPool,
    ) -> Result<Option<ServerFrame<'s>>, StreamError> {
        let Some(frame) = self.deframer.next(input, ServerFrame::payload_bounds, pool)? else {
            return Ok(None);
        };
        Ok(ServerFrame::decode(frame.kind, frame.payload)?)
    }

    /// The number of the frame that has begun and is not whole; `None` if there is none.
    #[must_use]
    pub const fn unfinished(&self) -> Option<u32> {
        self.deframer.unfinished()
    }

    /// Bytes of a frame that has begun and is not whole.
    #[must_use]
    pub const fn held(&self) -> usize {
        self.deframer.held()
    }

    /// Gives up a frame that is not whole and returns its buffer. The session is then at its end.
    pub fn clear(&mut self, pool: &mut BufferPool) {
        self.deframer.clear(pool);
    }
}
