//! The DERP map: which relays there are, by region, as clients get it from their control server.
//!
//! The types carry the JSON names of Tailscale's `tailcfg.DERPMap`, so that a map reads and writes as theirs does. The
//! same map is written in three forms, for the three places where operators put it: [JSON](DerpMap::to_json) (Headscale's
//! `derp.urls`, `tailscale debug`), [YAML](DerpMap::to_headscale_yaml) (a file of Headscale's `derp.paths`) and
//! [HuJSON](DerpMap::to_tailscale_policy) (Tailscale's policy file). Equal maps give equal bytes.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::RangeInclusive;

use serde::{Deserialize, Deserializer, Serialize};

/// The number of a region: 1 to [`REGION_ID_MAX`].
pub type RegionId = u64;

/// The largest number of a region, 2^53−1: the largest up to which JavaScript has all whole numbers.
pub const REGION_ID_MAX: RegionId = (1 << 53) - 1;

/// The numbers set aside for regions of an operator's own relays (`tailcfg.DERPRegion.RegionID`).
pub const OWN_REGION_IDS: RangeInclusive<RegionId> = 900..=999;

/// In `ipv4` or `ipv6`: do not use that address family. Anything that is not an address has this effect; this is the
/// usual word.
pub const NO_ADDRESS: &str = "none";

/// In `stun_port`: no STUN on this node.
pub const NO_STUN: i32 = -1;

/// Every region that clients may use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DerpMap {
    /// Weights for the choice of a home region.
    #[serde(rename = "HomeParams", skip_serializing_if = "Option::is_none")]
    pub home_params: Option<HomeParams>,
    /// The regions by number. `null` removes a region that an earlier source of the map gave.
    #[serde(rename = "Regions", deserialize_with = "null_is_default")]
    pub regions: BTreeMap<RegionId, Option<DerpRegion>>,
    /// Whether this map replaces the default regions of its receiver instead of adding to them.
    #[serde(rename = "omitDefaultRegions", skip_serializing_if = "is_default")]
    pub omit_default_regions: bool,
}

/// Weights for the choice of a home region.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct HomeParams {
    /// By region: a factor on the measured latency. Below 1 attracts, above 1 repels.
    #[serde(deserialize_with = "null_is_default")]
    pub region_score: BTreeMap<RegionId, f64>,
}

/// Relays that are one place to a client: close to each other, and forwarding to each other's clients.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DerpRegion {
    /// The number; equal to the key in the map.
    #[serde(rename = "RegionID")]
    pub region_id: RegionId,
    /// The short name, such as `fra`.
    pub region_code: String,
    /// The name for people, such as `Frankfurt`.
    pub region_name: String,
    /// Degrees north.
    #[serde(skip_serializing_if = "is_default")]
    pub latitude: f64,
    /// Degrees east.
    #[serde(skip_serializing_if = "is_default")]
    pub longitude: f64,
    /// Whether clients should not make this their home.
    #[serde(skip_serializing_if = "is_default")]
    pub avoid: bool,
    /// Whether clients should neither measure the latency to this region nor make it their home.
    #[serde(skip_serializing_if = "is_default")]
    pub no_measure_no_home: bool,
    /// The relays, in the order in which clients try them.
    #[serde(deserialize_with = "null_is_default")]
    pub nodes: Vec<DerpNode>,
}

