//! Datagrams on their way.

use std::net::{IpAddr, SocketAddr};

use towpath_disco::datagram::Received;
use towpath_stun_proto::{RESPONSE_MAX_LEN, Request, write_response};
use towpath_wire::time::Instant;

use super::{Event, World};
use crate::flow::Label;
use crate::id::{HostId, NatId, Place, Site};
use crate::machine::Machine;
use crate::nat::{self, GATEWAY_PORT};
use crate::topology::Owner;
use crate::trace::{Dropped, Happening};

/// The hops that a datagram has unless it is said otherwise.
const TTL: u8 = 64;

/// A datagram behind the sender's NATs, and where and when it arrives.
struct Flight {
    at: Instant,
    twice: bool,
    network: usize,
    src: SocketAddr,
    ttl: u8,
}

impl<M: Machine> World<M> {
    pub(super) fn send_datagram(
        &mut self,
        host: HostId,
        src: Option<IpAddr>,
        dst: SocketAddr,
        ttl: Option<u8>,
        packet: Vec<u8>,
    ) {
        let now = self.now;
        let (ttl, len) = (ttl.unwrap_or(TTL), packet.len());
        self.trace.note(now, Happening::Sent { host, dst, len, ttl });
        let sender = &mut self.hosts[host.index()];
        if Label::read(&packet).is_some() {
            sender.sent.data.entry(dst).or_default().add(len);
        } else {
            sender.sent.last_probe = Some(now);
            sender.sent.probes.entry(dst).or_default().add(len);
        }
        let port = sender.port;
        let Some(from) = sender.attachment(src, dst) else {
            let src = SocketAddr::new(src.unwrap_or(dst.ip()), port);
            return self.drop_datagram(src, dst, Dropped::NoAddress, packet);
        };
        self.launch(from.place, from.site, SocketAddr::new(from.address, port), dst, ttl, packet);
    }

    /// Sends a datagram from a place.
    fn launch(
        &mut self,
        place: Place,
        site: Site,
        src: SocketAddr,
        dst: SocketAddr,
        ttl: u8,
        packet: Vec<u8>,
    ) {
        match self.fly(place, site, src, dst, ttl, packet.len()) {
            Err((src, why)) => self.drop_datagram(src, dst, why, packet),
            Ok(Flight { at, twice, network, src, ttl }) => {
                self.trace.note(self.now, Happening::Flies { src, dst, at });
                if twice {
                    let mut copy = self.buffer();
                    copy.extend_from_slice(&packet);
                    self.queue.push(at, Event::Datagram { network, src, dst, ttl, packet: copy });
                }
                self.queue.push(at, Event::Datagram { network, src, dst, ttl, packet });
            }
        }
    }

    fn fly(
        &mut self,
        place: Place,
        site: Site,
        src: SocketAddr,
        dst: SocketAddr,
        ttl: u8,
        len: usize,
    ) -> Result<Flight, (SocketAddr, Dropped)> {
        let ascent = self.topology.ascend(self.now, place, src, dst, ttl)?;
        let (src, mut ttl) = (ascent.src, ascent.ttl);
        let link = self.topology.links.state(site, ascent.site);
        if ascent.crosses {
            if ttl <= link.link.hops {
                return Err((src, Dropped::Ttl));
            }
            ttl -= link.link.hops;
        }
        let at = link.datagram(self.now, len, dst.is_ipv6()).map_err(|why| (src, why))?;
        Ok(Flight { at, twice: link.duplicates(), network: ascent.network, src, ttl })
    }

    pub(super) fn arrive(
        &mut self,
        network: usize,
        src: SocketAddr,
        dst: SocketAddr,
        ttl: u8,
        packet: Vec<u8>,
    ) {
        match self.topology.descend(self.now, network, src, dst, ttl) {
            Err((dst, why)) => self.drop_datagram(src, dst, why, packet),
            Ok((Owner::Host(host, _), dst)) => {
                let receiver = &self.hosts[host.index()];
                if receiver.port != dst.port() {
                    return self.drop_datagram(src, dst, Dropped::NoSocket, packet);
                }
                if receiver.asleep.is_some() {
                    return self.drop_datagram(src, dst, Dropped::Suspended, packet);
                }
                self.trace.note(self.now, Happening::Heard { host, src, len: packet.len() });
                self.hand(host, Received::Udp { remote: src }, packet);
            }
            Ok((Owner::Stun(site), _)) => self.answer(site, src, dst, packet),
            Ok((Owner::Gateway(nat), _)) => self.ask_gateway(nat, src, dst, packet),
            Ok((Owner::Nat(_), _)) => unreachable!("a datagram goes in through each NAT"),
        }
    }

    /// Tells a client of STUN its address.
    fn answer(&mut self, site: Site, client: SocketAddr, server: SocketAddr, mut packet: Vec<u8>) {
        let Ok(request) = Request::parse(&packet) else {
            return self.drop_datagram(client, server, Dropped::NoSocket, packet);
        };
        self.trace.note(self.now, Happening::Answered { client });
        let mut response = [0; RESPONSE_MAX_LEN];
        let len = write_response(&mut response, request.transaction(), client);
        packet.clear();
        packet.extend_from_slice(&response[..len]);
        self.launch(Place::Internet(site), site, server, client, TTL, packet);
    }

    /// Asks the gateway of a NAT for something.
    fn ask_gateway(&mut self, nat: NatId, client: SocketAddr, gateway: SocketAddr, packet: Vec<u8>) {
        let node = &mut self.topology.nats[nat.index()];
        let answer = match gateway.port() {
            GATEWAY_PORT => nat::answer(&mut node.table, self.now, client, &packet),
            _ => None,
        };
        let Some(answer) = answer else {
            return self.drop_datagram(client, gateway, Dropped::NoSocket, packet);
        };
        self.recycle(packet);
        let place = Place::Behind(nat);
        self.launch(place, self.topology.site(place), gateway, client, TTL, answer);
    }

    fn drop_datagram(&mut self, src: SocketAddr, dst: SocketAddr, why: Dropped, packet: Vec<u8>) {
        self.trace.note(self.now, Happening::Dropped { src, dst, why });
        self.recycle(packet);
    }
}
