//! A link to the relay of a region: dialled when it is needed, served until it breaks, and dialled again; or until it does not
//! answer, and another one has taken its place.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use towpath_disco::datagram::{Region, RelayEvent};
use towpath_relay_client::{Client, ClientReceiver, ClientSender, Event, RecvError, SendError};
use towpath_wire::ErrorChain;
use towpath_wire::derp::frame::PingData;
use towpath_wire::key::{NodePrivate, NodePublic};
use tracing::{debug, info, warn};

use super::pause::Pauses;
use super::queue::{LinkQueue, Taken};
use crate::relay_map::{RelayMap, RelayTrust};
use crate::shared::Shared;

/// How long a link that is neither the home's nor the standby's is kept without a packet (`magicsock.derpInactiveCleanupTime`).
const IDLE: Duration = Duration::from_secs(60);
/// How long the end of a link may take to send what waits.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// How long a link has worked for whose loss is no sign of what would end the next one as well: it is dialled again at once.
const WORKED: Duration = Duration::from_secs(5);
/// How long a link is read from when another one has taken its place, for what was on its way.
const READ_ON: Duration = Duration::from_millis(500);
/// Pings to the relay that are remembered.
const MOST_PINGS: usize = 32;

/// What all links share.
#[derive(Debug)]
pub(crate) struct LinkContext {
    pub(crate) key: NodePrivate,
    pub(crate) map: RelayMap,
    pub(crate) trust: RelayTrust,
    pub(crate) shared: Weak<Shared>,
}

/// What a link is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Use {
    is_home: bool,
    /// Whether the link is kept up without a packet to send.
    is_kept: bool,
    is_closing: bool,
}

/// How the link to a relay is, for a person.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RelayHealth {
    pub(crate) is_up: bool,
    /// The round trip to the relay, as it was measured last.
    pub(crate) rtt: Option<Duration>,
    /// Why the relay could not be reached the last time, or what it says of this connection.
    pub(crate) trouble: Option<String>,
}

/// A link to the relay of a region.
#[derive(Debug)]
pub(crate) struct Link {
    region: Region,
    queue: LinkQueue,
    purpose: watch::Sender<Use>,
    /// It is to be dialled anew, whether it is up or not.
    redial: Notify,
    health: watch::Sender<RelayHealth>,
    /// Follows the end of the task.
    ended: watch::Receiver<()>,
}

impl Link {
    /// Starts the link to a region; `None` for one that is not on the map.
    pub(super) fn start(context: &Arc<LinkContext>, region: Region) -> Option<Arc<Self>> {
        let shared = context.shared.upgrade()?;
        context.map.region(region).filter(|region| region.dialled().next().is_some())?;
        let (alive, ended) = watch::channel(());
        let link = Arc::new(Self {
            region,
            queue: LinkQueue::default(),
            purpose: watch::Sender::new(Use::default()),
            redial: Notify::new(),
            health: watch::Sender::default(),
            ended,
        });
        let (task, context) = (link.clone(), context.clone());
        shared.spawn(async move {
            task.run(&context).await;
            drop(alive);
        });
        Some(link)
    }

    pub(crate) const fn region(&self) -> Region {
        self.region
    }

    pub(crate) fn health(&self) -> RelayHealth {
        self.health.borrow().clone()
    }

    /// Waits until the link is up.
    pub(crate) async fn up(&self) {
        // The sender is this link's own, so it does not end before.
        let _ = self.health.subscribe().wait_for(|health| health.is_up).await;
    }

    pub(crate) fn set_use(&self, is_home: bool, is_kept: bool) {
        self.purpose.send_if_modified(|purpose| {
            let before = std::mem::replace(purpose, Use { is_home, is_kept, ..*purpose });
            before != *purpose
        });
    }

    /// Adds a disco packet. Returns how many are lost for it.
    pub(crate) fn push_disco(&self, peer: NodePublic, packet: Vec<u8>) -> usize {
        self.queue.push_disco(peer, packet)
    }

