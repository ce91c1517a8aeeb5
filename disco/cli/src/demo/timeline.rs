//! The timeline: what has happened, each with the time since the start, printed as it happens.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use towpath_service::command::print;

/// The width of a line.
const WIDTH: usize = 110;
/// What stands in front of a line that goes on.
const INDENT: usize = 12;

/// The timeline. Clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct Timeline(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    start: Instant,
    /// What is told once and has been told.
    told: BTreeSet<String>,
}

impl Timeline {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(State { start: Instant::now(), told: BTreeSet::new() })))
    }

    /// Begins to count the time.
    pub(super) fn start(&self) {
        self.lock().start = Instant::now();
    }

    /// Tells what happens now.
    pub(super) fn tell(&self, what: &str) {
        let state = self.lock();
        write(state.start.elapsed(), what);
    }

    /// Tells what happens now, unless something with this name was told before.
    pub(super) fn tell_once(&self, name: &str, what: impl FnOnce() -> String) {
        let mut state = self.lock();
        if state.told.insert(name.to_owned()) {
            write(state.start.elapsed(), &what());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write(time: Duration, what: &str) {
    let mut text = format!("{:>6} ms   ", time.as_millis());
    for (number, line) in wrap(what, WIDTH - INDENT).into_iter().enumerate() {
        if number > 0 {
            text.push_str(&" ".repeat(INDENT));
        }
        text.push_str(&line);
        text.push('\n');
    }
    // A reader that has gone away ends the demo at its next line.
    let _ = print(&text);
}

/// Breaks a text into lines of at most `width` characters, where words allow that.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is a first one");
        let len = line.chars().count() + 1 + word.chars().count();
        if line.is_empty() {
            line.push_str(word);
        } else if len <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_kept_whole() {
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("extraordinary", 3), ["extraordinary"]);
        assert_eq!(wrap("", 3), [""]);
    }
}
