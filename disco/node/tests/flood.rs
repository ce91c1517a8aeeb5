//! The cost of a packet between two endpoints that are direct, beside that of a bare loop of GSO and GRO in the same run.
//!
//! `make peer-flood` runs it; it needs an idle machine with two cores.

use std::io::IoSliceMut;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use tokio::time::timeout;
use towpath::{Endpoint, NodePrivate, PacketSink, Packets, PeerConfig, Region, Run};
use towpath_live::{LocalRelay, map_of};

/// Bytes of a packet: a full one of WireGuard behind an Ethernet.
const LEN: usize = 1420;
/// Packets that are sent at once, as by a tunnel that reads a train of TCP segments from its interface.
const BATCH: usize = 44;
/// How long each run takes, and how many of each there are, in turns.
const RUN: Duration = Duration::from_secs(2);
const RUNS: usize = 5;

/// What a run has shown.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    /// Packets that arrived in a second.
    per_second: f64,
    /// CPU time of the process for each of them, in nanoseconds.
    cpu: f64,
    /// The share of the packets sent that did not arrive.
    lost: f64,
}

/// The CPU time of this process, to a hundredth of a second (proc_pid_stat(5), fields 14 and 15, in ticks of USER_HZ, which is 100).
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux has it");
    let (_, fields) = stat.rsplit_once(") ").expect("the name is in parentheses");
    let ticks = fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().expect("a number"));
    Duration::from_millis(10 * ticks.sum::<u64>())
}

/// Packets of one length that differ in a counter, as those of WireGuard do.
fn packets(first: u64) -> Vec<Vec<u8>> {
    (first..)
        .take(BATCH)
        .map(|number| {
            let mut packet = vec![4, 0, 0, 0, 9, 9, 9, 9];
            packet.extend_from_slice(&number.to_le_bytes());
            packet.resize(LEN, 0);
            packet
        })
        .collect()
}

/// A sender and a receiver, each a thread with a socket of its own, that do nothing but GSO and GRO.
fn bare() -> Outcome {
    let receiver = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let to = receiver.local_addr().expect("an address");
    let state = UdpSocketState::new(UdpSockRef::from(&receiver)).expect("a socket");
    state.set_recv_buffer_size(UdpSockRef::from(&receiver), 7 << 20).expect("a buffer");
    let (began, used) = (Instant::now(), cpu());
    let (sent, received) = std::thread::scope(|scope| {
        let receiving = scope.spawn(|| {
            let (mut memory, mut received) = (vec![0; 16 << 16], 0);
            let mut metas = [RecvMeta::default(); 16];
            while began.elapsed() < RUN + Duration::from_millis(100) {
                let mut chunks = memory.chunks_exact_mut(1 << 16);
                let mut places: [IoSliceMut<'_>; 16] =
                    std::array::from_fn(|_| IoSliceMut::new(chunks.next().expect("a chunk")));
                match state.recv(UdpSockRef::from(&receiver), &mut places, &mut metas) {
                    Ok(count) => received += metas[..count].iter().map(|meta| meta.len / LEN).sum::<usize>(),
                    Err(_) => wait(&receiver, rustix::event::PollFlags::IN),
                }
            }
            received
        });
        let sending = scope.spawn(|| {
            let sender = UdpSocket::bind("127.0.0.1:0").expect("a port");
            let state = UdpSocketState::new(UdpSockRef::from(&sender)).expect("a socket");
            let (mut sent, mut run) = (0, Vec::new());
            while began.elapsed() < RUN {
                joined(sent as u64, &mut run);
                let transmit = Transmit {
                    destination: to,
                    ecn: None,
                    contents: &run,
                    segment_size: Some(LEN),
                    src_ip: None,
                };
                match state.try_send(UdpSockRef::from(&sender), &transmit) {
                    Ok(()) => sent += BATCH,
                    Err(_) => wait(&sender, rustix::event::PollFlags::OUT),
                }
            }
            sent
        });
        (sending.join().expect("it sends"), receiving.join().expect("it receives"))
    });
    outcome(sent, received, cpu() - used)
}

fn wait(socket: &UdpSocket, events: rustix::event::PollFlags) {
    let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    let mut polled = [rustix::event::PollFd::new(socket, events)];
    rustix::event::poll(&mut polled, Some(&timeout)).expect("it polls");
}

fn outcome(sent: usize, received: usize, used: Duration) -> Outcome {
    Outcome {
        per_second: received as f64 / RUN.as_secs_f64(),
        cpu: used.as_nanos() as f64 / received.max(1) as f64,
        lost: 1.0 - received as f64 / sent.max(1) as f64,
    }
}

/// The bytes of packets, one after the other.
fn joined(first: u64, joined: &mut Vec<u8>) {
    joined.clear();
    packets(first).iter().for_each(|packet| joined.extend_from_slice(packet));
}

/// How a program uses an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// It sends packets from wherever each is, and takes them out of the inbox.
    Packets,
    /// It sends runs, and is given them as they come.
    Runs,
}

