//! Two of our endpoints behind the NATs of a stage, and the packets that go from one to the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use towpath::{Endpoint, NodePrivate, Packets, PathClass, PeerConfig};
use towpath_lab::{Pair, Rebinding, Runtime, Stage};

use crate::endpoint::bind;
use crate::region::{Kind, Region};
use crate::turn::Programs;

/// The pause between two of the last words of a flow.
const LAST_WORDS: Duration = Duration::from_millis(5);
/// How long the last packets may take.
const LAST: Duration = Duration::from_millis(700);
/// Bytes of a packet, and where the number of its flow and its own are.
const LEN: usize = 1300;
const FLOW_AT: usize = 4;
const NUMBER_AT: usize = 8;

/// Two endpoints, and what they run on.
#[derive(Debug)]
pub struct Peers {
    // Dropped in this order: what runs in a namespace before the namespace.
    endpoints: Vec<Endpoint>,
    /// The number of the next flow.
    flows: AtomicU32,
    runtimes: [Runtime; 2],
    region: Region,
    /// The NATs, the hosts, and the wire.
    pub stage: Stage,
}

/// What has become of the packets of a flow.
#[derive(Debug)]
pub struct Flow {
    /// When the last one was sent.
    pub ended: Instant,
    /// How many were sent.
    pub sent: u32,
    /// When each number came first, in the order in which they came, and whether directly.
    pub came: Vec<(u32, Instant, bool)>,
    /// How many came again.
    pub doubled: u32,
    /// The distance to the highest number before it, of the packet that came latest after a later one.
    pub reordered: u32,
}

impl Flow {
    fn new() -> Self {
        Self { ended: Instant::now(), sent: 0, came: Vec::new(), doubled: 0, reordered: 0 }
    }

    /// How many have not come.
    pub fn lost(&self) -> usize {
        self.sent as usize - self.came.len()
    }

    /// The longest time between two packets that came, from a time on until the last one was sent.
    pub fn gap_after(&self, time: Instant) -> Duration {
        let came = self.came.iter().map(|(_, at, _)| *at).filter(|at| *at >= time);
        let times: Vec<_> = [time].into_iter().chain(came).chain([self.ended]).collect();
        times.windows(2).map(|pair| pair[1].saturating_duration_since(pair[0])).max().unwrap_or_default()
    }

    fn note(&mut self, number: u32, at: Instant, is_direct: bool, seen: &mut Vec<bool>, highest: &mut u32) {
        let place = number as usize;
        if seen.len() <= place {
            seen.resize(place + 1, false);
        }
        if std::mem::replace(&mut seen[place], true) {
            self.doubled += 1;
            return;
        }
        self.came.push((number, at, is_direct));
        self.reordered = self.reordered.max(highest.saturating_sub(number));
        *highest = (*highest).max(number);
    }
}

/// A flow that goes on.
#[derive(Debug)]
pub struct Flowing {
    number: u32,
    stop: Arc<AtomicBool>,
    sending: JoinHandle<(u32, Instant)>,
    receiving: JoinHandle<Flow>,
}

impl Peers {
    /// Builds the stage of a pair, starts relays, and two endpoints that know no more of each other than a key. When this returns, both
    /// are at home, their STUN answers are young, and nothing has gone from one to the other.
    pub fn start(kind: Kind, programs: &Programs, pair: &Pair) -> Self {
        let stage = Stage::build(pair).unwrap_or_else(|error| panic!("{pair:?}: {error}"));
        let region = Region::start(kind, programs, &stage);
        Self::of(region, stage)
    }

    /// As [`start`](Self::start), with the relay of a second region, which is farther away.
    pub fn start_with_standby(kind: Kind, programs: &Programs, pair: &Pair) -> Self {
        let stage = Stage::build(pair).unwrap_or_else(|error| panic!("{pair:?}: {error}"));
        let region = Region::start_with_standby(kind, programs, &stage);
        Self::of(region, stage)
    }

    fn of(region: Region, stage: Stage) -> Self {
        let runtimes = [0, 1].map(|at| stage.hosts[at].namespace().runtime().expect("a runtime"));
        let mut peers = Self { endpoints: Vec::new(), flows: AtomicU32::new(1), runtimes, region, stage };
        peers.start_endpoints();
        peers
    }

    /// Starts the endpoints anew, as [`start_endpoints`](Self::start_endpoints) does, when both NATs have forgotten them.
    pub fn start_again(&mut self) {
        self.close_endpoints();
        for nat in &self.stage.nats {
            nat.rebind(Rebinding::SamePorts).expect("a NAT");
        }
        self.start_endpoints();
    }

    fn close_endpoints(&mut self) {
        let closing: Vec<_> = std::mem::take(&mut self.endpoints)
            .into_iter()
            .zip(&self.runtimes)
            .map(|(endpoint, runtime)| runtime.spawn(async move { endpoint.close().await }))
            .collect();
        for closed in closing {
            self.runtimes[0].block_on(closed).expect("it closes");
        }
    }

