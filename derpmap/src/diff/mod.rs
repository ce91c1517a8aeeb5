//! What a change from one map to another does to the clients that have the first one.
//!
//! A client compares each region with what it had (`magicsock.setDERPMap`, a deep comparison) and closes its connection
//! to a region that differs in anything: a name, the order of nodes. So every change of a region disconnects all of its
//! clients. The differences are told apart by what the clients find when they come back.

mod nodes;

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use towpath_wire::ports;

use crate::MapFormat;
use crate::code::Difference;
use crate::document::printable;
use crate::map::{OWN_IDS, ParsedMap, ParsedRegion};

/// What clients notice, from nothing to everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Impact {
    /// No connection is closed.
    None,
    /// Every client of the region loses its connection and makes a new one to the same relay: 0.3 s of silence.
    Reconnect,
    /// Every client of the region has to find another relay, another address or another certificate; some may find
    /// none.
    Disconnect,
}

impl fmt::Display for Impact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Reconnect => "reconnect",
            Self::Disconnect => "disconnect",
        })
    }
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MapChange {
    /// What clients notice.
    pub impact: Impact,
    /// What kind of difference it is.
    pub code: Difference,
    /// The region, if it is about one.
    pub region: Option<i64>,
    /// Which part of the map: `region 900, node 900a`.
    pub place: String,
    /// What differs.
    pub message: String,
    /// The effect, and the clients that it concerns.
    pub effect: String,
}

/// The differences between two maps.
#[derive(Clone, Debug)]
pub struct Diff {
    /// By region, and in it the order of [`Difference`].
    pub changes: Vec<MapChange>,
    /// How many regions the first map has, with those that the second one takes from elsewhere.
    regions: usize,
    /// For whom the second map is.
    format: MapFormat,
}

const SAME_RELAY: &str =
    "every client of the region reconnects at once, to the same relay: about 0.3 s of silence";

impl Diff {
    /// Compares the maps `old` and `new`.
    #[must_use]
    pub fn between(old: &ParsedMap, new: &ParsedMap) -> Self {
        let mut diff = Self { changes: Vec::new(), regions: old.present().count(), format: new.format };
        diff.default_regions(old, new);
        diff.nulls(old, new);
        let is_new = |id| old.regions.get(&id).and_then(Option::as_ref).is_none();
        let renumbered: BTreeMap<_, _> = new
            .present()
            .filter(|(id, region)| is_new(*id) && region.relays().next().is_some())
            .map(|(id, region)| (relays(region), id))
            .collect();
        for (id, region) in old.present() {
            match new.regions.get(&id).and_then(Option::as_ref) {
                Some(changed) => diff.region(id, region, changed),
                None => diff.removed(id, region, new, &renumbered),
            }
        }
        for (id, region) in new.present().filter(|(id, _)| is_new(*id)) {
            diff.added(id, region);
        }
        diff.home_params(old, new);
        diff
    }

    /// Returns the worst impact of all changes.
    #[must_use]
    pub fn impact(&self) -> Impact {
        self.changes.iter().map(|change| change.impact).max().unwrap_or(Impact::None)
    }

