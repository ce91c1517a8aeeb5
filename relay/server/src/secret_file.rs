//! Files that hold a secret: how they are read, and how they are created.
//!
//! A file that others can write is refused, because they could give the relay a key of theirs. A file that others can
//! read is used with a warning: it may have to be like that, as in a volume of Kubernetes. Each is judged by the open
//! file, so a link that is changed meanwhile changes nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;
use tracing::warn;
use zeroize::Zeroizing;

/// The reason why a file with a secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// The system refuses.
    #[error("cannot {action} {path}", path = path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Other users can write the file.
    #[error(
        "{path} can be changed by other users (mode {mode:04o}): check that its key is yours, and run: chmod go-w {path}",
        path = path.display()
    )]
    Writable {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
}

impl SecretFileError {
    /// Whether the system says `kind`.
    fn is(&self, kind: ErrorKind) -> bool {
        matches!(self, Self::File { source, .. } if source.kind() == kind)
    }

    /// Whether there was a file where one was to be created.
    pub(crate) fn is_already_there(&self) -> bool {
        self.is(ErrorKind::AlreadyExists)
    }
}

/// What users other than its owner can do to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exposure {
    None,
    Readable,
    Writable,
}

impl Exposure {
    /// Judges the permissions of a file. `owned`: it is this process' user's.
    ///
    /// Where it is another user's, such as root's, its group may be how the relay reads it. Kubernetes' `fsGroup` and the
    /// access lists of systemd's `LoadCredential=` look like that.
    const fn of(mode: u32, owned: bool) -> Self {
        let readable = if owned { 0o044 } else { 0o004 };
        if mode & 0o022 != 0 {
            Self::Writable
        } else if mode & readable != 0 {
            Self::Readable
        } else {
            Self::None
        }
    }
}

/// Reads the secret in a file.
///
/// # Errors
///
/// See [`SecretFileError`].
pub(crate) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretFileError> {
    let failed = |source| SecretFileError::File { action: "read", path: path.into(), source };
    let mut file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let mode = metadata.mode() & 0o7777;
    match Exposure::of(mode, metadata.uid() == geteuid().as_raw()) {
        Exposure::None => {}
        Exposure::Readable => warn!(
            "{path} can be read by other users (mode {mode:04o}); its key is for the relay alone: run chmod go-r {path}",
            path = path.display()
        ),
        Exposure::Writable => return Err(SecretFileError::Writable { path: path.into(), mode }),
    }
    let mut contents = Zeroizing::new(Vec::new());
    file.read_to_end(&mut contents).map_err(failed)?;
    Ok(contents)
}

/// Reads the secret in a file that is text.
///
/// # Errors
///
/// See [`SecretFileError`].
pub(crate) fn read_text(path: &Path) -> Result<Zeroizing<String>, SecretFileError> {
    let contents = read(path)?;
    let text = std::str::from_utf8(&contents).map_err(|_| SecretFileError::File {
        action: "read",
        path: path.into(),
        source: io::Error::new(ErrorKind::InvalidData, "it is not text"),
    })?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// Reads the secret in a file that is text. If the file is missing, creates it with what `make` returns. If another process
/// does so at the same time, both have the secret of the one that was first.
///
/// # Errors
///
/// Those of `make`, and [`SecretFileError`].
pub(crate) fn read_or_create<E: From<SecretFileError>>(
    path: &Path,
    make: impl FnOnce() -> Result<Zeroizing<String>, E>,
) -> Result<Zeroizing<String>, E> {
    match read_text(path) {
        Err(error) if error.is(ErrorKind::NotFound) => {}
        read => return Ok(read?),
    }
    let made = make()?;
    match create(path, made.as_bytes()) {
        Ok(()) => Ok(made),
        // A link that leads nowhere is there as well, and has nothing to read.
        Err(error) if error.is_already_there() => Ok(read_text(path).map_err(|_| error)?),
        Err(error) => Err(error.into()),
    }
}

/// Creates a secret file whole or not at all, readable by its owner only. An existing file is never replaced.
///
/// # Errors
///
/// [`SecretFileError::File`].
pub fn create(path: &Path, contents: &[u8]) -> Result<(), SecretFileError> {
    let failed = |action| {
        let path = path.to_path_buf();
        move |source| SecretFileError::File { action, path, source }
    };
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(dir).map_err(failed("create the directory of"))?;
    let write = || {
        let draft = Draft::write(path, contents)?;
        // Unlike a rename, a link fails if another process was faster.
        fs::hard_link(&draft.0, path)?;
        drop(draft);
        sync_directory(dir)
    };
    write().map_err(failed("create"))
}

/// A file on its way to its name, under a name that no other process takes. Removed when dropped.
struct Draft(PathBuf);

impl Draft {
    fn write(path: &Path, contents: &[u8]) -> io::Result<Self> {
        // Not the number of the process, which is 1 in each container, and the same after a crash.
        let mut random = [0; 8];
        getrandom::fill(&mut random)?;
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{:016x}.tmp", u64::from_ne_bytes(random)));
        let name = PathBuf::from(name);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&name)?;
        let draft = Self(name);
        file.write_all(contents)?;
        file.sync_all()?;
        Ok(draft)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Nothing reads a draft that stays.
        let _ = fs::remove_file(&self.0);
    }
}

