//! Logs: events of [`tracing`], written to standard error, for a person or for a machine.
//!
//! Standard output stays free for what a command was asked to print.

use std::io::IsTerminal;

use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::Choice;

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

/// Writes the events of the whole process to standard error from now on.
///
/// # Errors
///
/// If the process has a subscriber already.
pub fn init(format: LogFormat, level: LogLevel) -> Result<(), tracing_subscriber::util::TryInitError> {
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let layer = match format {
        LogFormat::Human => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(LevelFilter::from(level))).try_init()
}