/// One relay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DerpNode {
    /// A name unique in the map, by custom the region's number and a letter: `900a`.
    pub name: String,
    /// The number of the region that the node is in.
    #[serde(rename = "RegionID")]
    pub region_id: RegionId,
    /// The name that clients send (SNI) and, unless `cert_name` says otherwise, expect in the certificate. No scheme.
    pub host_name: String,
    /// Another name to expect in the certificate, or a [pin](crate::pin::CertificatePin).
    #[serde(skip_serializing_if = "is_default")]
    pub cert_name: String,
    /// The address, or [`NO_ADDRESS`]. Empty: clients ask the DNS for `host_name`.
    #[serde(rename = "IPv4", skip_serializing_if = "is_default")]
    pub ipv4: String,
    /// The address, or [`NO_ADDRESS`]. Empty: clients ask the DNS for `host_name`.
    #[serde(rename = "IPv6", skip_serializing_if = "is_default")]
    pub ipv6: String,
    /// The UDP port of STUN; 0 is 3478, [`NO_STUN`] is none.
    #[serde(rename = "STUNPort", skip_serializing_if = "is_default")]
    pub stun_port: i32,
    /// Whether the node answers STUN only and relays nothing.
    #[serde(rename = "STUNOnly", skip_serializing_if = "is_default")]
    pub stun_only: bool,
    /// The TCP port of the relay; 0 is 443.
    #[serde(rename = "DERPPort", skip_serializing_if = "is_default")]
    pub derp_port: u16,
    /// Whether clients believe any certificate. Meant for upstream's own tests and honoured outside of them, too; a
    /// [pin](crate::pin::CertificatePin) is checked all the same.
    #[serde(skip_serializing_if = "is_default")]
    pub insecure_for_tests: bool,
    /// The address at which clients ask for STUN instead of the node's own. Meant for upstream's own tests.
    #[serde(rename = "STUNTestIP", skip_serializing_if = "is_default")]
    pub stun_test_ip: String,
    /// Whether the node answers the captive-portal challenge on TCP port 80.
    #[serde(skip_serializing_if = "is_default")]
    pub can_port80: bool,
}

impl DerpMap {
    /// A map of this one region, under its own number.
    #[must_use]
    pub fn of(region: DerpRegion) -> Self {
        Self { regions: BTreeMap::from([(region.region_id, Some(region))]), ..Self::default() }
    }

    /// The map as Tailscale's clients and `derp.urls` of Headscale read it: indented JSON and a line end.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut json =
            serde_json::to_string_pretty(self).expect("string and integer keys, finite numbers or null");
        json.push('\n');
        json
    }

    /// The map as a file for Headscale's `derp.paths`: YAML with lower-case names, where `HomeParams` and
    /// `omitDefaultRegions` do not exist. Every text is quoted, since YAML takes `no` and `1e3` for something else.
    #[must_use]
    pub fn to_headscale_yaml(&self) -> String {
        let mut yaml = Yaml(String::new());
        if self.regions.is_empty() {
            yaml.line(0, "regions: {}");
            return yaml.0;
        }
        yaml.line(0, "regions:");
        for (id, region) in &self.regions {
            match region {
                Some(region) => {
                    yaml.line(2, &format!("{id}:"));
                    yaml.region(region);
                }
                None => yaml.line(2, &format!("{id}: null")),
            }
        }
        yaml.0
    }

    /// The map as the `derpMap` member of Tailscale's policy file, to be pasted between two other members: HuJSON, tab
    /// indented, with a trailing comma. It adds to Tailscale's own regions unless `omit_default_regions` is set.
    #[must_use]
    pub fn to_tailscale_policy(&self) -> String {
        let mut fragment = String::from("\t\"derpMap\": ");
        let mut json = Vec::new();
        let tabs = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        self.serialize(&mut serde_json::Serializer::with_formatter(&mut json, tabs))
            .expect("string and integer keys, finite numbers or null");
        let json = String::from_utf8(json).expect("serde_json writes UTF-8");
        // Line ends inside strings are escaped, so these are all between tokens.
        fragment.push_str(&json.replace('\n', "\n\t"));
        fragment.push_str(",\n");
        fragment
    }
}

/// YAML in block style, as far as a DERP map needs it. Members with their default value are left out, as in JSON.
struct Yaml(String);

impl Yaml {
    fn region(&mut self, region: &DerpRegion) {
        const INDENT: usize = 4;
        self.member(INDENT, "regionid", region.region_id);
        self.member(INDENT, "regioncode", quoted(&region.region_code));
        self.member(INDENT, "regionname", quoted(&region.region_name));
        self.member_unless_default(INDENT, "latitude", region.latitude);
        self.member_unless_default(INDENT, "longitude", region.longitude);
        self.member_unless_default(INDENT, "avoid", region.avoid);
        self.member_unless_default(INDENT, "nomeasurenohome", region.no_measure_no_home);
        if region.nodes.is_empty() {
            self.line(INDENT, "nodes: []");
            return;
        }
        self.line(INDENT, "nodes:");
        for node in &region.nodes {
            self.node(node);
        }
    }