/// Makes the names in a directory outlast a crash of the machine, where the file system can.
fn sync_directory(dir: &Path) -> io::Result<()> {
    match File::open(dir).and_then(|dir| dir.sync_all()) {
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::InvalidInput | ErrorKind::Unsupported | ErrorKind::PermissionDenied
            ) =>
        {
            Ok(())
        }
        synced => synced,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::sync::Barrier;

    use super::*;

    fn file(dir: &Path, mode: u32) -> PathBuf {
        let path = dir.join(format!("{mode:o}"));
        fs::write(&path, "secret").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn names(dir: &Path) -> Vec<String> {
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_that_others_can_write_is_refused_and_one_that_they_can_read_is_not() {
        let dir = tempfile::tempdir().unwrap();
        for mode in [0o600, 0o400, 0o640, 0o644, 0o444, 0o440] {
            assert_eq!(*read_text(&file(dir.path(), mode)).unwrap(), "secret", "{mode:o}");
        }
        for mode in [0o666, 0o660, 0o602, 0o620] {
            let path = file(dir.path(), mode);
            let message = read(&path).unwrap_err().to_string();
            let path = path.display();
            assert_eq!(
                message,
                format!(
                    "{path} can be changed by other users (mode 0{mode:o}): check that its key is yours, and run: chmod go-w {path}"
                )
            );
            // Also behind a link, whose own permissions say nothing.
            let link = dir.path().join(format!("link-{mode:o}"));
            symlink(path.to_string(), &link).unwrap();
            assert!(matches!(read(&link), Err(SecretFileError::Writable { .. })), "{mode:o}");
        }
    }

    #[test]
    fn a_group_that_reads_is_how_the_relay_reads_what_is_not_its_own() {
        for (mode, owned, exposure) in [
            (0o600, true, Exposure::None),
            (0o640, true, Exposure::Readable),
            (0o604, true, Exposure::Readable),
            (0o440, false, Exposure::None),
            (0o644, false, Exposure::Readable),
            (0o460, false, Exposure::Writable),
            (0o606, true, Exposure::Writable),
        ] {
            assert_eq!(Exposure::of(mode, owned), exposure, "{mode:o}");
        }
    }

    #[test]
    fn a_created_file_is_its_owners_alone_and_leaves_no_draft() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/key");
        create(&path, b"first").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(create(&path, b"second").unwrap_err().is_already_there());
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(names(path.parent().unwrap()), ["key"]);
    }

    /// Drafts of a crash, and of a neighbour on the same volume, which in a container has the same number.
    #[test]
    fn drafts_of_other_processes_are_neither_met_nor_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let others = [format!("key.{}.tmp", std::process::id()), "key.0123456789abcdef.tmp".to_owned()];
        others.iter().for_each(|name| fs::write(dir.path().join(name), "another's").unwrap());
        create(&path, b"mine").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        for name in others {
            assert_eq!(fs::read(dir.path().join(name)).unwrap(), b"another's");
        }
    }

    #[test]
    fn nothing_is_written_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (link, target) = (dir.path().join("link"), dir.path().join("target"));
        symlink(&target, &link).unwrap();
        assert!(create(&link, b"secret").unwrap_err().is_already_there());
        let made = read_or_create::<SecretFileError>(&link, || Ok(Zeroizing::new("secret".into())));
        assert!(made.unwrap_err().is_already_there(), "no endless look for it either");
        assert_eq!(names(dir.path()), ["link"]);
    }

    #[test]
    fn processes_that_create_a_file_at_once_have_one_secret() {
        let dir = tempfile::tempdir().unwrap();
        let (path, start) = (dir.path().join("key"), Barrier::new(8));
        let made: Vec<_> = std::thread::scope(|threads| {
            let threads = [0, 1, 2, 3, 4, 5, 6, 7].map(|number| {
                let (path, start) = (&path, &start);
                threads.spawn(move || {
                    read_or_create::<SecretFileError>(path, || {
                        start.wait();
                        Ok(Zeroizing::new(number.to_string()))
                    })
                    .unwrap()
                })
            });
            threads.map(|thread| thread.join().unwrap()).into()
        });
        let written = fs::read_to_string(&path).unwrap();
        assert!(made.iter().all(|secret| **secret == written), "{made:?} and {written}");
        assert_eq!(names(dir.path()), ["key"]);
    }
}
