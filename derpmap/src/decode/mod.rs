//! From a tree to a map, as the reader's own decoder would go: Go's `encoding/json`, or `yaml.v3` into a struct that
//! has only JSON names.
//!
//! The two decoders differ. JSON takes names in any case, the last of two equal names, and numbers without quotes only.
//! YAML takes the lower-case form of the Go field's name and nothing else, refuses a name that comes twice, and makes
//! text of any scalar. Both ignore what they do not know.

mod names;
mod scalar;
mod values;

use std::collections::{BTreeMap, BTreeSet};

use crate::MapFormat;
use crate::code::FindingCode;
use crate::document::{Document, DocumentValue, ObjectMember, ValueKind, shorten};
use crate::finding::Finding;
use crate::map::{MemberLines, ParsedMap, ParsedNode, ParsedRegion};

const MAP: &[&str] = &["HomeParams", "Regions", "omitDefaultRegions"];
const HOME_PARAMS: &[&str] = &["RegionScore"];
const REGION: &[&str] =
    &["RegionID", "RegionCode", "RegionName", "Latitude", "Longitude", "Avoid", "NoMeasureNoHome", "Nodes"];
const NODE: &[&str] = &[
    "Name",
    "RegionID",
    "HostName",
    "CertName",
    "IPv4",
    "IPv6",
    "STUNPort",
    "STUNOnly",
    "DERPPort",
    "InsecureForTests",
    "STUNTestIP",
    "CanPort80",
];

/// How to treat values that the reader does not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// As the reader: ignored, or left as it was.
    AsRead,
    /// As the author means it, so that a mistake is reported once and not by everything that follows from it: a name in
    /// the wrong case is that name, a number in quotes is that number.
    AsMeant,
}

/// Returns the map in the document, and the problems that its reader meets.
pub(crate) fn map(document: &Document, reading: Reading) -> (ParsedMap, Vec<Finding>) {
    let format = document.format;
    let mut decoder = MapDecoder { format, reading, findings: Vec::new(), cases: BTreeSet::new() };
    decoder.document(document);
    let mut map = ParsedMap {
        format,
        regions: BTreeMap::new(),
        nulls: BTreeMap::new(),
        scores: BTreeMap::new(),
        omit_default_regions: false,
    };
    let root = match format {
        MapFormat::Json | MapFormat::Headscale => Some(&document.root),
        MapFormat::TailscalePolicy => document.root.member("derpMap").map(|member| &member.value),
    };
    if let Some(root) = root {
        decoder.map(root, &mut map);
    }
    (map, decoder.findings)
}

struct MapDecoder {
    format: MapFormat,
    reading: Reading,
    findings: Vec<Finding>,
    /// Names in the wrong case that were reported and that the reader takes all the same: once is enough.
    cases: BTreeSet<String>,
}

impl MemberLines {
    /// A member that is null is as good as not there.
    fn note(&mut self, field: &Field<'_>) {
        if !matches!(field.value.kind, ValueKind::Null) {
            self.members.insert(field.name, field.line);
        }
    }
}

/// A member of a struct under the name that Tailscale has for it.
struct Field<'v> {
    name: &'static str,
    line: u32,
    value: &'v DocumentValue,
}

impl MapDecoder {
    fn document(&mut self, document: &Document) {
        if let Some((line, reason)) = &document.not_strict {
            self.findings.push(
                Finding::error(FindingCode::NotStrictJson, format!("not JSON proper: {reason}"))
                    .at("", *line)
                    .effect(
                        "clients and derp.urls take no comments and no trailing commas; the whole \
                        map is refused",
                    )
                    .fix(
                        "take them out, or put the map into the derpMap member of the policy file, \
                        which may have them",
                    ),
            );
        }
        if let Some(line) = document.second {
            self.findings.push(
                Finding::warning(FindingCode::SecondDocument, "a second YAML document starts here")
                    .at("", line)
                    .effect("Headscale reads the first one only and says nothing")
                    .fix("put all regions under one regions:, or each document into a file of its own"),
            );
        }
    }

    fn map(&mut self, value: &DocumentValue, map: &mut ParsedMap) {
        for field in self.fields(value, MAP, "") {
            match field.name {
                "Regions" => self.regions(field.value, map),
                "HomeParams" => {
                    self.dropped(&field);
                    self.home_params(field.value, map);
                }
                _ => {
                    self.dropped(&field);
                    self.truth(&field, "", &mut map.omit_default_regions);
                }
            }
        }
        if self.format == MapFormat::Headscale {
            map.scores.clear();
            map.omit_default_regions = false;
        }
    }

    fn dropped(&mut self, field: &Field<'_>) {
        if self.format == MapFormat::Headscale {
            let name = self.format.spell(field.name);
            self.findings.push(
                Finding::warning(FindingCode::DroppedByHeadscale, format!("{name} is given"))
                    .at("", field.line)
                    .effect("Headscale keeps regions only of each source; clients never see this")
                    .fix(
                        "take it out; to have none of Tailscale's regions, set derp.urls to [] in \
                        Headscale's configuration",
                    ),
            );
        }
    }

