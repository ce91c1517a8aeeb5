//! The lines that wait for standard error, in bounds, and the thread that writes them.
//!
//! A pipe to a log reader that has stalled takes no more bytes, and a write to it does not return. So no thread that
//! serves writes there: it puts its line into a queue, and a thread of the queue's own writes. What does not fit is dropped and
//! counted, and the log says how much is missing as soon as it goes on.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{io, thread};

use prometheus::IntCounter;

/// The bytes of lines that may wait: some thousand lines, as many as a storm of logins causes at `debug` while the reader is
/// away for a moment.
const MAX_BYTES: usize = 1 << 20;

/// The bytes that go out in one write, if as many wait.
const MAX_WRITE: usize = 64 << 10;

/// Says that lines are missing, in the format of the others and with its end.
pub(super) type Notice = fn(missing: u64) -> String;

/// A queue of lines with the thread that writes them.
#[derive(Clone, Debug)]
pub(super) struct LineQueue(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// There is a line to write.
    filled: Condvar,
    /// Everything is written.
    emptied: Condvar,
    notice: Notice,
    /// The lines that were not written.
    dropped: IntCounter,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: VecDeque<Vec<u8>>,
    /// The bytes of the lines, those included that are being written.
    bytes: usize,
    /// The lines dropped since the last that found room.
    missing: u64,
}

impl Waiting {
    fn push(&mut self, line: Vec<u8>) {
        self.bytes += line.len();
        self.lines.push_back(line);
    }

    /// Puts a line where others are missing.
    fn note_missing(&mut self, notice: Notice) {
        let missing = std::mem::take(&mut self.missing);
        if missing > 0 {
            self.push(notice(missing).into_bytes());
        }
    }
}

impl LineQueue {
    /// Starts the thread, which writes to `out`. Lines that are lost are counted in `dropped`.
    ///
    /// # Errors
    ///
    /// If the system gives no thread.
    pub(super) fn start(
        out: impl io::Write + Send + 'static,
        notice: Notice,
        dropped: IntCounter,
    ) -> io::Result<Self> {
        let queue = Self(Arc::new(Shared {
            waiting: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            notice,
            dropped,
        }));
        let shared = queue.0.clone();
        thread::Builder::new().name("log".into()).spawn(move || shared.write_to(out))?;
        Ok(queue)
    }

    /// Puts a line, with its end, behind those that wait. Drops it if there is no room.
    pub(super) fn push(&self, line: &[u8]) {
        let mut waiting = self.0.lock();
        if waiting.bytes + line.len() > MAX_BYTES {
            waiting.missing += 1;
            drop(waiting);
            self.0.dropped.inc();
            return;
        }
        waiting.note_missing(self.0.notice);
        waiting.push(line.to_vec());
        drop(waiting);
        self.0.filled.notify_one();
    }

    /// Waits until everything is written, for at most `patience`. Returns whether it is.
    pub(super) fn flush(&self, patience: Duration) -> bool {
        let waiting = self.0.lock();
        let remains = |waiting: &mut Waiting| waiting.bytes > 0;
        let waited = self.0.emptied.wait_timeout_while(waiting, patience, remains);
        waited.unwrap_or_else(PoisonError::into_inner).0.bytes == 0
    }
}

impl Shared {
    /// A panic of another thread leaves the lines as they were.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_to(&self, mut out: impl io::Write) {
        let mut batch = Vec::with_capacity(MAX_WRITE);
        loop {
            let lines = self.take(&mut batch);
            // An error cannot be logged, because this is the log. A reader that comes back gets the lines that follow.
            if out.write_all(&batch).is_err() {
                self.dropped.inc_by(lines);
            }
            let mut waiting = self.lock();
            waiting.bytes -= batch.len();
            waiting.note_missing(self.notice);
            if waiting.bytes == 0 {
                self.emptied.notify_all();
            }
        }
    }

    /// Waits for lines, and takes as many as go out in one write. Returns their number.
    fn take(&self, batch: &mut Vec<u8>) -> u64 {
        let waiting = self.lock();
        let is_empty = |waiting: &mut Waiting| waiting.lines.is_empty();
        let mut waiting = self.filled.wait_while(waiting, is_empty).unwrap_or_else(PoisonError::into_inner);
        batch.clear();
        let mut lines = 0;
        while let Some(line) = waiting.lines.front()
            && (lines == 0 || batch.len() + line.len() <= MAX_WRITE)
        {
            batch.extend_from_slice(line);
            lines += 1;
            waiting.lines.pop_front();
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A reader that takes a write when the test lets it.
    struct Gate {
        writes: Sender<Vec<u8>>,
        permits: Receiver<io::Result<()>>,
    }

    impl io::Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.writes.send(bytes.to_vec()).expect("the test reads");
            self.permits.recv().expect("the test permits")?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn notice(missing: u64) -> String {
        format!("{missing} missing\n")
    }

    fn gated() -> (LineQueue, IntCounter, Receiver<Vec<u8>>, Sender<io::Result<()>>) {
        let ((writes, written), (permit, permits)) = (channel(), channel());
        let dropped = IntCounter::new("dropped", "lines").expect("a counter");
        let queue = LineQueue::start(Gate { writes, permits }, notice, dropped.clone());
        (queue.expect("a thread"), dropped, written, permit)
    }

    fn text(written: &Receiver<Vec<u8>>) -> String {
        String::from_utf8(written.recv_timeout(PATIENCE).expect("a write")).expect("UTF-8")
    }

    #[test]
    fn lines_behind_a_stalled_reader_are_dropped_counted_and_told_of_where_they_are_missing() {
        let (queue, dropped, written, permit) = gated();
        queue.push(b"first\n");
        assert_eq!(text(&written), "first\n");
        // The reader has stalled. None of this waits for it.
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        for _ in 0..2000 {
            queue.push(&line);
        }
        let kept = (MAX_BYTES - 6) / 1024;
        assert_eq!(dropped.get(), 2000 - kept as u64);
        assert!(!queue.flush(Duration::ZERO), "a flush does not wait for the reader");
        // It goes on: all that waited, in order, and then how much is missing, without another event.
        let mut all = String::new();
        while !all.ends_with("missing\n") {
            permit.send(Ok(())).expect("the thread waits");
            all += &text(&written);
        }
        assert_eq!(all.len(), kept * 1024 + "977 missing\n".len());
        assert!(all.ends_with(&format!("x\n{} missing\n", 2000 - kept)));
        queue.push(b"last\n");
        permit.send(Ok(())).expect("the thread waits");
        assert_eq!(text(&written), "last\n");
        permit.send(Ok(())).expect("the thread waits");
        assert!(queue.flush(PATIENCE));
        assert_eq!(dropped.get(), 2000 - kept as u64);
    }

    #[test]
    fn lines_that_a_dead_reader_refuses_are_counted() {
        let (queue, dropped, written, permit) = gated();
        for line in [b"one\n", b"two\n"] {
            queue.push(line);
            text(&written);
            permit.send(Err(io::ErrorKind::BrokenPipe.into())).expect("the thread waits");
            assert!(queue.flush(PATIENCE));
        }
        assert_eq!(dropped.get(), 2);
    }
}
