//! Whatever the bytes: an error or a report, no panic, and in bounded time and memory.

use std::fs;
use std::path::Path;

use towpath_derpmap::{Diff, Loaded, MAX_BYTES, MapFormat, MapReport, ReadError};

/// As what it looks to be, and as what takes nearly everything.
const FORMATS: [Option<MapFormat>; 2] = [None, Some(MapFormat::Headscale)];

/// Does with the bytes whatever can be done with them.
fn exercise(name: &str, bytes: &[u8]) {
    // A file of YAML is read for Headscale in either case.
    let formats = if name.ends_with(".yaml") { &FORMATS[..1] } else { &FORMATS };
    for format in formats.iter().copied() {
        let Ok(loaded) = Loaded::read(name, bytes, format) else { continue };
        let findings = loaded.check();
        let diff = Diff::between(&loaded.map, &loaded.map);
        let report = MapReport {
            file: name,
            format: loaded.format(),
            findings: Some(&findings),
            map: None,
            diff: Some((name, &diff)),
        };
        assert!(!report.to_text().is_empty() && !report.to_json().is_empty());
        if let Ok(map) = loaded.map.to_wire() {
            assert!(!map.to_json().is_empty());
        }
    }
}

fn corpus() -> impl Iterator<Item = (String, Vec<u8>)> {
    let maps = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/maps"));
    fs::read_dir(maps)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap()))
}

#[track_caller]
fn error(name: &str, bytes: &[u8], expected: &str) {
    assert_eq!(Loaded::read(name, bytes, None).unwrap_err().to_string(), expected);
}

#[test]
fn every_truncation() {
    // The long ones repeat themselves.
    for (name, bytes) in corpus() {
        for length in 0..bytes.len().min(1000) {
            exercise(&name, &bytes[..length]);
        }
    }
}

#[test]
fn every_changed_byte() {
    // Their beginnings, for time.
    for (name, mut bytes) in corpus() {
        for position in 0..bytes.len().min(120) {
            let was = bytes[position];
            for now in [0, b'"', b'{', b':', b'\n', b'&', b'9', 0xff] {
                bytes[position] = now;
                exercise(&name, &bytes);
            }
            bytes[position] = was;
        }
    }
}

#[test]
fn what_is_no_text_is_named() {
    error("m.json", b"", "is empty");
    error("m.json", b" // nothing", "is empty");
    error("m", b" \n", "is empty");
    error("m.yaml", b"a: b\n\xe9: c", "line 2: not YAML: the text is not UTF-8");
    error("m.yaml", b"a: b\nb: \x07", "line 2: not YAML: control characters are not allowed");
    let utf16 = "line 1: not YAML: the text is not UTF-16, which its byte order mark says";
    error("m.yaml", b"\xff\xfea\0:\0 \0b\0c", utf16);
    error("m.yaml", b"\xfe\xff\xd8\0\0a", utf16);
    error("m", &vec![b' '; MAX_BYTES + 1], "is larger than 4 MiB, which no DERP map is");
}

#[test]
fn what_is_no_document_is_named() {
    error("m.json", b"{\n\"Regions\": {", "line 2: not JSON: the object that begins on line 2 is not closed");
    error(
        "m.json",
        b"{\n\"Regions\": nul}",
        "line 2: not JSON: a value is neither a number, nor true, false or null, nor in double quotes",
    );
    error("m.json", b"{} {}", "line 1: not JSON: text stands behind the end of the outermost value");
    error("m.yaml", b"regions:\n\t900:\n", "line 2: not YAML: found a tab where only spaces may indent");
    error("m.yaml", b"regions: *nobody", "line 1: not YAML: unknown anchor 'nobody' referenced");
}

/// What stands at the end of a file and is not complete is on its last line, not behind it.
#[test]
fn no_line_is_behind_the_last() {
    for text in
        ["regions:\n  900: {}\n? ", "regions:\r\n  900: {}\r\n? \r\n\n", "regions:\r  900: {}\r? \n\r  "]
    {
        let findings = Loaded::read("m.yaml", text.as_bytes(), None).unwrap().check();
        assert_eq!(findings.last().unwrap().line, Some(3), "{text:?}");
    }
}

#[test]
fn nesting_is_bounded() {
    let deep = |open: &str| open.repeat(100_000);
    for (name, text) in [
        ("m.json", format!("{{\"Regions\": {}", deep("["))),
        ("m.json", deep("{\"a\":")),
        ("m.yaml", deep("- ")),
        ("m.yaml", format!("regions: {}", deep("["))),
        ("m.yaml", format!("regions: {}", deep("{a: "))),
    ] {
        let error = Loaded::read(name, text.as_bytes(), None).unwrap_err();
        assert!(
            matches!(error, ReadError::TooDeep { line: 1 } | ReadError::Syntax { .. }),
            "{name}: {error}"
        );
    }
}

