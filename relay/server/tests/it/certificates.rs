//! Certificates and the other files of a configuration, with the real program: `check-config` and the start see the same.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType, date_time_ymd};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};
use tempfile::TempDir;

/// The real program in a directory of its own.
struct Place(TempDir);

impl Place {
    /// With a certificate for `relay.example.com` that clients can pin, and its key.
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.certify(|_| {});
        place
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    }

    fn certify(&self, change: impl FnOnce(&mut CertificateParams)) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["relay.example.com".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "relay.example.com");
        change(&mut params);
        self.write("relay.crt", &params.self_signed(&key).unwrap().pem());
        self.write("relay.key.pem", &key.serialize_pem());
    }

    fn configure(&self, more: &str) {
        let text = format!(
            "hostname = 'relay.example.com'\nlisten = '127.0.0.1:0'\ncert = 'relay.crt'\nkey = 'relay.key.pem'\n\
             key_file = 'node.key'\nstun.listen = []\nadmin.listen = ''\n{more}"
        );
        self.write("relay.toml", &text);
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_towpath-relay"));
        command.args(args).args(["--config", "relay.toml"]).current_dir(&self.0).env_clear();
        command.env("TOWPATH_ADMISSION", "open");
        command
    }

    /// What `check-config` says: code, standard output, standard error.
    fn check(&self) -> (Option<i32>, String, String) {
        let output = self.command(&["check-config"]).output().unwrap();
        let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        (output.status.code(), out, err)
    }

    /// Checks that `check-config` and the start both end with 2 and these lines.
    #[track_caller]
    fn assert_refused(&self, lines: &[&str]) {
        let count = lines.len();
        let problems = if count == 1 { "problem" } else { "problems" };
        let lines: String = lines.iter().map(|line| format!("\n  {line}")).collect();
        let expected = format!("towpath-relay: {count} {problems} in the configuration{lines}\n");
        assert_eq!(self.check(), (Some(2), String::new(), expected.clone()));
        let start = self.command(&[]).output().unwrap();
        assert_eq!((start.status.code(), String::from_utf8(start.stderr).unwrap()), (Some(2), expected));
    }

    /// Starts the relay and returns it with what it logs until it listens.
    fn start(&self) -> (Running, String) {
        let mut child = self.command(&[]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut running = Running { child, log };
        let log = running.until("listening");
        (running, log)
    }
}

/// A relay that listens; killed when dropped.
struct Running {
    child: Child,
    log: BufReader<std::process::ChildStderr>,
}

impl Running {
    /// The log up to the line with `text`, or to its end.
    fn until(&mut self, text: &str) -> String {
        let mut log = String::new();
        loop {
            let before = log.len();
            if self.log.read_line(&mut log).unwrap() == 0 || log[before..].contains(text) {
                return log;
            }
        }
    }