    fn node(&mut self, node: &DerpNode) {
        const INDENT: usize = 8;
        self.line(INDENT - 2, &format!("- name: {}", quoted(&node.name)));
        self.member(INDENT, "regionid", node.region_id);
        self.member(INDENT, "hostname", quoted(&node.host_name));
        for (name, text) in [("certname", &node.cert_name), ("ipv4", &node.ipv4), ("ipv6", &node.ipv6)] {
            if !text.is_empty() {
                self.member(INDENT, name, quoted(text));
            }
        }
        self.member_unless_default(INDENT, "stunport", node.stun_port);
        self.member_unless_default(INDENT, "stunonly", node.stun_only);
        self.member_unless_default(INDENT, "derpport", node.derp_port);
        self.member_unless_default(INDENT, "insecurefortests", node.insecure_for_tests);
        if !node.stun_test_ip.is_empty() {
            self.member(INDENT, "stuntestip", quoted(&node.stun_test_ip));
        }
        self.member_unless_default(INDENT, "canport80", node.can_port80);
    }

    fn member_unless_default<T: Default + PartialEq + std::fmt::Display>(
        &mut self,
        indent: usize,
        name: &str,
        value: T,
    ) {
        if !is_default(&value) {
            self.member(indent, name, value);
        }
    }

    fn member(&mut self, indent: usize, name: &str, value: impl std::fmt::Display) {
        self.line(indent, &format!("{name}: {value}"));
    }

    fn line(&mut self, indent: usize, text: &str) {
        writeln!(self.0, "{:indent$}{text}", "").expect("writing to a String cannot fail");
    }
}

