//! What a test needs of the machine, and whose turn it is.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use towpath_lab::lack;

/// The programs that tests run beside ours.
#[derive(Debug)]
pub struct Programs {
    /// Our relay: `TOWPATH_RELAY`, or the workspace's own, the release build before the debug build.
    pub relay: PathBuf,
    /// Our peer, which is built beside the relay.
    pub towpath: PathBuf,
    /// wireguard-go, as `tests/interop/foreign/install` has installed it.
    pub wireguard: PathBuf,
    /// Stock derper, as `tests/interop/foreign/install` has installed it.
    pub derper: PathBuf,
    /// Tailscale's daemon, as `tests/interop/foreign/install` has installed it.
    pub tailscaled: PathBuf,
    /// Its command.
    pub tailscale: PathBuf,
    /// Headscale, from there as well.
    pub headscale: PathBuf,
    /// The Go program of `magicsock/`, as it is now.
    pub magicsock: PathBuf,
}

/// The programs and the turn of a test: one runs at a time, as they measure time. `None`, with a word about it, where the machine
/// lacks something.
#[expect(clippy::print_stdout, reason = "a test that is skipped says so")]
pub fn turn() -> Option<(&'static Programs, MutexGuard<'static, ()>)> {
    static FOUND: LazyLock<Result<Programs, String>> = LazyLock::new(find);
    static TURN: Mutex<()> = Mutex::new(());
    // A test that has failed leaves nothing behind that another could see.
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    match &*FOUND {
        Ok(programs) => Some((programs, turn)),
        Err(lack) => {
            println!("skipped: no {lack}");
            None
        }
    }
}

fn find() -> Result<Programs, String> {
    if let Some(lack) = lack() {
        return Err(lack);
    }
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let foreign =
        env::var_os("TOWPATH_FOREIGN").map_or_else(|| manifest.join("../../.foreign"), PathBuf::from);
    let programs = ["derper", "wireguard", "tailscaled", "tailscale", "headscale"];
    let [derper, wireguard, tailscaled, tailscale, headscale] =
        programs.map(|name| foreign.join("bin").join(name));
    let all = [&derper, &wireguard, &tailscaled, &tailscale, &headscale];
    if let Some(missing) = all.into_iter().find(|program| !program.exists()) {
        return Err(format!("{}: run tests/interop/foreign/install", missing.display()));
    }
    // A test runs from TARGET/PROFILE/deps.
    let test = env::current_exe().expect("the path of the test");
    let target = test.ancestors().nth(3).expect("a target directory");
    let relay = relay(target)?;
    let towpath = relay.with_file_name("towpath");
    if !towpath.exists() {
        return Err(format!("{}: build towpath-cli", towpath.display()));
    }
    let magicsock = build_magicsock(manifest, target)?;
    Ok(Programs { relay, towpath, wireguard, derper, tailscaled, tailscale, headscale, magicsock })
}

fn relay(target: &Path) -> Result<PathBuf, String> {
    if let Some(path) = env::var_os("TOWPATH_RELAY") {
        return Ok(path.into());
    }
    let mut built =
        ["release", "debug"].map(|profile| target.join(profile).join("towpath-relay")).into_iter();
    built.find(|path| path.exists()).ok_or_else(|| "relay: build towpath-relay, or set TOWPATH_RELAY".into())
}

/// Builds the Go program, which takes a second where nothing has changed.
fn build_magicsock(manifest: &Path, target: &Path) -> Result<PathBuf, String> {
    let program = target.join("magicsock");
    let mut build = Command::new("go");
    build.arg("-C").arg(manifest.join("magicsock")).args(["build", "-o"]).arg(&program).arg(".");
    let status = build.status().map_err(|error| format!("go command: {error}"))?;
    assert!(status.success(), "{build:?}: {status}");
    Ok(program)
}
