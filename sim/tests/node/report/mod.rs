//! The tables and the picture of docs/nat.md, made by `make nat-report`.

mod picture;
mod tailscaled;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use towpath_sim::{Class, Direct, Flow, Pair, Spread, Timing, Traffic, World, sweep};
use towpath_wire::time::Instant;

use super::driver::{Host, START, millis, seeds, started, until_direct};
use tailscaled::{MEASURED, Measured};

/// The losses in each direction of which the report has columns.
const LOSSES: [f64; 2] = [0.01, 0.05];
/// Bytes of the packets whose size is proven.
const LARGE: usize = 1400;

/// How many runs were made, and the times of those in which the pair became direct.
struct Times {
    runs: usize,
    direct: Spread,
}

/// A pair, and the times of its runs.
struct Row {
    classes: [Class; 2],
    timing: Timing,
    verdict: Direct,
    clean: Times,
    /// With each of [`LOSSES`] on UDP, and on everything. None of a pair that stays on the relay.
    udp: Vec<Times>,
    all: Vec<Times>,
    /// When a size of [`LARGE`] was proven, without loss.
    proven: Spread,
}

impl Row {
    fn of(one: Class, other: Class, timing: Timing) -> Self {
        let pair = |seed| Pair::new(one, other, timing, seed as u64);
        let verdict = pair(0).verdict().direct;
        // Without loss one run of a pair that stays on the relay is much like another.
        let runs = if verdict == Direct::Cannot { seeds().div_ceil(10) } else { seeds() };
        let times = |loss, lost| Times {
            runs,
            direct: sweep(runs, |seed| direct(&pair(seed).losing(loss, lost)))
                .into_iter()
                .flatten()
                .collect(),
        };
        let clean = times(0.0, Traffic::Udp);
        let is_relayed = clean.direct.is_empty();
        let losing =
            |lost| LOSSES.into_iter().filter(|_| !is_relayed).map(|loss| times(loss, lost)).collect();
        let large = if is_relayed { 0 } else { runs };
        Self {
            classes: [one, other],
            timing,
            verdict,
            clean,
            udp: losing(Traffic::Udp),
            all: losing(Traffic::Everything),
            proven: sweep(large, |seed| proof(&pair(seed))).into_iter().flatten().collect(),
        }
    }

    /// Whether the pair has a row in the tables.
    fn is_listed(&self) -> bool {
        !self.clean.direct.is_empty()
    }

    fn text(&self) -> String {
        let [one, other] = self.classes;
        let count = |times: &Times| times.direct.len().to_string();
        let counts = |many: &[Times]| many.iter().map(count).collect::<Vec<_>>().join(", ");
        let p99 = |many: &[Times]| {
            many.iter().map(|times| millis_of(times.direct.p99())).collect::<Vec<_>>().join(" | ")
        };
        format!(
            "| {one} | {other} | {:?} | {}, {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            self.verdict,
            count(&self.clean),
            counts(&self.udp),
            millis_of(self.clean.direct.median()),
            millis_of(self.clean.direct.p99()),
            p99(&self.udp[..1]),
            millis_of(self.udp[1].direct.median()),
            p99(&self.udp[1..]),
            counts(&self.all),
            p99(&self.all),
            millis_of(self.proven.median()),
        )
    }
}

/// The time until both hosts of a pair are direct, of which the first one sends.
fn direct(pair: &Pair) -> Option<Duration> {
    let (mut stage, _) = started(pair, millis(2900), false);
    until_direct(&mut stage)
}

/// The time until the first large packet goes by UDP alone, because a probe of its size was answered.
fn proof(pair: &Pair) -> Option<Duration> {
    let mut stage = pair.build(Host::new);
    let [from, to] = stage.hosts;
    let start = Instant::from(START);
    let flow = stage.world.add_flow(Flow { from, to, len: LARGE, start, interval: millis(20), count: 145 });
    let goes_alone = |world: &World<Host>| world.account(flow).sent > world.sent(from).relayed.packets;
    let alone = stage.world.run_until_holds(start + Duration::from_secs(3), goes_alone);
    alone.map(|at| at.since(start))
}

