//! Documents whose tables the code writes: `docs/settings.md` and `docs/metrics.md`.
//!
//! A page is prose with generated tables between `<!-- generated: … -->` and `<!-- end -->`. A test renders the tables and
//! compares them with the page; with `TOWPATH_UPDATE_DOCS=1` in the environment it writes the page anew.
//!
//! | block | content |
//! |---|---|
//! | `settings TABLE` | the settings of a table of the configuration file, or of its `root` |
//! | `metrics` | metrics; a row stays in the block that has it, and a new one is added to the last block |
//! | `values of METRIC` | the values of a metric's label, with their meanings |

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::sync::oneshot;
use towpath_relay_client::DialStep;
use towpath_relay_proto::admission::PolicyName;
use towpath_relay_proto::outbox::DropReason;
use towpath_relay_proto::rights::Claim;
use towpath_relay_proto::session::Close;
use towpath_service::config::{Origin, Reloading, Resolved, Setting, Sources};
use towpath_stun::{AnswerKind, NotStun, Withheld};

use crate::admission::backend::{ANSWERS, BackendFailure};
use crate::config::{Config, VARIABLE_PREFIX};
use crate::control::RefusalReason;
use crate::reload::{ReloadOutcome, What};
use crate::{Addresses, Identity, Server};

const BEGIN: &str = "<!-- generated: ";
const END: &str = "<!-- end -->";

/// The name of the socket of the relay here.
const SOCKET: &str = "admin.sock";

/// A value of a label, and its meaning.
type LabelMeaning = (&'static str, &'static str);

#[test]
fn the_page_of_settings_is_what_the_code_says() {
    let resolved = settings();
    let mut tables = BTreeSet::new();
    compare("docs/settings.md", |block, _| {
        let table = block.strip_prefix("settings ").unwrap_or_else(|| panic!("no block {block}"));
        assert!(tables.insert(table.to_owned()), "{block} is there twice");
        let mut lines = header(&["setting", "default", "allowed", "flag and variable", "meaning"]);
        let of_table = resolved.settings().iter().filter(|setting| table_of(setting) == table);
        lines.extend(of_table.map(setting_row));
        lines
    });
    let missing: Vec<_> =
        resolved.settings().iter().map(table_of).filter(|of| !tables.contains(*of)).collect();
    assert!(missing.is_empty(), "docs/settings.md has no block for the tables {missing:?}");
}

#[test]
fn the_page_of_metrics_is_what_a_scrape_says() {
    let relay = Relay::start();
    let metrics = metrics(&get(relay.addresses.admin, "/metrics"));
    let explained = explained();
    let mut to_place: BTreeSet<String> = metrics.keys().cloned().collect();
    let mut to_explain: BTreeSet<&str> = explained.keys().copied().collect();
    let path = "docs/metrics.md";
    let page = read(path);
    let last_block = page.matches("<!-- generated: metrics -->").count();
    let on_page: BTreeSet<String> = page.lines().filter_map(first_cell).map(Into::into).collect();
    let mut block_number = 0;
    compare(path, |block, rows| {
        if let Some(metric) = block.strip_prefix("values of ") {
            assert!(to_explain.remove(metric), "{block}: no values to explain, or twice");
            let mut lines = header(&["value", "meaning"]);
            lines.extend(
                explained[metric].iter().map(|(label, about)| row(&[&code(label), &sentence(about)])),
            );
            return lines;
        }
        assert_eq!(block, "metrics", "no such block");
        block_number += 1;
        let mut names: Vec<&str> = rows.iter().copied().filter(|name| to_place.remove(*name)).collect();
        if block_number == last_block {
            names.extend(metrics.keys().map(String::as_str).filter(|name| !on_page.contains(*name)));
        }
        let mut lines = header(&["metric", "type", "labels", "meaning"]);
        lines.extend(names.into_iter().map(|name| metric_row(name, &metrics[name], &explained)));
        lines
    });
    assert!(to_explain.is_empty(), "{path} has no block for the values of {to_explain:?}");
}

#[test]
fn each_endpoint_answers_as_the_page_of_settings_says() {
    let relay = Relay::start();
    let page = read("docs/settings.md");
    let table = page.split("\n## HTTP endpoints\n").nth(1).expect("the endpoints have a heading");
    let mut listener = String::new();
    let mut asked = 0;
    for line in table.lines().filter(|line| line.starts_with("| ")).skip(1) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [on, paths, answer] = cells[..] else { panic!("a row of three cells: {line}") };
        if !on.is_empty() {
            listener = on.into();
        }
        let ask = |path: &str| match listener.as_str() {
            listener if listener.contains("`http.listen`") => get(relay.addresses.http, path),
            "`http.redirect_listen`" => get(relay.addresses.redirect, path),
            "`admin.listen`" => get(relay.addresses.admin, path),
            "`admin.socket`" => get_from(UnixStream::connect(relay.socket()).expect("a socket"), path),
            other => panic!("no listener {other}"),
        };
        let quoted: Vec<&str> = paths.split('`').skip(1).step_by(2).collect();
        for path in if quoted.is_empty() { vec!["/of-nothing"] } else { quoted } {
            let response = ask(path);
            let status = response.split(' ').nth(1).expect("a status");
            assert!(answer.contains(status), "{path} of {listener} answers {status}: {line}");
            asked += 1;
        }
    }
    assert!(asked > 10, "the table has rows");
}

