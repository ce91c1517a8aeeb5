//! Files that hold a secret: how they are read, and how they are created.
//!
//! A file that others can write is refused, because they could give the relay a key of theirs. A file that others can
//! read is used with a warning: it may have to be like that, as in a volume of Kubernetes. Each is judged by the open
//! file, so a link that is changed meanwhile changes nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, RenameFlags, accessat, renameat_with};
use rustix::io::Errno;
use rustix::process::geteuid;
use towpath_service::visible_path;
use zeroize::Zeroizing;

/// The reason why a file with a secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// The system refuses.
    #[error("cannot {action} {path}", path = visible_path(path))]
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
        path = visible_path(path)
    )]
    Writable {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file is missing, and where it would be made there is a link to a place where nothing is.
    #[error("{path} is a link that leads nowhere: the relay writes no secret through a link", path = visible_path(.0))]
    Dangling(PathBuf),
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

/// Reads the secret in a file. Adds to `warnings` what should be told about the file.
///
/// # Errors
///
/// See [`SecretFileError`].
pub(crate) fn read(path: &Path, warnings: &mut Vec<String>) -> Result<Zeroizing<Vec<u8>>, SecretFileError> {
    let failed = |source| SecretFileError::File { action: "read", path: path.into(), source };
    let mut file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let mode = metadata.mode() & 0o7777;
    match Exposure::of(mode, metadata.uid() == geteuid().as_raw()) {
        Exposure::None => {}
        Exposure::Readable => warnings.push(format!(
            "{path} can be read by other users (mode {mode:04o}); its key is for the relay alone: run chmod go-r {path}",
            path = visible_path(path)
        )),
        Exposure::Writable => return Err(SecretFileError::Writable { path: path.into(), mode }),
    }
    let mut contents = Zeroizing::new(Vec::new());
    file.read_to_end(&mut contents).map_err(failed)?;
    Ok(contents)
}

/// Reads the secret in a file that is text, as [`read`] does.
///
/// # Errors
///
/// See [`SecretFileError`].
pub fn read_text(path: &Path, warnings: &mut Vec<String>) -> Result<Zeroizing<String>, SecretFileError> {
    let contents = read(path, warnings)?;
    let text = std::str::from_utf8(&contents).map_err(|_| SecretFileError::File {
        action: "read",
        path: path.into(),
        source: io::Error::new(ErrorKind::InvalidData, "it is not text"),
    })?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// Reads the secret in a file that is text. `None` if the file is missing and could be created, which is all that is looked
/// at: nothing is written.
///
/// # Errors
///
/// See [`SecretFileError`].
pub(crate) fn read_or_check_creation(
    path: &Path,
    warnings: &mut Vec<String>,
) -> Result<Option<Zeroizing<String>>, SecretFileError> {
    match read_text(path, warnings) {
        Err(error) if error.is(ErrorKind::NotFound) => check_creation(path).map(|()| None),
        read => read.map(Some),
    }
}

/// Whether [`create`] could create a file that is missing, as far as that can be told without writing: a full disk cannot.
///
/// # Errors
///
/// See [`SecretFileError`].
pub(crate) fn check_creation(path: &Path) -> Result<(), SecretFileError> {
    if path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink()) {
        return Err(SecretFileError::Dangling(path.into()));
    }
    let mut action = "create";
    for dir in path.ancestors().skip(1) {
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        let allowed = match dir.metadata() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // The directory is created as well.
                action = CREATE_DIRECTORY;
                continue;
            }
            Ok(metadata) if !metadata.is_dir() => Err(ErrorKind::NotADirectory.into()),
            Ok(_) => accessat(CWD, dir, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
                .map_err(io::Error::from),
            Err(error) => Err(error),
        };
        return allowed.map_err(|source| SecretFileError::File { action, path: path.into(), source });
    }
    Ok(())
}

