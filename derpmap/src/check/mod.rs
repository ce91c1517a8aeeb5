//! The rules: what stock clients and operators reject or misread in a map that could be read.
//!
//! Each rule names the effect and the clients that it concerns, as the code of Tailscale 1.104.6 has it. If that is
//! surprising, a comment says where to look.

mod host_name;
mod node;
mod region;
mod verdict;

use std::collections::BTreeMap;

use self::verdict::place;
use crate::MapFormat;
use crate::code::FindingCode;
use crate::finding::Finding;
use crate::map::{ParsedMap, ParsedRegion};

/// Everything there is to say about the map, in the order of its regions.
pub(crate) fn map(map: &ParsedMap) -> Vec<Finding> {
    let mut findings = Vec::new();
    if map.regions.is_empty() && !map.is_unread {
        findings.extend(no_regions(map));
    }
    for (id, line) in &map.nulls {
        findings.extend(null_region(map.format, *id, *line));
    }
    for (id, region) in map.present() {
        region::check(map.format, id, region, &mut findings);
        for node in &region.nodes {
            node::check(map.format, id, node, &mut findings);
        }
    }
    findings.extend(no_home(map));
    findings.extend(no_stun(map));
    region_codes(map, &mut findings);
    node_names(map, &mut findings);
    scores(map, &mut findings);
    findings
}

fn no_regions(map: &ParsedMap) -> Option<Finding> {
    let regions = map.format.spell("Regions");
    match map.format {
        MapFormat::Headscale => Some(
            Finding::error(FindingCode::NoRegions, format!("there are no regions under {regions}"))
                .effect(
                    "Headscale takes this for an empty map: it does not start if it has no other \
                    source, and a refresh takes these regions from every client",
                )
                .fix(
                    "write regions: with a region under each number; towpath-relay derpmap --format \
                    headscale prints one",
                ),
        ),
        // All that this policy does is to take Tailscale's regions away, or nothing.
        MapFormat::TailscalePolicy if map.omit_default_regions => Some(
            Finding::error(FindingCode::NoRegions, "Tailscale's regions are omitted and no others are given")
                .effect("Tailscale ignores omitDefaultRegions then")
                .fix("give regions of your own"),
        ),
        MapFormat::TailscalePolicy => Some(
            Finding::error(FindingCode::NoRegions, "there is no derpMap with regions")
                .effect("clients get Tailscale's own regions")
                .fix(
                    "write \"derpMap\": { \"Regions\": { … } }; towpath-relay derpmap --format \
                    tailscale-policy prints one",
                ),
        ),
        MapFormat::Json => Some(
            Finding::error(FindingCode::NoRegions, format!("there are no regions under {regions}"))
                .effect("no client can relay anything")
                .fix("write { \"Regions\": { … } }; towpath-relay derpmap --format json prints one"),
        ),
    }
}

fn null_region(format: MapFormat, id: i64, line: u32) -> Option<Finding> {
    // In the policy file this is how to do without one of Tailscale's regions.
    if format == MapFormat::TailscalePolicy {
        return None;
    }
    Some(
        Finding::warning(FindingCode::NullRegion, "the region is null")
            .at(&place(id), line)
            .effect(format!(
                "Headscale up to 0.29 takes region {id} away that an earlier source gave; later versions \
                    ignore the entry and keep the region"
            ))
            .fix(
                "look whether the region is gone (tailscale netcheck) after each upgrade of Headscale, \
                or list what you want instead of what you do not",
            ),
    )
}

fn no_home(map: &ParsedMap) -> Option<Finding> {
    let mut present = map.present().peekable();
    present.peek()?;
    let is_no_home =
        |region: &ParsedRegion| region.no_measure_no_home && !region.lines.is_unread(&["NoMeasureNoHome"]);
    present.all(|(_, region)| is_no_home(region)).then(|| {
        Finding::error(FindingCode::NoHome, "every region has NoMeasureNoHome")
            .effect("no client gets a home, so none can be reached through a relay")
            .fix("take it from the regions that clients should live in")
    })
}

