//! Rules about one region.

use super::verdict::{EMBEDDED_ID, LARGEST_ID, Verdict, place};
use crate::MapFormat;
use crate::code::FindingCode;
use crate::finding::Finding;
use crate::map::{OWN_IDS, ParsedRegion};

/// Returns all findings about the region under this key, except those about its nodes.
pub(super) fn check(format: MapFormat, id: i64, region: &ParsedRegion, findings: &mut Vec<Finding>) {
    let place = place(id);
    let rules = [
        number(format, id, region).or_else(|| number_range(format, id, region)),
        number_mismatch(format, id, region),
        names(format, region),
        coordinates(format, region),
        avoid(format, region),
        relays(format, region),
        first_relay(region),
    ];
    // Of what could not be read nothing is known, and that it could not be read has been said.
    let known = |(_, member): &(Finding, &'static str)| !region.lines.is_unread(&[member]);
    for (finding, member) in rules.into_iter().flatten().filter(known) {
        findings.push(finding.at(&place, region.lines.of(member)));
    }
}

/// Whether it is one of Tailscale's own, of which a map may have a copy: they have other numbers, and are meshed.
fn is_tailscales(region: &ParsedRegion) -> bool {
    !region.nodes.is_empty() && region.nodes.iter().all(|node| node.host_name.ends_with(".tailscale.com"))
}

fn number(format: MapFormat, id: i64, _: &ParsedRegion) -> Verdict {
    if (1..=LARGEST_ID).contains(&id) {
        return None;
    }
    let effect = match id {
        0 => "0 means \"no region\" to clients: none connects to it",
        _ => "Tailscale asks for 1 to 2^53-1; what its clients make of others is chance",
    };
    let finding = Finding::error(FindingCode::RegionIdInvalid, format!("{id} is no number for a region"))
        .effect(effect)
        .fix(format!("use one of 900 to 999 as the key and as {}", format.spell("RegionID")));
    Some((finding, ""))
}

fn number_range(format: MapFormat, id: i64, region: &ParsedRegion) -> Verdict {
    if OWN_IDS.contains(&id) {
        return (format == MapFormat::Headscale && id == EMBEDDED_ID).then(|| {
            let finding = Finding::warning(
                FindingCode::RegionIdEmbedded,
                "999 is the number of Headscale's own \
                relay",
            )
            .effect(
                "with derp.server.enabled that one replaces this region, unless \
                    derp.server.region_id is another",
            )
            .fix("use another number of 900 to 998");
            (finding, "")
        });
    }
    if is_tailscales(region) {
        return None;
    }
    let finding = Finding::warning(FindingCode::RegionIdRange, format!("{id} is outside of 900 to 999"))
        .effect(
            "the others are Tailscale's: where both are used, one region replaces the other, today \
            or when Tailscale opens its region with this number",
        )
        .fix("use one of 900 to 999; a new number is a new region, so every client of it moves once");
    Some((finding, ""))
}

/// Clients connect by the key. What they measure over STUN counts for the nodes' `RegionID`, what they measure over
/// HTTPS for the region's, and their STUN probes are kept by the region's.
fn number_mismatch(format: MapFormat, id: i64, region: &ParsedRegion) -> Verdict {
    if region.id == id {
        return None;
    }
    let name = format.spell("RegionID");
    let message = match region.id {
        0 => format!("{name} is missing"),
        other => format!("{name} is {other}, the key is {id}"),
    };
    let finding = Finding::error(FindingCode::RegionIdMismatch, message)
        .effect(
            "clients whose UDP is blocked choose this number for their home, which is no region or another \
            one, and nobody reaches them; of two regions with one number the others measure one only",
        )
        .fix(format!("write {name}: {id}"));
    Some((finding, "RegionID"))
}

fn names(format: MapFormat, region: &ParsedRegion) -> Verdict {
    let missing: Vec<_> = [("RegionCode", &region.code), ("RegionName", &region.name)]
        .into_iter()
        .filter(|(name, text)| text.trim().is_empty() && !region.lines.is_unread(&[name]))
        .map(|(name, _)| format.spell(name))
        .collect();
    if missing.is_empty() {
        return None;
    }
    let finding =
        Finding::warning(FindingCode::RegionUnnamed, format!("there is no {}", missing.join(" and no ")))
            .effect("tailscale netcheck, status and ping show a blank where the region is meant")
            .fix("give a short code such as \"fra\" and a name such as \"Frankfurt\"");
    Some((finding, ""))
}

fn coordinates(format: MapFormat, region: &ParsedRegion) -> Verdict {
    if region.lines.is_unread(&["Longitude"]) {
        return None;
    }
    let on_earth = (-90.0..=90.0).contains(&region.latitude) && (-180.0..=180.0).contains(&region.longitude);
    if on_earth {
        return None;
    }
    let message = format!("latitude {}, longitude {}", region.latitude, region.longitude);
    // YAML has infinities and "not a number".
    let finding = match region.latitude.is_finite() && region.longitude.is_finite() {
        true => Finding::warning(FindingCode::Coordinates, message)
            .effect("the place is not on Earth; exit node suggestions that go by distance are wrong"),
        false => Finding::error(FindingCode::Coordinates, message)
            .effect("JSON has no such number, so Headscale can send its map to no client"),
    };
    let finding = finding.fix(format!(
        "{} is -90 to 90, {} -180 to 180",
        format.spell("Latitude"),
        format.spell("Longitude")
    ));
    Some((finding, "Latitude"))
}

/// A full report (`makeProbePlanInitial`) does not look at Avoid, an incremental one (`sortRegions`) does.
fn avoid(format: MapFormat, region: &ParsedRegion) -> Verdict {
    region.avoid.then(|| {
        let name = format.spell("Avoid");
        let finding = Finding::warning(FindingCode::Avoid, format!("{name} is set"))
            .effect(
                "Tailscale has given it up: clients still measure the region at times and may make \
                it their home",
            )
            .fix(format!("use {} instead", format.spell("NoMeasureNoHome")));
        (finding, "Avoid")
    })
}

fn relays(format: MapFormat, region: &ParsedRegion) -> Verdict {
    let nodes = format.spell("Nodes");
    if !region.null_nodes.is_empty() {
        // Worse, and reported.
        return None;
    }
    if region.nodes.is_empty() {
        let message = if region.lines.has("Nodes") {
            format!("{nodes} is empty")
        } else {
            format!("{nodes} is missing")
        };
        let finding = Finding::error(FindingCode::NoNodes, message)
            .effect("no client can connect to the region")
            .fix("give it a node, or take the region out");
        return Some((finding, "Nodes"));
    }
    if region.nodes.iter().any(|node| node.lines.is_unread(&["STUNOnly"])) {
        return None;
    }
    match region.relays().count() {
        0 => {
            let finding =
                Finding::error(FindingCode::NoRelay, format!("every node has {}", format.spell("STUNOnly")))
                    .effect(
                        "clients measure the region and may make it their home, where nothing relays: \
                    nobody reaches them",
                    )
                    .fix(format!("add a relay, or set {} for the region", format.spell("NoMeasureNoHome")));
            Some((finding, "Nodes"))
        }
        1 => None,
        _ if is_tailscales(region) => None,
        relays => {
            let shuffle = match format {
                MapFormat::Headscale => {
                    ". Headscale shuffles the order at each refresh, which disconnects all clients of \
                        the region and spreads them anew"
                }
                MapFormat::Json => {
                    ". Headscale shuffles the order at each refresh of derp.urls, which disconnects all \
                        clients of the region and spreads them anew"
                }
                MapFormat::TailscalePolicy => "",
            };
            let finding = Finding::warning(FindingCode::SeveralRelays, format!("the region has {relays} relays"))
                .effect(format!(
                    "a client stays with the first one that it can connect to; two clients on different \
                        relays do not hear each other unless the relays forward to each other (a mesh){shuffle}"
                ))
                .fix("mesh the relays, or make each of them a region of its own");
            Some((finding, "Nodes"))
        }
    }
}

/// `derphttp` says to the relay whether it is the first node, STUN only or not.
fn first_relay(region: &ParsedRegion) -> Verdict {
    let first_is_relay = region.nodes.first().is_none_or(|node| !node.stun_only);
    if first_is_relay || !region.null_nodes.is_empty() || region.relays().next().is_none() {
        return None;
    }
    let finding = Finding::warning(FindingCode::StunOnlyFirst, "the first node answers STUN only")
        .effect(
            "clients take the first node for the ideal one and tell each relay that it is second \
            choice; what they measure over HTTPS and ICMP is not the relay that they use",
        )
        .fix("put a relay first");
    Some((finding, "Nodes"))
}
