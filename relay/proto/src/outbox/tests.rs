use std::cell::Cell;
use std::collections::VecDeque as Queue;

use proptest::prelude::*;
use towpath_wire::derp::HEADER_LEN;
use towpath_wire::derp::app_name::{AppName, MAX_APP_NAME};
use towpath_wire::derp::frame::Header;
use towpath_wire::derp::mesh::PresentFlags;

use super::*;

const LIMITS: Limits =
    Limits { bytes: 1000, packets: 0, disco_bytes: 300, age: Duration::from_millis(160), hold_above: 500 };
const FROM: NodePublic = NodePublic::from_bytes([7; 32]);

#[derive(Default, Debug, PartialEq)]
struct Drops(Vec<(DropReason, PacketKind, usize)>);

impl DropSink for Drops {
    fn dropped(&mut self, _: Hop, reason: DropReason, kind: PacketKind, bytes: usize) {
        self.0.push((reason, kind, bytes));
    }
}

fn outbox(limits: Limits) -> Outbox {
    Outbox::new(Arc::new(limits))
}

fn at(ms: u64) -> Instant {
    Instant::from_nanos(ms * 1_000_000)
}

/// A packet that carries its number, disco or not.
fn packet(number: u32, len: usize, disco: bool) -> Vec<u8> {
    let mut packet = Vec::new();
    if disco {
        packet.extend(towpath_wire::disco::MAGIC);
        packet.resize(towpath_wire::disco::MIN_LEN, 0);
    }
    packet.extend(number.to_be_bytes());
    packet.resize(packet.len().max(len), 0);
    packet
}

fn number(kind: PacketKind, packet: &[u8]) -> u32 {
    let start = if kind == PacketKind::Disco { towpath_wire::disco::MIN_LEN } else { 0 };
    u32::from_be_bytes(packet[start..start + 4].try_into().unwrap())
}

/// Sends at most `chunks` chunks and returns the numbers sent and what is left.
fn drain(mut batch: Batch, max: usize, chunks: usize) -> (Vec<u32>, Batch) {
    let mut sent = Vec::new();
    for _ in 0..chunks {
        let Some(chunk) = batch.chunk(max) else { break };
        let (mut rest, len) = (chunk, chunk.len());
        while let Some(header) = Header::decode(rest) {
            let (frame, later) = rest[HEADER_LEN..].split_at(header.len as usize);
            if header.kind == 5 {
                sent.push(number(PacketKind::of(&frame[32..]), &frame[32..]));
            }
            rest = later;
        }
        assert!(rest.is_empty(), "a chunk is whole frames");
        batch.advance(len);
    }
    (sent, batch)
}

/// Sends everything, batch after batch, and returns the numbers sent.
fn send_all(outbox: &mut Outbox, now: Instant, drops: &mut Drops) -> Vec<u32> {
    let (mut sent, mut pool) = (Vec::new(), BufferPool::default());
    while let Some(batch) = outbox.take(now, &mut pool, drops) {
        let (numbers, rest) = drain(batch, usize::MAX, usize::MAX);
        sent.extend(numbers);
        rest.recycle(&mut pool);
    }
    sent
}

fn push(outbox: &mut Outbox, now: Instant, packet: &[u8], drops: &mut Drops) {
    outbox.push_packet(now, &FROM, packet, &mut BufferPool::default(), drops);
}

#[test]
fn control_goes_first_then_disco_then_the_rest() {
    let (mut outbox, mut drops, mut pool) = (outbox(LIMITS), Drops::default(), BufferPool::default());
    push(&mut outbox, at(0), &packet(1, 50, false), &mut drops);
    push(&mut outbox, at(0), &packet(2, 0, true), &mut drops);
    assert!(outbox.push_control(&ServerFrame::KeepAlive, &mut pool));
    let mut batch = outbox.take(at(0), &mut BufferPool::default(), &mut drops).expect("three frames");
    assert_eq!(batch.chunk(1000), Some(&[6, 0, 0, 0, 0][..]));
    batch.advance(5);
    assert_eq!(drain(batch, 1000, 9).0, [2, 1]);
    assert!(outbox.is_empty() && drops.0.is_empty());
}