    /// Adds packets of the application. Returns how many of the oldest are lost for them.
    pub(crate) fn push_data<'a>(&self, peer: &NodePublic, packets: impl Iterator<Item = &'a [u8]>) -> usize {
        self.queue.push_data(peer, packets)
    }

    /// Adds copies of packets that go directly as well. Returns how many are left out, because there is no room.
    pub(crate) fn push_copies<'a>(
        &self,
        peer: &NodePublic,
        packets: impl Iterator<Item = &'a [u8]>,
    ) -> usize {
        self.queue.push_copies(peer, packets)
    }

    /// Asks the relay for a pong.
    pub(crate) fn push_ping(&self) {
        self.queue.push_ping();
    }

    /// Dials anew at once. A link that is up serves until another one has taken its place.
    pub(crate) fn redial(&self) {
        self.redial.notify_one();
    }

    /// Waits until there is room for packets of the application; not while the relay cannot be reached, when old packets make room.
    pub(crate) async fn room(&self) {
        if self.health().is_up {
            let _ = timeout(LAST_WORDS, self.queue.room()).await;
        }
    }

    /// Sends what waits, and ends.
    pub(crate) async fn close(&self) {
        self.purpose.send_modify(|purpose| purpose.is_closing = true);
        let mut ended = self.ended.clone();
        let _ = timeout(LAST_WORDS, ended.changed()).await;
    }

    fn note(&self, change: impl FnOnce(&mut RelayHealth)) {
        self.health.send_modify(change);
    }

    async fn run(&self, context: &LinkContext) {
        let mut pauses = Pauses::default();
        let mut purpose = self.purpose.subscribe();
        loop {
            tokio::select! {
                _ = purpose.wait_for(|purpose| purpose.is_kept || purpose.is_closing) => {}
                () = self.queue.filled() => {}
            }
            if purpose.borrow_and_update().is_closing {
                return;
            }
            let Some(pause) = self.connect_once(context, &mut pauses).await else { continue };
            tokio::select! {
                () = sleep(pause) => {}
                // In another network the relay may well be reached.
                () = self.redial.notified() => {}
                _ = purpose.wait_for(|purpose| purpose.is_closing) => return,
            }
        }
    }

    /// Dials and serves the link until it ends. Returns how long the relay is left alone then; `None` if it was given up on purpose.
    async fn connect_once(&self, context: &LinkContext, pauses: &mut Pauses) -> Option<Duration> {
        let region = self.region;
        let mut client = loop {
            tokio::select! {
                dialled = self.dial(context) => match dialled {
                    Ok(client) => break client,
                    Err(error) => {
                        self.note_unreachable(error);
                        context.shared.upgrade()?.relay_event(RelayEvent::Down(region));
                        return Some(pauses.next(random_byte()));
                    }
                },
                () = self.redial.notified() => {}
            }
        };
        let (pings, mut before) = (Pings::default(), None);
        let mut began;
        let ended = loop {
            info!(region = region.0, relay = %client.relay(), "linked to the relay");
            // The machine first: a program that waits for the link sends as soon as it is up.
            context.shared.upgrade()?.relay_event(RelayEvent::Up(region));
            self.note(|health| (health.is_up, health.trouble) = (true, None));
            began = Instant::now();
            match self.serve(client, before, context, &pings).await {
                Served::Replaced(next, receiver) => (client, before) = (*next, Some(receiver)),
                Served::Ended(ended) => break ended,
            }
        };
        self.note(|health| health.is_up = false);
        context.shared.upgrade()?.relay_event(RelayEvent::Down(region));
        let has_worked = began.elapsed() > WORKED;
        if has_worked {
            pauses.reset();
        }
        match ended {
            LinkEnd::Idle | LinkEnd::Closed => {
                debug!(region = region.0, "closed the link to the relay, which is not used");
                None
            }
            LinkEnd::Restarting(pause) => {
                info!(region = region.0, ?pause, "the relay restarts");
                Some(pause)
            }
            LinkEnd::Broken(error) => {
                warn!(region = region.0, error, "lost the link to the relay");
                self.note(|health| health.trouble = Some(error));
                Some(if has_worked { Duration::ZERO } else { pauses.next(random_byte()) })
            }
        }
    }

    fn note_unreachable(&self, error: String) {
        let is_new = self.health().trouble.as_deref() != Some(error.as_str());
        if is_new {
            warn!(region = self.region.0, error, "cannot reach the relay; trying again");
        }
        self.note(|health| health.trouble = Some(error));
    }

    /// Waits until the link is to be dialled anew, and dials until another one is there. Anything that is heard on the old one
    /// meanwhile ends the dial.
    async fn replacement(&self, context: &LinkContext, heard: &Notify) -> Client {
        self.redial.notified().await;
        loop {
            debug!(
                region = self.region.0,
                "the relay does not answer: dialling another link beside this one"
            );
            let heard = heard.notified();
            let dial = async {
                let mut pauses = Pauses::default();
                loop {
                    match self.dial(context).await {
                        Ok(client) => return client,
                        Err(error) => self.note_unreachable(error),
                    }
                    sleep(pauses.next(random_byte())).await;
                }
            };
            tokio::select! {
                client = dial => return client,
                () = heard => {
                    debug!(region = self.region.0, "the relay has answered late: the link stays");
                    self.note(|health| health.trouble = None);
                    self.redial.notified().await;
                }
                () = self.redial.notified() => {}
            }
        }
    }

    /// Dials the relays of the region in their order. Returns why the last one cannot be reached.
    async fn dial(&self, context: &LinkContext) -> Result<Client, String> {
        let region = context.map.region(self.region).ok_or("the region is not on the map")?;
        let mut failure = String::from("the region has no relay");
        for node in region.dialled() {
            let dialer = match context.trust.dialer(node) {
                Ok(dialer) => dialer,
                Err(error) => {
                    failure = format!("{}: {}", node.host_name, ErrorChain(&error));
                    continue;
                }
            };
            match dialer.connect(&context.key).await {
                Ok(client) => return Ok(client),
                Err(error) => failure = format!("{}: {}", node.host_name, ErrorChain(&error)),
            }
        }
        Err(failure)
    }

    /// Serves a link until it ends or another one is there. `before` is what is left to be read of the link before.
    async fn serve(
        &self,
        client: Client,
        before: Option<Box<ClientReceiver>>,
        context: &LinkContext,
        pings: &Pings,
    ) -> Served {
        let (sender, mut receiver) = client.split();
        // The round trip of a new link is measured at once.
        self.queue.push_ping();
        let (used, heard) = (watch::Sender::new(Instant::now()), Notify::new());
        let ended = tokio::select! {
            ended = self.write(&sender, pings, &used) => ended,
            ended = self.read(&mut receiver, context, pings, &used, &heard) => ended,
            () = self.unused(&used) => LinkEnd::Idle,
            client = self.replacement(context, &heard) => {
                return Served::Replaced(Box::new(client), Box::new(receiver));
            }
            never = self.read_on(before, context) => match never {},
        };
        if matches!(ended, LinkEnd::Closed | LinkEnd::Idle) {
            let _ = timeout(LAST_WORDS, sender.close()).await;
        }
        Served::Ended(ended)
    }

    /// Reads what is left of a link that another one has taken the place of. Does not end.
    async fn read_on(&self, before: Option<Box<ClientReceiver>>, context: &LinkContext) -> Infallible {
        if let Some(mut receiver) = before {
            let read = async {
                while let Ok(event) = receiver.recv().await {
                    if let (Event::Packet { from, packet }, Some(shared)) = (event, context.shared.upgrade())
                    {
                        shared.receive_relayed(self.region, from, &packet);
                    }
                }
            };
            let _ = timeout(READ_ON, read).await;
        }
        std::future::pending().await
    }

    /// Sends what waits, until the link is closed.
    async fn write(&self, sender: &ClientSender, pings: &Pings, used: &watch::Sender<Instant>) -> LinkEnd {
        let mut purpose = self.purpose.subscribe();
        let mut said_home = false;
        loop {
            let wanted = *purpose.borrow_and_update();
            if wanted.is_home != said_home {
                if let Err(error) = sender.note_preferred(wanted.is_home).await {
                    return LinkEnd::of_send(&error);
                }
                said_home = wanted.is_home;
            }
            let taken = tokio::select! {
                taken = self.queue.take() => taken,
                _ = purpose.changed() => match self.queue.try_take() {
                    Some(taken) => taken,
                    None if purpose.borrow().is_closing => return LinkEnd::Closed,
                    None => continue,
                },
            };
            // A ping is no use of a link: it would keep itself up.
            let is_use = !taken.packets.is_empty();
            if let Err(error) = send(sender, taken, pings).await {
                return LinkEnd::of_send(&error);
            }
            if is_use {
                used.send_replace(Instant::now());
            }
        }
    }

    async fn read(
        &self,
        receiver: &mut ClientReceiver,
        context: &LinkContext,
        pings: &Pings,
        used: &watch::Sender<Instant>,
        heard: &Notify,
    ) -> LinkEnd {
        let region = self.region;
        loop {
            let event = match receiver.recv().await {
                Ok(event) => event,
                Err(error) => return LinkEnd::of_recv(&error),
            };
            let Some(shared) = context.shared.upgrade() else { return LinkEnd::Closed };
            heard.notify_waiters();
            match event {
                Event::Packet { from, packet } => {
                    used.send_replace(Instant::now());
                    shared.receive_relayed(region, from, &packet);
                }
                Event::PeerGone { peer, .. } => shared.relay_event(RelayEvent::PeerGone { region, peer }),
                Event::Pong(data) => {
                    if let Some(took) = pings.answered(data) {
                        self.note(|health| health.rtt = Some(took));
                        shared.relay_event(RelayEvent::RoundTrip { region, took });
                    }
                }
                Event::Health(text) => {
                    if !text.is_empty() {
                        warn!(
                            region = region.0,
                            text, "the relay says that something is wrong with this connection"
                        );
                    }
                    self.note(|health| health.trouble = (!text.is_empty()).then_some(text));
                }
                Event::Restarting { reconnect_in, .. } => return LinkEnd::Restarting(reconnect_in),
                Event::KeepAlive | Event::PeerPresent { .. } => shared.relay_event(RelayEvent::Heard(region)),
            }
        }
    }

    /// Ends when the link has not been used for long and is not to be kept.
    async fn unused(&self, used: &watch::Sender<Instant>) {
        let mut purpose = self.purpose.subscribe();
        loop {
            if purpose.wait_for(|purpose| !purpose.is_kept).await.is_err() {
                return std::future::pending().await;
            }
            let end = *used.borrow() + IDLE;
            if end <= Instant::now() {
                return;
            }
            tokio::select! {
                () = sleep_until(end) => {}
                _ = purpose.changed() => {}
            }
        }
    }
}

