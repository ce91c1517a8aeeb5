//! A node of disco with two peers, one of which it knows by its node key alone, and whatever these, relays, STUN servers, the
//! network and the application do.
//!
//! The peers seal what they like with the right keys, so that no box is in the way. What must be true of the node is in
//! `world.rs`.

mod peer;
mod world;

use arbitrary::{Arbitrary, Unstructured};
use towpath_disco::MappingClass;
use towpath_disco::datagram::Region;
use towpath_disco::hello::Hello;
use towpath_wire::disco::message::Message;

use self::peer::named_address;
use self::world::World;

/// More operations than this reach nothing new.
const MAX_OPERATIONS: usize = 64;

/// One of a list, whatever its length.
type Pick = u8;

/// The way by which a packet comes.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Way {
    Udp(Pick),
    Relay(Pick),
}

#[derive(Arbitrary, Debug)]
enum Operation<'a> {
    /// Time passes, and what is due is done in time.
    Wait { millis: u16 },
    /// The host sleeps for a while, and what is due is done afterwards.
    Sleep { seconds: u16 },
    /// The application sends a packet.
    Route { peer: Pick, len: u16 },
    /// A packet of the application comes.
    Data { peer: Pick, way: Way, bytes: [u8; 3] },
    /// A hello comes, which may repeat the last challenge of the node.
    Hello { peer: Pick, disco: Pick, is_echo: bool, counter: u8, region: Pick, class: Pick, named: [Pick; 4] },
    /// Any text comes that is sealed as a hello is.
    HelloText { peer: Pick, disco: Pick, text: &'a [u8] },
    /// A ping comes, which may name the other peer as its sender.
    Ping { peer: Pick, disco: Pick, way: Way, named: Pick },
    /// One of the last pings of the node is answered, from where it went to or from elsewhere.
    Pong { ping: Pick, elsewhere: Option<Way> },
    /// A CallMeMaybe comes.
    Call { peer: Pick, disco: Pick, way: Way, named: [Pick; 4] },
    /// Any message comes that is sealed as disco is.
    DiscoText { peer: Pick, disco: Pick, way: Way, text: &'a [u8] },
    /// Any bytes come.
    Bytes { peer: Pick, way: Way, bytes: &'a [u8] },
    /// A STUN server answers the last request, and sees the node at this address.
    Stun { server: Pick, seen: Pick },
    /// Something becomes known of a relay.
    Relay { region: Pick, event: Pick, peer: Pick },
    /// The interfaces have these addresses.
    Interfaces { addresses: [Pick; 2] },
    /// A peer is taken in anew, or forgotten.
    Peer { peer: Pick, is_there: bool },
}

/// Plays the operations, and checks the node after each.
pub(crate) fn operations(input: &[u8]) {
    let Some((&config, input)) = input.split_first() else { return };
    let mut operations = Unstructured::new(input);
    let mut world = World::new(config);
    for _ in 0..MAX_OPERATIONS {
        if operations.is_empty() {
            break;
        }
        let Ok(operation) = Operation::arbitrary(&mut operations) else { break };
        play(&mut world, operation);
        world.check_paths();
    }
}

fn play(world: &mut World, operation: Operation<'_>) {
    match operation {
        Operation::Wait { millis } => world.wait(millis),
        Operation::Sleep { seconds } => world.sleep(seconds),
        Operation::Route { peer, len } => world.route(peer, len.into()),
        Operation::Data { peer, way, bytes } => world.hear_data(peer, way, &bytes),
        Operation::Hello { peer, disco, is_echo, counter, region, class, named } => {
            let hello = Hello {
                epoch: 1,
                counter: counter.into(),
                challenge: [counter; 12],
                echo: world.challenge(peer).filter(|_| is_echo),
                region: Some(region_of(region)),
                standby: Some(region_of(region.wrapping_add(class))),
                relay_rtt: None,
                mapping: MappingClass::ALL[usize::from(class) % MappingClass::ALL.len()],
                wants_echo: true,
                addresses: named.map(named_address).to_vec(),
            };
            world.hear_hello(peer, disco, &hello);
        }
        Operation::HelloText { peer, disco, text } => world.hear_hello_text(peer, disco, text),
        Operation::Ping { peer, disco, way, named } => world.hear_ping(peer, disco, way, named),
        Operation::Pong { ping, elsewhere } => world.hear_pong(ping, elsewhere),
        Operation::Call { peer, disco, way, named } => {
            let call = Message::CallMeMaybe(named.map(named_address).to_vec());
            world.hear_message(peer, disco, way, &call);
        }
        Operation::DiscoText { peer, disco, way, text } => world.hear_text(peer, disco, way, text),
        Operation::Bytes { peer, way, bytes } => world.hear(peer, way, bytes),
        Operation::Stun { server, seen } => world.answer_stun(server, seen),
        Operation::Relay { region, event, peer } => world.hear_relay(region_of(region), event, peer),
        Operation::Interfaces { addresses } => world.set_interfaces(addresses),
        Operation::Peer { peer, is_there } => world.set_peer(peer, is_there),
    }
}

fn region_of(pick: Pick) -> Region {
    Region(u16::from(pick % 6))
}
