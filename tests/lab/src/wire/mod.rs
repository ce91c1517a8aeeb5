//! The wire: one thread that carries every packet between the uplinks of NATs and servers.
//!
//! An uplink is a TUN interface whose descriptor the wire holds, so the wire is the whole public internet, and needs neither
//! a switch nor ARP. A TUN interface offers the kernel no offload: the kernel cuts large GSO packets and writes checksums before
//! the wire reads them, and no packet that the wire writes is taken together with others unseen.

mod core;
mod packet;

use std::fs::{File, read_to_string};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Instant as Clock;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{read, write};
use rustix::thread::gettid;
use towpath_sim::Link;
use towpath_wire::sync::lock;
use towpath_wire::time::Instant;

use self::core::Core;
pub use self::core::{Counts, Lateness};
use crate::error::LabError;
use crate::namespace::Namespace;
use crate::site::Site;
use crate::sys;
use crate::tools::ip;

/// Packets that an interface holds until the wire reads them: those of half a second at 40,000 a second.
const QUEUE_LEN: usize = 20_000;
/// Packets that are read of one uplink before those are written that are due.
const TURN: usize = 32;
/// An IP packet is not longer.
const PACKET_MAX_LEN: usize = 65_535;
/// The priority of the wire among threads of real time. All others wait for it, so that a busy machine delays no packet.
const PRIORITY: &str = "10";

/// Where a NAT or a server is attached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Uplink(usize);

/// The wire. Clones are of the same one; [`Carrier`] is its thread.
#[derive(Clone, Debug)]
pub(crate) struct Wire(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    core: Mutex<Core>,
    /// The descriptors of the uplinks, with the namespace and the name of each interface.
    interfaces: Mutex<Vec<(Arc<File>, Namespace, &'static str)>>,
    /// Written to when there is something new for the thread.
    news: OwnedFd,
    ended: AtomicBool,
    /// Packets that the kernel did not take from the wire.
    refused: AtomicU64,
    started: Clock,
}

/// The thread of a wire, which ends when this is dropped. The uplinks go with it.
#[derive(Debug)]
pub(crate) struct Carrier {
    wire: Wire,
    thread: Option<JoinHandle<()>>,
}

impl Carrier {
    /// Starts a wire without uplinks.
    pub(crate) fn start(seed: u64) -> Result<Self, LabError> {
        let news = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let wire = Wire(Arc::new(Shared {
            core: Mutex::new(Core::new(seed)),
            interfaces: Mutex::new(Vec::new()),
            news: news.map_err(|error| LabError::of("make an eventfd")(error.into()))?,
            ended: AtomicBool::new(false),
            refused: AtomicU64::new(0),
            started: Clock::now(),
        }));
        let carry = {
            let wire = wire.clone();
            move || wire.carry()
        };
        let thread = thread::Builder::new().name("lab-wire".into()).spawn(carry);
        Ok(Self { wire, thread: Some(thread.map_err(LabError::of("start the wire"))?) })
    }

    pub(crate) const fn wire(&self) -> &Wire {
        &self.wire
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        self.wire.0.ended.store(true, Ordering::Release);
        self.wire.tell();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was shown when it happened.
            _ = thread.join();
        }
        lock(&self.wire.0.interfaces).clear();
    }
}