/// Renders every generated block of a page, and compares the page or writes it anew. `render` is given the name of the block
/// and the first cells of its rows.
fn compare(path: &str, mut render: impl FnMut(&str, &[&str]) -> Vec<String>) {
    let old = read(path);
    let mut new = String::new();
    let mut lines = old.lines();
    while let Some(line) = lines.next() {
        new += &format!("{line}\n");
        let Some(block) = line.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(" -->")) else {
            continue;
        };
        let inside: Vec<&str> = lines.by_ref().take_while(|line| *line != END).collect();
        let rows: Vec<&str> = inside.into_iter().filter_map(first_cell).collect();
        new += &format!("\n{}\n\n{END}\n", render(block, &rows).join("\n"));
    }
    if std::env::var_os("TOWPATH_UPDATE_DOCS").is_some_and(|value| value == "1") {
        std::fs::write(in_workspace(path), new).expect("the page can be written");
        return;
    }
    let stale = old.lines().zip(new.lines()).find(|(old, new)| old != new);
    if let Some((old, new)) = stale {
        panic!(
            "{path} is stale; TOWPATH_UPDATE_DOCS=1 make unit writes it anew\n  it says   {old}\n  should be {new}"
        );
    }
    assert_eq!(old, new, "{path} is stale; TOWPATH_UPDATE_DOCS=1 make unit writes it anew");
}

fn in_workspace(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(in_workspace(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The code in the first cell of a row.
fn first_cell(line: &str) -> Option<&str> {
    line.strip_prefix("| `")?.split_once("` |").map(|(cell, _)| cell)
}

fn header(cells: &[&str]) -> Vec<String> {
    vec![row(cells), format!("|{}", "---|".repeat(cells.len()))]
}

fn row(cells: &[&str]) -> String {
    format!("| {} |", cells.join(" | "))
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

/// A text as a cell has it: without links to items, and without the full stop of a single sentence.
fn sentence(text: &str) -> String {
    let text = text.replace("[`", "`").replace("`]", "`").replace('|', "\\|");
    match text.strip_suffix('.') {
        Some(only) if !only.contains(". ") => only.into(),
        _ => text,
    }
}

/// Every setting of the relay, with nothing given but the one that has no default.
fn settings() -> Resolved {
    let sources = Sources::new(VARIABLE_PREFIX).text("relay.toml", "hostname = \"relay.example.com\"");
    Config::read(&sources, false).unwrap_or_else(|problems| panic!("{problems}")).1
}

fn table_of(setting: &Setting) -> &'static str {
    setting.key().path().rsplit_once('.').map_or("root", |(table, _)| table)
}

fn setting_row(setting: &Setting) -> String {
    let key = setting.key();
    assert!(!key.about().is_empty(), "{} has no meaning: give its key one", key.path());
    let default = match (key.default_words(), setting.value()) {
        (Some(words), _) => words.into(),
        (None, Some(value)) if *setting.origin() == Origin::Default => code(value),
        (None, _) => "–".into(),
    };
    let flag = key.flag().map_or_else(String::new, |flag| format!("{}, ", code(flag)));
    let ways = flag + &code(&key.variable(VARIABLE_PREFIX));
    let about = match key.reloading() {
        None => sentence(key.about()),
        Some(Reloading::Value) => format!("{} *Reloads.*", key.about()),
        Some(Reloading::Contents) => format!("{} *The file reloads.*", key.about()),
    };
    row(&[&code(key.path()), &default, &sentence(setting.allowed()), &ways, &about])
}

/// The values of labels that have a table on the page, by metric.
fn explained() -> BTreeMap<&'static str, Vec<LabelMeaning>> {
    let what = What::ALL.map(|what| (what.label(), what.about())).into_iter();
    let outcomes = ReloadOutcome::ALL.map(|outcome| (outcome.label(), outcome.about()));
    let unanswered = NotStun::ALL.map(|reason| (reason.label(), reason.about())).into_iter();
    let withheld = Withheld::ALL.map(|reason| (reason.label(), reason.about()));
    BTreeMap::from([
        ("towpath_refused_total", RefusalReason::ALL.map(|reason| (reason.label(), reason.about())).to_vec()),
        (
            "towpath_admission_questions_total",
            [&ANSWERS[..], &BackendFailure::ALL.map(|failure| (failure.label(), failure.about()))].concat(),
        ),
        ("towpath_closed_total", Close::ALL.map(|reason| (reason.label(), reason.about())).to_vec()),
        ("towpath_admitted_total", PolicyName::ALL.map(|name| (name.label(), name.about())).to_vec()),
        ("derp_packets_dropped", DropReason::ALL.map(|reason| (reason.label(), reason.about())).to_vec()),
        ("towpath_mesh_dial_failures_total", DialStep::ALL.map(|step| (step.label(), step.about())).to_vec()),
        ("towpath_reloads_total", what.chain(outcomes).collect()),
        ("towpath_mesh_claims_total", Claim::ALL.map(|claim| (claim.label(), claim.about())).to_vec()),
        ("towpath_stun_answers_total", AnswerKind::ALL.map(|kind| (kind.label(), kind.about())).to_vec()),
        ("towpath_stun_unanswered_total", unanswered.chain(withheld).collect()),
    ])
}

/// A metric as a scrape shows it.
#[derive(Default)]
struct ScrapedMetric {
    kind: String,
    help: String,
    /// In the order of the samples, each value once.
    labels: Vec<(String, Vec<String>)>,
}

impl ScrapedMetric {
    fn note(&mut self, label: &str, value: &str) {
        let at = self.labels.iter().position(|(known, _)| known == label).unwrap_or_else(|| {
            self.labels.push((label.into(), Vec::new()));
            self.labels.len() - 1
        });
        let values = &mut self.labels[at].1;
        if !values.iter().any(|known| known == value) {
            values.push(value.into());
        }
    }
}

/// The metrics of a scrape, by name.
fn metrics(scrape: &str) -> BTreeMap<String, ScrapedMetric> {
    let mut metrics: BTreeMap<String, ScrapedMetric> = BTreeMap::new();
    for line in scrape.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            metrics.entry(name.into()).or_default().help = help.into();
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            metrics.entry(name.into()).or_default().kind = kind.into();
        } else if let Some((name, labels)) = line.split_once('{') {
            let name = if metrics.contains_key(name) { name } else { family(name) };
            let metric = metrics.get_mut(name).expect("a sample comes after its type");
            let labels = labels.split_once("} ").expect("the end of the labels").0;
            // A histogram's samples have the bounds of their classes.
            let labels =
                labels.split(',').filter_map(|pair| pair.split_once('=')).filter(|(label, _)| *label != "le");
            for (label, value) in labels {
                metric.note(label, value.trim_matches('"'));
            }
        }
    }
    metrics
}

