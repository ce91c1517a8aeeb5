//! Logs: events of [`tracing`], written to standard error, for a person or for a machine.
//!
//! Standard output stays free for what a command was asked to print. No thread that serves waits for the reader of the log:
//! lines go through a bounded queue ([`queue`]), to which messages of a panic are added and the last words of the process.

mod queue;
mod standard_error;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal};
use std::panic::PanicHookInfo;
use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

use prometheus::IntCounter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use self::queue::LineQueue;
use self::standard_error::StandardError;
use crate::config::Choice;

/// How long the process waits at its end for the reader of the log.
const LAST_FLUSH: Duration = Duration::from_millis(250);

static QUEUE: OnceLock<LineQueue> = OnceLock::new();

/// The lines of the log that were not written, in this process.
pub(crate) static LINES_DROPPED: LazyLock<IntCounter> = LazyLock::new(|| {
    IntCounter::new(
        "towpath_log_lines_dropped_total",
        "Lines of the log that were lost, because standard error takes no more or fails",
    )
    .expect("a valid name")
});

/// How log events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One line of text for each event; coloured on a terminal.
    Human,
    /// One JSON object on a line of its own for each event.
    Json,
}

impl Choice for LogFormat {
    const ALL: &'static [(&'static str, Self)] = &[("human", Self::Human), ("json", Self::Json)];
}

/// The least severe events that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// What needs a person now.
    Error,
    /// What is wrong but survivable.
    Warn,
    /// What an operator wants to know about a healthy server.
    Info,
    /// What helps to find a fault; may be many events for each connection.
    Debug,
    /// Everything, events for each packet included: not for production.
    Trace,
}

impl Choice for LogLevel {
    const ALL: &'static [(&'static str, Self)] = &[
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];
}

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

/// The reason why the log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// The system gives no thread.
    #[error("cannot start the thread that writes the log")]
    Thread(#[from] io::Error),
    /// The process has a subscriber to events already.
    #[error("the log of this process is set up already")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Writes the events of the whole process to standard error from now on, and the messages of panics as events.
///
/// # Errors
///
/// See [`LogsError`].
pub fn init(format: LogFormat, level: LogLevel) -> Result<(), LogsError> {
    let notice = match format {
        LogFormat::Human => missing_for_a_person,
        LogFormat::Json => missing_for_a_machine,
    };
    let queue = LineQueue::start(StandardError, notice, LINES_DROPPED.clone())?;
    let queue = QUEUE.get_or_init(|| queue);
    let lines = tracing_subscriber::fmt::layer().with_writer(|| Lines(queue));
    let layer = match format {
        LogFormat::Human => lines.with_ansi(io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(LevelFilter::from(level))).try_init()?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Writes a line for a person to standard error, behind the events. A failure is ignored, because there is no other place to
/// report it.
pub fn say(text: &str) {
    let line = format!("{text}\n");
    match QUEUE.get() {
        Some(queue) => queue.push(line.as_bytes()),
        None => {
            let _ = io::Write::write_all(&mut StandardError, line.as_bytes());
        }
    }
}

/// Waits until the log is written, but not for a reader that has stalled. To be called before the process ends.
pub fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(LAST_FLUSH);
    }
}

/// The writer of one event, which comes whole.
struct Lines(&'static LineQueue);

impl io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn missing_for_a_person(missing: u64) -> String {
    format!("{missing} lines of the log are missing here: standard error was not read in time\n")
}

fn missing_for_a_machine(missing: u64) -> String {
    let message = "lines of the log are missing here: standard error was not read in time";
    format!("{{\"level\":\"WARN\",\"message\":\"{message}\",\"missing\":{missing}}}\n")
}

/// Logs a panic instead of writing it, because a thread that waits for the reader of the log cannot end the process.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let (thread, location) =
        (thread.name().unwrap_or("unnamed"), panic.location().map(tracing::field::display));
    let message = panic.payload_as_str().unwrap_or("no message");
    let backtrace = Backtrace::capture();
    let backtrace =
        (backtrace.status() == BacktraceStatus::Captured).then(|| tracing::field::display(backtrace));
    tracing::error!(thread, location, backtrace, "panicked: {message}");
}
