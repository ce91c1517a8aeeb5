//! What the tests share: the turn of each, sockets in namespaces, flows that measure.

use std::iter::repeat_with;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use rustix::thread::gettid;
use towpath_lab::{Lab, Namespace, Server, Site, lack};

/// How long a packet may take that must arrive.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// A machine that does other things stops everything for some milliseconds now and then. One flow of so many is without.
pub(crate) const TRIES: u32 = 10;
/// A flow has ended when nothing comes for so long. No link of the tests takes longer.
const ENDED: Duration = Duration::from_millis(500);
/// Bytes that a receiver holds until the test reads them.
const RECEIVE_BUFFER: usize = 64 << 20;

/// One test at a time: they measure time. `None`, with a word about it, where the machine lacks something.
#[expect(clippy::print_stdout, reason = "a test that is skipped says so")]
pub(crate) fn turn() -> Option<MutexGuard<'static, ()>> {
    static LACK: LazyLock<Option<String>> = LazyLock::new(lack);
    static TURN: Mutex<()> = Mutex::new(());
    // A test that has failed leaves nothing behind that another could see.
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(lack) = &*LACK else { return Some(turn) };
    println!("skipped: no {lack}");
    None
}

/// A socket in a namespace, whose reads end after a while.
pub(crate) fn bind(namespace: &Namespace, address: IpAddr) -> UdpSocket {
    let socket = namespace.run(|| UdpSocket::bind((address, 0))).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// The payload and the source of the next datagram, which must come.
#[track_caller]
pub(crate) fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = [0; 2048];
    let (len, from) = socket.recv_from(&mut buffer).expect("a datagram that must arrive");
    (buffer[..len].to_vec(), from)
}

/// Whether a datagram comes before one that is sent behind it on a way that is open.
pub(crate) fn came_before(socket: &UdpSocket, payload: &[u8], behind: &[u8]) -> bool {
    repeat_with(|| receive(socket).0).take_while(|got| got != behind).any(|got| got == payload)
}

/// Two servers at two sites, with a socket on each.
pub(crate) struct Two {
    pub(crate) lab: Lab,
    pub(crate) sites: [Site; 2],
    pub(crate) servers: [Server; 2],
    pub(crate) sockets: [UdpSocket; 2],
}

impl Two {
    pub(crate) fn build(seed: u64) -> Self {
        let mut lab = Lab::new(seed).unwrap();
        let sites = [(); 2].map(|()| lab.add_site());
        let servers = sites.map(|site| lab.add_server(site).unwrap());
        let sockets = servers.each_ref().map(|server| bind(server.namespace(), server.v4()));
        let two = Self { lab, sites, servers, sockets };
        two.sockets[0].send_to(&[], two.address(1)).unwrap();
        receive(&two.sockets[1]);
        two
    }

    pub(crate) fn address(&self, side: usize) -> SocketAddr {
        self.sockets[side].local_addr().unwrap()
    }

    /// Sends numbered datagrams from one side to the other, so many in each millisecond, and returns those that arrive: their
    /// numbers, and how long each took.
    pub(crate) fn flow(&self, from: usize, count: u32, in_a_millisecond: u32) -> Vec<(u32, Duration)> {
        let (sender, receiver, to) = (&self.sockets[from], &self.sockets[1 - from], self.address(1 - from));
        set_socket_recv_buffer_size_force(receiver, RECEIVE_BUFFER).unwrap();
        let begun = Instant::now();
        scope(|scope| {
            let receiving = scope.spawn(move || collect(receiver, begun));
            scope.spawn(move || send(sender, to, count, in_a_millisecond, begun));
            receiving.join().unwrap()
        })
    }
}

/// Sends a flow.
fn send(sender: &UdpSocket, to: SocketAddr, count: u32, in_a_millisecond: u32, begun: Instant) {
    hurry();
    for number in 0..count {
        let due = Duration::from_millis((number / in_a_millisecond).into());
        sleep(due.saturating_sub(begun.elapsed()));
        let sent = u64::try_from(begun.elapsed().as_nanos()).unwrap();
        let payload = [&number.to_be_bytes()[..], &sent.to_be_bytes()].concat();
        sender.send_to(&payload, to).unwrap();
    }
}

/// Puts the calling thread before all others but those of the wire: what a busy machine delays in a test is no delay of a link.
fn hurry() {
    let thread = gettid().to_string();
    let status = Command::new("chrt").args(["--fifo", "--pid", "5", &thread]).status();
    assert!(status.unwrap().success(), "root may choose priorities");
}

/// What arrives of a flow until it has ended: numbers and delays.
fn collect(receiver: &UdpSocket, begun: Instant) -> Vec<(u32, Duration)> {
    hurry();
    receiver.set_read_timeout(Some(ENDED)).unwrap();
    let mut arrived = Vec::new();
    let mut payload = [0; 12];
    while receiver.recv_from(&mut payload).is_ok() {
        let now = begun.elapsed();
        let (number, sent) = payload.split_at(4);
        let sent = Duration::from_nanos(u64::from_be_bytes(sent.try_into().unwrap()));
        arrived.push((u32::from_be_bytes(number.try_into().unwrap()), now - sent));
    }
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    arrived
}

/// The delay below which so many thousandths of a flow were.
pub(crate) fn quantile(flow: &[(u32, Duration)], thousandths: usize) -> Duration {
    let mut delays: Vec<_> = flow.iter().map(|(_, delay)| *delay).collect();
    delays.sort_unstable();
    delays[(delays.len() * thousandths / 1000).min(delays.len() - 1)]
}