    fn hang_up(&self) {
        kill_process(Pid::from_child(&self.child), Signal::HUP).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const VALID: &str = "the configuration is valid\nthe start will make node.key\n";

#[test]
fn everything_that_is_wrong_with_the_files_is_told_together_and_by_setting() {
    let place = Place::new();
    place.configure("[mesh]\nkey_file = 'mesh.key'\nprober_key_file = 'prober.key'\nca_file = 'ca.pem'\n");
    for file in ["relay.crt", "relay.key.pem"] {
        fs::remove_file(place.0.path().join(file)).unwrap();
    }
    place.write("prober.key", "\n");
    place.write("node.key", "secret");
    let missing = "No such file or directory (os error 2)";
    place.assert_refused(&[
        &format!("relay.toml:3: cert: cannot read relay.crt: {missing}"),
        &format!("relay.toml:4: key: cannot read relay.key.pem: {missing}"),
        "relay.toml:5: key_file: node.key is not a key file: line 1 is not {\"PrivateKey\":\"privkey:…\"}",
        &format!("relay.toml:9: mesh.key_file: cannot read mesh.key: {missing}"),
        "relay.toml:10: mesh.prober_key_file: prober.key is empty: keygen --mesh makes a key",
        &format!("relay.toml:11: mesh.ca_file: cannot read ca.pem: {missing}"),
    ]);
    // Together with values that are wrong, and without what hangs on them.
    place.write("relay.toml", "hostname = 'x y'\ncert = 'relay.crt'\nkey = 'relay.key.pem'\nkeepalive = '1s'\nkey_file = 'node.key'\n");
    place.assert_refused(&[
        "relay.toml:1: hostname: found 'x y', allowed: a DNS name such as \"relay.example.com\" or an IP address",
        &format!("relay.toml:2: cert: cannot read relay.crt: {missing}"),
        &format!("relay.toml:3: key: cannot read relay.key.pem: {missing}"),
        "relay.toml:4: keepalive: found '1s', allowed: \"5s\" to \"90s\"",
        "relay.toml:5: key_file: node.key is not a key file: line 1 is not {\"PrivateKey\":\"privkey:…\"}",
    ]);
}

#[test]
fn a_folder_in_which_no_key_can_be_made_is_found_without_making_one() {
    let place = Place::new();
    place.configure("");
    assert_eq!(place.check(), (Some(0), VALID.into(), String::new()));
    assert!(!place.0.path().join("node.key").exists());
    fs::set_permissions(place.0.path(), Permissions::from_mode(0o555)).unwrap();
    let run = |args: &[&str]| {
        let mut command = place.command(args);
        let run = || {
            // Root, too, is bound by permissions once it cannot have the right to pass over them. The set is the thread's.
            let _ = remove_capability_from_bounding_set(CapabilitySet::DAC_OVERRIDE);
            command.output().unwrap()
        };
        let output = thread::scope(|threads| threads.spawn(run).join().unwrap());
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let expected = "towpath-relay: 1 problem in the configuration\n  relay.toml:5: key_file: cannot create node.key: \
                    Permission denied (os error 13)\n";
    assert_eq!(run(&["check-config"]), (Some(2), expected.into()));
    assert_eq!(run(&[]), (Some(2), expected.into()));
    fs::set_permissions(place.0.path(), Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_certificate_for_another_name_is_refused_unless_the_configuration_says_otherwise() {
    let place = Place::new();
    let without = "; tls.check_name = false lets the relay start all the same";
    for (names, reason) in [
        (
            vec![],
            "relay.crt has no subject alternative name, and clients do not look at the common name: make a certificate with \
             the name relay.example.com (openssl req … -addext subjectAltName=DNS:relay.example.com)",
        ),
        (
            vec![SanType::DnsName("front.example.com".try_into().unwrap())],
            "relay.crt is not for relay.example.com, so that clients refuse it; it is for front.example.com",
        ),
    ] {
        place.certify(|params| params.subject_alt_names = names);
        place.configure("");
        place.assert_refused(&[&format!("relay.toml:3: cert: {reason}{without}")]);
        place.configure("tls.check_name = false\n");
        let warning = format!("towpath-relay: warning: {reason}\n");
        assert_eq!(place.check(), (Some(0), VALID.into(), warning));
        let (running, log) = place.start();
        assert!(log.contains(reason) && log.contains("listening"), "{log}");
        drop(running);
        fs::remove_file(place.0.path().join("node.key")).unwrap();
    }
}

#[test]
fn what_clients_will_not_like_is_a_warning() {
    let place = Place::new();
    place.configure("");
    place.certify(|params| params.not_after = date_time_ymd(2020, 1, 1));
    let warning = "relay.crt has expired on 2020-01-01: clients refuse it; renew it";
    assert_eq!(place.check(), (Some(0), VALID.into(), format!("towpath-relay: warning: {warning}\n")));
    let (_running, log) = place.start();
    assert!(log.contains(warning) && log.contains("listening"), "{log}");

    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, "an authority");
    let issuer = Issuer::new(authority, KeyPair::generate().unwrap());
    let key = KeyPair::generate().unwrap();
    let leaf =
        CertificateParams::new(["relay.example.com".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    place.write("relay.crt", &leaf.pem());
    place.write("relay.key.pem", &key.serialize_pem());
    let (code, _, err) = place.check();
    assert_eq!(code, Some(0));
    assert!(err.contains("relay.crt is not self-signed and alone: use the full chain"), "{err}");
}

#[test]
fn a_hangup_makes_the_relay_read_its_certificate_again() {
    let place = Place::new();
    place.configure("");
    let (mut running, _) = place.start();
    place.certify(|_| {});
    running.hang_up();
    let log = running.until("the certificate has been replaced; new connections see the new one");
    assert!(log.contains("INFO"), "{log}");
    place.certify(|params| params.subject_alt_names.clear());
    running.hang_up();
    // The watch on the files may read them while only one is written, which is refused for another reason.
    let expected = "the certificate has not been replaced, and clients still see the old one: relay.crt has no subject \
                    alternative name";
    let log = running.until(expected);
    assert!(log.contains("ERROR"), "{log}");
}
