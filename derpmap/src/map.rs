//! A DERP map as its reader has it in memory, with the lines that it came from.
//!
//! Members have the types of Tailscale's `tailcfg`, where a port is any integer. The rules check its range.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use towpath_wire::map as wire_map;

use crate::MapFormat;
use crate::document::printable;

/// The numbers for relays of one's own, signed as a map has them.
pub(crate) const OWN_IDS: RangeInclusive<i64> =
    *wire_map::OWN_REGION_IDS.start() as i64..=*wire_map::OWN_REGION_IDS.end() as i64;

/// Where the members of a region or a node stand, by Tailscale's name for them.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemberLines {
    /// Where the region or node begins.
    pub(crate) start: u32,
    pub(crate) members: BTreeMap<&'static str, u32>,
    /// The members of which the value could not be read, so that nothing is known of them.
    pub(crate) unread: BTreeSet<&'static str>,
}

impl MemberLines {
    /// The line of a member, or that of the whole if the member is not there.
    pub(crate) fn of(&self, member: &str) -> u32 {
        self.members.get(member).copied().unwrap_or(self.start)
    }

    /// Whether the value of one of the members could not be read.
    pub(crate) fn is_unread(&self, members: &[&str]) -> bool {
        members.iter().any(|member| self.unread.contains(member))
    }

    pub(crate) fn has(&self, member: &str) -> bool {
        self.members.contains_key(member)
    }
}

/// A map that could be read.
#[derive(Clone, Debug)]
pub struct ParsedMap {
    pub(crate) format: MapFormat,
    /// `None` is `null`, which removes a region that an earlier source gave.
    pub(crate) regions: BTreeMap<i64, Option<ParsedRegion>>,
    /// The lines of the regions that are `null`.
    pub(crate) nulls: BTreeMap<i64, u32>,
    /// The weights and their lines. Without any, clients keep those that they have.
    pub(crate) scores: Option<BTreeMap<i64, (f64, u32)>>,
    pub(crate) omit_default_regions: bool,
    /// Regions are there and could not be read.
    pub(crate) is_unread: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct ParsedRegion {
    pub(crate) lines: MemberLines,
    pub(crate) id: i64,
    pub(crate) code: String,
    pub(crate) name: String,
    pub(crate) latitude: f64,
    pub(crate) longitude: f64,
    pub(crate) avoid: bool,
    pub(crate) no_measure_no_home: bool,
    pub(crate) nodes: Vec<ParsedNode>,
    /// The places of nodes that are null, which `nodes` does not have.
    pub(crate) null_nodes: Vec<usize>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct ParsedNode {
    pub(crate) lines: MemberLines,
    /// What messages call it.
    pub(crate) label: String,
    pub(crate) name: String,
    pub(crate) region_id: i64,
    pub(crate) host_name: String,
    pub(crate) cert_name: String,
    pub(crate) ipv4: String,
    pub(crate) ipv6: String,
    pub(crate) stun_port: i64,
    pub(crate) stun_only: bool,
    pub(crate) derp_port: i64,
    pub(crate) insecure_for_tests: bool,
    pub(crate) stun_test_ip: String,
    pub(crate) can_port80: bool,
}

/// A value that the reader takes but that cannot be written in a map.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {member} is {value}, which no {member} can be")]
pub struct Unwritable {
    place: String,
    member: &'static str,
    value: String,
}

impl ParsedMap {
    /// The map as it can be written, in any format.
    ///
    /// # Errors
    ///
    /// If a number is out of its range, or none.
    pub fn to_wire(&self) -> Result<wire_map::DerpMap, Unwritable> {
        let mut regions = BTreeMap::new();
        for (id, region) in &self.regions {
            let place = format!("region {id}");
            let region = region.as_ref().map(|region| region.to_wire(&place)).transpose()?;
            regions.insert(fit(*id, "RegionID", &place)?, region);
        }
        let mut region_score = BTreeMap::new();
        for (id, (score, _)) in self.scores.iter().flatten() {
            region_score.insert(fit(*id, "RegionScore", "HomeParams")?, *score);
        }
        let home_params = (!region_score.is_empty()).then_some(wire_map::HomeParams { region_score });
        Ok(wire_map::DerpMap { home_params, regions, omit_default_regions: self.omit_default_regions })
    }

    /// Whether Tailscale's own regions are left out. Its service leaves out none if there is no other.
    pub(crate) fn omits_defaults(&self) -> bool {
        self.omit_default_regions && self.present().next().is_some()
    }

    /// The regions that are there.
    pub(crate) fn present(&self) -> impl Iterator<Item = (i64, &ParsedRegion)> {
        self.regions.iter().filter_map(|(id, region)| Some((*id, region.as_ref()?)))
    }
}

impl ParsedRegion {
    fn to_wire(&self, place: &str) -> Result<wire_map::DerpRegion, Unwritable> {
        Ok(wire_map::DerpRegion {
            region_id: fit(self.id, "RegionID", place)?,
            region_code: self.code.clone(),
            region_name: self.name.clone(),
            latitude: finite(self.latitude, "Latitude", place)?,
            longitude: finite(self.longitude, "Longitude", place)?,
            avoid: self.avoid,
            no_measure_no_home: self.no_measure_no_home,
            nodes: self
                .nodes
                .iter()
                .map(|node| node.to_wire(&format!("{place}, {}", node.label)))
                .collect::<Result<_, _>>()?,
        })
    }

    /// The nodes that clients connect to.
    pub(crate) fn relays(&self) -> impl Iterator<Item = &ParsedNode> {
        self.nodes.iter().filter(|node| !node.stun_only)
    }
}

impl ParsedNode {
    fn to_wire(&self, place: &str) -> Result<wire_map::DerpNode, Unwritable> {
        Ok(wire_map::DerpNode {
            name: self.name.clone(),
            region_id: fit(self.region_id, "RegionID", place)?,
            host_name: self.host_name.clone(),
            cert_name: self.cert_name.clone(),
            ipv4: self.ipv4.clone(),
            ipv6: self.ipv6.clone(),
            stun_port: fit(self.stun_port, "STUNPort", place)?,
            stun_only: self.stun_only,
            derp_port: fit(self.derp_port, "DERPPort", place)?,
            insecure_for_tests: self.insecure_for_tests,
            stun_test_ip: self.stun_test_ip.clone(),
            can_port80: self.can_port80,
        })
    }
}

fn fit<T: TryFrom<i64>>(value: i64, member: &'static str, place: &str) -> Result<T, Unwritable> {
    T::try_from(value).map_err(|_| unwritable(value, member, place))
}

/// JSON has neither infinities nor "not a number".
fn finite(value: f64, member: &'static str, place: &str) -> Result<f64, Unwritable> {
    if value.is_finite() { Ok(value) } else { Err(unwritable(value, member, place)) }
}

fn unwritable(value: impl ToString, member: &'static str, place: &str) -> Unwritable {
    Unwritable { place: printable(place), member, value: value.to_string() }
}

/// The map as its reader has it in memory, in the form of Tailscale's JSON. What JSON has no number
/// for is null.
impl Serialize for ParsedMap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(scores) = &self.scores {
            let scores: BTreeMap<_, _> = scores.iter().map(|(id, (score, _))| (id, score)).collect();
            map.serialize_entry("HomeParams", &BTreeMap::from([("RegionScore", scores)]))?;
        }
        map.serialize_entry("Regions", &self.regions)?;
        if self.omit_default_regions {
            map.serialize_entry("omitDefaultRegions", &true)?;
        }
        map.end()
    }
}

