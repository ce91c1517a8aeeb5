//! The demo, as a new user runs it.

use std::process::{Command, Output};

fn demo(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_towpath"));
    command.env_clear().arg("demo").args(arguments).output().expect("the program runs")
}

/// The lines of the output, joined where the timeline has broken them.
fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).expect("UTF-8").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Checks that the text has these parts in this order.
fn check(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        let at = rest.find(part).unwrap_or_else(|| panic!("no `{part}` in its place in: {text}"));
        rest = &rest[at + part.len()..];
    }
}

#[test]
fn two_peers_become_direct_and_outlive_a_relay_and_a_firewall() {
    let text = text(&demo(&[]));
    check(
        &text,
        &[
            "behind a NAT of class P",
            "So a packet takes 80 ms to bob and back over relay 1, and 40 ms directly",
            "alice sends bob a packet",
            "bob has the hello of alice, over relay 1",
            "is direct: a probe to",
            "bob receives the first packet that came directly",
            "relay 1 is killed",
            "relay 2, to which both have kept a link, is alice's home now",
            "begins to drop UDP",
            "suspects the direct path",
            "packets go over relay 2",
            "lets UDP through again",
            "is direct: a probe to",
            "0 of them twice",
        ],
    );
}

#[test]
fn a_pair_without_a_direct_path_is_told_why_and_what_would_help() {
    let text = text(&demo(&["--nat", "X"]));
    check(
        &text,
        &[
            "stay on the relay",
            "UDP is blocked",
            "no STUN server answers this node",
            "packets go over relay 2",
        ],
    );
    assert!(!text.contains("is direct"), "{text}");
}

#[test]
fn a_class_that_does_not_exist_is_refused_with_those_that_do() {
    let output = demo(&["--nat", "Z"]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("there are O, F, A, P, P*"), "{said}");
}
