//! How often a peer may change keys.

/// KeyUpdates that may come at once.
const AT_ONCE: u32 = 32;
/// Records that earn one KeyUpdate more. Stacks that change keys by themselves do so after 2^20 records or more, because
/// what wears a key out is the number of its records (RFC 8446 section 5.5).
pub(super) const RECORDS_FOR_ONE: u32 = if cfg!(test) { 64 } else { 1 << 16 };

/// The bucket of KeyUpdates. Each takes [`RECORDS_FOR_ONE`] records out of it, and records put as many back as they are.
///
/// A KeyUpdate costs as much as some 35 records of one byte, and sends nothing. The bucket knows records and no time,
/// because the record layer has no clock and records suffice: a peer that changes keys by the hour, which no stack does
/// unless its program asks for it, and sends next to nothing, is refused after a day and connects again.
#[derive(Debug, Default)]
pub(super) struct UpdateBucket {
    /// Records that the updates so far still owe.
    owed: u32,
}

impl UpdateBucket {
    /// Charges one KeyUpdate after `records` records since the last. Returns whether the peer may do that.
    pub(super) fn take(&mut self, records: u64) -> bool {
        let owed = self.owed.saturating_sub(u32::try_from(records).unwrap_or(u32::MAX)) + RECORDS_FOR_ONE;
        let allowed = owed <= AT_ONCE * RECORDS_FOR_ONE;
        if allowed {
            self.owed = owed;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many updates with `records` records before each are allowed, up to 100,000.
    fn allowed(records: u64) -> usize {
        let mut bucket = UpdateBucket::default();
        (0..100_000).take_while(|_| bucket.take(records)).count()
    }

    #[test]
    fn updates_at_the_rate_of_the_records_are_never_refused() {
        let one = u64::from(RECORDS_FOR_ONE);
        for records in [one, one + 1, 2 * one, u64::from(u32::MAX), u64::MAX] {
            assert_eq!(allowed(records), 100_000, "{records} records for each update");
        }
    }

    #[test]
    fn updates_beyond_the_rate_are_refused_once_the_bucket_is_empty() {
        let one = u64::from(RECORDS_FOR_ONE);
        assert_eq!(allowed(0), 32);
        assert_eq!(allowed(1), 32);
        assert_eq!(allowed(one / 2), 63);
        assert!((32..100_000).contains(&allowed(one - 1)));
    }

    #[test]
    fn a_long_silence_does_not_earn_more_than_the_bucket_holds() {
        let mut bucket = UpdateBucket::default();
        assert!(bucket.take(u64::MAX));
        assert_eq!((0..100).take_while(|_| bucket.take(0)).count(), 31);
    }
}