impl Serialize for ParsedRegion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("RegionID", &self.id)?;
        map.serialize_entry("RegionCode", &self.code)?;
        map.serialize_entry("RegionName", &self.name)?;
        map.serialize_entry("Latitude", &self.latitude)?;
        map.serialize_entry("Longitude", &self.longitude)?;
        map.serialize_entry("Avoid", &self.avoid)?;
        map.serialize_entry("NoMeasureNoHome", &self.no_measure_no_home)?;
        map.serialize_entry("Nodes", &AllNodes(self))?;
        map.end()
    }
}

/// The nodes of a region with those that are null.
struct AllNodes<'r>(&'r ParsedRegion);

impl Serialize for AllNodes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (nodes, nulls) = (&self.0.nodes, &self.0.null_nodes);
        let mut all = serializer.serialize_seq(Some(nodes.len() + nulls.len()))?;
        let count = nodes.len() + nulls.len();
        let (mut nodes, mut nulls) = (nodes.iter(), nulls.iter().peekable());
        for index in 0..count {
            let is_null = nulls.next_if(|null| **null == index).is_some();
            all.serialize_element(&if is_null { None } else { nodes.next() })?;
        }
        all.end()
    }
}

impl Serialize for ParsedNode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("Name", &self.name)?;
        map.serialize_entry("RegionID", &self.region_id)?;
        map.serialize_entry("HostName", &self.host_name)?;
        map.serialize_entry("CertName", &self.cert_name)?;
        map.serialize_entry("IPv4", &self.ipv4)?;
        map.serialize_entry("IPv6", &self.ipv6)?;
        map.serialize_entry("STUNPort", &self.stun_port)?;
        map.serialize_entry("STUNOnly", &self.stun_only)?;
        map.serialize_entry("DERPPort", &self.derp_port)?;
        map.serialize_entry("InsecureForTests", &self.insecure_for_tests)?;
        map.serialize_entry("STUNTestIP", &self.stun_test_ip)?;
        map.serialize_entry("CanPort80", &self.can_port80)?;
        map.end()
    }
}
