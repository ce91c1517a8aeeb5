//! The picture of docs/nat.md: an SVG that can be read on light and on dark paper.

use std::fmt::Write as _;
use std::time::Duration;

use towpath_sim::{Class, Timing};

use super::tailscaled::{MEASURED, Measured};
use super::{Row, times_beside};
use crate::driver::millis;

/// The cells of the matrices, and the places of the two.
const WIDTH: usize = 32;
const HEIGHT: usize = 22;
const LEFT: [usize; 2] = [56, 468];
const TOP: usize = 84;

/// The rows of the comparison, and the ends of its axis, which is logarithmic.
const LANE: usize = 24;
const BESIDE: usize = TOP + 11 * HEIGHT + 96;
const AXIS: [f64; 2] = [130.0, 690.0];
const DECADES: f64 = 2.1;
const LEAST: Duration = millis(100);
/// Where it says of the stock client, and of Towpath, that there is no time.
const NEVER: [usize; 2] = [676, 764];

const BOTTOM: usize = BESIDE + MEASURED.len() * LANE + 44;

const STYLE: &str = "\
:root {
    --paper: #ffffff; --ink: #1b1f24; --faint: #5b6470; --rule: #d9dee4;
    --fast: #b7e4c7; --fair: #cfe3fb; --slow: #ffd8a8; --relay: #e6e9ec; --c0: #0b62c4; --c1: #b35c00;
}
@media (prefers-color-scheme: dark) {
    :root {
        --paper: #14181d; --ink: #e6e9ec; --faint: #9aa4af; --rule: #333a42;
        --fast: #1d5233; --fair: #1c4470; --slow: #704214; --relay: #2a3038; --c0: #6cb2ff; --c1: #ffb057;
    }
}
text { fill: var(--ink); font: 11px system-ui, sans-serif; text-anchor: middle; }
.title { font-size: 15px; font-weight: 600; text-anchor: start; }
.start { text-anchor: start; } .end { text-anchor: end; }
.faint { fill: var(--faint); }
text.c0 { fill: var(--c0); } text.c1 { fill: var(--c1); }
.paper { fill: var(--paper); }
.grid { stroke: var(--rule); fill: none; }
.fast { fill: var(--fast); } .fair { fill: var(--fair); } .slow { fill: var(--slow); } .relay { fill: var(--relay); }
.line { fill: none; stroke-width: 2; }
.line.c0 { stroke: var(--c0); } .line.c1 { stroke: var(--c1); }
.dot.c0 { fill: var(--c0); } .dot.c1 { fill: var(--c1); }
";

/// How soon a pair is direct, as the colours say it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Speed {
    Fast,
    Fair,
    Slow,
    Relay,
}

impl Speed {
    const ALL: [Self; 4] = [Self::Fast, Self::Fair, Self::Slow, Self::Relay];

    fn of(row: &Row) -> Self {
        let Timing { relay, direct, .. } = row.timing;
        let Some(median) = row.clean.direct.median() else { return Self::Relay };
        if row.clean.direct.len() < row.clean.runs || median > relay + direct * 3 / 2 + millis(10) {
            return Self::Slow;
        }
        if median <= relay + direct + millis(10) { Self::Fast } else { Self::Fair }
    }

    const fn class(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Fair => "fair",
            Self::Slow => "slow",
            Self::Relay => "relay",
        }
    }

    const fn meaning(self) -> &'static str {
        match self {
            Self::Fast => "direct at R + D",
            Self::Fair => "direct at R + 3/2 D",
            Self::Slow => "later, or not in each run",
            Self::Relay => "on the relay, which is usable at once",
        }
    }
}

/// The picture of all rows, and of the comparison.
pub(super) fn draw(rows: &[Row]) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 840 {BOTTOM}\" width=\"840\" height=\"{BOTTOM}\" role=\"img\">\n\
         <title>Time until two peers are direct, by the classes of their NATs</title>\n<style>\n{STYLE}</style>\n\
         <rect class=\"paper\" width=\"840\" height=\"{BOTTOM}\"/>\n"
    );
    title(
        &mut svg,
        28,
        "Milliseconds from the first packet until both peers are direct: the median, without loss",
    );
    for (left, timing) in LEFT.into_iter().zip([Timing::NEAR, Timing::FAR]) {
        matrix(&mut svg, left, timing, rows);
    }
    legend(&mut svg);
    beside(&mut svg, rows);
    svg.push_str("</svg>\n");
    svg
}

fn title(svg: &mut String, y: usize, text: &str) {
    writeln!(svg, "<text class=\"title\" x=\"16\" y=\"{y}\">{text}</text>").unwrap();
}

fn label(svg: &mut String, class: &str, x: usize, y: usize, text: &str) {
    writeln!(svg, "<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{text}</text>").unwrap();
}