/// Text as a double-quoted YAML scalar (YAML 1.2.2 section 7.3.1).
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            // Not printable in YAML, or line ends to it: section 5.1 and 5.4.
            c if c.is_control()
                || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}') =>
            {
                write!(quoted, "\\u{:04x}", u32::from(c)).expect("writing to a String cannot fail");
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Go writes an empty slice or map as `null`.
fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pin::CertificatePin;

    fn frankfurt() -> DerpMap {
        DerpMap::of(DerpRegion {
            region_id: 901,
            region_code: "fra".into(),
            region_name: "Frankfurt \"am Main\"".into(),
            nodes: vec![
                DerpNode {
                    name: "901b".into(),
                    region_id: 901,
                    host_name: "relay.example.com".into(),
                    can_port80: true,
                    ..DerpNode::default()
                },
                DerpNode {
                    name: "901a".into(),
                    region_id: 901,
                    host_name: "203.0.113.7".into(),
                    cert_name: CertificatePin::from_sha256([0xab; 32]).to_string(),
                    ipv4: "203.0.113.7".into(),
                    ipv6: NO_ADDRESS.into(),
                    stun_port: NO_STUN,
                    derp_port: 8443,
                    ..DerpNode::default()
                },
            ],
            ..DerpRegion::default()
        })
    }

    /// Every member set to something other than its default.
    fn full() -> DerpMap {
        let mut map = DerpMap::of(DerpRegion {
            region_id: 1,
            region_code: "no".into(),
            region_name: "1e3".into(),
            latitude: 50.11,
            longitude: -8.5,
            avoid: true,
            no_measure_no_home: true,
            nodes: vec![DerpNode {
                name: "1a".into(),
                region_id: 1,
                host_name: "a.example".into(),
                cert_name: "b.example".into(),
                ipv4: "192.0.2.1".into(),
                ipv6: "2001:db8::1".into(),
                stun_port: 3479,
                stun_only: true,
                derp_port: 444,
                insecure_for_tests: true,
                stun_test_ip: "192.0.2.2".into(),
                can_port80: true,
            }],
        });
        map.regions.insert(2, None);
        map.home_params = Some(HomeParams { region_score: BTreeMap::from([(1, 0.5)]) });
        map.omit_default_regions = true;
        map
    }

    #[test]
    fn json_is_tailscales() {
        let expected = r#"{
  "Regions": {
    "901": {
      "RegionID": 901,
      "RegionCode": "fra",
      "RegionName": "Frankfurt \"am Main\"",
      "Nodes": [
        {
          "Name": "901b",
          "RegionID": 901,
          "HostName": "relay.example.com",
          "CanPort80": true
        },
        {
          "Name": "901a",
          "RegionID": 901,
          "HostName": "203.0.113.7",
          "CertName": "sha256-raw:abababababababababababababababababababababababababababababababab",
          "IPv4": "203.0.113.7",
          "IPv6": "none",
          "STUNPort": -1,
          "DERPPort": 8443
        }
      ]
    }
  }
}
"#;
        assert_eq!(frankfurt().to_json(), expected);
    }

    #[test]
    fn every_json_name_is_tailscales() {
        let json: serde_json::Value = serde_json::from_str(&full().to_json()).unwrap();
        let expected = serde_json::json!({
            "HomeParams": { "RegionScore": { "1": 0.5 } },
            "Regions": {
                "1": {
                    "RegionID": 1, "RegionCode": "no", "RegionName": "1e3", "Latitude": 50.11, "Longitude": -8.5,
                    "Avoid": true, "NoMeasureNoHome": true,
                    "Nodes": [{
                        "Name": "1a", "RegionID": 1, "HostName": "a.example", "CertName": "b.example",
                        "IPv4": "192.0.2.1", "IPv6": "2001:db8::1", "STUNPort": 3479, "STUNOnly": true,
                        "DERPPort": 444, "InsecureForTests": true, "STUNTestIP": "192.0.2.2", "CanPort80": true,
                    }],
                },
                "2": null,
            },
            "omitDefaultRegions": true,
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn json_reads_back() {
        for map in [DerpMap::default(), frankfurt(), full()] {
            assert_eq!(serde_json::from_str::<DerpMap>(&map.to_json()).unwrap(), map);
        }
    }

    #[test]
    fn json_of_go_reads() {
        let json =
            r#"{"Regions":{"900":{"RegionID":900,"RegionCode":"x","RegionName":"X","Nodes":null,"New":1}}}"#;
        let map: DerpMap = serde_json::from_str(json).unwrap();
        assert_eq!(map.regions[&900].as_ref().map(|region| region.nodes.len()), Some(0));
        assert_eq!(serde_json::from_str::<DerpMap>(r#"{"Regions":null}"#).unwrap(), DerpMap::default());
        assert!(serde_json::from_str::<DerpMap>(r#"{"Regions":{"-1":null}}"#).is_err());
    }

    #[test]
    fn yaml_is_headscales() {
        let expected = r#"regions:
  901:
    regionid: 901
    regioncode: "fra"
    regionname: "Frankfurt \"am Main\""
    nodes:
      - name: "901b"
        regionid: 901
        hostname: "relay.example.com"
        canport80: true
      - name: "901a"
        regionid: 901
        hostname: "203.0.113.7"
        certname: "sha256-raw:abababababababababababababababababababababababababababababababab"
        ipv4: "203.0.113.7"
        ipv6: "none"
        stunport: -1
        derpport: 8443
"#;
        assert_eq!(frankfurt().to_headscale_yaml(), expected);
    }

    #[test]
    fn every_yaml_name_is_headscales() {
        let expected = r#"regions:
  1:
    regionid: 1
    regioncode: "no"
    regionname: "1e3"
    latitude: 50.11
    longitude: -8.5
    avoid: true
    nomeasurenohome: true
    nodes:
      - name: "1a"
        regionid: 1
        hostname: "a.example"
        certname: "b.example"
        ipv4: "192.0.2.1"
        ipv6: "2001:db8::1"
        stunport: 3479
        stunonly: true
        derpport: 444
        insecurefortests: true
        stuntestip: "192.0.2.2"
        canport80: true
  2: null
"#;
        assert_eq!(full().to_headscale_yaml(), expected);
        assert_eq!(DerpMap::default().to_headscale_yaml(), "regions: {}\n");
    }

    #[test]
    fn yaml_text_cannot_escape_its_quotes() {
        assert_eq!(quoted("a\"b\\c\nd\u{85}\u{2028}é"), r#""a\"b\\c\u000ad\u0085\u2028é""#);
    }

    #[test]
    fn policy_fragment_fits_between_members() {
        let mut map = frankfurt();
        map.regions.get_mut(&901).unwrap().as_mut().unwrap().nodes.truncate(1);
        let expected = r#"	"derpMap": {
		"Regions": {
			"901": {
				"RegionID": 901,
				"RegionCode": "fra",
				"RegionName": "Frankfurt \"am Main\"",
				"Nodes": [
					{
						"Name": "901b",
						"RegionID": 901,
						"HostName": "relay.example.com",
						"CanPort80": true
					}
				]
			}
		}
	},
"#;
        assert_eq!(map.to_tailscale_policy(), expected);
    }
}
