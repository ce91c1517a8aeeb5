//! The rules by which nftables behaves as a NAT of each class. All are loaded in one step, in place of those before.
//!
//! Plain `masquerade` and `snat` keep a mapping for every destination, because the kernel uses the mapping of a source again
//! where that is unique, and filter by exact flow. The other classes choose the port with `random` or with a map, which skips
//! that, or let more in by sets of what has been seen. The map of ports in sequence is written out: `numgen` without one gives
//! ports with their bytes swapped.

use std::fmt::Write;
use std::net::IpAddr;

use towpath_sim::Class;

/// How long the sets of wide filters remember, as long as RFC 4787 wants of a mapping at least (REQ-5).
const REMEMBERED: &str = "flags dynamic,timeout; timeout 120s; size 65536;";

/// The ports of a NAT that does not preserve them. Each rebinding takes others.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ports {
    /// How often the NAT was bound to new ports.
    pub(crate) rebindings: u16,
}

impl Ports {
    /// The first port, below which there are enough for those of the system.
    const fn first(self) -> u16 {
        20_000 + Self::COUNT * (self.rebindings % 10)
    }

    /// The number of ports that are chosen among.
    const COUNT: u16 = 4000;
    /// The number of ports of a subscriber's block.
    const BLOCK: u16 = 512;

    /// A range of nftables.
    fn range(self, count: u16) -> String {
        format!("{}-{}", self.first(), self.first() + (count - 1))
    }

    /// A map of nftables from a number to a port.
    fn map(self) -> String {
        let mut map = String::from("map {");
        for slot in 0..Self::COUNT {
            // Writing to a string does not fail.
            _ = write!(map, "{}{slot} : {}", if slot == 0 { " " } else { ", " }, self.first() + slot);
        }
        map + " }"
    }
}

/// The rules of a NAT of a class with an address outside. Its interfaces are `wan` and `lan`.
pub(crate) fn rules(class: Class, address: IpAddr, ports: Ports) -> String {
    let (tables, early) = (tables(class, address, ports), class != Class::Poisonable);
    let early = if early { DROPPED_EARLY } else { "" };
    format!("flush ruleset\n{tables}{early}")
}

/// What is for the NAT itself: with these rules, no early packet takes a port of a later flow.
const DROPPED_EARLY: &str = "table inet inp {
 chain i { type filter hook input priority 0;
  iifname \"wan\" ct state established,related accept
  iifname \"wan\" drop
 }
}
";

/// What comes from outside must be of a flow from inside.
const EXACT: &str = "table ip flt {
 chain f { type filter hook forward priority 0;
  iifname \"wan\" ct state established,related accept
  iifname \"wan\" drop
 }
}
";

fn tables(class: Class, address: IpAddr, ports: Ports) -> String {
    let udp = |rule: &str| mapping(&format!("  oifname \"wan\" meta l4proto udp {rule}\n")) + EXACT;
    // A NAT that preserves ports does not after it was bound to new ones.
    let preserved = || match ports.rebindings {
        0 => udp("masquerade"),
        _ => udp(&format!("masquerade to :{}", ports.range(Ports::COUNT))),
    };
    match class {
        Class::O => String::new(),
        Class::F => full_cone(address, ports),
        Class::A => full_cone(address, ports) + &address_filter(),
        Class::P | Class::Poisonable => preserved(),
        Class::M => ADDRESS_DEPENDENT.to_owned() + EXACT,
        Class::S => udp(&format!("snat to {address} : numgen inc mod {} {}", Ports::COUNT, ports.map())),
        Class::B => udp(&format!("masquerade to :{} fully-random", ports.range(Ports::BLOCK))),
        Class::R => udp("masquerade fully-random"),
        Class::X => preserved() + NO_UDP,
        Class::V6 => FIREWALL.to_owned(),
    }
}

/// The table that translates: UDP by a rule, everything else with ports preserved.
fn mapping(rule: &str) -> String {
    format!(
        "table ip nat {{
 chain post {{ type nat hook postrouting priority srcnat;
{rule}  oifname \"wan\" masquerade
 }}
}}
"
    )
}

