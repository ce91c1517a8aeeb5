//! When a change of files counts: once they have stayed the same for a moment.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

/// How long changed files must stay the same before they are read. Programs that replace two files do it within milliseconds.
pub(super) const SETTLE: Duration = Duration::from_secs(1);

/// What tells one state of a file from another; `None` for a file that is not there.
pub(super) type Stamp = Option<(u64, u64, u64, i64, i64, i64, i64)>;

/// The state of a file. A link counts as the file that it leads to.
pub(super) fn stamp(path: &Path) -> Stamp {
    let file = fs::metadata(path).ok()?;
    Some((
        file.dev(),
        file.ino(),
        file.size(),
        file.mtime(),
        file.mtime_nsec(),
        file.ctime(),
        file.ctime_nsec(),
    ))
}

/// How the files of a subject were seen.
#[derive(Debug)]
pub(super) struct Settling {
    /// As they were when they were read.
    read: Vec<Stamp>,
    /// As they were at the last look.
    seen: Vec<Stamp>,
    /// When they are read if they stay as they were seen.
    due: Option<Instant>,
}

impl Settling {
    /// Files that have been read as they are.
    pub(super) fn new(read: Vec<Stamp>) -> Self {
        Self { seen: read.clone(), read, due: None }
    }

    /// Notes how the files are. Returns whether they are to be read now.
    pub(super) fn look(&mut self, seen: Vec<Stamp>, now: Instant) -> bool {
        if seen != self.seen {
            self.due = (seen != self.read).then(|| now + SETTLE);
            self.seen = seen;
            return false;
        }
        let is_due = self.due.is_some_and(|due| due <= now);
        if is_due {
            self.due = None;
            self.read.clone_from(&self.seen);
        }
        is_due
    }

    /// Notes that the files, which are as `seen`, are read now.
    pub(super) fn note_read(&mut self, seen: Vec<Stamp>) {
        *self = Self::new(seen);
    }

    /// When to look again, if files are changing.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The states of two files, by numbers.
    fn states(numbers: [u64; 2]) -> Vec<Stamp> {
        numbers.map(|number| (number > 0).then_some((number, 0, 0, 0, 0, 0, 0))).into()
    }

    #[test]
    fn changed_files_are_read_once_they_have_stayed_the_same_for_a_second() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut settling = Settling::new(states([1, 1]));
        for (millis, files, is_read, due) in [
            (0, [1, 1], false, None),
            (100, [2, 1], false, Some(1_100)),
            // A look in between changes nothing.
            (600, [2, 1], false, Some(1_100)),
            (1_099, [2, 1], false, Some(1_100)),
            // The second file: the time begins anew.
            (1_100, [2, 2], false, Some(2_100)),
            (2_100, [2, 2], true, None),
            (3_000, [2, 2], false, None),
            // One is missing for a moment, and is there again before it counts.
            (4_000, [2, 0], false, Some(5_000)),
            (4_500, [2, 2], false, None),
            (9_000, [2, 2], false, None),
            // It is missing for longer.
            (10_000, [2, 0], false, Some(11_000)),
            (11_500, [2, 0], true, None),
        ] {
            assert_eq!(settling.look(states(files), at(millis)), is_read, "at {millis}");
            assert_eq!(settling.due(), due.map(at), "at {millis}");
        }
        settling.look(states([3, 3]), at(20_000));
        settling.note_read(states([3, 3]));
        assert_eq!((settling.due(), settling.look(states([3, 3]), at(30_000))), (None, false));
    }
}
