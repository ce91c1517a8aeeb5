//! DERP maps: what is read can be written, in each form, and read again.

use serde_json::Value;
use towpath_wire::map::DerpMap;

/// Reads a map and writes it.
pub(crate) fn read(input: &[u8]) {
    let Ok(map) = serde_json::from_slice::<DerpMap>(input) else { return };
    let json = map.to_json();
    let again: DerpMap = serde_json::from_str(&json).expect("what is written can be read");
    assert_eq!(again, map);
    assert_eq!(again.to_json(), json, "equal maps give equal bytes");

    // The policy file has the same object, behind a name and in front of a comma.
    let policy = map.to_tailscale_policy();
    let member = policy.trim().strip_suffix(',').expect("a trailing comma");
    let value: Value = serde_json::from_str(&format!("{{{member}}}")).expect("JSON but for the comma");
    assert_eq!(value["derpMap"], serde_json::from_str::<Value>(&json).expect("the same"));

    assert_is_plain_yaml(&map.to_headscale_yaml());
}

/// Each line is `name: value` or an element of a list, with an indentation that its place asks for; texts are quoted, so
/// that nothing that was put into a map can end its line or its quotes.
fn assert_is_plain_yaml(yaml: &str) {
    for line in yaml.lines() {
        let text = line.trim_start();
        assert!(matches!(line.len() - text.len(), 0 | 2 | 4 | 6 | 8), "{line:?}");
        assert!(!text.contains(|c: char| c.is_control()), "{line:?}");
        let (name, value) = text.split_once(':').expect("a name and a colon");
        let name = name.strip_prefix("- ").unwrap_or(name);
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()), "{line:?}");
        let value = value.trim_start();
        if let Some(quoted) = value.strip_prefix('"') {
            let mut chars = quoted.chars();
            while let Some(c) = chars.next() {
                match c {
                    '\\' => assert!(matches!(chars.next(), Some('"' | '\\' | 'u')), "{line:?}"),
                    '"' => assert_eq!(chars.as_str(), "", "{line:?}"),
                    _ => {}
                }
            }
        } else {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-.[]{}".contains(c);
            assert!(value.chars().all(plain), "{line:?}");
        }
    }
}
