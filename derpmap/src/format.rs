//! The readers of maps, each with a format of its own.

/// For whom a file is, which decides how it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapFormat {
    /// JSON for Tailscale's clients and Headscale's `derp.urls`.
    Json,
    /// YAML for Headscale's `derp.paths`.
    Headscale,
    /// The `derpMap` member of Tailscale's policy file, HuJSON: the whole file, or the member alone.
    TailscalePolicy,
}

impl MapFormat {
    /// The name by which the reader knows a member that Tailscale calls `name`.
    pub(crate) fn spell(self, name: &str) -> String {
        match self {
            Self::Headscale => name.to_ascii_lowercase(),
            Self::Json | Self::TailscalePolicy => name.to_owned(),
        }
    }

    /// The program that reads the format, for messages.
    pub(crate) fn reader(self) -> &'static str {
        match self {
            Self::Json => "JSON for Tailscale's clients and Headscale's derp.urls",
            Self::Headscale => "YAML for Headscale's derp.paths",
            Self::TailscalePolicy => "derpMap of Tailscale's policy file",
        }
    }
}
