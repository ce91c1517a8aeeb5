//! Names of peers in `/etc/hosts`: a block between two marks, which goes when the proxy ends.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// The longest name of a host, and the longest part of one, in bytes (RFC 1035 section 2.3.4).
const NAME_MAX: usize = 253;
const PART_MAX: usize = 63;

/// Whether a text may be the name of a host (RFC 1123 section 2.1). A number alone may not, which some programs take for an address.
#[must_use]
pub fn is_host_name(text: &str) -> bool {
    let is_part = |part: &str| {
        (1..=PART_MAX).contains(&part.len())
            && part.bytes().all(|letter| letter.is_ascii_alphanumeric() || letter == b'-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    let last_is_number =
        text.rsplit('.').next().is_some_and(|part| part.bytes().all(|digit| digit.is_ascii_digit()));
    text.len() <= NAME_MAX && text.split('.').all(is_part) && !last_is_number
}

/// A file of names, and the block in it that belongs to an interface.
#[derive(Clone, Debug)]
pub struct HostsFile {
    path: PathBuf,
    interface: String,
    begin: String,
    end: String,
}

impl HostsFile {
    /// The block of an interface in a file.
    #[must_use]
    pub fn new(path: &Path, interface: &str) -> Self {
        Self {
            path: path.to_owned(),
            interface: interface.to_owned(),
            begin: format!(
                "# towpath {interface}: written by towpath proxy, which takes these lines out when it ends"
            ),
            end: format!("# towpath {interface}: end"),
        }
    }

    /// Puts names into the block, in place of those that are there; without names, takes the block out. Returns the names that the file
    /// gives to other addresses outside of the block, which therefore may not lead to the peer.
    ///
    /// # Errors
    ///
    /// What the system says of the file, which then is as it was.
    pub fn write(&self, names: &[(IpAddr, String)]) -> io::Result<Vec<String>> {
        let before = match fs::read_to_string(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && names.is_empty() => {
                return Ok(Vec::new());
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            read => read?,
        };
        let (others, own) = self.without_block(&before);
        let taken = taken(&others, names);
        let after = self.with_block(&others, names);
        // A block that is in its place is not written again: others follow changes of this file.
        if after != before && (own || !names.is_empty()) {
            self.replace(&after)?;
        }
        Ok(taken)
    }

    /// The text without the block, and whether there was one. A block without an end reaches to the first line that it cannot have.
    fn without_block(&self, text: &str) -> (String, bool) {
        let (mut others, mut is_inside, mut was_there) = (String::with_capacity(text.len()), false, false);
        for line in text.split_inclusive('\n') {
            let said = line.trim_end();
            if said == self.begin {
                (is_inside, was_there) = (true, true);
            } else if is_inside && said == self.end {
                is_inside = false;
            } else {
                is_inside &=
                    said.split_whitespace().next().is_some_and(|first| first.parse::<IpAddr>().is_ok());
                if !is_inside {
                    others.push_str(line);
                }
            }
        }
        (others, was_there)
    }

    fn with_block(&self, others: &str, names: &[(IpAddr, String)]) -> String {
        let mut text = others.to_owned();
        if names.is_empty() {
            return text;
        }
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&self.begin);
        for (address, name) in names {
            text.push_str(&format!("\n{address}\t{name}"));
        }
        text.push_str(&format!("\n{}\n", self.end));
        text
    }

    /// Writes the file. A new file takes its place, so that no reader sees half of it, and a full disk changes nothing. One that is
    /// mounted into a container, or alone may be written in its directory, cannot be replaced, and is written where it is.
    fn replace(&self, text: &str) -> io::Result<()> {
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let new = path.with_extension(format!("towpath-{}", self.interface));
        let replaced = write_new(&new, text, &path).and_then(|()| fs::rename(&new, &path));
        let replaced = replaced.or_else(|error| match error.kind() {
            io::ErrorKind::ResourceBusy
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::PermissionDenied => write_over(&path, text),
            _ => Err(error),
        });
        // It is not there any more if it has taken the other's place.
        _ = fs::remove_file(&new);
        replaced
    }
}

/// Writes a text over that of a file, which may be longer.
fn write_over(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)
}

/// Writes a file with the permissions of another one.
fn write_new(new: &Path, text: &str, like: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(new)?;
    if let Ok(metadata) = fs::metadata(like) {
        file.set_permissions(metadata.permissions())?;
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// The names that a text gives to other addresses of the same family.
fn taken(text: &str, names: &[(IpAddr, String)]) -> Vec<String> {
    let mut taken = Vec::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(address) = words.next().and_then(|first| first.parse::<IpAddr>().ok()) else { continue };
        for word in words {
            let is_taken = names.iter().any(|(own, name)| {
                name.eq_ignore_ascii_case(word) && *own != address && own.is_ipv4() == address.is_ipv4()
            });
            if is_taken && !taken.iter().any(|name| name == word) {
                taken.push(word.to_owned());
            }
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn named(address: &str, name: &str) -> (IpAddr, String) {
        (address.parse().expect("an address"), name.into())
    }

    #[test]
    fn names_are_those_of_rfc_1123() {
        for name in ["dev", "DEV-2", "a.b.example", "3com", &"a".repeat(63)] {
            assert!(is_host_name(name), "{name}");
        }
        for wrong in [
            "",
            "a b",
            "-a",
            "a-",
            "a..b",
            "a.",
            "a_b",
            "7",
            "10.0.0.1",
            "ä",
            "a\n127.0.0.1 bank",
            &"a".repeat(64),
        ] {
            assert!(!is_host_name(wrong), "{wrong}");
        }
    }

    #[test]
    fn the_block_comes_and_goes_and_the_rest_stays_as_it_was() {
        let dir = TempDir::new().expect("a directory");
        let path = dir.path().join("hosts");
        for original in ["127.0.0.1 localhost\n\n# mine\n10.9.9.9 nas", "127.0.0.1\tlocalhost\n", ""] {
            fs::write(&path, original).expect("a file");
            let (hosts, other) = (HostsFile::new(&path, "wg0"), HostsFile::new(&path, "wg1"));
            let read = || fs::read_to_string(&path).expect("the file");
            assert_eq!(
                hosts.write(&[named("10.0.0.2", "dev"), named("fd00::2", "dev")]).expect("written"),
                [""; 0]
            );
            other.write(&[named("10.1.0.2", "office")]).expect("written");
            assert!(read().contains("\n10.0.0.2\tdev\nfd00::2\tdev\n# towpath wg0: end\n"), "{}", read());
            hosts.write(&[named("10.0.0.3", "dev")]).expect("written");
            assert!(!read().contains("10.0.0.2") && read().contains("10.1.0.2\toffice"), "{}", read());
            hosts.write(&[]).expect("written");
            other.write(&[]).expect("written");
            assert_eq!(read().trim_end(), original.trim_end());
        }
    }

    #[test]
    fn a_block_whose_end_was_lost_takes_no_line_of_others() {
        let dir = TempDir::new().expect("a directory");
        let path = dir.path().join("hosts");
        let hosts = HostsFile::new(&path, "wg0");
        hosts.write(&[named("10.0.0.2", "dev")]).expect("written");
        let text =
            fs::read_to_string(&path).expect("the file").replace(&hosts.end, "# the owner's\n10.7.7.7 mine");
        fs::write(&path, text).expect("a file");
        hosts.write(&[]).expect("written");
        assert_eq!(fs::read_to_string(&path).expect("the file"), "# the owner's\n10.7.7.7 mine\n");
    }

    #[test]
    fn a_name_that_the_file_has_for_another_address_is_said() {
        let dir = TempDir::new().expect("a directory");
        let path = dir.path().join("hosts");
        fs::write(&path, "127.0.1.1 Dev here # dev\n10.0.0.2 dev\n# 10.0.0.9 dev\n::1 dev\n")
            .expect("a file");
        let hosts = HostsFile::new(&path, "wg0");
        assert_eq!(hosts.write(&[named("10.0.0.2", "dev")]).expect("written"), ["Dev"]);
        assert_eq!(hosts.write(&[named("10.0.0.2", "dev")]).expect("written"), ["Dev"]);
    }

    #[test]
    fn a_file_that_cannot_be_written_stays_as_it_was() {
        let dir = TempDir::new().expect("a directory");
        let hosts = HostsFile::new(&dir.path().join("no").join("hosts"), "wg0");
        assert!(hosts.write(&[named("10.0.0.2", "dev")]).is_err());
        hosts.write(&[]).expect("nothing is there to take out");
    }
}