/// What is tried where the directory of a file is missing.
const CREATE_DIRECTORY: &str = "create the directory of";

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
    // What should be told about a file that is there has been told when it was first looked at.
    let told = &mut Vec::new();
    match read_text(path, told) {
        Err(error) if error.is(ErrorKind::NotFound) => {}
        read => return Ok(read?),
    }
    let made = make()?;
    match create(path, made.as_bytes()) {
        Ok(()) => Ok(made),
        // A link that leads nowhere is there as well, and has nothing to read.
        Err(error) if error.is_already_there() => Ok(read_text(path, told).map_err(|_| error)?),
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
    fs::create_dir_all(dir).map_err(failed(CREATE_DIRECTORY))?;
    let write = || {
        let draft = Draft::write(path, contents)?;
        draft.name(path)?;
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

    /// Gives the file its name, unless another process was faster. Then the error is [`ErrorKind::AlreadyExists`].
    fn name(&self, path: &Path) -> io::Result<()> {
        // Unlike a rename, a link fails if there is a file.
        match fs::hard_link(&self.0, path) {
            Err(error) if has_no_links(&error) => self.rename(path),
            linked => linked,
        }
    }

    /// As [`name`](Self::name), where the file system has no links, as those of network shares and of FAT have none.
    fn rename(&self, path: &Path) -> io::Result<()> {
        Ok(renameat_with(CWD, &self.0, CWD, path, RenameFlags::NOREPLACE)?)
    }
}

/// Whether a file system refuses to make any link.
fn has_no_links(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw_os_error),
        Some(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK | Errno::INVAL)
    )
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

    fn read_alone(path: &Path) -> Result<Zeroizing<String>, SecretFileError> {
        read_text(path, &mut Vec::new())
    }

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
            assert_eq!(*read_alone(&file(dir.path(), mode)).unwrap(), "secret", "{mode:o}");
        }
        for mode in [0o666, 0o660, 0o602, 0o620] {
            let path = file(dir.path(), mode);
            let message = read_alone(&path).unwrap_err().to_string();
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
            assert!(matches!(read_alone(&link), Err(SecretFileError::Writable { .. })), "{mode:o}");
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

    /// What `create` does on a file system without links.
    #[test]
    fn a_draft_is_renamed_where_there_are_no_links_and_replaces_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        Draft::write(&path, b"first").unwrap().rename(&path).unwrap();
        let error = Draft::write(&path, b"second").unwrap().rename(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!(
            (fs::read(&path).unwrap(), names(dir.path())),
            (b"first".to_vec(), vec!["key".to_owned()])
        );
        for (error, no_links) in
            [(Errno::PERM, true), (Errno::OPNOTSUPP, true), (Errno::NOSPC, false), (Errno::EXIST, false)]
        {
            assert_eq!(has_no_links(&error.into()), no_links, "{error}");
        }
    }

    #[test]
    fn whether_a_file_can_be_created_is_told_without_writing() {
        let dir = tempfile::tempdir().unwrap();
        let told = |name: &str| {
            let told = read_or_check_creation(&dir.path().join(name), &mut Vec::new());
            told.map(|text| text.is_some()).map_err(|error| towpath_service::ErrorChain(&error).to_string())
        };
        assert_eq!([told("key"), told("new/deep/key")], [Ok(false), Ok(false)]);
        assert_eq!(names(dir.path()), Vec::<String>::new());
        fs::write(dir.path().join("file"), "").unwrap();
        symlink("nowhere", dir.path().join("link")).unwrap();
        let in_file = told("file/key").unwrap_err();
        assert!(in_file.starts_with("cannot read ") && in_file.contains("Not a directory"), "{in_file}");
        assert!(
            told("link")
                .unwrap_err()
                .ends_with("link is a link that leads nowhere: the relay writes no secret through a link")
        );
        // To root no directory is closed, but a file system may be.
        if !geteuid().is_root() {
            let closed = dir.path().join("closed");
            fs::create_dir(&closed).unwrap();
            fs::set_permissions(&closed, fs::Permissions::from_mode(0o500)).unwrap();
            assert!(told("closed/key").unwrap_err().contains("Permission denied"));
        }
    }
}
