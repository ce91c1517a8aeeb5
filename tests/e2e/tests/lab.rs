//! What `make lab` measures, and writes to docs/nat.md: how soon pairs behind real NATs are direct, and for how long nothing comes after
//! something has broken the path. These tests need root, and say `skipped` without.

use std::fmt::Write as _;
use std::thread::sleep;
use std::time::Duration;

use tokio::time::Instant;
use towpath_e2e::{Kind, Peers, Programs, cells, millis, runs, turn, write_part};
use towpath_lab::{Class, Direct, Lateness, Nat, Pair, Rebinding, Spread, Timing, Traffic, sweep};

/// How long a pair may take.
const LIMIT: Duration = Duration::from_secs(3);
/// The share of datagrams that each link to or from a host loses, in each direction, and how often that is measured at least.
const LOSS: f64 = 0.05;
const LOSSY_RUNS: usize = 300;
/// What the median without loss, and p99 with loss, may be beyond R + D.
const MEDIAN_BEYOND: Duration = Duration::from_millis(20);
const P99_BEYOND: Duration = Duration::from_millis(200);
/// How long nothing may come after something has broken the path.
const GAP: Duration = Duration::from_millis(500);
/// How long packets go before that, and how long it is looked at what comes after it.
const SETTLED: Duration = Duration::from_millis(500);
const WATCHED: Duration = Duration::from_secs(2);

/// A pair, and the times until it was direct.
struct Row {
    classes: [Class; 2],
    clean: Times,
    lossy: Times,
    lateness: Lateness,
}

/// How many runs were made, and the times of those in which the pair became direct.
#[derive(Default)]
struct Times {
    runs: usize,
    direct: Vec<Duration>,
}

impl Times {
    /// Runs a pair so often, on one stage. Each run is cold.
    #[expect(clippy::print_stdout, reason = "why a pair is not direct")]
    fn measure(peers: &mut Peers, runs: usize) -> Self {
        let mut times = Self { runs, direct: Vec::new() };
        for _ in 0..runs {
            peers.start_again();
            match peers.become_direct(LIMIT) {
                Some(took) => times.direct.push(took),
                None => println!("{:?}", peers.endpoint(0).why(&peers.endpoint(1).key())),
            }
        }
        times
    }

    fn sum<'a>(all: impl Iterator<Item = &'a Self>) -> Self {
        all.fold(Self::default(), |mut sum, times| {
            sum.runs += times.runs;
            sum.direct.extend(&times.direct);
            sum
        })
    }

    fn spread(&self) -> Spread {
        self.direct.iter().copied().collect()
    }

    fn is_whole(&self) -> bool {
        self.direct.len() == self.runs
    }

    /// How many runs became direct, and when, as cells of a table.
    fn cells(&self) -> String {
        format!("{} of {} | {}", self.direct.len(), self.runs, cells(&self.spread()))
    }
}

/// The ordered pairs of classes that the oracle of the simulator calls direct.
fn pairs() -> Vec<Pair> {
    let classes = Class::ALL.into_iter().flat_map(|one| Class::ALL.map(|other| (one, other)));
    let pairs = (1..).zip(classes).map(|(seed, (one, other))| Pair::new(one, other, Timing::NEAR, seed));
    pairs.filter(|pair| pair.verdict().direct == Direct::Must).collect()
}

