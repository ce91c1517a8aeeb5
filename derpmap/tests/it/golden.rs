//! What is said of every map in `maps`, word for word, and what a change from `maps/changes/base.json` to each of its
//! neighbours does.
//!
//! After a change on purpose, `TOWPATH_WRITE_REPORTS=1 cargo test -p towpath-derpmap --test it golden` writes the reports anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use towpath_derpmap::{Diff, Difference, FindingCode, Impact, Loaded, MapReport, ReadError, Severity};

fn tests() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests"))
}

/// The files in a folder of maps, in order.
fn maps(folder: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(tests().join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .collect();
    assert!(files.len() > 5, "{folder} has maps");
    files.sort();
    files
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

fn read(path: &Path) -> Result<Loaded, ReadError> {
    Loaded::read(name(path), &fs::read(path).unwrap(), None)
}

fn load(path: &Path) -> Loaded {
    read(path).unwrap()
}

/// Compares with the report of this name, or writes it.
#[track_caller]
fn assert_report(report: &str, text: &str) {
    let path = tests().join("reports").join(format!("{report}.txt"));
    if std::env::var_os("TOWPATH_WRITE_REPORTS").is_some() {
        fs::write(&path, text).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "{report}");
}

/// What is said of a map; nothing of a file that is none.
fn check(path: &Path) -> Vec<towpath_derpmap::Finding> {
    read(path).map_or_else(|_| Vec::new(), |loaded| loaded.check())
}

/// From which map the change to this one starts.
fn origin(path: &Path) -> PathBuf {
    let base = match name(path) {
        "policy-omit.hujson" => "policy.hujson",
        "policy.hujson" => "policy-omit.hujson",
        "stun-nodes.json" => "stun-nodes-before.json",
        "nulls.hujson" | "nulls-omitted.hujson" => "nulls-before.hujson",
        "nulls-before.hujson" => "nulls.hujson",
        "home-params.json" => "home-params-before.json",
        "null-node.json" => "null-node-before.json",
        "null-node-before.json" => "null-node.json",
        "shuffled.yaml" => "shuffled-before.yaml",
        _ => "base.json",
    };
    path.with_file_name(base)
}

#[test]
fn checks() {
    for path in maps("maps") {
        let loaded = match read(&path) {
            Ok(loaded) => loaded,
            Err(error) => {
                assert_report(name(&path), &format!("{}: {error}\n", name(&path)));
                continue;
            }
        };
        let findings = loaded.check();
        let report = MapReport {
            file: name(&path),
            format: loaded.format(),
            findings: Some(&findings),
            map: None,
            diff: None,
        };
        assert_report(name(&path), &report.to_text());
        assert_eq!(loaded.check(), findings, "twice the same");
    }
}

#[test]
fn changes() {
    for path in maps("maps/changes") {
        let from = origin(&path);
        let (old, new) = (load(&from), load(&path));
        let diff = Diff::between(&old.map, &new.map);
        let report = MapReport {
            file: name(&path),
            format: new.format(),
            findings: None,
            map: None,
            diff: Some((name(&from), &diff)),
        };
        assert_report(&format!("changes-{}", name(&path)), &report.to_text());
    }
}

#[test]
fn a_map_does_not_differ_from_itself() {
    for path in maps("maps").iter().chain(&maps("maps/changes")) {
        let Ok(Loaded { map, .. }) = read(path) else { continue };
        assert_eq!(Diff::between(&map, &map).changes, [], "{}", name(path));
    }
}

#[test]
fn every_rule_is_shown_by_a_map() {
    let found: BTreeSet<_> =
        maps("maps").iter().flat_map(|path| check(path)).map(|finding| finding.code).collect();
    assert_eq!(Vec::from_iter(found), FindingCode::ALL);
    let found: BTreeSet<_> = maps("maps/changes")
        .iter()
        .flat_map(|path| Diff::between(&load(&origin(path)).map, &load(path).map).changes)
        .map(|change| change.code)
        .collect();
    assert_eq!(Vec::from_iter(found), Difference::ALL);
}

/// The names in the tables of `docs/derpmap.md`, each with the column behind it.
fn explained() -> Vec<(String, String)> {
    let page = fs::read_to_string(tests().join("../../docs/derpmap.md")).unwrap();
    let (_, findings) = page.split_once("\n## Findings\n").unwrap();
    let row = |line: &str| {
        let mut columns = line.strip_prefix("| `")?.split(" | ");
        let name = columns.next()?.strip_suffix('`')?.to_owned();
        Some((name, columns.next()?.to_owned()))
    };
    findings.lines().filter_map(row).collect()
}

#[test]
fn every_name_is_explained() {
    let names: Vec<_> = explained().into_iter().map(|(name, _)| name).collect();
    let expected = FindingCode::ALL
        .iter()
        .map(|code| code.label())
        .chain(Difference::ALL.iter().map(|code| code.label()));
    assert_eq!(names, Vec::from_iter(expected));
}

#[test]
fn levels_are_those_of_the_documentation() {
    let mut levels: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for finding in maps("maps").iter().flat_map(|path| check(path)) {
        let level = match finding.severity {
            Severity::Error => "**error**",
            Severity::Warning => "*warning*",
        };
        levels.entry(finding.code.label()).or_default().insert(level);
    }
    for change in maps("maps/changes")
        .iter()
        .flat_map(|path| Diff::between(&load(&origin(path)).map, &load(path).map).changes)
    {
        let impact = match change.impact {
            Impact::None => "none",
            Impact::Reconnect => "reconnect",
            Impact::Disconnect => "disconnect",
        };
        levels.entry(change.code.label()).or_default().insert(impact);
    }
    for (name, column) in explained() {
        let said: BTreeSet<_> = ["**error**", "*warning*", "none", "reconnect", "disconnect"]
            .into_iter()
            .filter(|level| column.split([' ', ',', ';']).any(|word| word == *level))
            .collect();
        assert_eq!(said, levels[&*name], "{name}: the documentation, the maps");
    }
}
