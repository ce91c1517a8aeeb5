//! Names: which ones a reader knows, ignores and refuses.

use std::collections::BTreeSet;

use super::{Field, MapDecoder, Reading, scalar};
use crate::MapFormat;
use crate::code::FindingCode;
use crate::document::{DocumentValue, ObjectMember, ValueKind, shorten};
use crate::finding::Finding;

impl MapDecoder {
    /// The members of a struct that its reader knows, in the order of the file; what it does not know is reported.
    pub(super) fn fields<'v>(
        &mut self,
        value: &'v DocumentValue,
        names: &'static [&'static str],
        place: &str,
    ) -> Vec<Field<'v>> {
        if matches!(value.kind, ValueKind::Null) {
            return Vec::new();
        }
        let ValueKind::Map(members) = &value.kind else {
            let what = if place.is_empty() { "the map" } else { place };
            self.findings.push(
                Finding::error(FindingCode::WrongType, format!("{what} is {}", value.describe()))
                    .at(place, value.line)
                    .effect("the reader refuses the whole file")
                    .fix("write members with names"),
            );
            return Vec::new();
        };
        let mut fields = Vec::new();
        let mut seen = BTreeSet::new();
        for member in members {
            let written = member.name();
            let line = member.key.line;
            let known = self.known(written, names, place, line);
            // YAML compares what is written, known or not; JSON overwrites what it knows.
            let same = match self.format {
                MapFormat::Headscale => written,
                MapFormat::Json | MapFormat::TailscalePolicy => known.unwrap_or_default(),
            };
            if !same.is_empty() && !seen.insert(same) {
                self.twice(same, place, line);
            }
            let Some(name) = known else { continue };
            fields.push(Field { name, line, value: &member.value });
        }
        fields
    }

    /// Tailscale's name for what is written, if the reader takes it for one.
    fn known(
        &mut self,
        written: &str,
        names: &'static [&'static str],
        place: &str,
        line: u32,
    ) -> Option<&'static str> {
        let same = names.iter().find(|name| name.eq_ignore_ascii_case(written)).copied();
        let Some(name) = same else {
            self.unknown(written, names, place, line);
            return None;
        };
        let expected = self.format.spell(name);
        if written == expected {
            return Some(name);
        }
        let finding = match self.format {
            MapFormat::Headscale => Some(ignored_by_headscale(written, &expected, name)),
            MapFormat::Json | MapFormat::TailscalePolicy => {
                self.cases.insert(written.to_owned()).then(|| {
                    Finding::warning(FindingCode::WrongCase, format!("{written} is written for {expected}"))
                        .effect("Tailscale and Headscale take it; readers that are not written in Go may not")
                })
            }
        };
        self.findings.extend(finding.map(|finding| finding.at(place, line).fix(format!("write {expected}"))));
        let taken = self.format != MapFormat::Headscale || self.reading == Reading::AsMeant;
        taken.then_some(name)
    }

    fn unknown(&mut self, written: &str, names: &[&str], place: &str, line: u32) {
        let close = names
            .iter()
            .map(|name| (distance(&written.to_ascii_lowercase(), &name.to_ascii_lowercase()), name))
            .min()
            .filter(|(distance, _)| *distance <= 2);
        let fix = match close {
            Some((_, name)) => format!("did you mean {}?", self.format.spell(name)),
            None => "take it out, or look for a typing error".to_owned(),
        };
        let message = format!("no reader knows {:?}", shorten(written));
        self.findings.push(
            Finding::warning(FindingCode::UnknownKey, message)
                .at(place, line)
                .effect("it is ignored without a word")
                .fix(fix),
        );
    }

    fn twice(&mut self, name: &str, place: &str, line: u32) {
        let message = format!("{name} is given a second time");
        let finding = match self.format {
            MapFormat::Headscale => Finding::error(FindingCode::DuplicateKey, message)
                .effect("Headscale refuses the whole file")
                .refusing(),
            MapFormat::Json | MapFormat::TailscalePolicy => {
                Finding::warning(FindingCode::DuplicateKey, message).effect("the last one counts")
            }
        };
        self.findings.push(finding.at(place, line).fix("keep one of them"));
    }

    /// The members of a map from region numbers to something.
    pub(super) fn entries<'v>(
        &mut self,
        value: &'v DocumentValue,
        place: &str,
    ) -> Vec<(i64, &'v ObjectMember)> {
        let members = match &value.kind {
            ValueKind::Null => return Vec::new(),
            ValueKind::Map(members) => members,
            _ => {
                let message = format!("{} is given where regions by number belong", value.describe());
                self.findings.push(
                    Finding::error(FindingCode::WrongType, message)
                        .at(place, value.line)
                        .effect("the reader refuses the whole file")
                        .fix("give each region under its number"),
                );
                return Vec::new();
            }
        };
        let mut entries = Vec::with_capacity(members.len());
        let mut seen = BTreeSet::new();
        for member in members {
            let Some(id) = self.region_number(&member.key, place) else { continue };
            if !seen.insert(id) {
                self.twice(&format!("region {id}"), place, member.key.line);
            }
            entries.push((id, member));
        }
        entries
    }

    fn region_number(&mut self, key: &DocumentValue, place: &str) -> Option<i64> {
        let number = match (&key.kind, self.format) {
            (ValueKind::Plain(text), _) => scalar::yaml_int(text),
            (ValueKind::Text(text), MapFormat::Json | MapFormat::TailscalePolicy) => text.parse().ok(),
            _ => None,
        };
        if number.is_none() {
            let quoted = self.format == MapFormat::Headscale
                && matches!(&key.kind, ValueKind::Text(text) if scalar::yaml_int(text).is_some());
            let (code, fix) = match quoted {
                true => (FindingCode::QuotedNumber, "write it without quotes"),
                false => (
                    FindingCode::WrongType,
                    "a region's key is its number, such as 900; its code goes into RegionCode",
                ),
            };
            self.findings.push(
                Finding::error(code, format!("{} is the key of a region", key.describe()))
                    .at(place, key.line)
                    .effect(self.refusal())
                    .fix(fix),
            );
        }
        number.or_else(|| match (&key.kind, self.reading) {
            (ValueKind::Text(text), Reading::AsMeant) => scalar::yaml_int(text),
            _ => None,
        })
    }
}

/// What follows for Headscale, which knows one case only, when it is another.
fn ignored_by_headscale(written: &str, expected: &str, name: &str) -> Finding {
    let message = format!("{written} is written for {expected}");
    let without = match name {
        "Regions" => "the file has no regions",
        "RegionID" => "the number stays 0, which is no region",
        "Nodes" => "the region has no relay",
        "HostName" => "clients have no name to dial",
        "DERPPort" => "clients dial port 443",
        "STUNPort" => "clients send STUN requests to port 3478",
        "STUNOnly" => "clients take the node for a relay",
        "CertName" => "clients expect a certificate for the host name",
        "IPv4" | "IPv6" => "clients ask the DNS",
        _ => {
            return Finding::warning(FindingCode::WrongCase, message)
                .effect("Headscale ignores it without a word, as if it were not there");
        }
    };
    Finding::error(FindingCode::WrongCase, message).effect(format!(
        "Headscale ignores it without a word: \
        {without}"
    ))
}

/// How many letters to change, add or drop to get from one word to the other; anything above 2 is "many".
fn distance(a: &str, b: &str) -> usize {
    const MANY: usize = 3;
    if a.len().abs_diff(b.len()) >= MANY {
        return MANY;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