#[test]
#[ignore = "takes a quarter of an hour and writes docs/nat.md: make lab"]
fn every_pair_that_the_simulator_calls_direct_is_measured() {
    let Some((programs, _turn)) = turn() else { return };
    let pairs = pairs();
    let lossy_runs = LOSSY_RUNS.div_ceil(pairs.len()).max(runs());
    let mut rows = Vec::new();
    for pair in &pairs {
        let mut peers = Peers::start(Kind::Towpath, programs, pair);
        let clean = Times::measure(&mut peers, runs());
        peers.stage.lose(LOSS, Traffic::Udp);
        let lossy = Times::measure(&mut peers, lossy_runs);
        let row = Row { classes: pair.classes, clean, lossy, lateness: peers.stage.lab.lateness() };
        println!("{}", row.text());
        rows.push(row);
    }
    let [clean, lossy] =
        [Times::sum(rows.iter().map(|row| &row.clean)), Times::sum(rows.iter().map(|row| &row.lossy))];
    write_part("lab pairs", &table_of_pairs(&rows, &clean, &lossy));
    assert!(clean.is_whole() && lossy.is_whole(), "some did not become direct within {LIMIT:?}");
    let [median, p99] = goals();
    assert!(clean.spread().median() <= Some(median), "the median without loss is above {median:?}");
    assert!(lossy.spread().p99() <= Some(p99), "p99 with loss is above {p99:?}");
}

/// What the median without loss, and p99 with loss, may be.
fn goals() -> [Duration; 2] {
    let floor = Timing::NEAR.relay + Timing::NEAR.direct;
    [floor + MEDIAN_BEYOND, floor + P99_BEYOND]
}

impl Row {
    fn text(&self) -> String {
        let [one, other] = self.classes;
        format!("| {one} | {other} | {} | {} |", self.clean.cells(), self.lossy.cells())
    }
}

fn table_of_pairs(rows: &[Row], clean: &Times, lossy: &Times) -> String {
    let (loss, [median, p99]) = (LOSS * 100.0, goals().map(|goal| goal.as_millis()));
    let delivered: u64 = rows.iter().map(|row| row.lateness.delivered).sum();
    let late: u64 = rows.iter().map(|row| row.lateness.late).sum();
    let most = rows.iter().map(|row| row.lateness.most).max();
    let mut text = format!(
        "| all pairs | direct within {} s | median | p90 | p99 | most | goal |\n|---|---|---|---|---|---|---|\n\
         | no loss | {} | median ≤ {median} |\n| {loss} % loss of UDP | {} | p99 ≤ {p99} |\n\n\
         The wire delivered {delivered} packets, {late} of them more than a millisecond late, by {} ms at most.\n\n\
         | begins | other | no loss: direct | median | p90 | p99 | most | {loss} % loss of UDP: direct | median | p90 | p99 | most |\n",
        LIMIT.as_secs(),
        clean.cells(),
        lossy.cells(),
        millis(most),
    );
    text.push_str(&"|---".repeat(12));
    text.push_str("|\n");
    for row in rows {
        text.push_str(&row.text());
        text.push('\n');
    }
    text
}

/// How a pair is before something breaks.
#[derive(Clone, Copy)]
enum Before {
    Direct,
    /// Behind NATs that let it be no more, with the relay of a second region in the map.
    Relayed,
}

/// Prepares a stage, and returns what breaks its path. What that holds is there until the run is over.
type Prepare = fn(&mut Peers) -> Box<dyn FnMut(&mut Peers)>;

const FAULTS: [(&str, Before, Prepare); 12] = [
    ("nothing: what the machine costs", Before::Direct, |_| boxed(|_| ())),
    ("black hole: nothing passes between the two", Before::Direct, |_| {
        boxed(|peers| {
            let [one, other] = peers.stage.sites;
            peers.stage.lab.change_links(one, other, |link| link.blocked = true);
        })
    }),
    ("one direction blocked, from the sender", Before::Direct, |_| block_from(0)),
    ("one direction blocked, to the sender", Before::Direct, |_| block_from(1)),
    ("all UDP of the sender blocked", Before::Direct, |_| boxed(|peers| peers.stage.block_udp(0))),
    ("all UDP of the receiver blocked", Before::Direct, |_| boxed(|peers| peers.stage.block_udp(1))),
    ("the NAT of the sender rebinds", Before::Direct, |_| rebind(0)),
    ("the NAT of the receiver rebinds", Before::Direct, |_| rebind(1)),
    ("the sender switches its uplink", Before::Direct, |peers| switch(0, peers)),
    ("the receiver switches its uplink", Before::Direct, |peers| switch(1, peers)),
    ("the relay is killed, the pair is direct", Before::Direct, |_| boxed(Peers::kill_relay)),
    ("the relay is killed, the pair is relayed", Before::Relayed, |_| boxed(Peers::kill_relay)),
];