    /// Starts the endpoints anew, with other keys, as after both programs were started again.
    pub fn start_endpoints(&mut self) {
        self.close_endpoints();
        let mut random = [0; 64];
        getrandom::fill(&mut random).expect("random bytes");
        let keys = [0, 32].map(|at| NodePrivate::from_random(*random[at..].first_chunk().expect("32 bytes")));
        let starting = [0, 1].map(|at| {
            let builder = Endpoint::builder().secret_key(keys[at].clone()).relay_map(self.region.map());
            self.runtimes[at].spawn(bind(builder, PeerConfig::new(keys[1 - at].public())))
        });
        for started in starting {
            self.endpoints.push(self.runtimes[0].block_on(started).expect("an endpoint"));
        }
    }

    /// Kills the relay of both.
    pub fn kill_relay(&mut self) {
        self.region.kill();
    }

    /// The relays, as a file for `towpath netcheck`.
    pub fn relay_map(&self) -> String {
        self.region.json()
    }

    /// The endpoint on a side.
    pub fn endpoint(&self, side: usize) -> &Endpoint {
        &self.endpoints[side]
    }

    /// Sends one packet from the first to the second each 20 ms until both are direct, each by a probe of its own. Returns how long that
    /// took from the first packet on; `None` if it took longer than `longest`.
    pub fn become_direct(&self, longest: Duration) -> Option<Duration> {
        let began = Instant::now();
        let followed = [0, 1].map(|at| {
            let (endpoint, peer) = (self.endpoints[at].clone(), self.endpoints[1 - at].key());
            self.runtimes[at].spawn(async move {
                let mut watch = endpoint.watch_path(&peer).expect("a peer");
                timeout(longest, watch.direct()).await.is_ok().then(Instant::now)
            })
        });
        let flowing = self.flow(0, Duration::from_millis(20), 1);
        let [first, second] = followed;
        let direct = self.runtimes[0].block_on(async move { (first.await, second.await) });
        self.cut(flowing);
        let (Ok(Some(first)), Ok(Some(second))) = direct else { return None };
        Some(first.max(second) - began)
    }

    /// Begins to send packets from a side to the other, so many at each interval.
    pub fn flow(&self, from: usize, every: Duration, at_once: u32) -> Flowing {
        let stop = Arc::new(AtomicBool::new(false));
        let of_flow = self.flows.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = (self.endpoints[from].clone(), self.endpoints[1 - from].clone());
        let (to, stopped) = (receiver.key(), stop.clone());
        let sending = self.runtimes[from].spawn(async move {
            let (mut ticks, mut sent) = (interval(every), 0_u32);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            while !stopped.load(Ordering::Relaxed) {
                ticks.tick().await;
                let packets: Vec<_> = (sent..sent + at_once).map(|number| packet(of_flow, number)).collect();
                sender.send(&to, &packets).await.expect("it is sent");
                sent += at_once;
            }
            (sent, Instant::now())
        });
        let receiving = self.runtimes[1 - from].spawn(async move {
            let (mut flow, mut seen, mut highest) = (Flow::new(), Vec::new(), 0);
            let mut packets = Packets::new();
            // The receiver ends when nothing comes any more.
            while timeout(Duration::from_secs(20), receiver.recv(&mut packets))
                .await
                .is_ok_and(|got| got.is_ok())
            {
                let now = Instant::now();
                for packet in packets.iter() {
                    // Others are the last words of an earlier flow.
                    let Some(number) = read(packet.bytes, of_flow) else { continue };
                    if number == u32::MAX {
                        return flow;
                    }
                    flow.note(number, now, packet.via != PathClass::Relayed, &mut seen, &mut highest);
                }
            }
            flow
        });
        Flowing { number: of_flow, stop, sending, receiving }
    }

    /// Stops a flow at once. What is on its way is not asked for.
    fn cut(&self, flowing: Flowing) {
        let Flowing { sending, receiving, .. } = flowing;
        sending.abort();
        receiving.abort();
        // Whether they were done before does not matter.
        let _ = self.runtimes[0].block_on(async move { (sending.await, receiving.await) });
    }

    /// Stops a flow, and waits for what is on its way. It must be from the first side.
    pub fn end(&self, flowing: Flowing) -> Flow {
        let Flowing { number, stop, sending, receiving } = flowing;
        stop.store(true, Ordering::Relaxed);
        let (sender, to) = (self.endpoints[0].clone(), self.endpoints[1].key());
        let ((sent, ended), mut flow) = self.runtimes[0].block_on(async move {
            let sent = sending.await.expect("it sends");
            sleep(LAST).await;
            // The last word may be lost on a path that loses.
            for _ in 0..20 {
                sender.send(&to, &[packet(number, u32::MAX)]).await.expect("it is sent");
                sleep(LAST_WORDS).await;
            }
            (sent, receiving.await.expect("it receives"))
        });
        (flow.sent, flow.ended) = (sent, ended);
        flow
    }
}

/// The number of a packet of a flow; `None` for one of another flow.
fn read(packet: &[u8], of_flow: u32) -> Option<u32> {
    let word = |at: usize| Some(u32::from_be_bytes(*packet.get(at..)?.first_chunk()?));
    (word(FLOW_AT)? == of_flow).then(|| word(NUMBER_AT)).flatten()
}

fn packet(of_flow: u32, number: u32) -> Vec<u8> {
    let mut packet = vec![4, 0, 0, 0];
    packet.extend_from_slice(&of_flow.to_be_bytes());
    packet.extend_from_slice(&number.to_be_bytes());
    packet.resize(LEN, 0);
    packet
}