/// Times in a report are given in milliseconds.
fn millis_of(time: Option<Duration>) -> String {
    time.map_or_else(|| "–".into(), |time| time.as_millis().to_string())
}

/// The runs of Towpath that stand beside a measurement of the stock client.
fn times_beside<'a>(measured: &Measured, rows: &'a [Row]) -> &'a Times {
    let is_same = |row: &&Row| row.classes == measured.classes && row.timing == Timing::NEAR;
    let row = rows.iter().find(is_same).unwrap();
    if measured.loss == 0 { &row.clean } else { &row.udp[1] }
}

fn tables(rows: &[Row]) -> String {
    let mut text = String::new();
    for (name, timing) in [("near", Timing::NEAR), ("far", Timing::FAR)] {
        let [relay, direct, stun] = [timing.relay, timing.direct, timing.stun].map(|time| time.as_millis());
        writeln!(text, "\n## R = {relay}, D = {direct}, S = {stun} ms ({name})\n").unwrap();
        let runs = seeds();
        writeln!(
            text,
            "| begins | other | the oracle | direct of {runs} at 0, 1, 5 % | median | p99 | p99 at 1 % | median at 5 % | p99 at 5 % | \
             loss on the relay as well: direct of {runs} at 1, 5 % | p99 at 1 % | p99 at 5 % | {LARGE} bytes proven |"
        )
        .unwrap();
        text.push_str(&"|---".repeat(13));
        text.push_str("|\n");
        for row in rows.iter().filter(|row| row.timing == timing && row.is_listed()) {
            writeln!(text, "{}", row.text()).unwrap();
        }
    }
    text
}

fn comparison(rows: &[Row]) -> String {
    let mut text = String::from(
        "\n| pair | loss | tailscaled: direct | median (least–most), ms | Towpath: direct | median (p99), ms |\n\
         |---|---|---|---|---|---|\n",
    );
    for measured in &MEASURED {
        let Measured { name, loss, direct, runs, .. } = measured;
        let range = measured.range.map(|[least, most]| format!(" ({least}–{most})")).unwrap_or_default();
        let stock =
            measured.median.map_or_else(|| "never in 60 s".into(), |median| format!("{median}{range}"));
        let beside = times_beside(measured, rows);
        let ours = beside.direct.median().map_or_else(
            || "on the relay".into(),
            |median| format!("{} ({})", median.as_millis(), millis_of(beside.direct.p99())),
        );
        let count = beside.direct.len();
        let all = beside.runs;
        writeln!(text, "| {name} | {loss} % | {direct} of {runs} | {stock} | {count} of {all} | {ours} |")
            .unwrap();
    }
    text
}

/// Replaces what stands between the marks of a generated part of a page.
fn replace(page: &str, part: &str, text: &str) -> String {
    let mark = format!("<!-- generated: {part} -->\n");
    let (head, rest) = page.split_once(&mark).unwrap();
    let (_, tail) = rest.split_once("<!-- end -->").unwrap();
    format!("{head}{mark}{text}\n<!-- end -->{tail}")
}

#[test]
#[ignore = "takes minutes and writes docs/nat.md: make nat-report"]
fn nat_report() {
    let mut rows = Vec::new();
    for timing in [Timing::NEAR, Timing::FAR] {
        for one in Class::ALL {
            rows.extend(Class::ALL.map(|other| Row::of(one, other, timing)));
        }
    }
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    fs::write(docs.join("nat.svg"), picture::draw(&rows)).unwrap();
    let page = fs::read_to_string(docs.join("nat.md")).unwrap();
    let page = replace(&page, "tailscaled", &comparison(&rows));
    fs::write(docs.join("nat.md"), replace(&page, "nat", &tables(&rows))).unwrap();
}