    /// Returns a summary in one line.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut worst = BTreeMap::new();
        for change in &self.changes {
            let of_region = worst.entry(change.region).or_insert(Impact::None);
            *of_region = change.impact.max(*of_region);
        }
        let defaults = worst.remove(&None) == Some(Impact::Disconnect);
        let count = |impact| worst.values().filter(|worst| **worst == impact).count();
        let (move_away, come_back) = (count(Impact::Disconnect), count(Impact::Reconnect));
        let of = match self.regions {
            1 => "1 region".to_owned(),
            regions => format!("{regions} regions"),
        };
        let mut parts = Vec::new();
        if defaults {
            parts.push("all clients of Tailscale's regions have to move".to_owned());
        }
        if move_away > 0 {
            parts.push(format!("clients of {move_away} of {of} have to move, or to find the relay anew"));
        }
        if come_back > 0 {
            parts.push(format!("clients of {come_back} of {of} reconnect to the same relay"));
        }
        match parts.is_empty() {
            false => parts.join("; "),
            true if self.changes.is_empty() => "the same map to clients".to_owned(),
            true => "no client is disconnected".to_owned(),
        }
    }

    fn push(
        &mut self,
        (impact, code): (Impact, Difference),
        region: Option<i64>,
        place: String,
        message: String,
        effect: impl Into<String>,
    ) {
        let [place, message, effect] = [place, message, effect.into()].map(printable);
        self.changes.push(MapChange { impact, code, region, place, message, effect });
    }

    fn default_regions(&mut self, old: &ParsedMap, new: &ParsedMap) {
        let policy = |map: &ParsedMap| map.format == MapFormat::TailscalePolicy;
        if !policy(old) || !policy(new) || old.omits_defaults() == new.omits_defaults() {
            return;
        }
        let (rule, message, effect) = match new.omits_defaults() {
            true => (
                (Impact::Disconnect, Difference::DefaultRegionsOmitted),
                "Tailscale's own regions are left out",
                "every client whose home is one of them moves to a region of this map",
            ),
            false => (
                (Impact::None, Difference::DefaultRegionsAdded),
                "Tailscale's own regions are no longer left out",
                "clients that are nearer to one of them move there by and by",
            ),
        };
        self.push(rule, None, String::new(), message.to_owned(), effect);
    }

    /// Regions that are not in either map, but that a `null` takes from those of another source: Tailscale's own, or an
    /// earlier source of Headscale.
    fn nulls(&mut self, old: &ParsedMap, new: &ParsedMap) {
        // What neither map has; the others are compared as regions.
        let is_elsewhere =
            |id: &i64, map: &ParsedMap| !map.regions.contains_key(id) && takes_from_others(map, *id);
        for id in new.nulls.keys().filter(|id| is_elsewhere(id, old) && takes_from_others(new, **id)) {
            self.regions += 1;
            self.push(
                (Impact::Disconnect, Difference::RegionRemoved),
                Some(*id),
                format!("region {id}"),
                "the region is null now".to_owned(),
                format!(
                    "{} is taken away; every client whose home it is loses it and chooses another region",
                    region_of_others(new.format)
                ),
            );
        }
        for id in old.nulls.keys().filter(|id| is_elsewhere(id, new) && takes_from_others(old, **id)) {
            self.push(
                (Impact::None, Difference::RegionAdded),
                Some(*id),
                format!("region {id}"),
                "the region is null no longer".to_owned(),
                format!(
                    "{} is back; clients that are nearer to it than to their home move there by and by",
                    region_of_others(old.format)
                ),
            );
        }
    }

    fn removed(
        &mut self,
        id: i64,
        region: &ParsedRegion,
        new: &ParsedMap,
        renumbered: &BTreeMap<Relays<'_>, i64>,
    ) {
        let place = format!("region {id}");
        if let Some(other) = renumbered.get(&relays(region)) {
            self.push(
                (Impact::Disconnect, Difference::RegionRenumbered),
                Some(id),
                place,
                format!("the region is now number {other}"),
                "every client whose home it is loses it, and has none until it has measured again; \
                    clients that do not have the new map yet cannot reach those that do",
            );
            return;
        }
        let effect = match new.present().next() {
            Some(_) => {
                "every client whose home it is loses it and chooses another region; until its peers hear \
                    of that, they cannot reach it"
            }
            None => {
                "every client whose home it is loses it, and there is no other region: only direct \
                    connections remain"
            }
        };
        self.push(
            (Impact::Disconnect, Difference::RegionRemoved),
            Some(id),
            place,
            format!("{} is gone", called(region)),
            effect,
        );
    }

    fn added(&mut self, id: i64, region: &ParsedRegion) {
        let effect = match region.no_measure_no_home {
            true => "no client makes it its home",
            false => "clients that are nearer to it than to their home move there by and by",
        };
        let message = format!("{} is new", called(region));
        self.push((Impact::None, Difference::RegionAdded), Some(id), format!("region {id}"), message, effect);
    }

    fn region(&mut self, id: i64, old: &ParsedRegion, new: &ParsedRegion) {
        let before = self.changes.len();
        self.nodes(id, old, new);
        self.home_rules(id, old, new);
        // The other members that the client compares.
        let names: Vec<_> = [
            ("RegionCode", old.code != new.code),
            ("RegionName", old.name != new.name),
            ("Latitude", !same(old.latitude, new.latitude)),
            ("Longitude", !same(old.longitude, new.longitude)),
        ]
        .into_iter()
        .filter_map(|(name, differs)| differs.then_some(name))
        .collect();
        if !names.is_empty() {
            let message = format!("{} changed", names.join(", "));
            self.push(
                (Impact::Reconnect, Difference::Cosmetic),
                Some(id),
                format!("region {id}"),
                message,
                SAME_RELAY,
            );
        }
        if old.id != new.id {
            let message = format!("RegionID changed from {} to {}", old.id, new.id);
            self.push(
                (Impact::Reconnect, Difference::RegionIdChanged),
                Some(id),
                format!("region {id}"),
                message,
                SAME_RELAY,
            );
        }
        let only_cosmetic = self.changes[before..].iter().all(|change| change.code == Difference::Cosmetic);
        if only_cosmetic {
            for change in &mut self.changes[before..] {
                change.effect = format!("only looks change, and yet {SAME_RELAY}");
            }
        }
    }

    fn home_rules(&mut self, id: i64, old: &ParsedRegion, new: &ParsedRegion) {
        let place = || format!("region {id}");
        if old.no_measure_no_home != new.no_measure_no_home {
            let (rule, effect) = match new.no_measure_no_home {
                true => (
                    (Impact::Disconnect, Difference::HomeRuleChanged),
                    "every client whose home it is moves to another region",
                ),
                false => ((Impact::Reconnect, Difference::HomeRuleChanged), SAME_RELAY),
            };
            let message = format!("NoMeasureNoHome is now {}", new.no_measure_no_home);
            self.push(rule, Some(id), place(), message, effect);
        }
        if old.avoid != new.avoid {
            let message = format!("Avoid is now {}", new.avoid);
            self.push(
                (Impact::Reconnect, Difference::HomeRuleChanged),
                Some(id),
                place(),
                message,
                SAME_RELAY,
            );
        }
    }

    fn home_params(&mut self, old: &ParsedMap, new: &ParsedMap) {
        let scores = |map: &ParsedMap| -> Vec<(i64, f64)> {
            map.scores.iter().flatten().map(|(id, (score, _))| (*id, *score)).collect()
        };
        if scores(old) == scores(new) {
            return;
        }
        let (message, effect) = match &new.scores {
            None => (
                "the weights of regions are no longer given",
                "clients keep those that they have until they start anew; an empty RegionScore takes them back",
            ),
            Some(_) => (
                "the weights of regions changed",
                "clients choose their home by them when they next measure; some move",
            ),
        };
        self.push((Impact::None, Difference::HomeParams), None, String::new(), message.into(), effect);
    }
}