#[test]
fn a_full_lane_drops_its_oldest_and_leaves_the_other_alone() {
    let (mut outbox, mut drops) = (outbox(LIMITS), Drops::default());
    push(&mut outbox, at(0), &packet(0, 0, true), &mut drops);
    for n in 1..=5 {
        push(&mut outbox, at(0), &packet(n, 300 - 37, false), &mut drops);
    }
    let dropped = (DropReason::QueueFull, PacketKind::Other, 300 - 37);
    assert_eq!(drops.0, [dropped; 2]);
    // What is sent next stays, and the oldest behind it make room.
    assert_eq!(send_all(&mut outbox, at(0), &mut drops), [0, 1, 4, 5]);
}

#[test]
fn a_frame_longer_than_the_bound_is_let_through_alone() {
    let (mut outbox, mut drops) = (outbox(LIMITS), Drops::default());
    push(&mut outbox, at(0), &packet(1, 500, false), &mut drops);
    push(&mut outbox, at(0), &packet(2, 5000, false), &mut drops);
    assert_eq!(drops.0.len(), 1);
    let batch = outbox.take(at(0), &mut BufferPool::default(), &mut drops).expect("a frame");
    assert_eq!(drain(batch, 10, 9).0, [2]);
}

#[test]
fn what_waited_too_long_is_dropped_and_what_did_not_is_kept() {
    let (mut outbox, mut drops) = (outbox(LIMITS), Drops::default());
    for n in 0..10 {
        push(&mut outbox, at(u64::from(n) * 20), &packet(n, 40, false), &mut drops);
    }
    // The age is 160 ms, measured in steps of 10: at 241 ms those of 0, 20, 40, 60 and 80 have been there too long.
    assert_eq!(send_all(&mut outbox, at(241), &mut drops), [5, 6, 7, 8, 9]);
    assert_eq!(drops.0, [(DropReason::QueueAge, PacketKind::Other, 40); 5]);
}

#[test]
fn so_many_packets_wait_however_long_they_are() {
    let (mut outbox, mut drops, mut pool) =
        (outbox(Limits { packets: 4, ..LIMITS }), Drops::default(), BufferPool::default());
    let mut push = |outbox: &mut Outbox, len, drops: &mut Drops| {
        outbox.push_packet(at(0), &FROM, &vec![1; len], &mut pool, drops);
    };
    for _ in 0..4 {
        push(&mut outbox, 500, &mut drops);
    }
    assert_eq!((outbox.len(), drops.0.len()), (4 * 537, 0), "more than 1,000 bytes");
    let batch = outbox.take(at(0), &mut BufferPool::default(), &mut drops).expect("frames");
    outbox.give_back(batch, &mut BufferPool::default(), &mut drops);
    assert_eq!(drops.0.len(), 0, "nor when they come back");
    push(&mut outbox, 500, &mut drops);
    assert_eq!(drops.0, [(DropReason::QueueFull, PacketKind::Other, 500)]);
    push(&mut outbox, 100, &mut drops);
    assert_eq!(
        (outbox.len(), drops.0.len()),
        (3 * 537 + 137, 2),
        "a short one takes the place of a long one"
    );
    for _ in 0..12 {
        push(&mut outbox, 100, &mut drops);
    }
    assert_eq!(outbox.len(), 537 + 3 * 137, "short ones have 1,000 bytes, and what is sent next stays");
}