/// A region that never answers STUN is never nearest while another one does: `netcheck` measures over HTTPS only if no
/// STUN at all was answered.
fn no_stun(map: &ParsedMap) -> Vec<Finding> {
    let answers = |region: &ParsedRegion| region.nodes.iter().any(node::answers_stun);
    // A region that no client reaches has worse findings.
    let reached = |region: &ParsedRegion| region.nodes.iter().any(node::is_reached);
    let is_known = |region: &ParsedRegion| {
        !region.lines.is_unread(&["Nodes", "NoMeasureNoHome"]) && region.nodes.iter().all(node::stun_is_known)
    };
    let homes = || {
        map.present().filter(|(_, region)| !region.no_measure_no_home && is_known(region) && reached(region))
    };
    let elsewhere = homes().any(|(_, region)| answers(region));
    let alone = map.format == MapFormat::Json || homes().count() == 1;
    homes()
        .filter(|(_, region)| !answers(region))
        .map(|(id, region)| {
            let effect = if elsewhere {
                "clients never make it their home while another region answers STUN, and each look at \
                    the network takes up to 3 s longer"
            } else if alone {
                "clients learn no public address of theirs, so more pairs stay relayed; each look at the \
                    network waits for STUN in vain and then measures over HTTPS"
            } else {
                "clients never make it their home while a region of another source answers STUN"
            };
            Finding::warning(FindingCode::NoStun, "no node of the region answers STUN")
                .at(&place(id), region.lines.start)
                .effect(effect)
                .fix(format!(
                    "let a node answer STUN, on UDP port 3478 or {}; or set {} if the region is meant to \
                        be nobody's home",
                    map.format.spell("STUNPort"),
                    map.format.spell("NoMeasureNoHome"),
                ))
        })
        .collect()
}

fn region_codes(map: &ParsedMap, findings: &mut Vec<Finding>) {
    let mut first = BTreeMap::new();
    for (id, region) in map.present().filter(|(_, region)| !region.code.is_empty()) {
        if let Some(other) = first.insert(&*region.code, id) {
            findings.push(
                Finding::warning(
                    FindingCode::DuplicateRegionCode,
                    format!("region {other} is called {:?}, too", region.code),
                )
                .at(&place(id), region.lines.of("RegionCode"))
                .effect("tailscale netcheck, status and ping do not say which of them they mean")
                .fix("give each region a code of its own"),
            );
        }
    }
}

/// `netcheck` asks for a node by its name, in all regions (`namedNode`), and takes any that has it.
fn node_names(map: &ParsedMap, findings: &mut Vec<Finding>) {
    let mut first: BTreeMap<&str, (i64, u32)> = BTreeMap::new();
    for (id, region) in map.present() {
        for node in region.nodes.iter().filter(|node| !node.lines.is_unread(&["Name"])) {
            let line = node.lines.of("Name");
            let Some((other, other_line)) = first.get(&*node.name).copied() else {
                first.insert(&node.name, (id, line));
                continue;
            };
            let message = match &*node.name {
                "" => format!("the node has no name, like the one on line {other_line}"),
                name => format!("the node on line {other_line} is called {name:?}, too"),
            };
            let finding = if other == id {
                Finding::warning(FindingCode::DuplicateNodeName, message)
                    .effect("clients send their STUN requests for both to one of them")
            } else {
                Finding::error(FindingCode::DuplicateNodeName, message).effect(format!(
                    "clients take either for the other when they measure: region {other} or {id} has no \
                        latency, or the other's, and is not chosen as it should be"
                ))
            };
            findings.push(
                finding
                    .at(&format!("{}, {}", place(id), node.label), line)
                    .fix(format!("by custom the name is the region's number and a letter: {id}a, {id}b")),
            );
        }
    }
}

fn scores(map: &ParsedMap, findings: &mut Vec<Finding>) {
    for (id, (score, line)) in map.scores.iter().flatten() {
        // A client passes over what is not above 0.
        let (message, fix) = if score.is_nan() || *score <= 0.0 {
            (
                format!("the score of region {id} is {score}"),
                "use a factor on the latency: below 1 attracts, above 1 repels",
            )
        } else if !map.regions.contains_key(id) && map.format == MapFormat::Json && !map.is_unread {
            (
                format!("there is a score for region {id} and no such region"),
                "take it out, or correct the number",
            )
        } else {
            continue;
        };
        findings.push(
            Finding::warning(FindingCode::RegionScore, message)
                .at("HomeParams", *line)
                .effect("clients ignore the score")
                .fix(fix),
        );
    }
}