/// Whether a null in the map takes a region from another source of regions.
fn takes_from_others(map: &ParsedMap, id: i64) -> bool {
    // Tailscale has no regions of its own among those for others, and none at all where they are omitted.
    map.format != MapFormat::TailscalePolicy || (!map.omits_defaults() && !OWN_IDS.contains(&id))
}

fn region_of_others(format: MapFormat) -> &'static str {
    match format {
        MapFormat::TailscalePolicy => "Tailscale's region with this number",
        MapFormat::Json | MapFormat::Headscale => {
            "the region that an earlier source of Headscale gives, if one does,"
        }
    }
}

/// Whether two numbers are the same. Two values that are not numbers count as the same.
fn same(old: f64, new: f64) -> bool {
    old == new || (old.is_nan() && new.is_nan())
}

fn port(port: i64, default: u16) -> i64 {
    if port == 0 { default.into() } else { port }
}

fn called(region: &ParsedRegion) -> String {
    match (&*region.code, &*region.name) {
        ("", "") => "the region".into(),
        (text, "") | ("", text) => text.to_owned(),
        (code, name) => format!("{code} ({name})"),
    }
}

/// The relays of a region by host and port, in their order.
type Relays<'a> = Vec<(&'a str, i64)>;

fn relays(region: &ParsedRegion) -> Relays<'_> {
    region.relays().map(|node| (&*node.host_name, port(node.derp_port, ports::HTTPS))).collect()
}