#[test]
fn what_comes_while_its_lane_is_sent_is_as_young_as_it_is() {
    let (mut outbox, mut drops, mut pool) = (outbox(LIMITS), Drops::default(), BufferPool::default());
    push(&mut outbox, at(0), &packet(1, 0, true), &mut drops);
    push(&mut outbox, at(0), &packet(2, 40, false), &mut drops);
    // The disco frame is sent, then the socket is full; meanwhile another comes.
    let batch = outbox.take(at(150), &mut pool, &mut drops).expect("two frames");
    let (sent, rest) = drain(batch, 10, 1);
    assert_eq!(sent, [1]);
    push(&mut outbox, at(150), &packet(3, 0, true), &mut drops);
    outbox.give_back(rest, &mut pool, &mut drops);
    let batch = outbox.take(at(200), &mut pool, &mut drops).expect("what came at 150 ms");
    assert_eq!(drops.0, [(DropReason::QueueAge, PacketKind::Other, 40)]);
    assert_eq!(drain(batch, 9999, 9).0, [3]);
}

#[test]
fn control_frames_are_bounded_and_do_not_age() {
    let (mut outbox, mut drops, mut pool) = (outbox(LIMITS), Drops::default(), BufferPool::default());
    let pong = ServerFrame::Pong([1; 8]);
    let mut held = 0;
    while outbox.push_control(&pong, &mut pool) {
        held += 1;
    }
    assert_eq!(held, MAX_CONTROL.div_ceil(13));
    let batch = outbox.take(at(1_000_000), &mut BufferPool::default(), &mut drops).expect("pongs");
    assert_eq!(batch.chunk(usize::MAX).map(<[u8]>::len), Some(held * 13));
}

#[derive(Clone, Debug)]
enum Step {
    Push {
        len: usize,
        disco: bool,
    },
    /// Send some chunks of some size, while packets come in, then be blocked.
    Send {
        max: usize,
        chunks: usize,
        meanwhile: usize,
    },
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0usize..400, any::<bool>()).prop_map(|(len, disco)| Step::Push { len, disco }),
        2 => (1usize..600, 0usize..4, 0usize..4).prop_map(|(max, chunks, meanwhile)| Step::Send { max, chunks, meanwhile }),
        1 => (0u64..60).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 0..60)
}

proptest! {
    /// Whatever happens, packets of a kind leave in order, each at most once, and each is sent, dropped or still here;
    /// what waits keeps to its bounds.
    #[test]
    fn every_packet_is_sent_in_order_or_dropped_and_counted(steps in steps()) {
        let (mut outbox, mut drops, mut pool) = (outbox(LIMITS), Drops::default(), BufferPool::default());
        let (mut clock, next) = (0, Cell::new(0));
        let mut waiting: [Queue<u32>; 2] = Default::default();
        let mut sent = 0;
        let push = |outbox: &mut Outbox, waiting: &mut [Queue<u32>; 2], len, disco, clock, pool: &mut _, drops: &mut Drops| {
            let number = next.replace(next.get() + 1);
            outbox.push_packet(at(clock), &FROM, &packet(number, len, disco), pool, drops);
            waiting[usize::from(disco)].push_back(number);
        };
        for step in steps {
            match step {
                Step::Push { len, disco } => {
                    push(&mut outbox, &mut waiting, len, disco, clock, &mut pool, &mut drops);
                }
                Step::Wait(ms) => clock += ms,
                Step::Send { max, chunks, meanwhile } => {
                    let Some(batch) = outbox.take(at(clock), &mut BufferPool::default(), &mut drops) else { continue };
                    let (numbers, rest) = drain(batch, max, chunks);
                    for number in numbers {
                        // Those before it in its lane must have been dropped.
                        let lane = waiting.iter_mut().find(|lane| lane.contains(&number)).expect("sent once");
                        while lane.pop_front() != Some(number) {}
                        sent += 1;
                    }
                    for n in 0..meanwhile {
                        push(&mut outbox, &mut waiting, 100, n % 2 == 0, clock, &mut pool, &mut drops);
                    }
                    outbox.give_back(rest, &mut pool, &mut drops);
                }
            }
            let account = outbox.account();
            let dropped: u64 = DropReason::ALL.iter().map(|&reason| account.dropped.of(reason)).sum();
            prop_assert_eq!((account.sent_packets, dropped), (sent as u64, drops.0.len() as u64));
            prop_assert_eq!(account.waiting_packets, next.get() as usize - sent - drops.0.len());
            prop_assert!(outbox.data.len() <= LIMITS.bytes.max(437));
            prop_assert!(outbox.disco.len() <= LIMITS.disco_bytes.max(437 + towpath_wire::disco::MIN_LEN));
        }
        outbox.drop_all(DropReason::Gone, &mut pool, &mut drops);
        prop_assert!(outbox.is_empty());
        prop_assert_eq!(sent + drops.0.len(), next.get() as usize);
    }
}

