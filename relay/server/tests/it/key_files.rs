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

    /// The names of the files, in order.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn chmod(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), Permissions::from_mode(mode)).unwrap();
    }

    fn command(&self, settings: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_towpath-relay"));
        command.args(["--hostname", "localhost", "--listen", "127.0.0.1:0", "--stun-listen", ""]);
        command.args(["--key-file", "relay.key"]).args(settings);
        command
            .current_dir(&self.0)
            .env_clear()
            .env("TOWPATH_ADMIN_LISTEN", "")
            .env("TOWPATH_ADMISSION", "open");
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
            "--key-file: key_file: {file} can be changed by other users (mode 0666): check that its key is yours, and run: chmod go-w {file}\n"
        );
        assert!(log.ends_with(&expected) && !log.contains("listening"), "{log}");
        assert_eq!(relay.0.wait().unwrap().code(), Some(2));
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
    let expected =
        "key_file: relay.key is a link that leads nowhere: the relay writes no secret through a link\n";
    assert!(log.ends_with(expected), "{log}");
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
    assert!(log.contains("self-signed.key is there without its certificate"), "{log}");
    assert_eq!(place.read("self-signed.key"), key);
    assert_ne!(place.read("self-signed.crt"), certificate, "a certificate cannot be made twice");
}

/// Writes fail in the middle, as on a disk that is full: the limit is on the length of a file, in blocks of 512 bytes. A key
/// fits into one block, and a certificate does not.
#[test]
fn a_disk_that_is_full_at_the_first_start_needs_no_person() {
    for (blocks, left) in [(0, &[][..]), (1, &["relay.key", "self-signed.key"])] {
        let place = Place::new();
        let relay = place.command(&[]);
        let mut command = Command::new("sh");
        command.args(["-c", &format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"")]);
        command.arg(relay.get_program()).args(relay.get_args());
        command
            .current_dir(&place.0)
            .env_clear()
            .envs(relay.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .stderr(Stdio::piped());
        let (mut relay, log) = run(command);
        assert!(log.contains("towpath-relay: cannot create ") && log.contains("File too large"), "{log}");
        assert_eq!(relay.0.wait().unwrap().code(), Some(1));
        assert_eq!(place.names(), left, "no half of a file is left");
        let key = left.first().map(|name| place.read(name));
        let (_, log) = place.start();
        assert!(log.contains("listening"), "{log}");
        assert_eq!(place.names(), ["relay.key", "self-signed.crt", "self-signed.key"]);
        if let Some(key) = key {
            assert_eq!(place.read("relay.key"), key);
        }
        let certificate = place.read("self-signed.crt");
        place.make_files();
        assert_eq!(place.read("self-signed.crt"), certificate);
    }
}

/// As two containers on one volume.
#[test]
fn relays_that_start_at_once_on_one_folder_have_one_key_and_one_certificate() {
    let place = Place::new();
    let started: Vec<_> = std::thread::scope(|threads| {
        let threads = [(); 4].map(|()| threads.spawn(|| place.start()));
        threads.map(|thread| thread.join().unwrap()).into()
    });
    assert_eq!(place.names(), ["relay.key", "self-signed.crt", "self-signed.key"]);
    let mut shown: Vec<_> = started
        .iter()
        .map(|(_, log)| {
            let port = log.split("listen=127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next());
            let target = format!("localhost:{}", port.unwrap_or_else(|| panic!("{log}")));
            let output =
                Command::new(env!("CARGO_BIN_EXE_towpath-relay")).args(["key", &target]).output().unwrap();
            let [key, said] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
            let pin = said.lines().find_map(|line| line.strip_prefix("pin of its certificate: sha256-raw:"));
            assert!(key.starts_with("nodekey:") && log.contains(key.trim_end()), "{key}{said}");
            (key, pin.unwrap_or_else(|| panic!("{said}")).to_owned())
        })
        .collect();
    shown.dedup();
    assert_eq!(shown.len(), 1, "{shown:?}");
}

/// Clients may have pinned it.
#[test]
fn a_certificate_without_its_key_is_not_replaced() {
    let place = Place::new();
    place.make_files();
    let certificate = place.read("self-signed.crt");
    fs::remove_file(place.path("self-signed.key")).unwrap();
    let (mut relay, log) = place.start();
    let expected = "key_file: self-signed.crt is there without self-signed.key: restore the key, or remove the \
                    certificate and print the map again\n";
    assert!(log.ends_with(expected), "{log}");
    assert_eq!(relay.0.wait().unwrap().code(), Some(2));
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
