//! The table of docs/nat.md, made by `make nat-report`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use towpath_sim::{Class, Direct, Pair, Spread, Timing, Traffic, sweep};

use super::driver::{millis, seeds, started, until_direct};

/// Times in a report are given in milliseconds.
fn text(time: Option<Duration>) -> String {
    time.map_or_else(|| "–".into(), |time| time.as_millis().to_string())
}

fn spread(one: Class, other: Class, timing: Timing, loss: f64, lost: Traffic) -> (Direct, usize, Spread) {
    let runs = sweep(seeds(), |seed| {
        let pair = Pair::new(one, other, timing, seed as u64).losing(loss, lost);
        let (mut stage, _) = started(&pair, millis(2900), false);
        let [here, there] = stage.hosts;
        (stage.world.verdict(here, there).direct, until_direct(&mut stage))
    });
    let direct: Spread = runs.iter().filter_map(|(_, direct)| *direct).collect();
    (runs[0].0, direct.len(), direct)
}

#[test]
#[ignore = "takes minutes and writes docs/nat.md: make nat-report"]
fn nat_report() {
    let runs = seeds();
    let mut table = String::new();
    for (name, timing) in [("near", Timing::NEAR), ("far", Timing::FAR)] {
        let [relay, direct, stun] = [timing.relay, timing.direct, timing.stun].map(|time| time.as_millis());
        writeln!(table, "\n## R = {relay}, D = {direct}, S = {stun} ms ({name})\n").unwrap();
        table.push_str("| begins | other | the oracle | direct | median | p99 | direct at 5 % loss | median | p99 | loss on the relay as well, p99 |\n");
        table.push_str("|---|---|---|---|---|---|---|---|---|---|\n");
        for one in Class::ALL {
            for other in Class::ALL {
                let (verdict, count, clean) = spread(one, other, timing, 0.0, Traffic::Udp);
                if verdict == Direct::Cannot && count == 0 {
                    continue;
                }
                let (_, lossy_count, lossy) = spread(one, other, timing, 0.05, Traffic::Udp);
                let (_, _, all) = spread(one, other, timing, 0.05, Traffic::Everything);
                writeln!(
                    table,
                    "| {one} | {other} | {verdict:?} | {count} / {runs} | {} | {} | {lossy_count} / {runs} | {} | {} | {} |",
                    text(clean.median()),
                    text(clean.p99()),
                    text(lossy.median()),
                    text(lossy.p99()),
                    text(all.p99()),
                )
                .unwrap();
            }
        }
    }
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/nat.md");
    let before = fs::read_to_string(&page).unwrap();
    let (head, rest) = before.split_once("<!-- generated: nat -->").unwrap();
    let (_, tail) = rest.split_once("<!-- end -->").unwrap();
    fs::write(&page, format!("{head}<!-- generated: nat -->\n{table}\n<!-- end -->{tail}")).unwrap();
}
