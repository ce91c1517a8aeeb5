//! What a rule finds, and the numbers that rules about regions and nodes share.

use towpath_wire::map::REGION_ID_MAX;

use crate::finding::Finding;

/// The largest number of a region, signed as a map has it.
pub(super) const LARGEST_ID: i64 = REGION_ID_MAX as i64;

/// The number that Headscale's embedded relay has unless configured otherwise.
pub(super) const EMBEDDED_ID: i64 = 999;

/// What a rule finds, and the member whose line that is on: "" for the line of the region or node itself.
pub(super) type Verdict = Option<(Finding, &'static str)>;

/// A place in messages.
pub(super) fn place(id: i64) -> String {
    format!("region {id}")
}
