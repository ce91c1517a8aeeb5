//! A relay of a few clients, made of the pure crates as `relay/server` is, against a model of what it owes them.
//!
//! The model is lists: what each client asked for, what waits for each connection, what is on its way to it. A packet
//! leaves its list at the front, delivered or dropped and counted, whatever cuts, full sockets, clones of a key and
//! departures come between. So nothing is reordered, repeated or forgotten, and what waits keeps to its bounds.

mod model;
mod relay;
mod socket;

use arbitrary::{Arbitrary, Unstructured};

use relay::Relay;

/// More operations than this reach nothing new.
const MAX_OPERATIONS: usize = 128;

/// One of the clients that are there, whatever their number.
type Pick = u8;

#[derive(Arbitrary, Debug)]
enum Operation {
    /// A connection with one of four keys.
    Connect { key: u8 },
    /// A connection ends.
    Leave { client: Pick },
    /// A client writes a packet for one of five keys, one of which no client has.
    Send { client: Pick, to: u8, disco: bool, len: u16 },
    /// A client writes a Ping.
    Ping { client: Pick, data: [u8; 8] },
    /// A client writes NotePreferred.
    Prefer { client: Pick, on: bool },
    /// A client writes a frame of an unknown type.
    Unknown { client: Pick, len: u8 },
    /// A client writes anything at all.
    Anything { client: Pick, bytes: [u8; 6] },
    /// The relay reads once, up to so many bytes.
    Read { client: Pick, bytes: u16 },
    /// A client's socket takes so many bytes more and is then full.
    Take { client: Pick, bytes: u16 },
    /// A client's socket takes everything from now on.
    TakeAll { client: Pick },
    /// A client's socket fails at the next write.
    Break { client: Pick },
    /// During the next write to a client, others send it packets, and its socket becomes writable.
    Meanwhile { client: Pick, packets: u8, writable: bool },
    /// Time passes.
    Wait { ms: u8 },
}

/// Plays the operations, and then closes every connection.
pub(crate) fn operations(input: &[u8]) {
    let mut operations = Unstructured::new(input);
    let mut relay = Relay::default();
    for _ in 0..MAX_OPERATIONS {
        if operations.is_empty() {
            break;
        }
        let Ok(operation) = Operation::arbitrary(&mut operations) else { break };
        play(&mut relay, operation);
        relay.assert_nothing_is_forgotten();
    }
    relay.end();
}

fn play(relay: &mut Relay, operation: Operation) {
    match operation {
        Operation::Connect { key } => relay.connect(key % 4),
        Operation::Leave { client } => relay.leave(client),
        Operation::Send { client, to, disco, len } => {
            relay.write_packet(client, to % 5, disco, usize::from(len) % 4096);
        }
        Operation::Ping { client, data } => relay.write_ping(client, data),
        Operation::Prefer { client, on } => relay.write_preferred(client, on),
        Operation::Unknown { client, len } => relay.write_unknown(client, len),
        Operation::Anything { client, bytes } => relay.write_anything(client, &bytes),
        Operation::Read { client, bytes } => relay.read(client, bytes.into()),
        Operation::Take { client, bytes } => relay.take(client, Some(bytes.into())),
        Operation::TakeAll { client } => relay.take(client, None),
        Operation::Break { client } => relay.break_socket(client),
        Operation::Meanwhile { client, packets, writable } => relay.meanwhile(client, packets % 8, writable),
        Operation::Wait { ms } => relay.wait(ms),
    }
}
