//! The settings of logs.

use towpath_service::config::ConfigReader;
use towpath_service::logs;

use super::keys;

/// What is logged and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// The form of each line.
    pub format: logs::LogFormat,
    /// The least severe events that are logged.
    pub level: logs::LogLevel,
}

impl Log {
    pub(super) fn read(reader: &mut ConfigReader<'_>) -> Self {
        Self {
            format: reader.key(keys::LOG_FORMAT).or(logs::LogFormat::Human),
            level: reader.key(keys::LOG_LEVEL).or(logs::LogLevel::Info),
        }
    }
}