#[test]
fn an_account_says_what_was_sent_what_waits_and_what_was_dropped_and_why() {
    let (mut outbox, mut drops, mut pool) = (outbox(LIMITS), Drops::default(), BufferPool::default());
    assert!(outbox.push_control(&ServerFrame::KeepAlive, &mut pool));
    push(&mut outbox, at(0), &packet(0, 0, true), &mut drops);
    for n in 1..=5 {
        push(&mut outbox, at(0), &packet(n, 300 - 37, false), &mut drops);
    }
    let disco = ServerFrame::recv_packet_len(towpath_wire::disco::MIN_LEN + 4);
    let account = outbox.account();
    assert_eq!(
        (account.waiting_packets, account.waiting_bytes, account.bound),
        (4, disco + 3 * 300, LIMITS.bytes)
    );
    assert_eq!((account.sent_packets, account.dropped.of(DropReason::QueueFull)), (0, 2));
    // The socket takes the control frame, disco and one packet, and breaks.
    let batch = outbox.take(at(0), &mut pool, &mut drops).expect("frames");
    let account = outbox.account();
    assert_eq!((account.sent_packets, account.waiting_packets), (2, 2), "the lane, and what is behind it");
    let (_, rest) = drain(batch, 1, 2);
    outbox.note_write_error(&rest);
    rest.drop_all(DropReason::WriteError, &mut pool, &mut drops);
    let account = outbox.account();
    assert_eq!((account.sent_packets, account.sent_bytes), (1, disco as u64));
    assert_eq!(account.dropped.of(DropReason::WriteError), 1);
}

#[test]
fn a_forwarded_packet_waits_and_is_dropped_as_any_other() {
    #[derive(Default)]
    struct Hops(Vec<(Hop, usize)>);
    impl DropSink for Hops {
        fn dropped(&mut self, hop: Hop, _: DropReason, _: PacketKind, bytes: usize) {
            self.0.push((hop, bytes));
        }
    }
    let (mut outbox, mut pool, mut hops) = (outbox(LIMITS), BufferPool::default(), Hops::default());
    let to = NodePublic::from_bytes([8; 32]);
    outbox.push_forward(at(0), (&FROM, &to), &[1; 400], &mut pool, &mut hops);
    outbox.push_packet(at(0), &FROM, &[2; 400], &mut pool, &mut hops);
    outbox.push_forward(at(0), (&FROM, &to), &[3; 401], &mut pool, &mut hops);
    assert_eq!(hops.0, [(Hop::Client, 400)], "the oldest that is not next made room");
    let batch = outbox.take(at(0), &mut pool, &mut hops).expect("a frame");
    let mut expected = Vec::new();
    ClientFrame::ForwardPacket { from: FROM, to, packet: &[1; 400] }.encode(&mut expected);
    assert_eq!(batch.chunk(9999), Some(&expected[..]));
    batch.drop_all(DropReason::WriteError, &mut pool, &mut hops);
    outbox.drop_all(DropReason::Gone, &mut pool, &mut hops);
    assert_eq!(hops.0[1..], [(Hop::Relay, 400), (Hop::Relay, 401)]);
}