#[test]
fn a_hundred_levels_are_read_and_no_more() {
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    for name in ["m.json", "m.yaml"] {
        assert!(Loaded::read(name, nested(100).as_bytes(), None).is_ok(), "{name}");
        error(name, nested(101).as_bytes(), "line 1: is nested more than 100 levels deep");
    }
}

#[test]
fn so_many_values_are_read_and_no_more() {
    // The list is a value, too.
    let values = |count: usize| format!("[{}0]", "0,".repeat(count - 2));
    for name in ["m.json", "m.yaml"] {
        assert!(Loaded::read(name, values(200_000).as_bytes(), None).is_ok(), "{name}");
        let expected = "line 1: comes to more than 200000 values, aliases expanded";
        error(name, values(200_001).as_bytes(), expected);
    }
}

/// A few hundred bytes of aliases that come to billions of values.
#[test]
fn aliases_are_counted() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..20 {
        let below = format!("*a{}, ", level - 1).repeat(10);
        text.push_str(&format!("a{level}: &a{level} [{below}]\n"));
    }
    error("m.yaml", text.as_bytes(), "line 5: comes to more than 200000 values, aliases expanded");
}

/// An alias inside of what it stands for has no end. Where nothing is made of it, it is as good as any other value.
#[test]
fn an_alias_inside_of_itself_is_refused_where_it_is_read() {
    let read = |text: &str| Loaded::read("m.yaml", text.as_bytes(), None).unwrap();
    assert!(read("a: &a [*a]").refusal().is_none());
    let loaded = read("regions: &a {900: *a}");
    assert_eq!(loaded.refusal().unwrap().message, "region 900 is an alias inside of what it stands for");
}

/// Nothing is a map without regions to Headscale.
#[test]
fn nothing_in_yaml_is_an_empty_map() {
    for text in ["", "# nothing\n", "---\n", "~", "regions:\n"] {
        let loaded = Loaded::read("m.yaml", text.as_bytes(), None).unwrap();
        let codes: Vec<_> = loaded.check().iter().map(|finding| finding.code.label()).collect();
        assert_eq!(codes, ["no-regions"], "{text:?}");
    }
}

/// The parser keeps a copy of what has an anchor, also where no alias uses it: of anchors around anchors each copies all
/// that it holds.
#[test]
fn the_copies_of_nested_anchors_are_counted() {
    let nested = |levels: usize, innermost: &str| {
        let open: String = (0..levels).map(|level| format!("&a{level} [")).collect();
        format!("a: {open}{innermost}{}", "]".repeat(levels))
    };
    let scalars = "x, ".repeat(20_000);
    let refused = "line 1: comes to more than 200000 values, aliases expanded";
    Loaded::read("m.yaml", nested(8, &scalars).as_bytes(), None).expect("the tree and eight copies fit");
    error("m.yaml", nested(9, &scalars).as_bytes(), refused);
    error("m.yaml", nested(97, &"x, ".repeat(100_000)).as_bytes(), refused);
    // What is a key is copied, too.
    error("m.yaml", nested(9, &format!("{{? [{scalars}] : x}}")).as_bytes(), refused);
}

/// A copy of a text counts by its length.
#[test]
fn the_copies_of_long_texts_are_counted() {
    let text = format!("a: &a {}\nb: [{}]\n", "x".repeat(64_000), "*a, ".repeat(250));
    error("m.yaml", text.as_bytes(), "line 2: comes to more than 200000 values, aliases expanded");
    let text = format!("a: &a {}\nb: [{}]\n", "x".repeat(64), "*a, ".repeat(250));
    Loaded::read("m.yaml", text.as_bytes(), None).expect("short texts fit");
}

/// As many regions, nodes and unknown names as fit.
#[test]
fn the_largest_maps_take_no_quadratic_time() {
    let numbers = || 1..=20_000;
    let unknown: String = numbers().map(|n| format!("  k{n}: 1\n")).collect();
    let same: String = numbers().map(|_| "  900: {}\n".to_owned()).collect();
    let regions: String =
        numbers().map(|n| format!("  {n}: {{ regionid: {n}, nodes: [{{ hostname: h }}] }}\n")).collect();
    let nodes: String = numbers().map(|n| format!("    - {{ name: {n}, stunonly: true }}\n")).collect();
    for text in [
        format!("regions:\n{unknown}"),
        format!("regions:\n{same}"),
        format!("regions:\n{regions}"),
        format!("regions:\n  900:\n    nodes:\n{nodes}"),
        format!("a: &a\n{unknown}b:\n  <<: *a\n{unknown}"),
    ] {
        let loaded = Loaded::read("m.yaml", text.as_bytes(), None).unwrap();
        let other = Loaded::read("m.yaml", b"regions: {900: {nodes: [{name: x}]}}", None).unwrap();
        let findings = loaded.check();
        for diff in [Diff::between(&loaded.map, &other.map), Diff::between(&other.map, &loaded.map)] {
            let report = MapReport {
                file: "m",
                format: loaded.format(),
                findings: Some(&findings),
                map: None,
                diff: Some(("n", &diff)),
            };
            assert!(!report.to_text().is_empty());
        }
    }
}