/// The metric that a sample belongs to: those of a histogram have names of their own.
fn family(sample: &str) -> &str {
    sample
        .strip_suffix("_bucket")
        .or(sample.strip_suffix("_sum"))
        .or(sample.strip_suffix("_count"))
        .unwrap_or(sample)
}

fn metric_row(
    name: &str,
    metric: &ScrapedMetric,
    explained: &BTreeMap<&'static str, Vec<LabelMeaning>>,
) -> String {
    let is_explained = |value: &String| explained.values().flatten().any(|(label, _)| label == value);
    let labels = metric.labels.iter().map(|(label, values)| {
        if name == "towpath_build_info" || values.iter().all(is_explained) {
            return code(label);
        }
        let values: Vec<String> = values.iter().map(|value| code(value)).collect();
        format!("{}: {}", code(label), values.join(", "))
    });
    let labels: Vec<String> = labels.collect();
    let labels = if labels.is_empty() { "–".into() } else { labels.join("; ") };
    row(&[&code(name), &metric.kind, &labels, &sentence(&metric.help)])
}

/// A relay on loopback with every listener that it can have; stops when dropped.
struct Relay {
    addresses: Addresses,
    dir: TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Relay {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let text = "workers = 1\nlisten = \"127.0.0.1:0\"\nadmin.listen = \"127.0.0.1:0\"\nhttp.listen = \"127.0.0.1:0\"\n\
                    http.redirect_listen = \"127.0.0.1:0\"\nstun.listen = [\"127.0.0.1:0\"]\n";
        let sources = Sources::new("UNSET").text("test.toml", text);
        let (mut config, _) = Config::read(&sources, true).unwrap_or_else(|problems| panic!("{problems}"));
        config.admin.socket = Some(dir.path().join(SOCKET));
        let identity = Identity::load(&config).expect("an identity");
        let server = Server::bind(&config, identity).expect("free ports");
        let addresses = server.addresses();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let shutdown = async {
                let _ = stopped.await;
            };
            server.run(shutdown).expect("the relay runs until it is stopped");
        });
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !get(addresses.admin, "/readyz").starts_with("HTTP/1.1 200") {
            assert!(std::time::Instant::now() < deadline, "the relay is not ready in time");
            std::thread::yield_now();
        }
        Self { addresses, dir, stop: Some(stop), thread: Some(thread) }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join(SOCKET)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the relay ended with a panic");
        }
    }
}

/// The answer of a listener without TLS, head and body.
fn get(address: Option<SocketAddr>, path: &str) -> String {
    get_from(TcpStream::connect(address.expect("the listener is on")).expect("the listener accepts"), path)
}

fn get_from(mut stream: impl Read + Write, path: &str) -> String {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}
