//! The applications on the hosts: flows, and what is delivered of them.

use towpath_wire::key::NodePublic;

use super::{Event, World};
use crate::flow::{Delivery, Label, Via};
use crate::id::{FlowId, HostId};
use crate::machine::Machine;
use crate::trace::Happening;

impl<M: Machine> World<M> {
    pub(super) fn send_packet_of(&mut self, id: FlowId) {
        let (flow, account) = &mut self.flows[id.index()];
        let flow = *flow;
        if self.hosts[flow.from.index()].asleep.is_none() {
            let seq = account.sent;
            account.sent += 1;
            self.send_application(id, seq);
        }
        if self.flows[id.index()].1.sent < flow.count {
            self.queue.push(self.now + flow.interval, Event::Flow(id));
        }
    }

    /// Sends a packet by each way that the machine says.
    fn send_application(&mut self, id: FlowId, seq: u64) {
        let flow = self.flows[id.index()].0;
        let (host, peer) = (flow.from, self.hosts[flow.to.index()].key);
        self.trace.note(self.now, Happening::Application { flow: id, seq });
        let mut packet = self.buffer();
        Label { flow: id, seq, sent: self.now }.write(&mut packet, flow.len);
        let clock = self.clock(host);
        let route = self.hosts[host.index()].machine.route(clock, &peer, packet.len());
        let account = &mut self.flows[id.index()].1;
        account.both += u64::from(route.direct.is_some() && route.relay.is_some());
        account.unroutable += u64::from(route.direct.is_none() && route.relay.is_none());
        if let Some(dst) = route.direct {
            let mut copy = self.buffer();
            copy.extend_from_slice(&packet);
            self.send_datagram(host, None, dst, None, copy);
        }
        for region in [route.relay, route.standby].into_iter().flatten() {
            let mut copy = self.buffer();
            copy.extend_from_slice(&packet);
            self.send_relayed(host, region, peer, copy);
        }
        self.recycle(packet);
        self.settle(host);
    }

    /// Keeps account of a packet that a machine was handed, of which it said that it is this peer's data or is not to be
    /// delivered.
    pub(super) fn keep_account(&mut self, host: HostId, via: Via, peer: Option<NodePublic>, packet: &[u8]) {
        let label = Label::read(packet)
            .filter(|label| self.flows.get(label.flow.index()).is_some_and(|(flow, _)| flow.to == host));
        let Some(Label { flow: id, seq, sent }) = label else {
            self.strays += u64::from(peer.is_some());
            return;
        };
        let (flow, account) = &mut self.flows[id.index()];
        let double = account.has(seq);
        match peer {
            None if double => account.suppressed += 1,
            None => account.swallowed += 1,
            Some(peer) if peer != self.hosts[flow.from.index()].key => self.strays += 1,
            Some(_) => {
                if double {
                    account.doubles += 1;
                } else {
                    account.deliver(Delivery { seq, sent, at: self.now, via });
                }
                self.trace.note(self.now, Happening::Delivered { flow: id, seq, double });
            }
        }
    }
}
