//! Nothing is left of a laboratory, however it ends.
//!
//! A namespace that is gone has taken its links with it. So a link is put into one from outside, and its other end is watched.

use std::env;
use std::fs::{read_dir, read_link, read_to_string};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use towpath_lab::{Class, Lab, Namespace};

use crate::tools::{PATIENCE, turn};

/// Runs a test of this program as a process of its own, which is told by the variable that it is to run.
const CHILD: &str = "TOWPATH_LAB_CHILD";
/// A program that a laboratory starts, by a time to sleep that no other program sleeps.
const SLEEP: &str = "86399.25";

fn ip(namespace: &Namespace, arguments: &[&str]) -> bool {
    namespace
        .command("ip")
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap()
        .success()
}

/// Puts links into namespaces whose other ends are in a namespace of this process.
fn watch(paths: &[String]) -> Namespace {
    let watch = Namespace::new().unwrap();
    for (number, path) in paths.iter().enumerate() {
        let (name, other) = (format!("w{number}"), format!("x{number}"));
        let arguments = ["link", "add", "name", &name, "type", "veth", "peer", "name", &other, "netns", path];
        assert!(ip(&watch, &arguments), "{path}");
    }
    watch
}

/// Waits until something is so.
fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        sleep(Duration::from_millis(10));
    }
}

fn are_gone(watch: &Namespace, count: usize) {
    for number in 0..count {
        let name = format!("w{number}");
        eventually("a namespace is left", || !ip(watch, &["link", "show", "dev", &name]));
    }
}

/// Whether a process sleeps as those do that a laboratory has started.
fn sleeps() -> bool {
    let lines = read_dir("/proc").unwrap().flatten();
    lines
        .filter_map(|entry| read_to_string(entry.path().join("cmdline")).ok())
        .any(|line| line.contains(SLEEP))
}

/// The threads of laboratories in this process.
fn threads() -> usize {
    let tasks = read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.filter_map(|task| read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with("lab-")).count()
}

/// The namespaces and TUN interfaces that this process has open.
fn descriptors() -> usize {
    let links = read_dir("/proc/self/fd").unwrap().flatten().filter_map(|entry| read_link(entry.path()).ok());
    let names = links.map(|link| link.to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("net:") || name.ends_with("net/tun")).count()
}

fn mounts() -> String {
    read_to_string("/proc/self/mountinfo").unwrap()
}

#[test]
fn nothing_is_left_when_a_laboratory_is_dropped() {
    let Some(_turn) = turn() else { return };
    let mounts_before = mounts();
    let descriptors_before = descriptors();
    let mut lab = Lab::new(15).unwrap();
    let site = lab.add_site();
    let nat = lab.add_nat(Class::F, site).unwrap();
    let host = lab.add_host(&nat).unwrap();
    let server = lab.add_server(site).unwrap();
    let runtime = host.namespace().runtime().unwrap();
    let namespaces = [nat.namespace(), host.namespace(), server.namespace()].map(Namespace::path);
    let watch = watch(&namespaces);
    assert!(ip(&watch, &["link", "show", "dev", "w0"]));
    assert_eq!(threads(), 2);
    drop((runtime, host, nat, server, lab));
    are_gone(&watch, namespaces.len());
    drop(watch);
    assert_eq!((threads(), descriptors()), (0, descriptors_before));
    assert_eq!(mounts(), mounts_before);
}

#[test]
fn nothing_is_left_when_a_laboratory_is_killed() {
    let Some(_turn) = turn() else { return };
    let mounts_before = mounts();
    let mut child = Command::new(env::current_exe().unwrap());
    child.args(["--exact", "leftovers::a_laboratory_that_waits_to_be_killed", "--ignored", "--nocapture"]);
    let mut child = child.env(CHILD, "1").stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let paths: Vec<String> = lines
        .skip_while(|line| !line.starts_with("/proc/"))
        .take_while(|line| line.starts_with("/proc/"))
        .collect();
    assert_eq!(paths.len(), 3);
    let watch = watch(&paths);
    assert!(ip(&watch, &["link", "show", "dev", "w0"]) && sleeps());
    child.kill().unwrap();
    child.wait().unwrap();
    are_gone(&watch, paths.len());
    eventually("a process is left", || !sleeps());
    assert_eq!(mounts(), mounts_before);
}

#[test]
#[ignore = "it runs in a process that another test kills"]
fn a_laboratory_that_waits_to_be_killed() {
    if env::var_os(CHILD).is_none() {
        return;
    }
    let mut lab = Lab::new(16).unwrap();
    let site = lab.add_site();
    let nat = lab.add_nat(Class::P, site).unwrap();
    let host = lab.add_host(&nat).unwrap();
    let server = lab.add_server(site).unwrap();
    let mut sleeping = host.namespace().command("sleep").arg(SLEEP).spawn().unwrap();
    eventually("the program has not begun", sleeps);
    println!();
    for namespace in [nat.namespace(), host.namespace(), server.namespace()] {
        println!("{}", namespace.path());
    }
    println!();
    sleeping.wait().unwrap();
}
