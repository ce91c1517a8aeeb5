//! The file that keeps the admitted keys over restarts.
//!
//! A line is appended for each key that is admitted, confirmed again after a part of the grace, or forgotten:
//! `nodekey:… POLICY SECONDS`, with `-` for the policy of a key that is forgotten. A line is one write, so that `kill -9` loses
//! none that was written, and a line that a crash of the machine has cut is passed over. The file is written anew, whole or not
//! at all, at the start and when most of its lines have been overtaken.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use towpath_relay_proto::admission::PolicyName;
use towpath_service::visible_path;
use towpath_wire::key::NodePublic;

/// The name of the file in the state directory.
const NAME: &str = "admitted-keys";
/// What stands for the policy of a key that is forgotten.
const FORGOTTEN: &str = "-";
/// Lines beyond twice the number of keys at which the file is written anew.
const OVERTAKEN: usize = 4096;

/// The reason why the state cannot be kept.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}", path = visible_path(path))]
pub(super) struct StateError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// A line of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) key: NodePublic,
    /// `None` for a key that is forgotten.
    pub(crate) policy: Option<PolicyName>,
    /// Seconds since 1970 of its last confirmation.
    pub(crate) confirmed: u64,
}

impl Record {
    fn write(&self, out: &mut String) {
        use std::fmt::Write;
        let policy = self.policy.map_or(FORGOTTEN, PolicyName::label);
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{} {policy} {}", self.key, self.confirmed);
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let (key, policy, confirmed) = (words.next()?.parse().ok()?, words.next()?, words.next()?);
        let policy = match policy {
            FORGOTTEN => None,
            label => Some(PolicyName::from_label(label)?),
        };
        let record = Self { key, policy, confirmed: confirmed.parse().ok()? };
        words.next().is_none().then_some(record)
    }
}

/// The open file.
#[derive(Debug)]
pub(crate) struct StateFile {
    path: PathBuf,
    file: Option<File>,
    lines: usize,
}

