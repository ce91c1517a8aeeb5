//! Key files and what others can do to them, with the real program.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::geteuid;
use tempfile::TempDir;

/// The real program in a directory of its own.
struct Place(TempDir);

/// A relay that listens; killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn chmod(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), Permissions::from_mode(mode)).unwrap();
    }

    fn command(&self, settings: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_towpath-relay"));
        command.args(["--hostname", "localhost", "--listen", "127.0.0.1:0", "--stun-listen", ""]);
        command.args(["--key-file", "relay.key"]).args(settings);
        command.current_dir(&self.0).env_clear().env("TOWPATH_ADMIN_LISTEN", "");
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// Starts the relay. Returns it, and what it has logged until it listens or ends.
    fn start(&self) -> (Running, String) {
        run(self.command(&[]))
    }

    /// Starts and ends the relay, so that its files are there.
    fn make_files(&self) {
        let (_, log) = self.start();
        assert!(log.contains("listening"), "{log}");
    }
}

fn run(mut command: Command) -> (Running, String) {
    let mut child = command.spawn().unwrap();
    let mut log = String::new();
    for line in BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok) {
        log.push_str(&line);
        log.push('\n');
        if line.contains("listening") {
            break;
        }
    }
    (Running(child), log)
}

#[test]
fn a_key_that_others_can_write_is_refused_and_one_that_they_can_read_is_named() {
    let place = Place::new();
    place.make_files();
    for file in ["relay.key", "self-signed.key"] {
        place.chmod(file, 0o644);
        let (_, log) = place.start();
        let expected = format!(
            "{file} can be read by other users (mode 0644); its key is for the relay alone: run chmod go-r {file}"
        );
        assert!(log.contains(&expected) && log.contains("listening"), "{log}");
        place.chmod(file, 0o666);
        let (mut relay, log) = place.start();
        let expected = format!(
            "towpath-relay: {file} can be changed by other users (mode 0666): check that its key is yours, and run: chmod go-w {file}\n"
        );
        assert!(log.ends_with(&expected) && !log.contains("listening"), "{log}");
        assert_eq!(relay.0.wait().unwrap().code(), Some(1));
        place.chmod(file, 0o600);
    }
    let (_, log) = place.start();
    assert!(!log.contains("other users") && log.contains("listening"), "{log}");
}

#[test]
fn a_key_is_read_through_a_link_as_a_volume_has_them() {
    let place = Place::new();
    place.make_files();
    let key = place.read("relay.key");
    fs::rename(place.path("relay.key"), place.path("..data")).unwrap();
    symlink("..data", place.path("relay.key")).unwrap();
    let (_, log) = place.start();
    assert!(log.contains("listening"), "{log}");
    assert_eq!(place.read("relay.key"), key);
    // One that leads nowhere is not written through.
    fs::remove_file(place.path("..data")).unwrap();
    let (_, log) = place.start();
    assert!(log.ends_with("towpath-relay: cannot create relay.key: File exists (os error 17)\n"), "{log}");
    assert!(!place.path("..data").exists());
}

/// What a process leaves that ends between the two files.
#[test]
fn a_key_without_its_certificate_is_given_one_and_not_replaced() {
    let place = Place::new();
    place.make_files();
    let (key, certificate) = (place.read("self-signed.key"), place.read("self-signed.crt"));
    fs::remove_file(place.path("self-signed.crt")).unwrap();
    let (_, log) = place.start();
    assert!(log.contains("listening"), "{log}");
    assert!(log.contains("self-signed.key was there without its certificate"), "{log}");
    assert_eq!(place.read("self-signed.key"), key);
    assert_ne!(place.read("self-signed.crt"), certificate, "a certificate cannot be made twice");
}

/// Clients may have pinned it.
#[test]
fn a_certificate_without_its_key_is_not_replaced() {
    let place = Place::new();
    place.make_files();
    let certificate = place.read("self-signed.crt");
    fs::remove_file(place.path("self-signed.key")).unwrap();
    let (mut relay, log) = place.start();
    let expected = "towpath-relay: self-signed.crt: is there without self-signed.key: restore the key, or remove the \
                    certificate and print the map again\n";
    assert!(log.ends_with(expected), "{log}");
    assert_eq!(relay.0.wait().unwrap().code(), Some(1));
    assert_eq!(place.read("self-signed.crt"), certificate);
    assert!(!place.path("self-signed.key").exists());
}

/// The kernel gives the files of such a process in /proc to root, whatever user and group the process has.
#[test]
fn no_core_dump_and_no_process_of_the_same_user_has_the_memory_of_the_relay() {
    let place = Place::new();
    let mut command = place.command(&[]);
    if geteuid().is_root() {
        // So that the process is not root's in every respect.
        command.gid(1);
    }
    let (relay, log) = run(command);
    assert!(log.contains("listening"), "{log}");
    let owner = |pid: u32| {
        let stat = fs::metadata(format!("/proc/{pid}/stat")).unwrap();
        (stat.uid(), stat.gid())
    };
    assert_eq!(owner(relay.0.id()), (0, 0));
    // A process that has not asked for it, to see that the kernel makes the difference.
    let mut other = Command::new("sleep");
    if geteuid().is_root() {
        other.gid(1);
    }
    let other = Running(other.arg("60").spawn().unwrap());
    assert_ne!(owner(other.0.id()), (0, 0));
}