fn boxed(breaks: impl FnMut(&mut Peers) + 'static) -> Box<dyn FnMut(&mut Peers)> {
    Box::new(breaks)
}

fn block_from(side: usize) -> Box<dyn FnMut(&mut Peers)> {
    boxed(move |peers| {
        let [from, to] = [side, 1 - side].map(|side| peers.stage.sites[side]);
        peers.stage.lab.change_link(from, to, |link| link.blocked = true);
    })
}

fn rebind(side: usize) -> Box<dyn FnMut(&mut Peers)> {
    boxed(move |peers| peers.stage.nats[side].rebind(Rebinding::NewPorts).expect("a NAT"))
}

fn switch(side: usize, peers: &mut Peers) -> Box<dyn FnMut(&mut Peers)> {
    let site = peers.stage.sites[side];
    let nat: Nat = peers.stage.lab.add_nat(Class::P, site).expect("a NAT");
    boxed(move |peers| peers.stage.hosts[side].switch(&nat).expect("an uplink"))
}

/// The longest time without a packet, of those that one side sends each 5 ms, after something has broken the path.
#[expect(clippy::print_stdout, reason = "what a long gap may come from")]
fn gap(programs: &Programs, before: Before, prepare: Prepare, seed: u64) -> Duration {
    let pair = |class| Pair::new(class, class, Timing::NEAR, seed);
    let mut peers = match before {
        Before::Direct => Peers::start(Kind::Towpath, programs, &pair(Class::P)),
        Before::Relayed => Peers::start_with_standby(Kind::Towpath, programs, &pair(Class::R)),
    };
    let mut breaks = prepare(&mut peers);
    if matches!(before, Before::Direct) {
        assert!(
            peers.become_direct(LIMIT).is_some(),
            "{:?}",
            peers.endpoint(0).why(&peers.endpoint(1).key())
        );
    }
    let flowing = peers.flow(0, Duration::from_millis(5), 1);
    // At another moment between two probes in each run.
    sleep(SETTLED + Duration::from_millis(7 * seed % 180));
    let broken = Instant::now();
    breaks(&mut peers);
    sleep(WATCHED);
    let flow = peers.end(flowing);
    let last = flow.came.iter().rfind(|(_, at, _)| *at < broken).expect("packets came before it");
    assert_eq!(last.2, matches!(before, Before::Direct), "the path that is broken is the one that was used");
    let gap = flow.gap_after(broken);
    if gap > GAP {
        let why = [0, 1].map(|side| peers.endpoint(side).why(&peers.endpoint(1 - side).key()));
        println!("a gap of {gap:?} in run {seed}: {why:?}, wire {:?}", peers.stage.lab.lateness());
    }
    gap
}

#[test]
#[ignore = "takes a quarter of an hour and writes docs/nat.md: make lab"]
fn the_gap_after_each_thing_that_breaks_a_path_is_measured() {
    let Some((programs, _turn)) = turn() else { return };
    let (goal, mut over) = (GAP.as_millis(), Vec::new());
    let mut table =
        String::from("| what happens | runs | median | longest | goal |\n|---|---|---|---|---|\n");
    for (name, before, prepare) in FAULTS {
        // Runs mostly wait, so that those of several stages do not disturb each other.
        let gaps: Spread =
            sweep(runs(), |seed| gap(programs, before, prepare, seed as u64)).into_iter().collect();
        let longest = gaps.per_mille(1000);
        let row = format!(
            "| {name} | {} | {} | {} | ≤ {goal} |",
            gaps.len(),
            millis(gaps.median()),
            millis(longest)
        );
        println!("{row}");
        writeln!(table, "{row}").expect("it is written");
        if longest > Some(GAP) {
            over.push(name);
        }
    }
    write_part("lab gaps", &table);
    assert!(over.is_empty(), "longer than {GAP:?}: {over:?}");
}