/// What became of a link.
#[derive(Debug)]
enum Served {
    Ended(LinkEnd),
    /// Another one takes its place, and this is what there may be to read of it.
    Replaced(Box<Client>, Box<ClientReceiver>),
}

/// Why a link ended.
#[derive(Debug)]
enum LinkEnd {
    Idle,
    Closed,
    /// The relay restarts, and is to be dialled after this.
    Restarting(Duration),
    Broken(String),
}

impl LinkEnd {
    fn of_send(error: &SendError) -> Self {
        Self::Broken(ErrorChain(error).to_string())
    }

    fn of_recv(error: &RecvError) -> Self {
        Self::Broken(ErrorChain(error).to_string())
    }
}

async fn send(sender: &ClientSender, taken: Taken, pings: &Pings) -> Result<(), SendError> {
    let packets: Vec<_> = taken.packets.iter().map(|(peer, packet)| (*peer, &packet[..])).collect();
    sender.send_batch(packets).await?;
    if taken.has_ping {
        sender.ping(pings.next()).await?;
    }
    Ok(())
}

/// Pings to a relay that wait for their answers.
#[derive(Debug, Default)]
struct Pings(Mutex<(u64, VecDeque<(PingData, Instant)>)>);

impl Pings {
    fn next(&self) -> PingData {
        let mut pings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pings.0 += 1;
        let data = pings.0.to_be_bytes();
        if pings.1.len() >= MOST_PINGS {
            pings.1.pop_front();
        }
        pings.1.push_back((data, Instant::now()));
        data
    }

    fn answered(&self, data: PingData) -> Option<Duration> {
        let mut pings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = pings.1.iter().position(|(sent, _)| *sent == data)?;
        let (_, sent) = pings.1.remove(at)?;
        Some(sent.elapsed())
    }
}

fn random_byte() -> u8 {
    let mut byte = [0];
    // Without randomness all pauses are the shortest of their range.
    let _ = getrandom::fill(&mut byte);
    byte[0]
}