/// Counts packets.
#[derive(Debug, Default)]
struct Counting(AtomicUsize);

impl PacketSink for Counting {
    fn take(&self, run: &Run<'_>) {
        self.0.fetch_add(run.packets().count(), Ordering::Relaxed);
    }
}

/// Two endpoints that send through loopback, whose address each is told of the other, and what counts the packets that they are given.
async fn endpoints(of_use: Use) -> (LocalRelay, [Endpoint; 2], Arc<Counting>) {
    let counting = Arc::new(Counting::default());
    let relay = LocalRelay::start(Region(1), Duration::from_millis(1)).await.expect("a relay");
    let map = map_of([relay.region("flood", None)]).expect("a map");
    let keys = [1, 2].map(|seed| NodePrivate::from_random([seed; 32]));
    let mut endpoints = Vec::new();
    for key in &keys {
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let builder = Endpoint::builder().secret_key(key.clone()).relay_map(map.clone()).bind_address(any);
        let builder = if of_use == Use::Runs { builder.deliver_to(counting.clone()) } else { builder };
        endpoints.push(builder.port_mapping(false).bind().await.expect("an endpoint"));
    }
    for (at, endpoint) in endpoints.iter().enumerate() {
        let addresses = endpoints[1 - at].local_addresses();
        endpoint.add_peer(&PeerConfig { addresses, ..PeerConfig::new(keys[1 - at].public()) });
        endpoint.online().await.expect("the relay answers");
    }
    let endpoints: [Endpoint; 2] = endpoints.try_into().expect("there are two");
    for (at, endpoint) in endpoints.iter().enumerate() {
        let peer = endpoints[1 - at].key();
        endpoint.send(&peer, &packets(0)).await.expect("it is sent");
        let mut watch = endpoint.watch_path(&peer).expect("a peer");
        timeout(Duration::from_secs(10), watch.direct()).await.expect("it becomes direct").expect("a peer");
    }
    (relay, endpoints, counting)
}

async fn flood(of_use: Use, [sender, receiver]: &[Endpoint; 2], counting: &Counting) -> Outcome {
    let (began, used, peer) = (Instant::now(), cpu(), receiver.key());
    let before = counting.0.load(Ordering::Relaxed);
    let sending = {
        let sender = sender.clone();
        tokio::spawn(async move {
            let (mut sent, mut run) = (0, Vec::new());
            while began.elapsed() < RUN {
                let first = 1 << 40 | sent as u64;
                match of_use {
                    Use::Packets => sender.send(&peer, &packets(first)).await,
                    Use::Runs => {
                        joined(first, &mut run);
                        sender.send_run(&peer, &run, LEN).await
                    }
                }
                .expect("it is sent");
                sent += BATCH;
            }
            sent
        })
    };
    let mut taken = Packets::new();
    let mut received = 0;
    while began.elapsed() < RUN + Duration::from_millis(100) {
        if timeout(Duration::from_millis(50), receiver.recv(&mut taken)).await.is_ok() {
            received += taken.len();
        }
    }
    let sent = sending.await.expect("it sends");
    received += counting.0.load(Ordering::Relaxed) - before;
    outcome(sent, received, cpu() - used)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
#[ignore = "measures an idle machine: make peer-flood"]
#[allow(clippy::print_stdout, reason = "the figures are what it is for")]
fn the_cost_of_a_direct_packet_beside_a_bare_loop() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
    let pairs = [Use::Packets, Use::Runs].map(|of_use| (of_use, runtime.block_on(endpoints(of_use))));
    let (mut bares, mut floods) = (Vec::new(), [Vec::new(), Vec::new()]);
    for _ in 0..RUNS {
        bares.push(bare());
        for ((of_use, (_, pair, counting)), outcomes) in pairs.iter().zip(&mut floods) {
            outcomes.push(runtime.block_on(flood(*of_use, pair, counting)));
        }
    }
    println!("{LEN} bytes, {BATCH} a call, {RUNS} runs of {RUN:?} in turns, medians");
    for (name, outcomes) in [("bare loop", &bares), ("packets", &floods[0]), ("runs", &floods[1])] {
        let of = |value: fn(&Outcome) -> f64| median(outcomes.iter().map(value).collect());
        println!(
            "{name:<10} {:>9.0} packets/s  {:>6.0} ns CPU each  {:>5.2} % lost",
            of(|outcome| outcome.per_second),
            of(|outcome| outcome.cpu),
            100.0 * of(|outcome| outcome.lost),
        );
    }
    for (name, outcomes) in ["packets", "runs"].into_iter().zip(&floods) {
        let ratios: Vec<_> = outcomes.iter().zip(&bares).map(|(flood, bare)| flood.cpu / bare.cpu).collect();
        println!("CPU of the endpoint over the bare loop, {name}: {:.2}", median(ratios));
    }
}
