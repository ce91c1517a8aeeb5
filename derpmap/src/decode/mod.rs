//! From a tree to a map, as the reader's own decoder would go: Go's `encoding/json`, or `yaml.v3` into a struct that
//! has only JSON names.
//!
//! The two decoders differ. JSON takes names in any case, the last of two equal names, and numbers without quotes only.
//! YAML takes the lower-case form of the Go field's name and nothing else, refuses a name that comes twice, and makes
//! text of any scalar. Both ignore what they do not know.

mod faults;
mod names;
mod scalar;
mod spelling;
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

/// The members of a node that a region has, too, or that are likely to mean one of the region's.
const BOTH: &[&str] = &["Name", "RegionID"];

/// Returns the map in the document, and the problems that its reader meets.
pub(crate) fn map(document: &Document, reading: Reading) -> (ParsedMap, Vec<Finding>) {
    let format = document.format;
    let mut decoder = MapDecoder { format, reading, findings: Vec::new(), cases: BTreeSet::new() };
    decoder.document(document);
    let mut map = ParsedMap {
        format,
        regions: BTreeMap::new(),
        nulls: BTreeMap::new(),
        scores: None,
        omit_default_regions: false,
        is_unread: false,
    };
    match format {
        MapFormat::Json | MapFormat::Headscale => decoder.map(&document.root, &mut map),
        MapFormat::TailscalePolicy => decoder.policy(&document.root, &mut map),
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

/// Whether a value was of the type that its reader asks for, or at least has a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IsRead {
    Yes,
    No,
}

/// The nodes of a region as Go's JSON has them in memory. A second list is decoded over the first: its elements keep what
/// they do not say anew, and a shorter list leaves the rest for a third one.
#[derive(Default)]
struct NodeList {
    elements: Vec<Option<ParsedNode>>,
    length: usize,
}

impl MemberLines {
    fn starting(start: u32) -> Self {
        Self { start, ..Self::default() }
    }

    /// A member that is null is as good as not there.
    fn note(&mut self, field: &Field<'_>) {
        if !matches!(field.value.kind, ValueKind::Null) {
            self.members.insert(field.name, field.line);
        }
    }

    /// Members that are not there may be among those that could not be read.
    fn note_cut(&mut self, names: &'static [&'static str]) {
        let members = &self.members;
        self.unread.extend(names.iter().filter(|name| !members.contains_key(**name)));
    }

    fn note_read(&mut self, name: &'static str, is_read: IsRead) {
        match is_read {
            IsRead::Yes => self.unread.remove(name),
            IsRead::No => self.unread.insert(name),
        };
    }
}

/// A member of a struct under the name that Tailscale has for it.
#[derive(Clone, Copy)]
struct Field<'v> {
    name: &'static str,
    line: u32,
    value: &'v DocumentValue,
}

impl MapDecoder {
    fn document(&mut self, document: &Document) {
        for fault in &document.faults {
            self.findings.extend(faults::finding(self.format, *fault));
        }
        if let Some(line) = document.rest {
            self.findings.push(
                Finding::warning(FindingCode::SecondDocument, "the first YAML document ends here")
                    .at("", line)
                    .effect("Headscale reads that one only and says nothing")
                    .fix("put all regions under one regions:, or each document into a file of its own"),
            );
        }
    }

    /// A policy file. The reader has a place for the map and decodes each `derpMap` into it.
    fn policy(&mut self, root: &DocumentValue, map: &mut ParsedMap) {
        let members: Vec<_> =
            root.members().iter().filter(|member| spelling::is_name(member.name(), "derpMap")).collect();
        for (index, member) in members.iter().enumerate() {
            if index > 0 {
                self.twice("derpMap", "", member.key.line);
            }
            match member.value.kind {
                ValueKind::Null => {
                    map.regions.clear();
                    map.nulls.clear();
                    map.scores = None;
                    map.omit_default_regions = false;
                }
                _ => self.map(&member.value, map),
            }
        }
        if !matches!(root.kind, ValueKind::Map(_)) {
            self.not_a_map(root, "");
            map.is_unread = true;
        }
    }

