//! What the kernel tells of changes in the directories of files (inotify(7)).
//!
//! Directories are watched and not files, because a file is replaced by another of its name as a rule, and Kubernetes replaces
//! a link on the way to it. Which file has changed does not matter: the caller looks at all of them. What the kernel cannot
//! tell, as of a file system in a network, the caller finds by looking from time to time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::future::pending;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;
use tracing::info;

/// How long changes gather before they are told, because they come in bursts.
const GATHER: Duration = Duration::from_millis(100);

/// Everything that gives a name to another file, or ends the writing of one.
const CHANGES: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::ONLYDIR);

/// The directories that are watched.
#[derive(Debug)]
pub(super) struct Events {
    /// `None` if the system gives no such descriptor.
    told: Option<AsyncFd<OwnedFd>>,
    /// The number of the watch of each directory.
    watched: BTreeMap<PathBuf, i32>,
}

impl Events {
    /// Nothing is watched yet.
    pub(super) fn new() -> Self {
        #[expect(
            deprecated,
            reason = "its successor is unsafe, for what may close its descriptor; this owns it"
        )]
        let register = AsyncFd::new;
        let told = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)
            .map_err(Into::into)
            .and_then(register)
            .inspect_err(|error| {
                info!(
                    "the system tells of no changes of files ({error}); the relay looks at them every 30 s"
                );
            });
        Self { told: told.ok(), watched: BTreeMap::new() }
    }

    /// Watches the directories of these files, and of the files that they lead to if they are links, and no others.
    /// Waits for the file system.
    pub(super) fn watch(&mut self, files: &[PathBuf]) {
        let Some(told) = self.told.as_ref().map(AsyncFd::get_ref) else { return };
        let wanted: BTreeSet<PathBuf> = files.iter().flat_map(|file| directories(file)).collect();
        self.watched.retain(|directory, watch| {
            let is_wanted = wanted.contains(directory);
            if !is_wanted {
                // The watch may be gone with its directory.
                let _ = inotify::remove_watch(told, *watch);
            }
            is_wanted
        });
        for directory in wanted {
            // Each time anew, because another directory may have the name now. That the system refuses a watch is no loss
            // that an operator could repair: the relay looks at the files all the same.
            match inotify::add_watch(told, &directory, CHANGES) {
                Ok(watch) => self.watched.insert(directory, watch),
                Err(_) => self.watched.remove(&directory),
            };
        }
    }

    /// Waits until something changes in a directory. What has been told is not told again, so look after it, and also if
    /// the wait is given up.
    pub(super) async fn changed(&mut self) {
        let Some(told) = &self.told else { return pending().await };
        loop {
            let Ok(mut ready) = told.readable().await else { return pending().await };
            match ready.try_io(|told| drain(told.get_ref()).map_err(Into::into)) {
                Ok(Ok(())) => break,
                Ok(Err(_)) => return pending().await,
                Err(_) => {}
            }
        }
        sleep(GATHER).await;
        let _ = drain(told.get_ref());
    }
}

/// Reads what waits, at least one event of it.
fn drain(told: &OwnedFd) -> io::Result<()> {
    let mut buffer = [0; 4096];
    io::read(told, &mut buffer)?;
    while io::read(told, &mut buffer).is_ok_and(|read| read > 0) {}
    Ok(())
}

/// The directory of a file, and that of the file that it leads to.
fn directories(file: &Path) -> impl Iterator<Item = PathBuf> {
    let of = |path: &Path| {
        let directory = path.parent()?;
        Some(if directory.as_os_str().is_empty() { PathBuf::from(".") } else { directory.into() })
    };
    of(file).into_iter().chain(fs::canonicalize(file).ok().and_then(|target| of(&target)))
}
