//! Names: which ones a reader knows, ignores and refuses.

use std::collections::{BTreeMap, HashSet};

use super::spelling::is_name;
use super::{BOTH, Field, MapDecoder, Reading, scalar};
use crate::MapFormat;
use crate::code::FindingCode;
use crate::document::{DocumentValue, ObjectMember, ValueKind, shorten};
use crate::finding::Finding;

/// The members of a struct.
#[derive(Default)]
pub(super) struct StructFields<'v> {
    /// Members that the reader knows, in the order of the file.
    pub(super) fields: Vec<Field<'v>>,
    /// Members that belong one level deeper.
    pub(super) misplaced: Vec<Field<'v>>,
    /// There may be more, which could not be read.
    pub(super) is_cut: bool,
}

impl MapDecoder {
    /// The members of a struct; what its reader does not know is reported, but for the names of the level below.
    pub(super) fn fields<'v>(
        &mut self,
        value: &'v DocumentValue,
        names: &'static [&'static str],
        below: &'static [&'static str],
        place: &str,
    ) -> StructFields<'v> {
        let mut found = StructFields::default();
        match &value.kind {
            ValueKind::Null => return found,
            ValueKind::Map(_) => {}
            _ => {
                self.not_a_map(value, place);
                found.is_cut = true;
                return found;
            }
        }
        let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
        let (members, is_cut) =
            self.merged(value.members(), &|member| scalar::yaml_text(&member.key.kind), place);
        found.is_cut = is_cut;
        for member in members {
            let line = member.key.line;
            if !self.is_name_key(&member.key, place) {
                continue;
            }
            let written = scalar::yaml_text(&member.key.kind).unwrap_or_default();
            let Some(name) = self.known(&written, names, below, place, line) else { continue };
            if !names.contains(&name) {
                found.misplaced.push(Field { name, line, value: &member.value });
                continue;
            }
            // What YAML takes for the same key has been reported.
            if seen
                .insert(name, &member.identity)
                .is_some_and(|other| self.format != MapFormat::Headscale || other != member.identity)
            {
                self.twice(&self.format.spell(name), place, line);
            }
            found.fields.push(Field { name, line, value: &member.value });
        }
        found
    }

    pub(super) fn not_a_map(&mut self, value: &DocumentValue, place: &str) {
        let what = if place.is_empty() { "the map" } else { place };
        self.findings.push(
            Finding::error(FindingCode::WrongType, format!("{what} is {}", value.describe()))
                .at(place, value.line)
                .effect(self.refusal())
                .fix("write members with names"),
        );
    }

    /// Whether the key of a struct's member is a name; in YAML it may be anything.
    fn is_name_key(&mut self, key: &DocumentValue, place: &str) -> bool {
        match &key.kind {
            ValueKind::Map(_) | ValueKind::List(_) | ValueKind::Recursive => {}
            ValueKind::Tagged(..) if scalar::yaml_text(&key.kind).is_none() => {}
            ValueKind::Null => {
                self.findings.push(
                    Finding::warning(FindingCode::UnknownKey, "a member has no name")
                        .at(place, key.line)
                        .effect("it is ignored without a word")
                        .fix("give it a name, or take it out"),
                );
                return false;
            }
            _ => return true,
        }
        self.findings.push(
            Finding::error(
                FindingCode::WrongType,
                format!("{} is given where a name belongs", key.describe()),
            )
            .at(place, key.line)
            .effect(self.refusal())
            .fix("write a name"),
        );
        false
    }

    /// The members of a map with those that YAML's merge key brings in; what the map says itself comes first, and of
    /// several sources the first one counts. `key` is what the reader makes of a key. Also returns whether a merge key has
    /// something else as its value.
    fn merged<'v>(
        &mut self,
        members: &'v [ObjectMember],
        key: &dyn Fn(&ObjectMember) -> Option<String>,
        place: &str,
    ) -> (Vec<&'v ObjectMember>, bool) {
        if self.format != MapFormat::Headscale {
            return (members.iter().collect(), false);
        }
        let mut all = Vec::with_capacity(members.len());
        let before = self.findings.len();
        self.merge(members, key, &mut None, &mut all, place);
        let is_cut = self.findings[before..].iter().any(|finding| finding.code == FindingCode::WrongType);
        (all, is_cut)
    }

    fn merge<'v>(
        &mut self,
        members: &'v [ObjectMember],
        key: &dyn Fn(&ObjectMember) -> Option<String>,
        known: &mut Option<HashSet<String>>,
        all: &mut Vec<&'v ObjectMember>,
        place: &str,
    ) {
        self.same_keys(members, place);
        let mut merge = None;
        for member in members {
            if member.is_merge() {
                merge = Some(&member.value);
                continue;
            }
            let is_known = match (known.as_mut(), key(member)) {
                (Some(known), Some(key)) => !known.insert(key),
                _ => false,
            };
            if !is_known {
                all.push(member);
            }
        }
        let Some(value) = merge else { return };
        known.get_or_insert_with(|| members.iter().filter_map(key).collect());
        let sources = match &value.kind {
            ValueKind::Map(_) => std::slice::from_ref(value),
            ValueKind::List(sources) if !value.aliased => sources,
            _ => return self.not_merged(value, place),
        };
        for source in sources {
            match &source.kind {
                ValueKind::Map(members) => self.merge(members, key, known, all, place),
                _ => return self.not_merged(source, place),
            }
        }
    }

    fn not_merged(&mut self, value: &DocumentValue, place: &str) {
        let message = format!("<< is {}, not a map or a list of maps", value.describe());
        self.findings.push(
            Finding::error(FindingCode::WrongType, message)
                .at(place, value.line)
                .effect(self.refusal())
                .fix("name one or more maps, such as << : *other"),
        );
    }

    /// Reports keys that YAML takes for the same: scalars by what is written, with quotes or without.
    fn same_keys(&mut self, members: &[ObjectMember], place: &str) {
        let mut seen = HashSet::with_capacity(members.len());
        for member in members {
            if !seen.insert(&member.identity) {
                let name =
                    if member.name().is_empty() { member.key.describe() } else { shorten(member.name()) };
                self.twice(&name, place, member.key.line);
            }
        }
    }

    /// Tailscale's name for what is written, if the reader takes it for one, or if it belongs to the level below.
    fn known(
        &mut self,
        written: &str,
        names: &'static [&'static str],
        below: &'static [&'static str],
        place: &str,
        line: u32,
    ) -> Option<&'static str> {
        let Some(name) = names.iter().find(|name| is_name(written, name)).copied() else {
            if let Some(name) = separated(written, names) {
                let expected = self.format.spell(name);
                let finding = ignored(self.format, written, &expected, name);
                self.findings.push(finding.at(place, line).fix(format!("write {expected}")));
                return (self.reading == Reading::AsMeant).then_some(name);
            }
            let below = below.iter().filter(|name| !BOTH.contains(name));
            let deeper = below.copied().find(|name| is_name(written, name));
            if deeper.is_none() {
                self.unknown(written, names, place, line);
            }
            return deeper;
        };
        let expected = self.format.spell(name);
        let taken =
            written == expected || self.format != MapFormat::Headscale || self.reading == Reading::AsMeant;
        if written == expected || self.is_other_name(written, name) {
            return taken.then_some(name);
        }
        let finding = match self.format {
            MapFormat::Headscale => Some(ignored(self.format, written, &expected, name)),
            MapFormat::Json | MapFormat::TailscalePolicy => {
                self.cases.insert(written.to_owned()).then(|| {
                    Finding::warning(FindingCode::WrongCase, format!("{written} is written for {expected}"))
                        .effect("Tailscale and Headscale take it; readers that are not written in Go may not")
                })
            }
        };
        self.findings.extend(finding.map(|finding| finding.at(place, line).fix(format!("write {expected}"))));
        taken.then_some(name)
    }

    /// Whether nothing is to be said of the letters of a known name: that of Go's member is as good as that of the JSON,
    /// and what Headscale drops it drops in any case.
    fn is_other_name(&self, written: &str, name: &str) -> bool {
        match (self.format, name) {
            (MapFormat::Headscale, "HomeParams" | "omitDefaultRegions") => true,
            (MapFormat::Json | MapFormat::TailscalePolicy, "omitDefaultRegions") => {
                written == "OmitDefaultRegions"
            }
            _ => false,
        }
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

    /// Reports members that stand one level too high.
    pub(super) fn misplaced(&mut self, fields: &[Field<'_>], place: &str, owner: &str) {
        let Some(first) = fields.first() else { return };
        let names: Vec<_> = fields.iter().map(|field| self.format.spell(field.name)).collect();
        let (is, belongs) = if names.len() == 1 { ("is", "belongs") } else { ("are", "belong") };
        let here = if place.is_empty() { "the map" } else { "the region" };
        let fix = match self.format {
            MapFormat::Headscale => format!("indent as far as the other members of {owner}"),
            MapFormat::Json | MapFormat::TailscalePolicy => format!("move into the braces of {owner}"),
        };
        self.findings.push(
            Finding::error(
                FindingCode::MisplacedKey,
                format!(
                    "{} {is} given beside the members of {here} and {belongs} into {owner}",
                    names.join(", ")
                ),
            )
            .at(place, first.line)
            .effect(format!("ignored without a word, as if {owner} did not have them"))
            .fix(fix),
        );
    }

    pub(super) fn twice(&mut self, name: &str, place: &str, line: u32) {
        let message = format!("{name} is given a second time");
        let finding = match (self.format, name) {
            (MapFormat::Headscale, _) => Finding::error(FindingCode::DuplicateKey, message)
                .effect("Headscale refuses the whole file")
                .refusing(),
            (_, "Regions" | "HomeParams" | "RegionScore" | "derpMap") => {
                Finding::warning(FindingCode::DuplicateKey, message)
                    .effect("readers take both together; where both say something, the last one counts")
            }
            (_, "Nodes") => Finding::warning(FindingCode::DuplicateKey, message).effect(
                "readers lay the second list over the first: its nodes keep what they do not say anew",
            ),
            _ => Finding::warning(FindingCode::DuplicateKey, message).effect("the last one counts"),
        };
        self.findings.push(finding.at(place, line).fix("keep one of them"));
    }

    /// The members of a map from region numbers to something.
    pub(super) fn entries<'v>(
        &mut self,
        value: &'v DocumentValue,
        place: &str,
    ) -> Vec<(i64, &'v ObjectMember)> {
        match &value.kind {
            ValueKind::Null => return Vec::new(),
            ValueKind::Map(_) => {}
            _ => {
                let message = format!("{} is given where regions by number belong", value.describe());
                self.findings.push(
                    Finding::error(FindingCode::WrongType, message)
                        .at(place, value.line)
                        .effect(self.refusal())
                        .fix("give each region under its number"),
                );
                return Vec::new();
            }
        }
        let number = |member: &ObjectMember| match scalar::yaml_int(&member.key.kind) {
            Some(number) => Some(number.to_string()),
            None => scalar::yaml_text(&member.key.kind).map(|text| format!("={text}")),
        };
        let mut entries = Vec::with_capacity(value.members().len());
        let mut seen: BTreeMap<i64, &str> = BTreeMap::new();
        for member in self.merged(value.members(), &number, place).0 {
            let Some(id) = self.region_number(&member.key, place) else { continue };
            if let Some(other) = seen.insert(id, &member.identity) {
                self.same_region(id, other == member.identity, place, member.key.line);
            }
            entries.push((id, member));
        }
        entries
    }

    fn same_region(&mut self, id: i64, is_same_key: bool, place: &str, line: u32) {
        if self.format == MapFormat::Headscale && is_same_key {
            // Reported as one key that comes twice.
            return;
        }
        self.findings.push(
            Finding::warning(FindingCode::DuplicateKey, format!("region {id} is given a second time"))
                .at(place, line)
                .effect("the last one counts")
                .fix("keep one of them"),
        );
    }

    fn region_number(&mut self, key: &DocumentValue, place: &str) -> Option<i64> {
        let number = match (&key.kind, self.format) {
            (ValueKind::Null, MapFormat::Headscale) => {
                self.findings.push(
                    Finding::warning(FindingCode::UnknownKey, "a region has no number")
                        .at(place, key.line)
                        .effect("Headscale ignores it without a word")
                        .fix("give its number, such as 900, as the key"),
                );
                return None;
            }
            (_, MapFormat::Headscale) => scalar::yaml_int(&key.kind),
            (ValueKind::Text(text), _) => text.parse().ok(),
            _ => None,
        };
        if number.is_none() {
            let quoted = self.format == MapFormat::Headscale
                && matches!(&key.kind, ValueKind::Text(text) if scalar::plain_int(text).is_some());
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
        if let (ValueKind::Plain(text), Some(number)) = (&key.kind, number) {
            self.number_form("the key of a region", text, number, place, key.line);
        }
        number.or_else(|| match (&key.kind, self.reading) {
            (ValueKind::Text(text), Reading::AsMeant) => scalar::plain_int(text),
            _ => None,
        })
    }
}

/// The known name that is written with `_` or `-` between its words, which no reader takes.
fn separated(written: &str, names: &'static [&'static str]) -> Option<&'static str> {
    let joined = written.replace(['_', '-'], "");
    names.iter().find(|name| is_name(&joined, name)).copied()
}

/// What follows when a name is written in a way that its reader does not take.
fn ignored(format: MapFormat, written: &str, expected: &str, name: &str) -> Finding {
    let reader = match format {
        MapFormat::Headscale => "Headscale ignores",
        MapFormat::Json | MapFormat::TailscalePolicy => "readers ignore",
    };
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
                .effect(format!("{reader} it without a word, as if it were not there"));
        }
    };
    Finding::error(FindingCode::WrongCase, message).effect(format!("{reader} it without a word: {without}"))
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
