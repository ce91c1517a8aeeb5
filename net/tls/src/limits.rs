//! Sizes of records.

/// Most plaintext in one record (RFC 8446 section 5.1).
pub(crate) const MAX_PLAINTEXT: usize = 16 * 1024;
/// Header of a record.
pub(crate) const RECORD_HEADER: usize = 5;

/// The most bytes that a record can have on the wire (RFC 5246 section 6.2.3). What a reader must be able to hold
/// besides what it reads, because a record opens only when it is whole.
pub const MAX_RECORD: usize = RECORD_HEADER + MAX_PLAINTEXT + 2048;
