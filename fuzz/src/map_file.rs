//! DERP maps of others: the report of a map is always the same, complete and harmless, and a printed map reads back.

use serde_json::Value;
use towpath_derpmap::{Diff, Loaded, MapFormat, MapReport, Severity};

/// Checks a map, compares it with itself and, behind a zero byte, with another.
///
/// The first byte of each gives the name of the file or its reader: see [`read`].
pub(crate) fn report(input: &[u8]) {
    let mut files = input.splitn(2, |byte| *byte == 0);
    let Some(old) = files.next().and_then(checked) else { return };
    compared(&old, &old);
    assert_eq!(Diff::between(&old.map, &old.map).changes, [], "a map that is replaced by itself");
    printed(&old);

    let Some(new) = files.next().and_then(checked) else { return };
    compared(&old, &new);
    let back = Diff::between(&new.map, &old.map);
    assert_eq!(
        Diff::between(&old.map, &new.map).changes.is_empty(),
        back.changes.is_empty(),
        "two maps are the same, whichever was first"
    );
}

/// A file by its name, which says what is in it unless that is plain to see, or by what it was asked for.
fn read(input: &[u8]) -> Option<Loaded> {
    let (kind, bytes) = input.split_first()?;
    let (name, format) = match kind {
        b'j' => ("map.json", None),
        b'y' => ("map.yaml", None),
        b'J' => ("map", Some(MapFormat::Json)),
        b'H' => ("map", Some(MapFormat::Headscale)),
        b'P' => ("map", Some(MapFormat::TailscalePolicy)),
        _ => ("map", None),
    };
    let loaded = Loaded::read(name, bytes, format);
    if let Err(error) = &loaded {
        assert_is_one_line(&error.to_string());
    }
    loaded.ok()
}

/// A file that could be read, and whose report is one.
fn checked(input: &[u8]) -> Option<Loaded> {
    let (loaded, again) = (read(input)?, read(input)?);
    let findings = loaded.check();
    let report =
        MapReport { file: "map", format: loaded.format(), findings: Some(&findings), map: None, diff: None };
    let (text, json) = (report.to_text(), report.to_json());
    let findings_again = again.check();
    let report_again = MapReport { findings: Some(&findings_again), ..report };
    assert_eq!((report_again.to_text(), report_again.to_json()), (text.clone(), json.clone()));

    assert!(findings.is_sorted_by_key(|finding| finding.line), "{text}");
    assert!(loaded.refusal().is_none_or(|refusal| findings.contains(refusal)), "a refusal that is not said");
    let lines_of_input = input.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count() + 1;
    for finding in &findings {
        assert!(
            finding.line.is_none_or(|line| (1..=lines_of_input).contains(&(line as usize))),
            "{finding:?}"
        );
        assert!(
            [&finding.message, &finding.effect, &finding.fix].iter().all(|text| !text.is_empty()),
            "{text}"
        );
    }
    // The reader, three lines for each finding, and their count: no text in a map can forge another finding.
    assert_eq!(text.lines().count(), 2 + 3 * findings.len(), "{text}");
    text.lines().for_each(assert_is_one_line);
    assert_eq!(members(&json, "/findings"), findings.len());
    assert_eq!(report.is_bad(), findings.iter().any(|finding| finding.severity == Severity::Error));
    Some(loaded)
}

/// What a change from one map to the other does, in both forms.
fn compared(old: &Loaded, new: &Loaded) {
    let diff = Diff::between(&old.map, &new.map);
    let report = MapReport {
        file: "new",
        format: new.format(),
        findings: None,
        map: None,
        diff: Some(("old", &diff)),
    };
    let text = report.to_text();
    assert_eq!(text.lines().count(), 3 + 2 * diff.changes.len(), "{text}");
    text.lines().for_each(assert_is_one_line);
    assert_eq!(members(&report.to_json(), "/diff/changes"), diff.changes.len());
    let again = Diff::between(&old.map, &new.map);
    let report_again = MapReport { diff: Some(("old", &again)), ..report };
    assert_eq!(report_again.to_text(), text);
}

/// Where a map can be printed, clients are told what they were.
fn printed(loaded: &Loaded) {
    let Ok(map) = loaded.map.to_wire() else { return };
    let json = map.to_json();
    let again =
        Loaded::read("map.json", json.as_bytes(), Some(MapFormat::Json)).expect("what is printed is JSON");
    assert!(again.refusal().is_none(), "{json}\n{:?}", again.refusal());
    assert_eq!(again.map.to_wire().expect("what was printed once").to_json(), json);
    if loaded.format() == MapFormat::Json {
        assert_eq!(Diff::between(&loaded.map, &again.map).changes, [], "{json}");
    }
}

/// How many elements the list has that `pointer` leads to.
fn members(json: &str, pointer: &str) -> usize {
    let value: Value = serde_json::from_str(json).expect("a report in JSON");
    value.pointer(pointer).and_then(Value::as_array).expect("a list").len()
}

fn assert_is_one_line(text: &str) {
    assert!(!text.is_empty() && !text.contains(char::is_control), "{text:?}");
}