/// Endpoint-independent mapping and filtering. The external port of each flow is learned once it is chosen. The kernel by
/// itself would give two hosts with the same port inside the same one outside, towards different destinations; here an endpoint
/// whose port is taken gets another one.
fn full_cone(address: IpAddr, ports: Ports) -> String {
    let is_taken = if ports.rebindings == 0 { "udp sport @taken " } else { "" };
    let range = ports.range(Ports::COUNT);
    format!(
        "table ip nat {{
 map eim {{ type inet_service : ipv4_addr . inet_service; {REMEMBERED} }}
 set mapped {{ type ipv4_addr . inet_service; {REMEMBERED} }}
 set taken {{ type inet_service; {REMEMBERED} }}
 chain pre {{ type nat hook prerouting priority dstnat;
  iifname \"wan\" meta l4proto udp dnat ip to udp dport map @eim
 }}
 chain post {{ type nat hook postrouting priority srcnat;
  oifname \"wan\" ip saddr . udp sport @mapped snat to {address}
  oifname \"wan\" meta l4proto udp {is_taken}snat to {address}:{range} fully-random
  oifname \"wan\" snat to {address}
 }}
 chain learn {{ type filter hook postrouting priority 300;
  oifname \"wan\" meta l4proto udp ct status snat update @eim {{ ct reply proto-dst : ct original ip saddr . ct original proto-src }}
  oifname \"wan\" meta l4proto udp ct status snat update @mapped {{ ct original ip saddr . ct original proto-src }}
  oifname \"wan\" meta l4proto udp ct status snat update @taken {{ ct reply proto-dst }}
 }}
}}
"
    )
}

/// A random port for each destination address, which is learned once it is chosen.
const ADDRESS_DEPENDENT: &str = "table ip nat {
 map adm { type ipv4_addr . inet_service . ipv4_addr : inet_service; flags dynamic,timeout; timeout 120s; size 65536; }
 chain post { type nat hook postrouting priority srcnat;
  oifname \"wan\" meta l4proto udp masquerade to : ip saddr . udp sport . ip daddr map @adm
  oifname \"wan\" meta l4proto udp masquerade fully-random
  oifname \"wan\" masquerade
 }
 chain learn { type filter hook postrouting priority 300;
  oifname \"wan\" meta l4proto udp ct status snat update @adm { ct original ip saddr . ct original proto-src . ct original ip daddr : ct reply proto-dst }
 }
}
";

/// What comes from outside must be from an address that the endpoint inside has sent to.
fn address_filter() -> String {
    format!(
        "table ip flt {{
 set seen {{ type ipv4_addr . inet_service . ipv4_addr; {REMEMBERED} }}
 chain f {{ type filter hook forward priority 0;
  oifname \"wan\" meta l4proto udp update @seen {{ ip saddr . udp sport . ip daddr }}
  iifname \"wan\" ct state established,related accept
  iifname \"wan\" ip daddr . udp dport . ip saddr @seen accept
  iifname \"wan\" drop
 }}
}}
"
    )
}

const NO_UDP: &str = "table ip blocked {
 chain f { type filter hook forward priority 0;
  meta l4proto udp drop
 }
}
";

const FIREWALL: &str = "table ip6 fw {
 chain f { type filter hook forward priority 0; policy drop;
  ct state established,related accept
  iifname \"lan\" accept
  meta l4proto ipv6-icmp accept
 }
}
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ports_of_every_rebinding_are_ports() {
        for rebindings in 0..20 {
            let ports = Ports { rebindings };
            let (first, last) = (ports.first(), ports.first() + (Ports::COUNT - 1));
            assert!(first >= 20_000 && ports.range(Ports::COUNT) == format!("{first}-{last}"));
            assert!(ports.map().starts_with(&format!("map {{ 0 : {first}, 1 : {}, ", first + 1)));
            assert!(ports.map().ends_with(&format!(", 3999 : {last} }}")));
        }
    }
}