/// A region of 100,000 keys is told to a watcher that takes nothing at first, in bounds and without a loss.
#[test]
fn much_news_leaves_in_pieces_and_behind_other_control_frames() {
    let (mut outbox, mut pool, mut drops) = (outbox(LIMITS), BufferPool::default(), Drops::default());
    let address = "192.0.2.1:1".parse().expect("an address");
    let app_name = AppName::from_bytes(&[b'x'; MAX_APP_NAME]).expect("a name");
    let change = PresenceChange::Present { address, flags: PresentFlags::REGULAR, app_name };
    let key = |n: u32| {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        NodePublic::from_bytes(bytes)
    };
    let (mut announced, mut told, mut blocked) = (0, 0, true);
    while told < 100_000 {
        while announced < 100_000 && outbox.backlog() < 10_000 {
            assert!(outbox.push_change(key(announced), change));
            announced += 1;
        }
        assert!(!outbox.is_empty());
        let mut batch = outbox.take(at(0), &mut pool, &mut drops).expect("news");
        assert!(outbox.control.is_empty());
        let len = batch.chunk(usize::MAX).expect("a chunk").len();
        assert!((1..MAX_CONTROL + ServerFrame::MAX_PEER_PRESENT).contains(&len), "{len} bytes at a time");
        if std::mem::replace(&mut blocked, false) {
            outbox.give_back(batch, &mut pool, &mut drops);
            assert!(!outbox.push_control(&ServerFrame::KeepAlive, &mut pool), "the lane is full");
            continue;
        }
        let mut rest = batch.chunk(usize::MAX).expect("a chunk");
        while let Some(header) = Header::decode(rest) {
            let (frame, later) = rest.split_at(HEADER_LEN + header.len as usize);
            let decoded = ServerFrame::decode(header.kind, &frame[HEADER_LEN..]);
            assert_eq!(decoded, Ok(Some(change.frame(key(told)))));
            told += 1;
            rest = later;
        }
        batch.advance(len);
        batch.recycle(&mut pool);
    }
    assert!(outbox.take(at(0), &mut pool, &mut drops).is_none() && outbox.is_empty());
    assert!(outbox.backlog.is_none(), "nothing is kept for a watcher that is owed nothing");
}

/// A sender that floods a key loses its own packets. Another one's leave in order, none is lost, and none waits for the
/// backlog of the flood.
#[test]
fn a_flood_evicts_nothing_of_other_senders_and_does_not_delay_them() {
    const BYTES: usize = 512 * 1024;
    let limits = Limits {
        bytes: BYTES,
        packets: 32,
        disco_bytes: 32 * 1024,
        age: Duration::from_secs(1),
        hold_above: BYTES,
    };
    let flooder = NodePublic::from_bytes([1; 32]);
    for disco in [false, true] {
        let (mut outbox, mut drops, mut pool) = (outbox(limits), Drops::default(), BufferPool::default());
        outbox.set_blocked(true);
        let (mut pushed, mut arrived, mut next, mut worst) = (0, Vec::new(), 0, 0);
        // The receiver drains a packet each millisecond, the flooder sends ten, the other one each ten milliseconds.
        for ms in 0..10_000 {
            for _ in 0..10 {
                outbox.push_packet(at(ms), &flooder, &packet(u32::MAX, 1400, disco), &mut pool, &mut drops);
            }
            if ms % 10 == 0 {
                outbox.push_packet(at(ms), &FROM, &packet(ms as u32, 1400, disco), &mut pool, &mut drops);
                pushed += 1;
            }
            let batch = outbox.take(at(ms), &mut pool, &mut drops).expect("a backlog");
            let (sent, rest) = drain(batch, 1, 1);
            outbox.give_back(rest, &mut pool, &mut drops);
            for number in sent.into_iter().filter(|&number| number != u32::MAX) {
                assert_eq!(number, next, "in order");
                next += 10;
                worst = worst.max(ms - u64::from(number));
                arrived.push(number);
            }
        }
        assert!(worst <= 50, "a packet waited for {worst} ms");
        assert!(pushed - arrived.len() <= 5, "{} of {pushed} arrived", arrived.len());
        assert!(drops.0.len() > 80_000);
    }
}

