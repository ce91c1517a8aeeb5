//! A node as the machine of a simulated host, and runs of pairs of them.

use std::net::SocketAddr;
use std::time::Duration;

use towpath_disco::datagram::{Received, Region, RelayEvent, Route, Transmit};
use towpath_disco::{GatewayConfig, Node, NodeConfig, PeerConfig, RelayConfig};
use towpath_sim::{Action, Flow, FlowId, HostId, Machine, Pair, Random, Seat, Stage, World};
use towpath_wire::key::{NodePrivate, NodePublic};
use towpath_wire::time::Instant;

/// A node with one peer.
pub(crate) struct Host {
    pub(crate) node: Node,
    pub(crate) peer: NodePublic,
}

/// A node that is told no more than it needs.
pub(crate) fn config(
    key: &NodePrivate,
    random: &mut Random,
    stun: &[SocketAddr],
    home: Region,
) -> NodeConfig {
    NodeConfig {
        key: key.clone(),
        seed: random.bytes(),
        relays: vec![RelayConfig { region: home, stun: stun.to_vec() }],
        home: None,
        regions: vec![],
        addresses: vec![],
        one_probe: false,
    }
}

impl Host {
    /// A node that has not been told of its peer.
    pub(crate) fn alone(mut seat: Seat) -> Self {
        let node = Node::new(config(&seat.private, &mut seat.random, &seat.stun, seat.region));
        Self { node, peer: seat.peer }
    }

    /// A node that knows of its peer nothing but the node key.
    pub(crate) fn new(seat: Seat) -> Self {
        Self::alone(seat).knowing_its_peer()
    }

    /// A node of this configuration that knows the node key of a peer.
    pub(crate) fn of(config: NodeConfig, peer: NodePublic) -> Self {
        Self { node: Node::new(config), peer }.knowing_its_peer()
    }

    fn knowing_its_peer(mut self) -> Self {
        let peer =
            PeerConfig { key: self.peer, region: None, disco: None, addresses: vec![], is_relay_only: false };
        self.node.set_peer(&peer, Instant::ZERO);
        self
    }

    pub(crate) fn is_direct(&self) -> bool {
        self.node.direct(&self.peer).is_some()
    }
}

impl Machine for Host {
    fn handle_packet(&mut self, now: Instant, received: Received, packet: &[u8]) -> Option<NodePublic> {
        self.node.handle_packet(now, received, packet)
    }

    fn handle_relay(&mut self, now: Instant, event: RelayEvent) {
        self.node.handle_relay(now, event);
    }

    fn handle_interfaces(&mut self, now: Instant, addresses: &[SocketAddr]) {
        self.node.handle_interfaces(now, addresses);
    }

    fn handle_gateway(&mut self, now: Instant, gateway: Option<GatewayConfig>) {
        self.node.handle_gateway(now, gateway);
    }

    fn route(&mut self, now: Instant, peer: &NodePublic, len: usize) -> Route {
        self.node.route(now, peer, len)
    }

    fn homes(&self) -> Option<Vec<Region>> {
        Some(self.node.homes().into_iter().flatten().collect())
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.node.handle_timeout(now);
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        self.node.poll_timeout()
    }

    fn poll_transmit(&mut self, _: Instant, packet: &mut Vec<u8>) -> Option<Transmit> {
        self.node.poll_transmit(packet)
    }
}

pub(crate) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// When the first packet is sent: the relay links are up, and the answers of the STUN servers are young.
pub(crate) const START: Duration = Duration::from_secs(5);

/// How many runs a test makes of each pair.
pub(crate) fn seeds() -> usize {
    std::env::var("TOWPATH_SIM_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(100)
}

/// Data each 20 ms from one host to another, from [`START`] on.
pub(crate) fn flow(world: &mut World<Host>, from: HostId, to: HostId, lasts: Duration) -> FlowId {
    flow_since(world, from, to, Instant::from(START), lasts)
}

/// Data each 20 ms from one host to another.
pub(crate) fn flow_since(
    world: &mut World<Host>,
    from: HostId,
    to: HostId,
    start: Instant,
    lasts: Duration,
) -> FlowId {
    let interval = millis(20);
    let count = u64::try_from(lasts.as_millis() / interval.as_millis()).unwrap();
    world.add_flow(Flow { from, to, len: 100, start, interval, count })
}

/// The world of a pair at [`START`], with data from its first host to the other, and back if `both`.
pub(crate) fn started(pair: &Pair, lasts: Duration, both: bool) -> (Stage<Host>, Vec<FlowId>) {
    started_in(pair.build(Host::new), lasts, both)
}

/// A world at [`START`], with data from its first host to the other, and back if `both`.
pub(crate) fn started_in(mut stage: Stage<Host>, lasts: Duration, both: bool) -> (Stage<Host>, Vec<FlowId>) {
    let [here, there] = stage.hosts;
    let mut flows = vec![flow(&mut stage.world, here, there, lasts)];
    if both {
        flows.push(flow(&mut stage.world, there, here, lasts));
    }
    stage.world.run_until(Instant::from(START) - millis(1));
    (stage, flows)
}

/// Runs until both hosts are direct, or for 3 s. Returns the time that it took.
pub(crate) fn until_direct(stage: &mut Stage<Host>) -> Option<Duration> {
    until_direct_since(stage, Instant::from(START), Duration::from_secs(3))
}

/// Runs until both hosts are direct, or until `within` has passed since `since`. Returns the time that it took since then.
pub(crate) fn until_direct_since(
    stage: &mut Stage<Host>,
    since: Instant,
    within: Duration,
) -> Option<Duration> {
    let hosts = stage.hosts;
    let are_direct = |world: &World<Host>| hosts.iter().all(|host| world.machine(*host).is_direct());
    stage.world.run_until_holds(since + within, are_direct).map(|at| at.since(since))
}

/// The sending of datagrams from one host to the other and back is blocked, or no longer.
pub(crate) fn between(stage: &Stage<Host>, blocked: bool) -> Vec<Action> {
    let [here, there] = stage.sites;
    [(here, there), (there, here)].map(|(from, to)| Action::Block { from, to, blocked }).to_vec()
}

/// All UDP of a host is blocked, or no longer. Relays are reached over TCP, which passes.
pub(crate) fn udp(stage: &Stage<Host>, side: usize, blocked: bool) -> Vec<Action> {
    let here = stage.sites[side];
    let others = [stage.sites[1 - side], stage.stuns[0], stage.stuns[1]];
    let both_ways = others.into_iter().flat_map(|other| [(here, other), (other, here)]);
    both_ways.map(|(from, to)| Action::Block { from, to, blocked }).collect()
}

/// Does several things at once.
pub(crate) fn act(stage: &mut Stage<Host>, actions: Vec<Action>) {
    actions.into_iter().for_each(|action| stage.world.act_now(action));
}