impl StateFile {
    /// Reads what was kept in `folder`, line by line, into `each`. A folder without the file has kept nothing. Returns the file
    /// and how many lines could not be read.
    pub(crate) fn open(folder: &Path, mut each: impl FnMut(Record)) -> Result<(Self, usize), StateError> {
        let path = folder.join(NAME);
        let (mut lines, mut wrong) = (0, 0);
        match File::open(&path) {
            Ok(file) => {
                let mut file = BufReader::new(file);
                let mut line = Vec::new();
                loop {
                    line.clear();
                    let failed = |source| StateError { action: "read", path: path.clone(), source };
                    if file.read_until(b'\n', &mut line).map_err(failed)? == 0 {
                        break;
                    }
                    lines += 1;
                    let text = line.strip_suffix(b"\n").and_then(|line| std::str::from_utf8(line).ok());
                    match text.and_then(Record::parse) {
                        Some(record) => each(record),
                        None => wrong += 1,
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(StateError { action: "read", path, source }),
        }
        Ok((Self { path, file: None, lines }, wrong))
    }

    /// Whether the file is to be written anew: it has not been in this run, a write has failed, or most of its lines have been
    /// overtaken by others.
    pub(crate) fn is_worn(&self, keys: usize) -> bool {
        self.file.is_none() || self.lines > 2 * keys + OVERTAKEN
    }

    /// Writes the file anew, whole or not at all.
    pub(crate) fn rewrite(&mut self, records: &[Record]) -> Result<(), StateError> {
        let draft = self.path.with_extension("draft");
        self.file = None;
        let written = self.write_draft(&draft, records);
        let renamed = written.and_then(|file| {
            fs::rename(&draft, &self.path).map_err(|source| StateError {
                action: "rename the draft to",
                path: self.path.clone(),
                source,
            })?;
            Ok(file)
        });
        match renamed {
            Ok(file) => {
                self.file = Some(file);
                self.lines = records.len();
                Ok(())
            }
            Err(error) => {
                // What is left of a draft is in the way of nothing, and on a full disk it takes space.
                let _ = fs::remove_file(&draft);
                Err(error)
            }
        }
    }

    fn write_draft(&self, draft: &Path, records: &[Record]) -> Result<File, StateError> {
        let failed = |source| StateError { action: "write", path: draft.into(), source };
        let mut text = String::new();
        records.iter().for_each(|record| record.write(&mut text));
        let mut options = OpenOptions::new();
        let mut file =
            options.create(true).write(true).truncate(true).mode(0o600).open(draft).map_err(failed)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_data()).map_err(failed)?;
        Ok(file)
    }

    /// Appends records. After a failure the file is worn.
    pub(crate) fn append(&mut self, records: &[Record]) -> Result<(), StateError> {
        let mut text = String::new();
        records.iter().for_each(|record| record.write(&mut text));
        let Some(file) = &mut self.file else { return Ok(()) };
        match file.write_all(text.as_bytes()) {
            Ok(()) => {
                self.lines += records.len();
                Ok(())
            }
            Err(source) => {
                self.file = None;
                Err(StateError { action: "append to", path: self.path.clone(), source })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use towpath_wire::key::NodePrivate;

    use super::*;

    fn record(seed: u8, policy: Option<PolicyName>, confirmed: u64) -> Record {
        Record { key: NodePrivate::from_random([seed; 32]).public(), policy, confirmed }
    }

    fn read(folder: &Path) -> (Vec<Record>, usize) {
        let mut records = Vec::new();
        let (_, wrong) = StateFile::open(folder, |record| records.push(record)).expect("a file to read");
        (records, wrong)
    }

    #[test]
    fn what_is_appended_is_read_back_in_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut file, _) = StateFile::open(folder.path(), |_| panic!("there is nothing")).expect("no file");
        assert!(file.is_worn(0), "it has not been written in this run");
        let records = [
            record(1, Some(PolicyName::VerifyUrl), 5),
            record(1, None, 6),
            record(2, Some(PolicyName::Require), 7),
        ];
        file.rewrite(&records[..1]).expect("a file");
        file.append(&records[1..]).expect("room");
        assert_eq!(read(folder.path()), (records.to_vec(), 0));
        let mut again = StateFile::open(folder.path(), |_| {}).expect("a file").0;
        again.rewrite(&records[2..]).expect("a file");
        assert_eq!(read(folder.path()), (records[2..].to_vec(), 0));
        assert!(!folder.path().join("admitted-keys.draft").exists());
    }

    #[test]
    fn a_line_that_is_cut_or_spoilt_is_passed_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut text = String::new();
        record(1, Some(PolicyName::VerifyUrl), 5).write(&mut text);
        text.push_str("nodekey:00 verify_url 5\n\u{0}\u{0}\u{0}\n");
        let mut cut = String::new();
        record(2, Some(PolicyName::VerifyUrl), 5).write(&mut cut);
        text.push_str(cut.replace("verify_url", "neither").as_str());
        text.push_str(&cut[..cut.len() - 1]);
        fs::write(folder.path().join(NAME), text).expect("a file");
        assert_eq!(read(folder.path()), (vec![record(1, Some(PolicyName::VerifyUrl), 5)], 4));
    }

    #[test]
    fn a_file_with_many_overtaken_lines_is_worn() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut file, _) = StateFile::open(folder.path(), |_| {}).expect("no file");
        file.rewrite(&[]).expect("a file");
        let one = record(1, Some(PolicyName::VerifyUrl), 5);
        file.append(&vec![one; OVERTAKEN + 2]).expect("room");
        assert!(!file.is_worn(1));
        file.append(&[one]).expect("room");
        assert!(file.is_worn(1));
    }

    #[test]
    fn a_folder_that_is_missing_is_told_by_its_file() {
        let (mut file, _) = StateFile::open(Path::new("/nowhere"), |_| {}).expect("nothing was kept");
        let error = file.rewrite(&[]).expect_err("no folder");
        assert_eq!(error.to_string(), "cannot write /nowhere/admitted-keys.draft");
        assert!(file.is_worn(0));
    }
}
