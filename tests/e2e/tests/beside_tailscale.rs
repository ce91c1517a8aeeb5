//! What `make lab` measures beside Tailscale, and writes to docs/nat.md: how soon an echo comes directly through a tunnel of WireGuard, with
//! stock tailscaled, and with wireguard-go and `towpath proxy`. It needs root, and says `skipped` without.

use std::fmt::Write as _;
use std::thread::sleep;
use std::time::Duration;

use towpath_e2e::{Kind, Machine, Pings, Programs, Tailnet, Tunnel, millis, runs, turn, write_part};
use towpath_lab::{Class, Pair, Spread, Stage, Timing, Traffic};

/// How long programs run before the first ping.
const SETTLED: Duration = Duration::from_secs(4);
/// How long it may take until an echo comes directly.
const LIMIT: Duration = Duration::from_secs(15);
/// A round trip that is no longer than this is not one over the relay.
const DIRECT: Duration = Duration::from_millis(75);
/// The share of datagrams that each link to or from a host loses, in each direction.
const LOSSES: [f64; 2] = [0.0, 0.05];

const PAIRS: [(Class, Class); 7] = [
    (Class::P, Class::P),
    (Class::O, Class::R),
    (Class::A, Class::P),
    (Class::O, Class::P),
    (Class::O, Class::O),
    (Class::P, Class::O),
    (Class::Poisonable, Class::Poisonable),
];

/// By how much a median may be above Tailscale's.
const BEYOND: Duration = Duration::from_millis(20);
/// Above this median of Tailscale's, half of it is the goal.
const SLOW: Duration = Duration::from_millis(200);
/// What p99 may be with loss.
const P99: Duration = Duration::from_secs(1);

/// The times until an echo came directly, in those of so many runs in which one did.
fn measure(stage: &Stage, machine: &Machine, host: &str, loss: f64, start_again: impl Fn()) -> Spread {
    let run = |_| {
        stage.lose(0.0, Traffic::Udp);
        start_again();
        sleep(SETTLED);
        stage.lose(loss, Traffic::Udp);
        let pings = Pings::start(machine, host);
        let reply = pings.wait_for(LIMIT, |reply| reply.took < DIRECT);
        machine.run("pkill -x ping; while pgrep -x ping; do sleep 0.02; done");
        Some(reply?.came.saturating_sub(pings.began()?))
    };
    (0..runs()).filter_map(run).collect()
}

fn tailscale(programs: &Programs, pair: &Pair) -> [Spread; 2] {
    let tailnet = Tailnet::start(programs, pair);
    let address = tailnet.address().to_string();
    LOSSES.map(|loss| measure(&tailnet.stage, &tailnet.machines[0], &address, loss, || tailnet.start_again()))
}

fn towpath(programs: &Programs, pair: &Pair) -> [Spread; 2] {
    let tunnel = Tunnel::start(Kind::Towpath, programs, pair);
    LOSSES.map(|loss| measure(&tunnel.stage, &tunnel.machines[0], "dev", loss, || tunnel.start_again()))
}

/// What is not as it should be, for one pair and one loss.
fn complaint(theirs: &Spread, ours: &Spread, loss: f64) -> Option<String> {
    if ours.len() < runs() {
        return Some(format!("{} of {} became direct", ours.len(), runs()));
    }
    let (median, p99) = (ours.median()?, ours.p99()?);
    // One that is not direct in half of the runs is direct later than the limit.
    let theirs = theirs.median().filter(|_| theirs.len() * 2 > runs()).unwrap_or(LIMIT);
    let goal = if theirs > SLOW { theirs / 2 } else { theirs + BEYOND };
    if median > goal {
        return Some(format!("a median of {median:?}, above {goal:?}"));
    }
    (loss > 0.0 && p99 > P99).then(|| format!("p99 is {p99:?}"))
}

fn cells(times: &Spread) -> String {
    let [median, most] = [500, 1000].map(|share| millis(times.per_mille(share)));
    format!("{} of {} | {median} | {most}", times.len(), runs())
}

#[test]
#[ignore = "takes an hour and writes docs/nat.md: make lab"]
fn a_tunnel_is_direct_sooner_than_one_of_stock_tailscaled() {
    let Some((programs, _turn)) = turn() else { return };
    let mut complaints = Vec::new();
    let mut table = String::from(
        "| pings | other | loss of UDP | tailscaled: direct | median | most | Towpath: direct | median | most |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for (seed, (one, other)) in (1..).zip(PAIRS) {
        let pair = Pair::new(one, other, Timing::NEAR, seed);
        let (theirs, ours) = (tailscale(programs, &pair), towpath(programs, &pair));
        for ((theirs, ours), loss) in theirs.iter().zip(&ours).zip(LOSSES) {
            let row =
                format!("| {one} | {other} | {} % | {} | {} |", loss * 100.0, cells(theirs), cells(ours));
            println!("{row}");
            writeln!(table, "{row}").expect("a row");
            let complaint = complaint(theirs, ours, loss);
            complaints.extend(complaint.map(|complaint| format!("{one}, {other}, {loss}: {complaint}")));
        }
    }
    write_part("lab tailscaled", &table);
    assert!(complaints.is_empty(), "{complaints:#?}");
}
