//! The units of figures, and values with their units.

use serde::{Deserialize, Serialize};

use crate::histogram::LOST;

/// The unit of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Unit {
    /// Nanoseconds.
    Time,
    /// A number of things.
    Count,
    /// Packets a second.
    PacketsPerSecond,
    /// Bits a second.
    BitsPerSecond,
    /// Connections a second.
    ConnectionsPerSecond,
    /// Answers a second.
    AnswersPerSecond,
    /// Answers for each second of the server's CPU time.
    AnswersPerCpuSecond,
    /// Bytes.
    Bytes,
    /// Bytes for each connection.
    BytesPerConnection,
    /// Hundredths of a whole.
    Percent,
}

impl Unit {
    /// A value at the tick of an axis: short, without the part of the unit that the name of the axis says.
    pub(crate) fn show_short(self, value: f64) -> String {
        match self {
            Self::Time if value >= 1e9 => format!("{} s", value / 1e9),
            Self::Time if value >= 1e6 => format!("{} ms", value / 1e6),
            Self::Time => format!("{} µs", value / 1e3),
            Self::Bytes => format!("{} MiB", value / (1024.0 * 1024.0)),
            Self::Percent if value > 0.0 && value < 0.1 => format!("{value} %"),
            Self::Percent => format!("{value:.1} %"),
            _ if value >= 1e6 => format!("{} M", value / 1e6),
            _ if value >= 1e3 => format!("{} k", value / 1e3),
            _ => format!("{value}"),
        }
    }

    /// A value in a table.
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::Time if value >= LOST as f64 => "∞".to_owned(),
            Self::Time if value.abs() >= 1e9 => format!("{:.2} s", value / 1e9),
            Self::Time if value.abs() >= 1e6 => format!("{:.2} ms", value / 1e6),
            Self::Time => format!("{:.2} µs", value / 1e3),
            Self::Count => grouped(value),
            Self::PacketsPerSecond => format!("{} packets/s", grouped(value)),
            Self::BitsPerSecond => format!("{:.1} Mbit/s", value / 1e6),
            Self::AnswersPerSecond => format!("{} answers/s", grouped(value)),
            Self::AnswersPerCpuSecond => format!("{} answers/CPU s", grouped(value)),
            Self::ConnectionsPerSecond => format!("{} connections/s", grouped(value)),
            Self::Bytes => format!("{:.1} MiB", value / (1024.0 * 1024.0)),
            Self::BytesPerConnection => format!("{:.2} KiB each", value / 1024.0),
            Self::Percent => format!("{value:.1} %"),
        }
    }
}

/// A whole number with commas between groups of three digits.
fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = if value <= -0.5 { "-".to_owned() } else { String::new() };
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        let expected = ("-1,234".into(), "0".into(), "12".into());
        assert_eq!((grouped(-1234.0), grouped(-0.4), grouped(12.0)), expected);
    }
}
