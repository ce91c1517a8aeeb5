//! A port that the gateway of this host's network forwards: PCP (RFC 6887), NAT-PMP (RFC 6886) and UPnP-IGD.
//!
//! | what | file |
//! |---|---|
//! | which protocol is asked, when, and what follows from the answers | `mod.rs` |
//! | a port that was granted | `lease.rs` |
//! | the packets | `pcp.rs`, `nat_pmp.rs`, `answer.rs` |
//! | what the driver asks by UPnP-IGD | `upnp.rs` |
//! | what is known of it, for the user | `state.rs` |
//!
//! A new gateway is asked for a port by PCP and for its external address by NAT-PMP at once. NAT-PMP is asked for a port where
//! PCP is refused or has not been answered after 250 ms, and not before: miniupnpd, which speaks both, would replace the mapping
//! of PCP by that of NAT-PMP. UPnP-IGD, which keeps mappings of its own beside those of the others, is used where these are both
//! refused or not answered after 500 ms; what it grants when another protocol has granted meanwhile is given back.

mod answer;
mod lease;
mod nat_pmp;
mod pcp;
mod state;
#[cfg(test)]
mod tests;
mod upnp;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use towpath_wire::time::Instant;

use self::answer::{GatewayAnswer, Says, UNSUPPORTED_VERSION};
use self::lease::Lease;
use self::pcp::MapNonce;
pub use self::state::{PortMapping, PortProtocol};
pub use self::upnp::{UpnpAnswer, UpnpRequest};
use crate::config::GatewayConfig;
use crate::datagram::Transmit;
use crate::random::Random;

/// The port of a gateway, for both protocols.
const PORT: u16 = 5351;
/// The seconds for which a port is asked for, as RFC 6886 section 3.3 recommends.
const LIFETIME: u32 = 7200;
/// How long answers are waited for: the first times of RFC 6886 section 3.1 and of RFC 6887 section 8.1.1, without the random
/// part of the latter, which keeps apart what starts at the same time. Requests are not repeated for minutes, as these would
/// have it: a gateway that has not answered by then has no server.
const NAT_PMP_WAITS: [Duration; 4] =
    [Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];
const PCP_WAITS: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(6)];
/// When UPnP-IGD is used at the latest, unless another protocol has granted a port: a gateway that speaks NAT-PMP has been asked for one
/// 250 ms before.
const UPNP_AFTER: Duration = Duration::from_millis(500);
/// How long the driver may take.
const UPNP_WAIT: Duration = Duration::from_secs(8);
/// When a gateway is asked again that has not answered or has refused without saying for how long.
const AGAIN: Duration = Duration::from_secs(600);
/// Bounds of the time after which a gateway is asked again that has said for how long it refuses (RFC 6887 section 7.4 recommends
/// 30 s to 30 minutes).
const REFUSED_LEAST: Duration = Duration::from_secs(30);
const REFUSED_MOST: Duration = Duration::from_secs(1800);

/// A request that is repeated until it is answered.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    /// How often it was sent.
    sent: usize,
    due: Instant,
}

/// Why there is no mapping, and when the gateway is asked again.
#[derive(Clone, Copy, Debug)]
struct Refusal {
    protocol: PortProtocol,
    result: u16,
    pause: Duration,
}

/// The exchange with the gateway.
#[derive(Debug, Default)]
pub(crate) struct PortMap {
    gateway: Option<GatewayConfig>,
    /// Random for each gateway: a request with another one is refused while the gateway knows the first (RFC 6887 section 11.3).
    nonce: MapNonce,
    /// What this gateway granted last.
    suggested: Option<SocketAddrV4>,
    pcp: Option<Waiting>,
    nat_pmp: Option<Waiting>,
    upnp: Option<Waiting>,
    /// What NAT-PMP has answered so far: the external address, and the port with its lifetime.
    address: Option<Ipv4Addr>,
    port: Option<(u16, u32)>,
    lease: Option<Lease>,
    refusal: Option<Refusal>,
    again_at: Option<Instant>,
    out: Vec<(Transmit, Vec<u8>)>,
}

