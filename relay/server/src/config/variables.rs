//! The environment variables by which the relay is configured.

/// What the environment variables of all settings begin with.
pub const VARIABLE_PREFIX: &str = "TOWPATH";

/// The variable that names the configuration file if `--config` does not.
pub const CONFIG_VARIABLE: &str = "TOWPATH_CONFIG";