    fn home_params(&mut self, value: &DocumentValue, map: &mut ParsedMap) {
        for field in self.fields(value, HOME_PARAMS, "HomeParams") {
            for (id, member) in self.entries(field.value, "HomeParams") {
                let field = Field { name: "RegionScore", line: member.key.line, value: &member.value };
                let mut score = 0.0;
                self.float(&field, "HomeParams", &mut score);
                map.scores.insert(id, (score, field.line));
            }
        }
    }

    fn regions(&mut self, value: &DocumentValue, map: &mut ParsedMap) {
        for (id, member) in self.entries(value, "") {
            if matches!(member.value.kind, ValueKind::Null) {
                map.regions.insert(id, None);
                map.nulls.insert(id, member.key.line);
                continue;
            }
            let region = self.region(id, member);
            map.nulls.remove(&id);
            map.regions.insert(id, Some(region));
        }
    }

    fn region(&mut self, id: i64, member: &ObjectMember) -> ParsedRegion {
        let place = format!("region {id}");
        let mut region = ParsedRegion {
            lines: MemberLines { start: member.key.line, members: BTreeMap::new() },
            ..ParsedRegion::default()
        };
        for field in self.fields(&member.value, REGION, &place) {
            region.lines.note(&field);
            match field.name {
                "RegionID" => self.int(&field, &place, &mut region.id),
                "RegionCode" => self.text(&field, &place, &mut region.code),
                "RegionName" => self.text(&field, &place, &mut region.name),
                "Latitude" => self.float(&field, &place, &mut region.latitude),
                "Longitude" => self.float(&field, &place, &mut region.longitude),
                "Avoid" => self.truth(&field, &place, &mut region.avoid),
                "NoMeasureNoHome" => self.truth(&field, &place, &mut region.no_measure_no_home),
                _ => region.nodes = self.nodes(&field, &place),
            }
        }
        region
    }

    fn nodes(&mut self, field: &Field<'_>, place: &str) -> Vec<ParsedNode> {
        let values = match &field.value.kind {
            ValueKind::Null => return Vec::new(),
            ValueKind::List(values) => values,
            _ => {
                self.wrong_type(field, place, "a list");
                return Vec::new();
            }
        };
        let mut nodes = Vec::with_capacity(values.len());
        for (index, value) in values.iter().enumerate() {
            let label = match value.member("Name").map(|member| &member.value.kind) {
                Some(ValueKind::Text(name) | ValueKind::Plain(name)) if !name.is_empty() => {
                    format!("node {}", shorten(name))
                }
                _ => format!("node number {}", index + 1),
            };
            if matches!(value.kind, ValueKind::Null) {
                self.null_node(value.line, &format!("{place}, {label}"));
                continue;
            }
            nodes.push(self.node(value, place, label));
        }
        nodes
    }

    fn null_node(&mut self, line: u32, place: &str) {
        let (finding, effect) = match self.format {
            MapFormat::Headscale => {
                (Finding::warning(FindingCode::NullNode, "the node is null"), "Headscale leaves it out")
            }
            MapFormat::Json | MapFormat::TailscalePolicy => (
                Finding::error(FindingCode::NullNode, "the node is null"),
                "Tailscale's clients look into every node and crash on this one",
            ),
        };
        self.findings.push(finding.at(place, line).effect(effect).fix("take it out"));
    }

    fn node(&mut self, value: &DocumentValue, region: &str, label: String) -> ParsedNode {
        let place = format!("{region}, {label}");
        let lines = MemberLines { start: value.line, members: BTreeMap::new() };
        let mut node = ParsedNode { lines, label, ..ParsedNode::default() };
        for field in self.fields(value, NODE, &place) {
            node.lines.note(&field);
            match field.name {
                "Name" => self.text(&field, &place, &mut node.name),
                "RegionID" => self.int(&field, &place, &mut node.region_id),
                "HostName" => self.text(&field, &place, &mut node.host_name),
                "CertName" => self.text(&field, &place, &mut node.cert_name),
                "IPv4" => self.text(&field, &place, &mut node.ipv4),
                "IPv6" => self.text(&field, &place, &mut node.ipv6),
                "STUNPort" => self.int(&field, &place, &mut node.stun_port),
                "STUNOnly" => self.truth(&field, &place, &mut node.stun_only),
                "DERPPort" => self.int(&field, &place, &mut node.derp_port),
                "InsecureForTests" => self.truth(&field, &place, &mut node.insecure_for_tests),
                "STUNTestIP" => self.text(&field, &place, &mut node.stun_test_ip),
                _ => self.truth(&field, &place, &mut node.can_port80),
            }
        }
        node
    }
}
