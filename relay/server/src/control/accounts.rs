//! The accounts of connections, and what a connection holds of them.

use std::hash::RandomState;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::sync::oneshot;
use towpath_relay_proto::account::connections::{ConnectionBounds, Connections, Holding, Seat};
use towpath_relay_proto::account::places::{Place, PlaceBounds, Places};
use towpath_relay_proto::account::{Exceeded, Origin};
use towpath_wire::host::{Host, PrefixWidth};
use towpath_wire::key::NodePublic;
use towpath_wire::rate::Limiter;
use towpath_wire::sync::lock;

/// TLS handshakes a second of an IPv4 address or a /64 of IPv6, while more than half of the pending places are taken. A /56
/// has twice as many, a /48 four times. A handshake costs about 100 µs: a host with 128 takes less than a hundredth of the
/// control plane, and a thousand clients behind one address are back within seconds.
const HANDSHAKES_PER_HOST: usize = 128;

/// The accounts of all connections.
#[derive(Debug)]
pub(crate) struct Accounts {
    places: Arc<Places<Cancel>>,
    connections: Arc<Connections>,
    /// By the width of the prefix.
    handshakes: Mutex<[Limiter<RandomState>; PrefixWidth::ALL.len()]>,
    start: Instant,
}

/// What tells a connection that another has taken its place.
type Cancel = oneshot::Sender<()>;

/// What a connection holds that has not logged in.
#[derive(Debug)]
pub(super) struct Standing {
    place: Place<Cancel>,
    seat: Seat,
}

impl Accounts {
    pub(crate) fn new(places: PlaceBounds, connections: ConnectionBounds) -> Self {
        let handshakes = PrefixWidth::ALL.map(|width| {
            let rate = u32::try_from(HANDSHAKES_PER_HOST * width.factor()).ok().and_then(NonZeroU32::new);
            Limiter::new(rate.unwrap_or(NonZeroU32::MIN), RandomState::new())
        });
        Self {
            places: Arc::new(Places::new(places)),
            connections: Arc::new(Connections::new(connections, RandomState::new())),
            handshakes: Mutex::new(handshakes),
            start: Instant::now(),
        }
    }

    /// Replaces the bounds. Connections that are there stay.
    pub(crate) fn set_bounds(&self, places: PlaceBounds, connections: ConnectionBounds) {
        self.places.set_bounds(places);
        self.connections.set_bounds(connections);
    }

    /// Charges the new connection `id`. What is returned besides completes when another connection takes its place.
    pub(super) fn open(
        &self,
        id: u64,
        origin: Origin,
    ) -> Result<(Standing, oneshot::Receiver<()>), Exceeded> {
        let seat = self.connections.take(origin, || self.displace_silent())?;
        let (cancel, cancelled) = oneshot::channel();
        let taken = self.places.take(id, origin, cancel)?;
        displace(taken.displaced);
        Ok((Standing { place: taken.place, seat }, cancelled))
    }

    /// What the prefixes of `host` hold, and what they may.
    pub(crate) fn holdings(&self, host: Host) -> Vec<Holding> {
        self.connections.holdings(host)
    }

    /// Closes a pending connection that has sent nothing, if there is one.
    pub(super) fn displace_silent(&self) -> bool {
        let silent = self.places.displace_silent();
        let is_one = silent.is_some();
        displace(silent);
        is_one
    }

    /// Whether a client may have a TLS handshake now, and if so, charges it.
    pub(super) fn admit_handshake(&self, host: Host, now: Instant) -> bool {
        if !self.places.are_crowded() {
            return true;
        }
        let now = now.saturating_duration_since(self.start);
        let mut limiters = lock(&self.handshakes);
        host.prefixes().all(|prefix| limiters[prefix.width().index()].admits(prefix, now))
    }
}

impl Standing {
    /// Notes that the first bytes have come.
    pub(super) fn hear(&self) {
        self.place.hear();
    }

    /// Charges the connection to the origin that a request has named.
    pub(super) fn charge_to(&mut self, origin: Origin) -> Result<(), Exceeded> {
        self.seat.charge_to(origin)?;
        displace(self.place.charge_to(origin)?);
        Ok(())
    }

    /// Gives back the pending place of a client that has logged in.
    pub(super) fn admit(mut self, key: &NodePublic) -> Seat {
        self.seat.admit(key);
        self.seat
    }
}

fn displace(cancels: impl IntoIterator<Item = Cancel>) {
    for cancel in cancels {
        // A connection that has just ended does not listen any more.
        let _ = cancel.send(());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn host(address: &str) -> Host {
        Host::of(address.parse().expect("an address"))
    }

    /// How many of `asked` handshakes at one moment are admitted.
    fn admitted(accounts: &Accounts, address: &str, now: Instant, asked: usize) -> usize {
        (0..asked).filter(|_| accounts.admit_handshake(host(address), now)).count()
    }

    #[test]
    fn handshakes_of_a_host_have_a_rate_while_the_places_are_crowded() {
        let bounds = PlaceBounds { all: 4, per_host: 4 };
        let accounts = Accounts::new(bounds, ConnectionBounds { all: 100, per_host: 100, per_key: 8 });
        let now = accounts.start + Duration::from_secs(7);
        let open = |id| accounts.open(id, Origin::Client(host("192.0.2.1"))).expect("a place is free");
        let _two = [open(1), open(2)];
        assert_eq!(admitted(&accounts, "192.0.2.1", now, 10_000), 10_000, "half of the places are no crowd");
        let third = open(3);
        assert_eq!(admitted(&accounts, "192.0.2.1", now, 10_000), HANDSHAKES_PER_HOST);
        assert_eq!(admitted(&accounts, "192.0.2.2", now, 10), 10, "another host");
        assert_eq!(
            admitted(&accounts, "192.0.2.1", now + Duration::from_millis(500), 10_000),
            HANDSHAKES_PER_HOST / 2
        );
        let of_a_56 = (0..256).map(|net| format!("2001:db8:0:{net:x}::1"));
        let of_a_56: usize = of_a_56.map(|address| admitted(&accounts, &address, now, 10)).sum();
        assert_eq!(of_a_56, 2 * HANDSHAKES_PER_HOST);
        drop(third);
        assert_eq!(admitted(&accounts, "192.0.2.1", now, 10_000), 10_000);
    }
}
