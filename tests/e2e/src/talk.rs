//! The conversation of our endpoint with a stock peer, and what is measured of it.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use towpath::{Endpoint, NodePublic, Packets, Path, PathClass, PathWatch, Pong};

use crate::magicsock::Magicsock;

/// How long both may take to be direct.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a packet is sent.
const INTERVAL: Duration = Duration::from_millis(10);
/// How long the conversation goes on when both are direct.
const SETTLED: Duration = Duration::from_secs(1);
/// How long the last packets and their echoes may take. No round trip of a stage takes longer.
const LAST: Duration = Duration::from_millis(500);
/// As long as a packet of WireGuard, and read as such by stock clients. The number is at `NUMBER_AT`.
const PACKET: [u8; 1312] = {
    let mut packet = [0; 1312];
    packet[0] = 4;
    packet
};
const NUMBER_AT: usize = 4;

/// The peer that sends first, and knows the addresses of the other, as from a control plane. The other one sends each packet back, and
/// learns addresses by disco.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// Our endpoint.
    Ours,
    /// The stock peer.
    Stock,
}

/// Our endpoint and a stock peer that know each other.
#[derive(Debug)]
pub(crate) struct Talk {
    endpoint: Endpoint,
    peer: NodePublic,
    watch: PathWatch,
    stock: Magicsock,
}

/// What has become of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Fate {
    /// When it was sent, after the first one.
    pub sent: Duration,
    /// Whether it came directly, if it came.
    pub there: Option<bool>,
    /// Whether its echo came directly, if it came, and when, after the first packet was sent.
    pub back: Option<(bool, Duration)>,
}

/// What has become of a conversation. Times are from the first packet on.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// When our packets went directly, and where; `None` if they did not until the end.
    pub ours: Option<(Duration, SocketAddr)>,
    /// When the packets of the stock peer went directly, and where; `None` if they did not until the end.
    pub stock: Option<(Duration, SocketAddr)>,
    /// The packets, by number.
    pub packets: Vec<Fate>,
    /// How many packets and echoes came again.
    pub doubled: u32,
}

impl Outcome {
    /// When both were direct, if they were.
    pub fn direct(&self) -> Option<Duration> {
        Some(self.ours?.0.max(self.stock?.0))
    }

    /// The packets that were sent after a time.
    pub fn after(&self, time: Duration) -> &[Fate] {
        &self.packets[self.packets.partition_point(|packet| packet.sent <= time)..]
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direct = |path: Option<(Duration, SocketAddr)>| {
            path.map_or("never".into(), |(time, address)| format!("{} ms at {address}", time.as_millis()))
        };
        let came = self.packets.iter().filter(|packet| packet.back.is_some()).count();
        let echo = self.packets.first().and_then(|packet| packet.back);
        write!(
            f,
            "first echo {} ms, ours direct {}, stock direct {}, {came} of {} echoes, {} doubled",
            echo.map_or(0, |(_, time)| time.as_millis()),
            direct(self.ours),
            direct(self.stock),
            self.packets.len(),
            self.doubled,
        )
    }
}

/// A conversation that goes on.
struct Course {
    first: First,
    begun: Instant,
    outcome: Outcome,
    /// When no more packets are sent.
    end: Instant,
}

impl Talk {
    pub(crate) fn new(endpoint: Endpoint, stock: Magicsock) -> Self {
        let peer = stock.key();
        let watch = endpoint.watch_path(&peer).expect("a peer");
        Self { endpoint, peer, watch, stock }
    }

    pub(crate) async fn run(&mut self, first: First) -> Outcome {
        let begun = Instant::now();
        let outcome = Outcome { ours: None, stock: None, packets: Vec::new(), doubled: 0 };
        let mut course = Course { first, begun, outcome, end: begun + PATIENCE };
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut packets = Packets::new();
        loop {
            let sends = Instant::now() < course.end;
            tokio::select! {
                _ = ticks.tick(), if sends => {
                    let number = course.next();
                    self.send(first, number).await;
                }
                open = self.endpoint.recv(&mut packets) => {
                    open.expect("it is open");
                    for packet in packets.iter() {
                        let number = number_of(packet.bytes);
                        let is_packet = course.take(First::Stock, number, packet.via != PathClass::Relayed);
                        if is_packet { self.send(First::Ours, number).await; }
                    }
                }
                (at, event) = self.stock.next() => {
                    if let Some(received) = event.received
                        && course.take(First::Ours, received.number, received.direct)
                    {
                        self.send(First::Stock, received.number).await;
                    }
                    if let Some(Some(address)) = event.path() {
                        course.outcome.stock.get_or_insert((at - begun, address));
                        course.settle();
                    }
                }
                path = self.watch.changed() => {
                    if let Path::Direct { address } = path.expect("it is a peer") {
                        course.outcome.ours.get_or_insert((begun.elapsed(), address));
                        course.settle();
                    }
                }
                () = sleep_until(course.end + LAST) => return course.outcome,
            }
        }
    }

    pub(crate) async fn ping(&mut self) -> (Pong, Option<SocketAddr>) {
        let ours = self.endpoint.ping(&self.peer).await;
        (
            ours.unwrap_or_else(|error| panic!("{error}\n{:?}", self.endpoint.why(&self.peer))),
            self.stock.ping().await,
        )
    }

    async fn send(&mut self, from: First, number: u32) {
        match from {
            First::Stock => self.stock.send(number),
            First::Ours => {
                let mut packet = PACKET;
                packet[NUMBER_AT..NUMBER_AT + 4].copy_from_slice(&number.to_be_bytes());
                self.endpoint.send(&self.peer, &[packet]).await.expect("it is sent");
            }
        }
    }
}

impl Course {
    /// The number of the next packet.
    fn next(&mut self) -> u32 {
        let sent = self.begun.elapsed();
        self.outcome.packets.push(Fate { sent, there: None, back: None });
        u32::try_from(self.outcome.packets.len() - 1).expect("a small number")
    }

    /// Takes note of a packet that has come from one of them. Whether it is one that has to be sent back.
    fn take(&mut self, from: First, number: u32, is_direct: bool) -> bool {
        let fate = &mut self.outcome.packets[number as usize];
        let is_first = if from == self.first {
            fate.there.replace(fate.there.unwrap_or(is_direct)).is_none()
        } else {
            let back = (is_direct, self.begun.elapsed());
            fate.back.replace(fate.back.unwrap_or(back)).is_none()
        };
        self.outcome.doubled += u32::from(!is_first);
        from == self.first && is_first
    }

    /// Ends the conversation in a while, if both are direct.
    fn settle(&mut self) {
        if let Some(direct) = self.outcome.direct() {
            self.end = self.begun + direct + SETTLED;
        }
    }
}

fn number_of(packet: &[u8]) -> u32 {
    u32::from_be_bytes(*packet[NUMBER_AT..].first_chunk().expect("a number"))
}
