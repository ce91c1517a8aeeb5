//! Links: what happens to a packet between two sites, in one direction.

use std::time::Duration;

use towpath_wire::time::Instant;

use crate::random::Random;
use crate::trace::Dropped;

/// What a link does. Each direction between two sites has a link of its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// The time that each packet takes.
    pub delay: Duration,
    /// Up to so much is added, evenly distributed. It does not reorder: a packet waits for the ones before it.
    pub jitter: Duration,
    /// The chance of a datagram to be overtaken, for which it waits longer by `reorder_by`.
    pub reorder: f64,
    /// How long an overtaken datagram waits.
    pub reorder_by: Duration,
    /// The chance of a datagram to arrive twice.
    pub duplicate: f64,
    /// What is lost.
    pub loss: Loss,
    /// What `loss` and `blocked` are about.
    pub applies_to: Traffic,
    /// Whether the link lets nothing through.
    pub blocked: bool,
    /// The largest IP packet. A larger one vanishes, as where ICMP is filtered.
    pub mtu: u16,
    /// The bytes that the link carries in a second, with a queue of 100 ms in front; `None` for any number.
    pub rate: Option<u64>,
    /// The routers between the two sites that count down the hops of a datagram. Not on a LAN.
    pub hops: u8,
}

/// The traffic that a link harms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Datagrams only. The streams of relays pass unharmed.
    Udp,
    /// Datagrams, and the packets that carry the streams of relays, which are sent again.
    Everything,
}

/// Which packets a link loses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loss {
    /// None.
    Nothing,
    /// Each with this chance.
    Random(f64),
    /// Bursts (Gilbert and Elliott): all packets in the bad state, none in the good one.
    Burst {
        /// The chance, for each packet, that the bad state begins.
        enter: f64,
        /// The chance, for each packet, that the bad state ends.
        leave: f64,
    },
}

impl Loss {
    /// The loss of a share of all packets in bursts of a mean length.
    #[must_use]
    pub fn bursts(share: f64, length: f64) -> Self {
        let leave = 1.0 / length;
        Self::Burst { enter: leave * share / (1.0 - share), leave }
    }
}

impl Link {
    /// The link with this delay, and all else as usual: nothing lost, two routers, an MTU of 1,500 bytes.
    #[must_use]
    pub const fn new(delay: Duration) -> Self {
        Self {
            delay,
            jitter: Duration::ZERO,
            reorder: 0.0,
            reorder_by: Duration::ZERO,
            duplicate: 0.0,
            loss: Loss::Nothing,
            applies_to: Traffic::Udp,
            blocked: false,
            mtu: 1500,
            rate: None,
            hops: 2,
        }
    }

    /// Adds a loss to the link.
    #[must_use]
    pub const fn losing(self, loss: Loss, applies_to: Traffic) -> Self {
        Self { loss, applies_to, ..self }
    }
}

/// Bytes of the IP and UDP headers in front of a datagram's payload.
const fn overhead(v6: bool) -> usize {
    if v6 { 48 } else { 28 }
}

/// How long a packet may wait in front of a link's rate.
const QUEUE: Duration = Duration::from_millis(100);

/// After how many losses in a row the model lets a packet of a stream through.
const RETRANSMISSIONS: u32 = 6;

/// A link at work.
#[derive(Debug)]
pub struct LinkState {
    /// What the link does from now on. It may be changed at any time.
    pub link: Link,
    random: Random,
    bad: bool,
    /// When the last packet arrives that was not overtaken.
    last: Instant,
    /// When the last byte that was sent has left.
    idle: Instant,
}

impl LinkState {
    /// The link at work, with random numbers of its own.
    #[must_use]
    pub const fn new(link: Link, random: Random) -> Self {
        Self { link, random, bad: false, last: Instant::ZERO, idle: Instant::ZERO }
    }

    /// When a datagram with a payload of `len` bytes arrives that is sent now.
    pub(crate) fn datagram(&mut self, now: Instant, len: usize, v6: bool) -> Result<Instant, Dropped> {
        self.packet(now, len + overhead(v6), Traffic::Udp)
    }

    /// When an IP packet of `len` bytes arrives that is sent now. One that is no datagram ([`Traffic::Everything`]) is
    /// harmed only where everything is, and is sent again by its sender.
    ///
    /// # Errors
    ///
    /// Why it does not arrive.
    pub fn packet(&mut self, now: Instant, len: usize, traffic: Traffic) -> Result<Instant, Dropped> {
        let harmed = traffic == Traffic::Udp || self.link.applies_to == Traffic::Everything;
        if harmed && self.link.blocked {
            return Err(Dropped::Blocked);
        }
        if len > usize::from(self.link.mtu) {
            return Err(Dropped::TooLarge);
        }
        let left = self.leaves(now, len).ok_or(Dropped::QueueFull)?;
        if harmed && self.loses() {
            return Err(Dropped::Lost);
        }
        let arrives = left + self.link.delay + self.random.duration(self.link.jitter);
        if harmed && self.random.happens(self.link.reorder) {
            return Ok(arrives + self.link.reorder_by);
        }
        self.last = self.last.max(arrives);
        Ok(self.last)
    }

    /// Whether a datagram that arrives does so twice.
    pub fn duplicates(&mut self) -> bool {
        self.random.happens(self.link.duplicate)
    }

    /// When a packet of a stream arrives that is sent now, or that is sent again after `rto` and twice that and so on
    /// until it arrives; `None` if the link is blocked for streams too.
    pub(crate) fn stream(&mut self, now: Instant, rto: Duration) -> Option<Instant> {
        let harmed = self.link.applies_to == Traffic::Everything;
        if harmed && self.link.blocked {
            return None;
        }
        let mut sent = now;
        let mut wait = rto;
        for _ in 0..RETRANSMISSIONS {
            if !(harmed && self.loses()) {
                break;
            }
            sent += wait;
            wait *= 2;
        }
        Some(sent + self.link.delay + self.random.duration(self.link.jitter))
    }

    /// When a packet has passed the link's rate; `None` if the queue in front of it is full.
    fn leaves(&mut self, now: Instant, len: usize) -> Option<Instant> {
        let Some(rate) = self.link.rate else { return Some(now) };
        let start = self.idle.max(now);
        if start.since(now) > QUEUE {
            return None;
        }
        self.idle = start + Duration::from_nanos(len as u64 * 1_000_000_000 / rate.max(1));
        Some(self.idle)
    }

    fn loses(&mut self) -> bool {
        match self.link.loss {
            Loss::Nothing => false,
            Loss::Random(chance) => self.random.happens(chance),
            Loss::Burst { enter, leave } => {
                self.bad = if self.bad { !self.random.happens(leave) } else { self.random.happens(enter) };
                self.bad
            }
        }
    }
}
