//! What happens in the demo, in its order.

use std::time::Duration;

use anyhow::Context;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use towpath::{Endpoint, NodePublic, Path, Region};
use towpath_service::command::print;
use towpath_sim::{Action, Class};

use super::cast::{BETWEEN_PEERS, Cast, NAMES, TO_RELAYS};
use super::timeline::Timeline;
use super::traffic::{EACH, Traffic, millis};

/// How long the peers may take to become direct, and how long a state is shown.
const DIRECT: Duration = Duration::from_secs(5);
const SHOWN: Duration = Duration::from_millis(600);
/// How long the peers may take to become direct again once UDP passes again. Attempts become seldom after some that have failed.
const AGAIN: Duration = Duration::from_secs(45);

/// What the demo shows.
pub(super) struct Story {
    pub(super) classes: [Class; 2],
}

impl Story {
    pub(super) async fn tell(&self) -> anyhow::Result<()> {
        let timeline = Timeline::new();
        print(
            "Two peers know no more of each other than a key. Each is behind a NAT, and both know two relays.\n\
               Peers and relays are real; the NATs and the distances are simulated. Nothing leaves this process.\n\n",
        )?;
        let mut cast = Cast::gather(self.classes, &timeline).await?;
        print(&introduction(&cast))?;
        timeline.start();
        timeline.tell(&format!(
            "alice sends bob a packet, and goes on with one each {} ms; bob sends each one back. The first can only go over the \
             relay, and a hello goes with it: it names alice's addresses, sealed for bob",
            EACH.as_millis()
        ));
        let [alice, bob] = [0, 1].map(|at| cast.actors[at].endpoint.clone());
        let keys = cast.keys();
        let mut watching = JoinSet::new();
        watching.spawn(watch_introduction(bob.clone(), keys[0], 1, timeline.clone()));
        watching.spawn(watch_introduction(alice.clone(), keys[1], 0, timeline.clone()));
        watching.spawn(watch_path(alice.clone(), keys[1], 0, timeline.clone()));
        watching.spawn(watch_path(bob.clone(), keys[0], 1, timeline.clone()));
        let mut traffic = Traffic::start([&alice, &bob], keys, &timeline);

        let is_direct = become_direct(&alice, &bob, keys, DIRECT).await?;
        sleep(SHOWN).await;
        tell_round_trip(&traffic, &timeline);
        if !is_direct {
            tell_why(&alice, keys[1], &timeline);
        }
        lose_relay(&mut cast, &mut traffic, &alice, is_direct, &timeline).await?;
        if is_direct {
            block_udp(&cast, &traffic, [&alice, &bob], keys, &timeline).await?;
        }
        traffic.stop(Duration::from_secs(2)).await;
        print(&summary(&traffic))?;
        alice.close().await;
        bob.close().await;
        watching.shutdown().await;
        Ok(())
    }
}

fn introduction(cast: &Cast) -> String {
    let [near, far] = TO_RELAYS;
    let actors: String = cast.actors.iter().map(super::cast::Actor::introduction).collect();
    format!(
        "{actors}  relay 1 is {} ms from both, relay 2 {} ms; alice and bob are {} ms from each other. So a packet takes {} ms to bob \
         and back\n  over relay 1, and {} ms directly.\n\n",
        near.as_millis(),
        far.as_millis(),
        BETWEEN_PEERS.as_millis(),
        4 * near.as_millis(),
        2 * BETWEEN_PEERS.as_millis(),
    )
}

/// Waits until both peers are direct. Returns whether they are.
async fn become_direct(
    alice: &Endpoint,
    bob: &Endpoint,
    keys: [NodePublic; 2],
    longest: Duration,
) -> anyhow::Result<bool> {
    let (mut of_alice, mut of_bob) = (alice.watch_path(&keys[1])?, bob.watch_path(&keys[0])?);
    let both = async { tokio::join!(of_alice.direct(), of_bob.direct()) };
    Ok(timeout(longest, both).await.is_ok())
}