impl PortMap {
    /// Takes the gateway. One that has no private address is no home router and is not asked.
    pub(crate) fn set_gateway(&mut self, gateway: Option<GatewayConfig>, now: Instant, random: &mut Random) {
        let gateway = gateway.filter(|gateway| gateway.address.is_private());
        if gateway != self.gateway {
            self.close();
            (self.gateway, self.nonce) = (gateway, random.bytes());
            self.ask(now);
        }
    }

    /// Gives the port back, and forgets the gateway.
    pub(crate) fn close(&mut self) {
        match self.lease.take().zip(self.gateway) {
            Some((Lease { protocol: PortProtocol::Pcp, .. }, gateway)) => {
                self.send(pcp::request(gateway.local, &self.nonce, None, 0));
            }
            Some((Lease { protocol: PortProtocol::NatPmp, .. }, gateway)) => {
                self.send(nat_pmp::request(gateway.local.port(), 0, 0));
            }
            Some((Lease { protocol: PortProtocol::Upnp, external, .. }, gateway)) => {
                self.unmap(gateway, external);
            }
            None => {}
        }
        *self = Self { out: std::mem::take(&mut self.out), ..Self::default() };
    }

    /// Asks anew in another network, in which this host has these addresses. If the one that the gateway knows is not among
    /// them, the gateway is out of reach.
    pub(crate) fn move_network(&mut self, interfaces: &[SocketAddr], now: Instant) {
        if self.gateway.is_some_and(|gateway| !interfaces.contains(&SocketAddr::V4(gateway.local))) {
            *self = Self::default();
        }
        self.ask(now);
    }

    /// Whether packets from `remote` are answers of the gateway.
    pub(crate) fn is_gateway(&self, remote: SocketAddr) -> bool {
        self.gateway.is_some_and(|gateway| remote == SocketAddr::from((gateway.address, PORT)))
    }

    /// What the gateway forwards to this node.
    pub(crate) fn external(&self) -> Option<SocketAddrV4> {
        self.lease.as_ref().map(|lease| lease.external)
    }

    /// What has come of it. `is_public`: whether the internet reaches what the gateway forwards.
    pub(crate) fn state(&self, is_public: bool) -> PortMapping {
        match (&self.lease, self.refusal) {
            _ if self.gateway.is_none() => PortMapping::NoGateway,
            (Some(lease), _) if is_public => {
                PortMapping::Granted { protocol: lease.protocol, external: lease.external }
            }
            (Some(lease), _) => PortMapping::Inner { protocol: lease.protocol, external: lease.external },
            _ if self.again_at.is_none() => PortMapping::Pending,
            (None, Some(refusal)) => {
                PortMapping::Refused { protocol: refusal.protocol, result: refusal.result }
            }
            (None, None) => PortMapping::Silent,
        }
    }