/// The memory of an outbox whose socket is full, against what its bound says.
#[test]
fn an_outbox_takes_hardly_more_memory_than_its_bound() {
    const BYTES: usize = 512 * 1024;
    let limits = Limits {
        bytes: BYTES,
        packets: 32,
        disco_bytes: 32 * 1024,
        age: Duration::from_secs(1),
        hold_above: BYTES,
    };
    for (len, most) in [(100, 1.2), (1_400, 1.2), (9_000, 1.2), (65_000, 4.1)] {
        let (mut outbox, mut drops, mut pool) = (outbox(limits), Drops::default(), BufferPool::default());
        outbox.set_blocked(true);
        let mut held = 0;
        for ms in 0..900 {
            for sender in 0..20 {
                let from = NodePublic::from_bytes([sender; 32]);
                outbox.push_packet(at(ms), &from, &vec![0; len], &mut pool, &mut drops);
            }
            held += pool.settle();
            assert!(held <= (BYTES as f64 * most) as isize, "{held} bytes for packets of {len}");
        }
        assert!(outbox.len() > BYTES * 9 / 10, "{} bytes wait", outbox.len());
        assert!(outbox.next_expiry(at(900)) >= at(0) + limits.age);
        // Nothing is pushed or sent any more.
        outbox.expire(at(3_000), &mut pool, &mut drops);
        held += pool.settle();
        assert_eq!((outbox.len(), outbox.next_expiry(at(3_000))), (0, at(4_000)));
        assert!(held <= 64 * 1024, "{held} bytes are kept for nothing");
    }
}

/// Outboxes whose sockets are full leave memory to the others, and take no more than there is.
#[test]
fn outboxes_that_cannot_be_sent_share_what_memory_there_is() {
    const ROOM: isize = 8 * 1024 * 1024;
    let limits = Limits {
        bytes: 512 * 1024,
        packets: 32,
        disco_bytes: 32 * 1024,
        age: Duration::from_secs(9),
        hold_above: 1,
    };
    let (mut pool, mut drops) = (BufferPool::default(), Drops::default());
    let mut outboxes: Vec<_> = (0..1_000).map(|_| outbox(limits)).collect();
    pool.set_room(ROOM);
    for _ in 0..100 {
        for outbox in &mut outboxes {
            outbox.set_blocked(true);
            push_into(outbox, 1400, &mut pool, &mut drops);
        }
    }
    assert!(pool.room() > ROOM as usize / 64, "{} bytes are left to others", pool.room());
    assert!(outboxes.iter().all(|outbox| outbox.len() >= 1437), "each holds something");
    assert!(drops.0.iter().all(|&(reason, ..)| reason == DropReason::Memory));
    // What comes for an outbox whose socket takes bytes is not refused.
    let mut free = outbox(limits);
    let before = drops.0.len();
    (0..20).for_each(|_| push_into(&mut free, 1400, &mut pool, &mut drops));
    assert_eq!((free.len(), drops.0.len()), (20 * 1437, before));
    for mut outbox in outboxes.into_iter().chain([free]) {
        outbox.drop_all(DropReason::Gone, &mut pool, &mut drops);
    }
    pool.clear();
    assert_eq!(pool.settle(), 0, "all of it is given back");
}

fn push_into(outbox: &mut Outbox, len: usize, pool: &mut BufferPool, drops: &mut Drops) {
    outbox.push_packet(at(0), &FROM, &vec![0; len], pool, drops);
}