async fn watch_introduction(endpoint: Endpoint, peer: NodePublic, at: usize, timeline: Timeline) {
    if let Ok(Region(region)) = endpoint.introduced(&peer).await {
        let (name, other) = (NAMES[at], NAMES[1 - at]);
        timeline.tell(&format!(
            "{name} has the hello of {other}, over relay {region}, and knows the addresses to try"
        ));
    }
}

async fn watch_path(endpoint: Endpoint, peer: NodePublic, at: usize, timeline: Timeline) {
    let Ok(mut watch) = endpoint.watch_path(&peer) else { return };
    let (name, other) = (NAMES[at], NAMES[1 - at]);
    while let Ok(path) = watch.changed().await {
        timeline.tell(&match path {
            Path::Direct { address } => format!(
                "{name} is direct: a probe to {address} was answered. From here on packets to {other} go there, and over no relay"
            ),
            Path::Suspected { address } => format!(
                "{name} suspects the direct path, because {address} has not answered in time: packets go over the relay as well"
            ),
            Path::Lossy { .. } => format!("{name} leaves the direct path, which loses too much"),
            Path::Relayed => format!("{name} gives the direct path up: packets go over the relay alone"),
        });
    }
}

fn tell_round_trip(traffic: &Traffic, timeline: &Timeline) {
    if let Some((took, _)) = traffic.record().last {
        timeline.tell(&format!("a packet now takes {} to bob and back", millis(took)));
    }
}

fn tell_why(alice: &Endpoint, bob: NodePublic, timeline: &Timeline) {
    if let Some(why) = alice.why(&bob) {
        timeline.tell(&format!("alice and bob stay on the relay. `towpath why` would say: {why}"));
    }
}

/// Kills the relay of the home region.
async fn lose_relay(
    cast: &mut Cast,
    traffic: &mut Traffic,
    alice: &Endpoint,
    is_direct: bool,
    timeline: &Timeline,
) -> anyhow::Result<()> {
    traffic.record().take_longest_gap();
    cast.relays[0].kill().await;
    timeline.tell("relay 1 is killed: its connections break, and it accepts no others");
    let moved = async {
        while alice.status().home != Some(2) {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(DIRECT, moved).await.context("relay 2 does not take the place of relay 1")?;
    timeline.tell("relay 2, to which both have kept a link, is alice's home now");
    sleep(SHOWN).await;
    let gap = traffic.record().take_longest_gap();
    timeline.tell(&if is_direct {
        format!("the packets between alice and bob need no relay: the longest pause between two that came back was {}", millis(gap))
    } else {
        format!("packets go over relay 2; the longest pause between two that came back was {}", millis(gap))
    });
    tell_round_trip(traffic, timeline);
    Ok(())
}

/// Blocks UDP between the peers, and lets it through again.
async fn block_udp(
    cast: &Cast,
    traffic: &Traffic,
    endpoints: [&Endpoint; 2],
    keys: [NodePublic; 2],
    timeline: &Timeline,
) -> anyhow::Result<()> {
    let block = |blocked| {
        let [one, other] = cast.sites;
        for (from, to) in [(one, other), (other, one)] {
            cast.internet.act(Action::Block { from, to, blocked });
        }
    };
    traffic.record().take_longest_gap();
    block(true);
    timeline.tell("a firewall between alice and bob begins to drop UDP");
    sleep(SHOWN * 2).await;
    let gap = traffic.record().take_longest_gap();
    timeline.tell(&format!(
        "packets go over relay 2; the longest pause between two that came back was {}",
        millis(gap)
    ));
    tell_round_trip(traffic, timeline);
    block(false);
    timeline.tell("the firewall lets UDP through again");
    if become_direct(endpoints[0], endpoints[1], keys, AGAIN).await? {
        sleep(SHOWN).await;
        tell_round_trip(traffic, timeline);
    }
    Ok(())
}

fn summary(traffic: &Traffic) -> String {
    let record = traffic.record();
    format!(
        "\n{} packets were sent to bob and back; {} have come back, {} of them twice. Packets are lost only while a path breaks, \
         before that is noticed.\n\
         Next: `towpath netcheck` says what the network of this machine lets through; `towpath demo --help` has other NATs to try.\n",
        record.sent(),
        record.back,
        record.doubled,
    )
}
