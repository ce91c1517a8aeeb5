//! DERP maps as their readers take them: what is wrong with one, and whom a change from one to another disconnects.
//!
//! A map is read three times by three kinds of reader, each with its own idea of names and types: Tailscale's clients and
//! Headscale's `derp.urls` take JSON by Go's rules, Headscale's `derp.paths` take YAML by other rules of Go's, and Tailscale's
//! policy file is HuJSON. A name that one of them does not know it ignores without a word. So a [`ParsedMap`] here is what the
//! reader has in memory afterwards, and the way there is part of what is checked:
//!
//! ```text
//! bytes ── document ──▶ tree with lines ── decode ──┬──▶ as meant ── check ──▶ findings
//!                                                   └──▶ as read ─── Diff ───▶ changes
//! ```
//!
//! The rules follow Tailscale 1.102.5 (`tailcfg`, `derphttp`, `netcheck`, `magicsock`) and Headscale 0.27.1
//! (`hscontrol/derp`); `tests/interop` holds them against that code. Nothing here touches a file or a socket, and
//! everything is in a fixed order: equal files give equal reports.

mod check;
mod code;
mod decode;
mod diff;
mod document;
mod finding;
mod map;
mod report;

pub use code::{Difference, FindingCode};
pub use diff::{Diff, Impact, MapChange};
pub use document::{MAX_BYTES, ReadError};
pub use finding::{Finding, Severity};
pub use map::{ParsedMap, Unwritable};
pub use report::MapReport;

use decode::Reading;
use document::Document;

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

    /// Who reads it, for messages.
    pub(crate) fn reader(self) -> &'static str {
        match self {
            Self::Json => "JSON for Tailscale's clients and Headscale's derp.urls",
            Self::Headscale => "YAML for Headscale's derp.paths",
            Self::TailscalePolicy => "derpMap of Tailscale's policy file",
        }
    }
}

/// A file that could be read, and what its reader stumbles over on the way.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What the reader has in memory afterwards.
    pub map: ParsedMap,
    /// What its author means, of which the rules are asked.
    meant: ParsedMap,
    /// What is wrong with how it is written.
    findings: Vec<Finding>,
}

impl Loaded {
    /// Reads the bytes of a file called `name`, for `format` or, without one, for whom they look to be.
    ///
    /// # Errors
    ///
    /// If the bytes are neither JSON nor YAML, or too many.
    pub fn read(name: &str, bytes: &[u8], format: Option<MapFormat>) -> Result<Self, ReadError> {
        let document = Document::read(name, bytes, format)?;
        let (map, stumbles) = decode::map(&document, Reading::AsRead);
        let (meant, mut findings) = decode::map(&document, Reading::AsMeant);
        // What stands under a name that the reader does not know, it does not refuse yet.
        for finding in &mut findings {
            if finding.refuses_file && !stumbles.contains(finding) {
                finding.refuses_file = false;
                finding.effect =
                    "nothing yet, since it stands under a name that is ignored; then the whole file is \
                        refused"
                        .to_owned();
            }
        }
        Ok(Self { map, meant, findings })
    }

    /// For whom the file was read.
    #[must_use]
    pub fn format(&self) -> MapFormat {
        self.map.format
    }

    /// Everything there is to say, by line.
    #[must_use]
    pub fn check(&self) -> Vec<Finding> {
        let mut findings = self.findings.clone();
        findings.extend(check::map(&self.meant));
        // Stable: what is said of one line stays in the order of the rules.
        findings.sort_by_key(|finding| finding.line);
        findings
    }

    /// For what the reader refuses the whole file, if it does.
    #[must_use]
    pub fn refusal(&self) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.refuses_file)
    }
}