    /// What is to be sent.
    pub(crate) fn sent(&mut self) -> Vec<(Transmit, Vec<u8>)> {
        std::mem::take(&mut self.out)
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub(crate) fn due(&self) -> Option<Instant> {
        let waiting = [self.pcp, self.nat_pmp, self.upnp].map(|waiting| waiting.map(|waiting| waiting.due));
        let lease = self.lease.as_ref().map(|lease| lease.renew_at.min(lease.ends));
        waiting.into_iter().chain([lease, self.again_at]).flatten().min()
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let has_ended = self.lease.as_ref().is_some_and(|lease| lease.ends <= now);
        if has_ended || self.again_at.is_some_and(|at| at <= now) {
            self.ask(now);
        }
        if self.lease.as_ref().is_some_and(|lease| lease.renew_at <= now) {
            self.renew(now);
        }
        if self.pcp.is_some_and(|waiting| waiting.due <= now) {
            self.step_pcp(now);
        }
        if self.nat_pmp.is_some_and(|waiting| waiting.due <= now) {
            self.step_nat_pmp(now);
        }
        if self.upnp.is_some_and(|waiting| waiting.due <= now) {
            self.step_upnp(now);
        }
    }

    /// Asks the gateway whether it has started anew and so forgotten the port, unless it was asked of late.
    pub(crate) fn question(&mut self, now: Instant) {
        let Some((lease, gateway)) = self.lease.as_mut().zip(self.gateway) else { return };
        if lease.question(now) {
            let external = lease.external.port();
            match lease.protocol {
                PortProtocol::Pcp => self.send(pcp::question(gateway.local)),
                PortProtocol::NatPmp => self.send(nat_pmp::question()),
                // Nothing in the protocol tells it; what the gateway still forwards it grants again.
                PortProtocol::Upnp => self.map(gateway, Some(external)),
            }
        }
    }

    /// Takes a packet of the gateway. One that is not waited for says nothing.
    pub(crate) fn handle_answer(&mut self, packet: &[u8], now: Instant) {
        let Some((protocol, answer)) = self.read(packet) else { return };
        let is_waiting = match protocol {
            PortProtocol::Pcp => self.pcp.is_some(),
            PortProtocol::NatPmp => self.nat_pmp.is_some(),
            PortProtocol::Upnp => false,
        };
        let lease = self.lease.as_mut().filter(|lease| lease.protocol == protocol);
        if !is_waiting && !lease.as_ref().is_some_and(|lease| lease.is_awaited(now)) {
            return;
        }
        let external = lease.as_ref().map(|lease| *lease.external.ip());
        let has_restarted = lease.is_some_and(|lease| lease.has_restarted(answer.epoch, now));
        match answer.says {
            // A port has been given back.
            Says::Granted { lifetime: 0, .. } | Says::Port { lifetime: 0, .. } => {}
            Says::Granted { external, lifetime } => {
                self.grant(protocol, external, lifetime, answer.epoch, now);
            }
            Says::Port { external, lifetime } => {
                self.port = Some((external, lifetime));
                self.complete(answer.epoch, now);
            }
            _ if has_restarted => self.ask(now),
            Says::Alive => {}
            Says::Address(address) if external.is_some_and(|external| external != address) => self.ask(now),
            Says::Address(address) => {
                self.address = Some(address);
                self.complete(answer.epoch, now);
            }
            Says::Refused { result, lifetime } => self.refuse(protocol, result, lifetime, now),
        }
    }

    /// Takes what has come of a request by UPnP-IGD to `asked`. A port that is of no use is given back.
    pub(crate) fn handle_upnp(&mut self, asked: GatewayConfig, answer: UpnpAnswer, now: Instant) {
        let lease = self.lease.as_ref().filter(|lease| lease.protocol == PortProtocol::Upnp);
        let is_waiting = self.is_upnp_asked() || lease.is_some_and(|lease| lease.is_awaited(now));
        let is_wanted = self.gateway == Some(asked) && is_waiting;
        match answer {
            UpnpAnswer::Granted(external) if is_wanted && is_usable(external) => {
                self.grant(PortProtocol::Upnp, external, LIFETIME, 0, now);
            }
            UpnpAnswer::Granted(external) => {
                if self.gateway != Some(asked) || self.external() != Some(external) {
                    self.unmap(asked, external);
                }
                if is_wanted {
                    self.refuse(PortProtocol::Upnp, upnp::ACTION_FAILED, None, now);
                }
            }
            UpnpAnswer::Refused(code) if is_wanted => self.refuse(PortProtocol::Upnp, code, None, now),
            UpnpAnswer::Silent if is_wanted && self.is_upnp_asked() => self.end(PortProtocol::Upnp, now),
            UpnpAnswer::Refused(_) | UpnpAnswer::Silent => {}
        }
    }

    /// Reads an answer, and says to which protocol it is one. A gateway that speaks the other protocol only says so in that one.
    fn read(&self, packet: &[u8]) -> Option<(PortProtocol, GatewayAnswer)> {
        let internal = self.gateway?.local.port();
        let refused = Says::Refused { result: UNSUPPORTED_VERSION, lifetime: None };
        match packet {
            [nat_pmp::VERSION, 0x80..=0xff, 0, 1, epoch @ ..] => {
                let epoch = u32::from_be_bytes(*epoch.first_chunk()?);
                Some((PortProtocol::Pcp, GatewayAnswer { epoch, says: refused }))
            }
            [pcp::VERSION, 0x80..=0xff, _, 1, rest @ ..] => {
                let epoch = u32::from_be_bytes(*rest.get(4..)?.first_chunk()?);
                Some((PortProtocol::NatPmp, GatewayAnswer { epoch, says: refused }))
            }
            [nat_pmp::VERSION, ..] => Some((PortProtocol::NatPmp, nat_pmp::read(packet, internal)?)),
            _ => Some((PortProtocol::Pcp, pcp::read(packet, internal, &self.nonce)?)),
        }
    }

    /// Begins to ask for a port.
    fn ask(&mut self, now: Instant) {
        (self.lease, self.refusal, self.again_at) = (None, None, None);
        (self.address, self.port) = (None, None);
        if self.gateway.is_some() {
            let waiting = Some(Waiting { sent: 0, due: now });
            (self.pcp, self.nat_pmp) = (waiting, waiting);
            self.upnp = Some(Waiting { sent: 0, due: now + UPNP_AFTER });
            self.step_pcp(now);
            self.step_nat_pmp(now);
        }
    }

    fn renew(&mut self, now: Instant) {
        let Some((lease, gateway)) = self.lease.as_mut().zip(self.gateway) else { return };
        lease.renew(now);
        let external = lease.external;
        match lease.protocol {
            PortProtocol::Pcp => {
                self.send(pcp::request(gateway.local, &self.nonce, Some(external), LIFETIME));
            }
            PortProtocol::NatPmp => {
                (self.address, self.port) = (None, None);
                self.send(nat_pmp::question());
                self.send(nat_pmp::request(gateway.local.port(), external.port(), LIFETIME));
            }
            PortProtocol::Upnp => self.map(gateway, Some(external.port())),
        }
    }

    /// Sends a request by PCP, or gives it up.
    fn step_pcp(&mut self, now: Instant) {
        let Some((waiting, gateway)) = self.pcp.as_mut().zip(self.gateway) else { return };
        let Some(wait) = PCP_WAITS.get(waiting.sent) else { return self.end(PortProtocol::Pcp, now) };
        *waiting = Waiting { sent: waiting.sent + 1, due: now + *wait };
        self.send(pcp::request(gateway.local, &self.nonce, self.suggested, LIFETIME));
    }

    /// Sends by NAT-PMP what has not been answered, or gives it up.
    fn step_nat_pmp(&mut self, now: Instant) {
        let Some((waiting, gateway)) = self.nat_pmp.as_mut().zip(self.gateway) else { return };
        let Some(wait) = NAT_PMP_WAITS.get(waiting.sent) else { return self.end(PortProtocol::NatPmp, now) };
        let is_turn = self.pcp.is_none() || waiting.sent > 0;
        *waiting = Waiting { sent: waiting.sent + 1, due: now + *wait };
        if self.address.is_none() {
            self.send(nat_pmp::question());
        }
        if is_turn && self.port.is_none() {
            let port = self.suggested.map_or(0, |suggested| suggested.port());
            self.send(nat_pmp::request(gateway.local.port(), port, LIFETIME));
        }
    }

    /// Makes the driver ask by UPnP-IGD, or gives it up.
    fn step_upnp(&mut self, now: Instant) {
        let Some((waiting, gateway)) = self.upnp.as_mut().zip(self.gateway) else { return };
        if waiting.sent > 0 {
            return self.end(PortProtocol::Upnp, now);
        }
        *waiting = Waiting { sent: 1, due: now + UPNP_WAIT };
        self.map(gateway, self.suggested.map(|suggested| suggested.port()));
    }

    fn is_upnp_asked(&self) -> bool {
        self.upnp.is_some_and(|waiting| waiting.sent > 0)
    }

    /// Notes that a protocol has brought nothing.
    fn end(&mut self, protocol: PortProtocol, now: Instant) {
        match protocol {
            PortProtocol::NatPmp => self.nat_pmp = None,
            PortProtocol::Upnp => self.upnp = None,
            PortProtocol::Pcp => {
                self.pcp = None;
                // NAT-PMP has asked for the address only.
                if self.nat_pmp.is_some_and(|waiting| waiting.sent == 1) {
                    self.step_nat_pmp(now);
                }
            }
        }
        if self.pcp.is_some() || self.nat_pmp.is_some() {
            return;
        }
        if self.upnp.is_some_and(|waiting| waiting.sent == 0) {
            self.step_upnp(now);
        } else if self.upnp.is_none() {
            self.again_at = Some(now + self.refusal.map_or(AGAIN, |refusal| refusal.pause));
        }
    }

    /// Takes a lease by NAT-PMP when both answers are there.
    fn complete(&mut self, epoch: u32, now: Instant) {
        if let Some((address, (port, lifetime))) = self.address.zip(self.port) {
            let external = SocketAddrV4::new(address, port);
            self.grant(PortProtocol::NatPmp, external, lifetime, epoch, now);
        }
    }

    fn grant(
        &mut self,
        protocol: PortProtocol,
        external: SocketAddrV4,
        lifetime: u32,
        epoch: u32,
        now: Instant,
    ) {
        if !is_usable(external) {
            let failure = match protocol {
                PortProtocol::Pcp => pcp::NETWORK_FAILURE,
                PortProtocol::NatPmp => nat_pmp::NETWORK_FAILURE,
                PortProtocol::Upnp => upnp::ACTION_FAILED,
            };
            return self.refuse(protocol, failure, None, now);
        }
        (self.pcp, self.nat_pmp, self.upnp) = (None, None, None);
        (self.refusal, self.again_at) = (None, None);
        (self.address, self.port) = (None, None);
        self.suggested = Some(external);
        self.lease = Some(Lease::new(protocol, external, lifetime, epoch, now));
    }

    /// Takes a refusal. A lease stays until it ends.
    fn refuse(&mut self, protocol: PortProtocol, result: u16, lifetime: Option<u32>, now: Instant) {
        let pause = lifetime.map_or(AGAIN, |lifetime| {
            Duration::from_secs(lifetime.into()).clamp(REFUSED_LEAST, REFUSED_MOST)
        });
        if let Some(lease) = &mut self.lease {
            lease.renew_at = lease.renew_at.max(now + pause);
            return;
        }
        // That the other protocol is not spoken tells less.
        if result != UNSUPPORTED_VERSION || self.refusal.is_none() {
            self.refusal = Some(Refusal { protocol, result, pause });
        }
        self.end(protocol, now);
    }

    fn map(&mut self, gateway: GatewayConfig, external: Option<u16>) {
        let request = UpnpRequest::Map { external, lifetime: LIFETIME };
        self.out.push((Transmit::Upnp { gateway, request }, Vec::new()));
    }

    fn unmap(&mut self, gateway: GatewayConfig, external: SocketAddrV4) {
        let request = UpnpRequest::Unmap { external: external.port() };
        self.out.push((Transmit::Upnp { gateway, request }, Vec::new()));
    }

    fn send(&mut self, packet: Vec<u8>) {
        let Some(gateway) = self.gateway else { return };
        let (src, dst) = (Some(IpAddr::V4(*gateway.local.ip())), SocketAddr::from((gateway.address, PORT)));
        self.out.push((Transmit::Udp { src, dst, ttl: None }, packet));
    }
}

/// Whether an external address is one at all. A gateway without an uplink names none.
fn is_usable(external: SocketAddrV4) -> bool {
    let ip = external.ip();
    let is_refused = ip.octets()[0] == 0
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_multicast()
        || ip.is_broadcast();
    external.port() != 0 && !is_refused
}
