//! The names of findings and of differences. Scripts may rely on them, and `docs/derpmap.md` explains each.

use std::fmt;

use serde::{Serialize, Serializer};
use towpath_wire::labels;

labels! {
    /// The rule of a finding.
    #[derive(PartialOrd, Ord)]
    pub enum FindingCode {
        /// Comments, trailing commas, a byte order mark or control characters that the reader does not take.
        NotStrictJson = "not-strict-json",
        /// Bytes in a text that are not UTF-8.
        NotUtf8 = "not-utf8",
        /// A value of another type than its reader asks for.
        WrongType = "wrong-type",
        /// A number in quotes.
        QuotedNumber = "quoted-number",
        /// A number that looks like another one.
        NumberForm = "number-form",
        /// A name that comes twice.
        DuplicateKey = "duplicate-key",
        /// A known name in other letters.
        WrongCase = "wrong-case",
        /// A name that no reader knows.
        UnknownKey = "unknown-key",
        /// A member of a node or a region that stands outside of it.
        MisplacedKey = "misplaced-key",
        /// A second YAML document in the file.
        SecondDocument = "second-document",
        /// A member that Headscale drops.
        DroppedByHeadscale = "dropped-by-headscale",
        /// No map at all, or one without regions.
        NoRegions = "no-regions",
        /// A region that is `null`.
        NullRegion = "null-region",
        /// A key of `Regions`, or a `RegionID`, that is no region's number.
        RegionIdInvalid = "region-id-invalid",
        /// A region whose `RegionID` is not its key.
        RegionIdMismatch = "region-id-mismatch",
        /// A number outside of those for relays of one's own.
        RegionIdRange = "region-id-range",
        /// The number of Headscale's own relay.
        RegionIdEmbedded = "region-id-embedded",
        /// No short name for a region, or no name for people.
        RegionUnnamed = "region-unnamed",
        /// Two regions with one short name.
        DuplicateRegionCode = "duplicate-region-code",
        /// Coordinates that are not on Earth.
        Coordinates = "coordinates",
        /// `Avoid` is set.
        Avoid = "avoid",
        /// No region may be a home.
        NoHome = "no-home",
        /// A weight without effect.
        RegionScore = "region-score",
        /// A region without nodes.
        NoNodes = "no-nodes",
        /// A region whose nodes answer STUN only.
        NoRelay = "no-relay",
        /// A region whose first node answers STUN only.
        StunOnlyFirst = "stun-only-first",
        /// A region with several relays.
        SeveralRelays = "several-relays",
        /// A region of which no node answers STUN.
        NoStun = "no-stun",
        /// A node that is `null`.
        NullNode = "null-node",
        /// A node without a name.
        NodeUnnamed = "node-unnamed",
        /// Two nodes with one name.
        DuplicateNodeName = "duplicate-node-name",
        /// A node whose `RegionID` is not its region's.
        NodeRegionMismatch = "node-region-mismatch",
        /// A node without a `HostName`.
        HostNameMissing = "host-name-missing",
        /// A `HostName` that is more or less than a name or an address.
        HostNameForm = "host-name-form",
        /// A `HostName` that is an address, without a pin.
        AddressWithoutPin = "address-without-pin",
        /// An `IPv4` or `IPv6` that is neither an address of that family nor `none`.
        AddressForm = "address-form",
        /// Neither IPv4 nor IPv6 leads to the node.
        NoAddress = "no-address",
        /// An address that means another host, or none, to most clients.
        PrivateAddress = "private-address",
        /// A `CertName` that is close to a pin.
        PinForm = "pin-form",
        /// A `CertName` that is neither a pin nor a name.
        CertNameForm = "cert-name-form",
        /// `InsecureForTests` is set.
        Insecure = "insecure",
        /// A `DERPPort` that is not a TCP port.
        DerpPortRange = "derp-port-range",
        /// `STUNPort` is 0, which does not mean off.
        StunPortZero = "stun-port-zero",
        /// A `STUNPort` that is neither a UDP port nor -1.
        StunPortRange = "stun-port-range",
        /// `STUNTestIP` is set.
        StunTestIp = "stun-test-ip",
        /// `CanPort80` without an IPv4 address.
        Port80WithoutIpv4 = "port80-without-ipv4",
    }
}

labels! {
    /// The kind of a difference between two maps.
    #[derive(PartialOrd, Ord)]
    pub enum Difference {
        /// The first map leaves Tailscale's regions, the second one does not have them.
        DefaultRegionsOmitted = "default-regions-omitted",
        /// The first map does without Tailscale's regions, the second one has them.
        DefaultRegionsAdded = "default-regions-added",
        /// A region is gone.
        RegionRemoved = "region-removed",
        /// A region has another number.
        RegionRenumbered = "region-renumbered",
        /// A region is new.
        RegionAdded = "region-added",
        /// A node is gone.
        NodeRemoved = "node-removed",
        /// A node is new.
        NodeAdded = "node-added",
        /// The nodes of a region stand in another order.
        NodeOrder = "node-order",
        /// A node is null.
        NullNode = "node-null",
        /// `HostName`.
        HostChanged = "host-changed",
        /// `DERPPort`.
        PortChanged = "port-changed",
        /// `CertName`.
        PinChanged = "pin-changed",
        /// `IPv4` or `IPv6`.
        AddressChanged = "address-changed",
        /// `STUNOnly`.
        RelayChanged = "relay-changed",
        /// `InsecureForTests`.
        SecurityChanged = "security-changed",
        /// `STUNPort` or `STUNTestIP`.
        StunChanged = "stun-changed",
        /// `RegionID` of a region or of a node, the key being the same.
        RegionIdChanged = "region-id-changed",
        /// `NoMeasureNoHome` or `Avoid`.
        HomeRuleChanged = "home-rule-changed",
        /// What people see, and how a port is written.
        Cosmetic = "cosmetic",
        /// The weights of regions.
        HomeParams = "home-params",
    }
}

/// Prints and serialises an enum of labels as its label.
macro_rules! print_as_label {
    ($($name:ident),+) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.label())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.label())
            }
        }
    )+};
}

print_as_label!(FindingCode, Difference);

impl FindingCode {
    /// Whether every reader refuses the whole file for it.
    pub(crate) fn refuses_file(self) -> bool {
        matches!(self, Self::NotStrictJson | Self::WrongType | Self::QuotedNumber)
    }
}