/// A row for each class that begins, and a column for each class of the other peer.
fn matrix(svg: &mut String, left: usize, timing: Timing, rows: &[Row]) {
    let [relay, direct] = [timing.relay, timing.direct].map(|time| time.as_millis());
    let heading = format!("R = {relay}, D = {direct} ms: the other peer");
    label(svg, "start faint", left, TOP - 26, &heading);
    label(svg, "end faint", left - 8, TOP - 8, "begins");
    for (at, class) in Class::ALL.into_iter().enumerate() {
        label(svg, "", left + at * WIDTH + WIDTH / 2, TOP - 8, &class.to_string());
        label(svg, "end", left - 8, TOP + at * HEIGHT + 15, &class.to_string());
    }
    let at = |class| Class::ALL.iter().position(|other| *other == class).unwrap();
    let place = |row: &Row| {
        let [one, other] = row.classes.map(at);
        (left + other * WIDTH, TOP + one * HEIGHT)
    };
    let of_timing = || rows.iter().filter(|row| row.timing == timing);
    for speed in Speed::ALL {
        let mut path = String::new();
        for (x, y) in of_timing().filter(|row| Speed::of(row) == speed).map(place) {
            write!(path, "M{x} {y}h{}v{}h-{}z", WIDTH - 2, HEIGHT - 2, WIDTH - 2).unwrap();
        }
        writeln!(svg, "<path class=\"{}\" d=\"{path}\"/>", speed.class()).unwrap();
    }
    for row in of_timing() {
        let Some(median) = row.clean.direct.median() else { continue };
        let (x, y) = place(row);
        label(svg, "", x + WIDTH / 2 - 1, y + 14, &median.as_millis().to_string());
    }
}

fn legend(svg: &mut String) {
    let y = TOP + 11 * HEIGHT + 14;
    for (at, speed) in Speed::ALL.into_iter().enumerate() {
        let x = [LEFT[0], 200, 360, 552][at];
        writeln!(svg, "<rect class=\"{}\" x=\"{x}\" y=\"{y}\" width=\"14\" height=\"14\"/>", speed.class())
            .unwrap();
        label(svg, "start", x + 20, y + 11, speed.meaning());
    }
}

/// Where a time is on the axis of the comparison.
fn along(time: Duration) -> f64 {
    let decades = (time.as_secs_f64() / LEAST.as_secs_f64()).log10();
    AXIS[0] + (AXIS[1] - AXIS[0]) * decades / DECADES
}

/// The stock client and Towpath, one above the other, for each pair that was measured.
fn beside(svg: &mut String, rows: &[Row]) {
    let [top, bottom] = [BESIDE, BESIDE + MEASURED.len() * LANE];
    title(svg, BESIDE - 44, "Beside tailscaled 1.102.5, R = 80, D = 40 ms");
    let key = BESIDE - 26;
    for (x, class, text) in [
        (16, "c1", "tailscaled: the median, from the least to the most"),
        (330, "c0", "Towpath: from the median to p99"),
    ] {
        writeln!(svg, "<circle class=\"dot {class}\" cx=\"{}\" cy=\"{}\" r=\"4\"/>", x + 4, key - 4).unwrap();
        label(svg, "start", x + 14, key, text);
    }
    for (time, text) in [
        (millis(100), "0.1 s"),
        (millis(200), "0.2"),
        (millis(500), "0.5"),
        (millis(1000), "1 s"),
        (millis(2000), "2"),
        (millis(5000), "5"),
        (millis(10_000), "10 s"),
    ] {
        let x = along(time);
        writeln!(svg, "<path class=\"grid\" d=\"M{x:.1} {top}V{bottom}\"/>").unwrap();
        writeln!(svg, "<text class=\"faint\" x=\"{x:.1}\" y=\"{}\">{text}</text>", bottom + 16).unwrap();
    }
    for (at, measured) in MEASURED.iter().enumerate() {
        lane(svg, top + at * LANE, measured, rows);
    }
}

fn lane(svg: &mut String, top: usize, measured: &Measured, rows: &[Row]) {
    let loss = if measured.loss == 0 { String::new() } else { format!(", {} % loss", measured.loss) };
    label(svg, "end", 122, top + 15, &format!("{}{loss}", measured.name));
    let towpath = times_beside(measured, rows);
    let stock = measured.median.map(|median| {
        let [least, most] = measured.range.unwrap_or([median; 2]);
        [median, least, most].map(|time| millis(time.into()))
    });
    let ours = towpath.direct.median().zip(towpath.direct.p99()).map(|(median, p99)| [median, median, p99]);
    match stock {
        Some(times) => span(svg, "c1", top + 8, times),
        None => label(svg, "start c1", NEVER[0], top + 15, "never in 60 s"),
    }
    match ours {
        Some(times) => span(svg, "c0", top + 17, times),
        None => label(svg, "start c0", NEVER[1], top + 15, "on the relay"),
    }
}

/// A dot at the median on a line from the least time to the most.
fn span(svg: &mut String, class: &str, y: usize, times: [Duration; 3]) {
    let [median, least, most] = times.map(along);
    writeln!(svg, "<path class=\"line {class}\" d=\"M{least:.1} {y}H{most:.1}\"/>").unwrap();
    writeln!(svg, "<circle class=\"dot {class}\" cx=\"{median:.1}\" cy=\"{y}\" r=\"4\"/>").unwrap();
}
