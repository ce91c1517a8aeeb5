//! A machine: a host of the laboratory with files, processes and names of its own, on which the commands of a guide can be run as they
//! stand.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use towpath_lab::Namespace;

use crate::turn::Programs;

/// How long a machine may take until it is there.
const START_LIMIT: Duration = Duration::from_secs(5);
/// Folders that are the machine's own, and empty at first. `/etc` is its own as well, with what the test's machine has in it.
const OWN_FOLDERS: [&str; 2] = ["/run", "/var/lib/towpath"];

/// A machine. All its processes end with this value, or with the test.
#[derive(Debug)]
pub struct Machine {
    init: Child,
    /// The first process in it, as this process sees it.
    pid: u32,
    files: TempDir,
    /// Scripts that go on.
    running: Mutex<Vec<Child>>,
}

impl Machine {
    /// Starts a machine in the namespace of a host. To be called by the thread of a test.
    pub(crate) fn start(programs: &Programs, namespace: &Namespace) -> Self {
        let files = TempDir::new().expect("a temporary directory");
        let bin = files.path().join("bin");
        fs::create_dir(&bin).expect("a directory");
        for (program, name) in [
            (&programs.towpath, "towpath"),
            (&programs.wireguard, "wireguard-go"),
            (&programs.tailscaled, "tailscaled"),
            (&programs.tailscale, "tailscale"),
        ] {
            symlink(program, bin.join(name)).expect("a link");
        }
        for folder in OWN_FOLDERS {
            // They are covered, never written to.
            fs::create_dir_all(folder).expect("a folder");
        }
        let mounts: String = OWN_FOLDERS.map(|folder| format!("mount -t tmpfs tmpfs {folder}\n")).concat();
        let script = format!(
            "set -e\nmount --make-rprivate /\n{mounts}mkdir {files}/etc\nmount -t tmpfs tmpfs {files}/etc\n\
             mkdir {files}/etc/upper {files}/etc/work\n\
             mount -t overlay overlay -o lowerdir=/etc,upperdir={files}/etc/upper,workdir={files}/etc/work /etc\n\
             rm -rf /etc/wireguard /etc/towpath\nmkdir /etc/wireguard /etc/towpath\nprintf '127.0.0.1\\tlocalhost\\n' >/etc/hosts\n\
             touch {files}/started\nexec sleep infinity\n",
            files = files.path().display()
        );
        let mut command = namespace.command("unshare");
        command.args([
            "--mount",
            "--pid",
            "--mount-proc",
            "--fork",
            "--kill-child=KILL",
            "sh",
            "-c",
            &script,
        ]);
        let init =
            command.stdin(Stdio::null()).spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let deadline = Instant::now() + START_LIMIT;
        while !files.path().join("started").exists() {
            assert!(Instant::now() < deadline, "the machine has not started: {command:?}");
            sleep(Duration::from_millis(5));
        }
        let children = format!("/proc/{pid}/task/{pid}/children", pid = init.id());
        let children = fs::read_to_string(children).expect("the children of unshare");
        let pid = children.trim().parse().expect("it has one");
        Self { init, pid, files, running: Mutex::default() }
    }

    /// A folder that the machine and the test share.
    pub fn files(&self) -> &Path {
        self.files.path()
    }

    /// A shell script in the machine.
    pub fn script(&self, script: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args([
            "--target",
            &self.pid.to_string(),
            "--mount",
            "--net",
            "--pid",
            "--",
            "sh",
            "-c",
            script,
        ]);
        // The variables of the test are none of the machine's.
        command.env_clear().stdin(Stdio::null());
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.files.path().join("bin").display());
        command.env("PATH", path).env("HOME", "/root").env("LC_ALL", "C");
        command
    }

    /// Runs a shell script and returns what it has printed and said.
    ///
    /// # Panics
    ///
    /// It fails.
    pub fn run(&self, script: &str) -> String {
        let output = self.try_run(script);
        let said = said(&output);
        assert!(output.status.success(), "{script}: {}\n{said}\n{}", output.status, self.log());
        said
    }

    /// Runs `ping` with arguments, and returns the times of the replies in milliseconds. It fails where there is none.
    pub fn ping(&self, arguments: &str) -> Vec<f64> {
        let said = self.run(&format!("ping -n {arguments}"));
        let times =
            said.lines().filter_map(|line| line.split("time=").nth(1)?.split(' ').next()?.parse().ok());
        times.collect()
    }

    /// Runs a shell script.
    pub fn try_run(&self, script: &str) -> Output {
        self.script(script).output().expect("nsenter runs")
    }

    /// Starts a shell script that goes on; what it says is added to the [log](Self::log).
    pub fn start_script(&self, script: &str) {
        let log = fs::File::options().create(true).append(true).open(self.log_path()).expect("a log");
        let mut command = self.script(script);
        command.stdout(log.try_clone().expect("a second handle")).stderr(log);
        let script = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        self.running.lock().unwrap_or_else(PoisonError::into_inner).push(script);
    }

    /// What programs that go on have said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Waits until the log has a text `times` times.
    ///
    /// # Panics
    ///
    /// It takes longer than `longest`.
    pub fn wait_for_log(&self, text: &str, times: usize, longest: Duration) {
        let deadline = Instant::now() + longest;
        while self.log().matches(text).count() < times {
            assert!(Instant::now() < deadline, "`{text}` was not said {times} times:\n{}", self.log());
            sleep(Duration::from_millis(10));
        }
    }

    fn log_path(&self) -> PathBuf {
        self.files.path().join("log")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // With unshare, its child is killed, and with that one, which is the first of the machine, all others.
        let _ = self.init.kill();
        let _ = self.init.wait();
        // A child of a killed unshare dies a moment later.
        let _ = Command::new("kill").args(["-KILL", &self.pid.to_string()]).stderr(Stdio::null()).status();
        for script in self.running.get_mut().unwrap_or_else(PoisonError::into_inner) {
            let _ = script.wait();
        }
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
