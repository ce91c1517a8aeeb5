//! A map out of a file, with what there is to say about the file.

use std::collections::HashSet;

use crate::check;
use crate::code::FindingCode;
use crate::decode::{self, Reading};
use crate::document::{Document, ReadError};
use crate::finding::Finding;
use crate::format::MapFormat;
use crate::map::ParsedMap;

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
        let met: HashSet<_> = stumbles.iter().map(subject).collect();
        for finding in &mut findings {
            if finding.refuses_file && !met.contains(&subject(finding)) {
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

/// By what a finding of one reading is known in another.
fn subject(finding: &Finding) -> (Option<u32>, FindingCode, &str, &str) {
    (finding.line, finding.code, &finding.place, &finding.message)
}
