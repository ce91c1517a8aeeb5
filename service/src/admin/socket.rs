//! The Unix socket: made for its owner and its group, in place of one that a dead process has left, and removed at the end.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, fchmod, flock};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};

use crate::visible_path;

/// The mode of the socket: its owner and its group may connect.
const MODE: u32 = 0o660;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;

/// Tries to lock the directory, and the pause after each. A relay that starts has it for less than a millisecond.
const LOCK_TRIES: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process answers at the path.
    #[error("cannot make the socket {path}: another process answers there; each relay needs an admin.socket of its own", path = visible_path(.0))]
    Live(PathBuf),
    /// Something else is at the path.
    #[error("cannot make the socket {path}: there is a file that is no socket; remove it, or choose another path", path = visible_path(.0))]
    Other(PathBuf),
    /// Another process has the lock of the directory.
    #[error("cannot make the socket {path}: another process has kept its directory locked for a second; `lslocks` names that process, or choose another directory", path = visible_path(.0))]
    Locked(PathBuf),
    /// The system refuses the socket.
    #[error("cannot make the socket {path}", path = visible_path(.0))]
    System(PathBuf, #[source] io::Error),
}

/// A bound Unix socket, whose file is removed when this is dropped.
#[derive(Debug)]
pub struct AdminSocket {
    /// Dropped before the listener.
    file: SocketFile,
    listener: UnixListener,
}

/// The file of a socket. Removed when dropped, if it is still the same. It is to be dropped before its listener: a socket that
/// nothing listens on is one that another process may replace, between the look at the file and its removal.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl AdminSocket {
    /// Makes a socket at `path`. One that no process listens on any more is replaced.
    ///
    /// # Errors
    ///
    /// See [`SocketError`].
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let system = |error: io::Error| SocketError::System(path.into(), error);
        // Of two relays that start at once, the second must not take the new socket of the first for an old one.
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let locked = File::open(directory).map_err(system)?;
        lock(&locked, || sleep(LOCK_PAUSE)).map_err(|error| match error {
            Errno::WOULDBLOCK => SocketError::Locked(path.into()),
            error => system(error.into()),
        })?;
        let listener = match open(path) {
            Err(Errno::ADDRINUSE) => {
                check_left_behind(path)?;
                fs::remove_file(path).map_err(system)?;
                open(path)
            }
            opened => opened,
        }
        .map_err(|error| system(error.into()))?;
        let identity = identity(path).map_err(system)?;
        Ok(Self { file: SocketFile { path: path.into(), identity }, listener })
    }

    pub(super) fn into_parts(self) -> (UnixListener, SocketFile) {
        (self.listener, self.file)
    }
}

/// Locks a directory. Each process that may read it can keep it locked, so it is not waited for without end.
fn lock(directory: &File, pause: impl Fn()) -> Result<(), Errno> {
    let mut locked = Err(Errno::WOULDBLOCK);
    for _ in 0..LOCK_TRIES {
        locked = flock(directory, FlockOperation::NonBlockingLockExclusive);
        if locked != Err(Errno::WOULDBLOCK) {
            break;
        }
        pause();
    }
    locked
}

/// Opens a socket whose file never has a wider mode than [`MODE`].
fn open(path: &Path) -> Result<UnixListener, Errno> {
    let socket = socket()?;
    // The file gets the mode of the descriptor less the umask.
    fchmod(&socket, Mode::from_raw_mode(MODE))?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    // A umask as in the unit of the documentation would keep the group out.
    let set = fs::set_permissions(path, Permissions::from_mode(MODE));
    set.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

/// Checks that the socket at `path` belongs to no process any more.
fn check_left_behind(path: &Path) -> Result<(), SocketError> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    if !is_socket {
        return Err(SocketError::Other(path.into()));
    }
    match knock(path) {
        Err(Errno::CONNREFUSED) => Ok(()),
        // One whose backlog is full is alive as well.
        Ok(()) | Err(Errno::AGAIN) => Err(SocketError::Live(path.into())),
        Err(error) => Err(SocketError::System(path.into(), error.into())),
    }
}

/// Connects to the socket at `path`, without waiting for a process that is stuck.
fn knock(path: &Path) -> Result<(), Errno> {
    connect(&socket()?, &SocketAddrUnix::new(path)?)
}

fn socket() -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let file = fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            // If it stays, the next start replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::os::unix::net::UnixStream;
    use std::sync::Mutex;

    use rustix::process::umask;

    use super::*;

    /// The umask is the process's.
    static UMASK: Mutex<()> = Mutex::new(());

    #[test]
    fn the_owner_and_the_group_may_connect_whatever_the_umask_and_no_other() {
        let _alone = UMASK.lock().expect("no test has panicked");
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("admin.sock");
        for mask in [0o077, 0o000, 0o022] {
            let before = umask(Mode::from_raw_mode(mask));
            let socket = AdminSocket::bind(&path);
            umask(before);
            let _socket = socket.expect("a socket");
            let mode = fs::metadata(&path).expect("a file").permissions().mode();
            assert_eq!(mode & 0o777, 0o660, "umask {mask:o}");
        }
    }

    #[test]
    fn a_socket_of_a_dead_process_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("admin.sock");
        // The standard library leaves the file behind, as a process does that is killed.
        drop(UnixListener::bind(&path).expect("a socket"));
        assert!(path.exists());
        let socket = AdminSocket::bind(&path).expect("the old one is dead");
        UnixStream::connect(&path).expect("it is served");
        let message = AdminSocket::bind(&path).expect_err("it lives").to_string();
        assert!(
            message.ends_with("another process answers there; each relay needs an admin.socket of its own")
        );
        UnixStream::connect(&path).expect("it is served still");
        drop(socket);
        assert!(!path.exists(), "it takes its file away");
        fs::write(&path, "what an operator keeps").expect("a file");
        let message = AdminSocket::bind(&path).expect_err("a file is there").to_string();
        assert!(message.contains("there is a file that is no socket"), "{message}");
        assert_eq!(fs::read_to_string(&path).expect("a file"), "what an operator keeps");
    }

    #[test]
    fn a_directory_that_another_process_keeps_locked_is_not_waited_for_without_end() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("admin.sock");
        let open = || File::open(dir.path()).expect("a directory");
        let held = open();
        flock(&held, FlockOperation::LockExclusive).expect("nothing else has it");
        let message = AdminSocket::bind(&path).expect_err("it is locked").to_string();
        assert!(message.contains("another process has kept its directory locked for a second"), "{message}");
        // A process that lets it go meanwhile is waited for.
        let waits = Cell::new(0);
        let pause = || {
            waits.set(waits.get() + 1);
            if waits.get() == LOCK_TRIES - 1 {
                flock(&held, FlockOperation::Unlock).expect("it is held");
            }
        };
        lock(&open(), pause).expect("it is free at the last try");
        AdminSocket::bind(&path).expect("nothing has it any more");
    }

    #[test]
    fn the_socket_of_a_successor_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("admin.sock");
        let first = AdminSocket::bind(&path).expect("a socket");
        fs::remove_file(&path).expect("an operator may do so");
        let _second = AdminSocket::bind(&path).expect("a socket");
        drop(first);
        UnixStream::connect(&path).expect("the second is there");
    }
}
