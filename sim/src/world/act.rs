//! Carrying out what a test does to a world.

use std::time::Duration;

use super::{Event, Health, World};
use crate::action::{Action, Line};
use crate::id::{HostId, Place};
use crate::machine::Machine;
use crate::trace::Happening;

impl<M: Machine> World<M> {
    /// Carries out the action in a line of the script.
    pub(super) fn act(&mut self, line: usize) {
        let Line::Action(_, action) = self.script[line].clone() else { return };
        self.trace.note(self.now, Happening::Acted { action: line });
        match action {
            Action::Roam { host, places, gap } => self.roam(host, &places, gap, line),
            Action::Rebind { nat, new_ports } => {
                self.topology.nats[nat.index()].table.restart(new_ports, self.now);
            }
            Action::ForgetStreams { nat } => {
                for host in (0..self.hosts.len()).map(HostId::of) {
                    let place = self.hosts[host.index()].attachments.first().map(|at| at.place);
                    if place.is_some_and(|place| self.topology.is_behind(place, nat)) {
                        self.forget_streams(host);
                    }
                }
            }
            Action::Suspend { host, lasts } => {
                let until = self.now + lasts;
                let asleep = &mut self.hosts[host.index()].asleep;
                *asleep = (*asleep).max(Some(until));
                self.queue.push(until, Event::Wake(host));
            }
            Action::KillRelay(region) => self.set_health(region, Health::Dead),
            Action::SilenceRelay(region) => self.set_health(region, Health::Silent),
            Action::RestoreRelay(region) => self.set_health(region, Health::Alive),
            Action::SetLink { from, to, link } => self.topology.links.state(from, to).link = link,
            Action::Block { from, to, blocked } => {
                self.topology.links.state(from, to).link.blocked = blocked;
            }
            Action::SetHomes { host, homes } => {
                self.hosts[host.index()].homes = homes;
                self.dial_homes(host);
            }
            Action::StepClock { host, by } => {
                self.hosts[host.index()].ahead += by;
                self.settle(host);
            }
        }
    }

    fn roam(&mut self, host: HostId, places: &[Place], gap: Duration, line: usize) {
        for old in std::mem::take(&mut self.hosts[host.index()].attachments) {
            self.topology.detach(old.place, old.address);
        }
        if gap.is_zero() {
            self.attach(host, places);
        } else {
            self.queue.push(self.now + gap, Event::Attach { host, line });
        }
        self.tell_interfaces(host);
        self.break_links(host);
        self.dial_homes(host);
    }

    /// A host that moves, by an action in a line of the script, has its new addresses.
    pub(super) fn attach_moved(&mut self, host: HostId, line: usize) {
        let Line::Action(_, Action::Roam { places, .. }) = self.script[line].clone() else { return };
        self.attach(host, &places);
        self.tell_interfaces(host);
        // What was dialled meanwhile had no way out.
        self.break_links(host);
        self.dial_homes(host);
    }

    pub(super) fn dial_homes(&mut self, host: HostId) {
        for region in self.hosts[host.index()].homes.clone() {
            self.dial_home(region, host);
        }
    }
}