    fn map(&mut self, value: &DocumentValue, map: &mut ParsedMap) {
        let members = self.fields(value, MAP, REGION, "");
        map.is_unread |= members.is_cut;
        self.misplaced(&members.misplaced, "", "a region");
        for field in members.fields {
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
            map.scores = None;
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
        if matches!(value.kind, ValueKind::Null) {
            map.scores = None;
            return;
        }
        for field in self.fields(value, HOME_PARAMS, &[], "HomeParams").fields {
            if matches!(field.value.kind, ValueKind::Null) {
                map.scores = None;
                continue;
            }
            let scores = map.scores.get_or_insert_default();
            for (id, member) in self.entries(field.value, "HomeParams") {
                let field = Field { name: "RegionScore", line: member.key.line, value: &member.value };
                let mut score = 0.0;
                self.float(&field, "HomeParams", &mut score);
                scores.insert(id, (score, field.line));
            }
        }
    }

    fn regions(&mut self, value: &DocumentValue, map: &mut ParsedMap) {
        if matches!(value.kind, ValueKind::Null) {
            map.regions.clear();
            map.nulls.clear();
        }
        map.is_unread |= !matches!(value.kind, ValueKind::Null | ValueKind::Map(_));
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
        let mut region =
            ParsedRegion { lines: MemberLines::starting(member.key.line), ..ParsedRegion::default() };
        let mut nodes = NodeList::default();
        let members = self.fields(&member.value, REGION, NODE, &place);
        for field in members.fields {
            region.lines.note(&field);
            let is_read = match field.name {
                "RegionID" => self.int(&field, &place, &mut region.id),
                "RegionCode" => self.text(&field, &place, &mut region.code),
                "RegionName" => self.text(&field, &place, &mut region.name),
                "Latitude" => self.float(&field, &place, &mut region.latitude),
                "Longitude" => self.float(&field, &place, &mut region.longitude),
                "Avoid" => self.truth(&field, &place, &mut region.avoid),
                "NoMeasureNoHome" => self.truth(&field, &place, &mut region.no_measure_no_home),
                _ => self.nodes(&field, &place, &mut nodes),
            };
            region.lines.note_read(field.name, is_read);
        }
        if members.is_cut {
            region.lines.note_cut(REGION);
        }
        self.misplaced(&members.misplaced, &place, "a node");
        if let ([Some(node)], Reading::AsMeant) = (&mut nodes.elements[..nodes.length], self.reading) {
            let place = format!("{place}, {}", node.label);
            for field in &members.misplaced {
                if !node.lines.has(field.name) {
                    self.node_member(field, &place, node);
                }
            }
        }
        nodes.elements.truncate(nodes.length);
        region.null_nodes = (0..nodes.length).filter(|index| nodes.elements[*index].is_none()).collect();
        region.nodes = nodes.elements.into_iter().flatten().collect();
        region
    }

    fn nodes(&mut self, field: &Field<'_>, place: &str, nodes: &mut NodeList) -> IsRead {
        let values = match &field.value.kind {
            ValueKind::Null => {
                *nodes = NodeList::default();
                return IsRead::Yes;
            }
            ValueKind::List(values) => values,
            _ => {
                self.wrong_type(field, place, "a list");
                return IsRead::No;
            }
        };
        for (index, value) in values.iter().enumerate() {
            let label = match value.member("Name").map(|member| &member.value.kind) {
                Some(ValueKind::Text(name) | ValueKind::Plain(name)) if !name.is_empty() => {
                    format!("node {}", shorten(name))
                }
                _ => format!("node number {}", index + 1),
            };
            if index == nodes.elements.len() {
                nodes.elements.push(None);
            }
            nodes.elements[index] = if matches!(value.kind, ValueKind::Null) {
                self.null_node(value.line, &format!("{place}, {label}"));
                None
            } else {
                let node = nodes.elements[index].take().unwrap_or_default();
                Some(self.node(value, place, ParsedNode { label, ..node }))
            };
        }
        nodes.length = values.len();
        if values.is_empty() {
            nodes.elements.clear();
        }
        IsRead::Yes
    }

    fn null_node(&mut self, line: u32, place: &str) {
        let effect = match self.format {
            MapFormat::Headscale => {
                "Headscale passes it on, and Tailscale's clients look into every node and crash on this one"
            }
            MapFormat::Json | MapFormat::TailscalePolicy => {
                "Tailscale's clients look into every node and crash on this one"
            }
        };
        self.findings.push(
            Finding::error(FindingCode::NullNode, "the node is null")
                .at(place, line)
                .effect(effect)
                .fix("take it out"),
        );
    }

    fn node(&mut self, value: &DocumentValue, region: &str, mut node: ParsedNode) -> ParsedNode {
        let place = format!("{region}, {}", node.label);
        node.lines = MemberLines { start: value.line, ..node.lines };
        let members = self.fields(value, NODE, &[], &place);
        for field in members.fields {
            self.node_member(&field, &place, &mut node);
        }
        if members.is_cut {
            node.lines.note_cut(NODE);
        }
        node
    }

    fn node_member(&mut self, field: &Field<'_>, place: &str, node: &mut ParsedNode) {
        node.lines.note(field);
        let is_read = match field.name {
            "Name" => self.text(field, place, &mut node.name),
            "RegionID" => self.int(field, place, &mut node.region_id),
            "HostName" => self.text(field, place, &mut node.host_name),
            "CertName" => self.text(field, place, &mut node.cert_name),
            "IPv4" => self.text(field, place, &mut node.ipv4),
            "IPv6" => self.text(field, place, &mut node.ipv6),
            "STUNPort" => self.int(field, place, &mut node.stun_port),
            "STUNOnly" => self.truth(field, place, &mut node.stun_only),
            "DERPPort" => self.int(field, place, &mut node.derp_port),
            "InsecureForTests" => self.truth(field, place, &mut node.insecure_for_tests),
            "STUNTestIP" => self.text(field, place, &mut node.stun_test_ip),
            _ => self.truth(field, place, &mut node.can_port80),
        };
        node.lines.note_read(field.name, is_read);
    }
}