impl Wire {
    /// Adds an uplink at a site: an interface in a namespace, which is up.
    pub(crate) fn attach(
        &self,
        namespace: &Namespace,
        name: &'static str,
        site: Site,
    ) -> Result<Uplink, LabError> {
        let make = || -> io::Result<_> {
            let file =
                open("/dev/net/tun", OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
            sys::make_tun(&file, name)?;
            Ok(File::from(file))
        };
        let file = namespace.run(make).map_err(LabError::of("make a TUN interface"))?;
        ip(namespace, &format!("link set dev {name} txqueuelen {QUEUE_LEN}\nlink set dev {name} up\n"))?;
        let mut interfaces = lock(&self.0.interfaces);
        let uplink = lock(&self.0.core).add_uplink(site);
        interfaces.push((Arc::new(file), namespace.clone(), name));
        drop(interfaces);
        self.tell();
        Ok(Uplink(uplink))
    }

    /// Sends what has a destination to an uplink from now on.
    pub(crate) fn route(&self, destination: IpAddr, uplink: Uplink) {
        lock(&self.0.core).add_route(destination, uplink.0);
    }

    /// The link from one site to another.
    pub(crate) fn link(&self, from: Site, to: Site) -> Link {
        *lock(&self.0.core).link(from, to)
    }

    /// Changes the link from one site to another. Packets that are on their way arrive as if it had not changed.
    pub(crate) fn change(&self, from: Site, to: Site, change: impl FnOnce(&mut Link)) {
        change(lock(&self.0.core).link(from, to));
    }

    /// What became of the packets from one site to another.
    pub(crate) fn counts(&self, from: Site, to: Site) -> Counts {
        lock(&self.0.core).counts(from, to)
    }

    /// Packets that were dropped for want of room: in front of the wire, in it, or behind it.
    pub(crate) fn own_drops(&self) -> Result<u64, LabError> {
        let in_front: u64 = lock(&self.0.interfaces)
            .iter()
            .map(|(_, namespace, name)| namespace.run(|| interface_drops(name)))
            .sum::<io::Result<u64>>()
            .map_err(LabError::of("read the counters of an interface"))?;
        Ok(in_front + lock(&self.0.core).overflowed() + self.0.refused.load(Ordering::Relaxed))
    }

    /// How late the wire was.
    pub(crate) fn lateness(&self) -> Lateness {
        lock(&self.0.core).lateness()
    }

    fn now(&self) -> Instant {
        Instant::from(self.0.started.elapsed())
    }

    /// Wakes the thread up.
    fn tell(&self) {
        // It fails only where the thread has been told 2^64 times and does not look.
        _ = write(&self.0.news, &1_u64.to_ne_bytes());
    }

    /// What the thread does.
    fn carry(&self) {
        // Without the right to it, packets are late on a busy machine, which is counted.
        let thread = gettid().to_string();
        _ = Command::new("chrt").args(["--fifo", "--pid", PRIORITY, &thread]).stderr(Stdio::null()).status();
        let mut buffer = vec![0; PACKET_MAX_LEN];
        while !self.0.ended.load(Ordering::Acquire) {
            let files = self.files();
            for (uplink, is_ready) in self.wait(&files).into_iter().enumerate() {
                if is_ready {
                    self.take(uplink, &files[uplink], &mut buffer);
                }
            }
            // What was taken goes to uplinks that were there before it.
            self.deliver(&self.files());
        }
    }

    fn files(&self) -> Vec<Arc<File>> {
        lock(&self.0.interfaces).iter().map(|(file, ..)| file.clone()).collect()
    }

    /// Waits until an uplink has a packet, or a packet is due. Returns which uplinks are ready.
    fn wait(&self, files: &[Arc<File>]) -> Vec<bool> {
        let due = lock(&self.0.core).due();
        let rest = due.map(|due| due.since(self.now()));
        let rest = rest.map(|rest| Timespec::try_from(rest).expect("packets are minutes late at most"));
        let descriptors = files.iter().map(|file| file.as_fd()).chain([self.0.news.as_fd()]);
        let mut polled: Vec<_> = descriptors.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        if poll(&mut polled, rest.as_ref()).is_err() {
            // A signal has come. All there is to do is to look again.
            return Vec::new();
        }
        let mut ready: Vec<bool> = polled.iter().map(|polled| !polled.revents().is_empty()).collect();
        if ready.pop() == Some(true) {
            // That it was written to is all that it says.
            _ = read(&self.0.news, &mut [0_u8; 8][..]);
        }
        ready
    }

    /// Takes the packets that an uplink has.
    fn take(&self, uplink: usize, file: &File, buffer: &mut [u8]) {
        for _ in 0..TURN {
            // An error says that there are no more, or that the interface is down and has none.
            let Ok(len) = read(file, &mut *buffer) else { return };
            let now = self.now();
            lock(&self.0.core).take(uplink, &buffer[..len], now);
        }
    }

    /// Writes the packets that have arrived.
    fn deliver(&self, files: &[Arc<File>]) {
        loop {
            let now = self.now();
            let Some((arrives, uplink, packet)) = lock(&self.0.core).arrived(now) else { return };
            if write(&files[uplink], &packet).is_err() {
                self.0.refused.fetch_add(1, Ordering::Relaxed);
            }
            lock(&self.0.core).note_delivery(arrives, self.now());
        }
    }
}

/// Packets that the kernel had for an interface of the thread's namespace and no room, in either direction.
fn interface_drops(name: &str) -> io::Result<u64> {
    let table = read_to_string("/proc/thread-self/net/dev")?;
    let row = table.lines().find_map(|line| line.trim_start().strip_prefix(name)?.strip_prefix(':'));
    let fields: Vec<u64> =
        row.unwrap_or_default().split_whitespace().filter_map(|field| field.parse().ok()).collect();
    // The columns of both directions are bytes, packets, errors, drops and four others.
    match (fields.get(3), fields.get(11)) {
        (Some(inbound), Some(outbound)) => Ok(inbound + outbound),
        _ => Err(io::Error::new(io::ErrorKind::NotFound, "no such interface")),
    }
}
