//! Files of wg-quick(8): what is in one, and what is wrong with it, by line.

mod key;
mod line;
mod read;

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use towpath::{NodePrivate, NodePublic};

pub use key::{KEY_TEXT, public_from_text, secret_from_text, to_text};

/// The longest name of an interface (`IFNAMSIZ`), in bytes.
const INTERFACE_MAX: usize = 15;

/// A file of wg-quick(8).
#[derive(Debug)]
pub struct QuickFile {
    /// The interface that wg-quick makes of it, which has the name of the file.
    pub interface: String,
    /// The private key; `None` where a command of the file sets it.
    pub secret_key: Option<NodePrivate>,
    /// The addresses of the interface, with the prefixes that are on its link.
    pub addresses: Vec<IpNet>,
    /// The MTU of the interface that the file asks for, in bytes.
    pub mtu: Option<u32>,
    /// The peers, in the order of the file.
    pub peers: Vec<QuickPeer>,
}

/// A peer in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuickPeer {
    /// The line of its section, from 1 on.
    pub line: usize,
    /// Its public key.
    pub key: NodePublic,
    /// Its name, from a line `# name = dev` in its section.
    pub name: Option<String>,
    /// The prefixes whose packets go to it.
    pub allowed: Vec<IpNet>,
    /// Where WireGuard finds it without Towpath, as the file has it.
    pub endpoint: Option<String>,
    /// What a line `# towpath = yes` or `# towpath = no` in its section says.
    pub is_served: Option<bool>,
}

impl QuickPeer {
    /// The addresses of the host itself: those that are a prefix of their own.
    pub fn single_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.allowed.iter().filter(|prefix| prefix.prefix_len() == prefix.max_prefix_len()).map(IpNet::addr)
    }
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The line, from 1 on.
    pub line: usize,
    /// What is wrong, and what would be right. Never contains a key.
    pub reason: String,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum QuickFileError {
    /// The system refuses to read it.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// wg-quick would refuse its name.
    #[error(
        "{} cannot be a file of wg-quick: its name must be that of an interface and .conf, as in wg0.conf: at most \
         {INTERFACE_MAX} letters, digits and _ = + . -",
        .0.display()
    )]
    Name(PathBuf),
    /// Lines of it are wrong.
    #[error("{}", Mistakes(.path, .mistakes))]
    Lines {
        /// The file.
        path: PathBuf,
        /// What is wrong, by line. At least one.
        mistakes: Vec<Mistake>,
    },
}

struct Mistakes<'a>(&'a Path, &'a [Mistake]);

impl fmt::Display for Mistakes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, Mistake { line, reason }) in self.1.iter().enumerate() {
            let separator = if place > 0 { "\n" } else { "" };
            write!(f, "{separator}{}:{line}: {reason}", self.0.display())?;
        }
        Ok(())
    }
}

impl QuickFile {
    /// The interface of a file, which is named as for [`load`](Self::load). The file is not read.
    ///
    /// # Errors
    ///
    /// [`QuickFileError::Name`].
    pub fn interface_of(name: &Path) -> Result<String, QuickFileError> {
        let path = path_of(name);
        interface_of(&path).ok_or(QuickFileError::Name(path))
    }

    /// Reads a file. `name` is its path, or the name of an interface, which stands for a file in `/etc/wireguard` as with wg-quick.
    ///
    /// # Errors
    ///
    /// See [`QuickFileError`].
    pub fn load(name: &Path) -> Result<Self, QuickFileError> {
        let path = path_of(name);
        let interface = Self::interface_of(&path)?;
        let text = std::fs::read_to_string(&path)
            .map(zeroize::Zeroizing::new)
            .map_err(|source| QuickFileError::Read { path: path.clone(), source })?;
        Self::parse(&interface, &text).map_err(|mistakes| QuickFileError::Lines { path, mistakes })
    }
}

/// The file that a path or the name of an interface stands for.
fn path_of(name: &Path) -> PathBuf {
    let is_interface = name.components().count() == 1 && name.extension().is_none_or(|end| end != "conf");
    if is_interface {
        Path::new("/etc/wireguard").join(format!("{}.conf", name.display()))
    } else {
        name.to_owned()
    }
}

/// The interface of a file; `None` if wg-quick would refuse its name.
fn interface_of(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?.strip_suffix(".conf")?;
    is_interface_name(name).then(|| name.to_owned())
}

/// Whether wg-quick takes a text for the name of an interface.
#[must_use]
pub fn is_interface_name(text: &str) -> bool {
    let is_allowed = |letter: u8| letter.is_ascii_alphanumeric() || b"_=+.-".contains(&letter);
    (1..=INTERFACE_MAX).contains(&text.len()) && text.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_by_its_path_or_by_its_interface() {
        let path = |name: &str| path_of(Path::new(name)).display().to_string();
        assert_eq!(path("wg0"), "/etc/wireguard/wg0.conf");
        assert_eq!((path("wg0.conf"), path("./wg0")), ("wg0.conf".into(), "./wg0".into()));
        assert_eq!(interface_of(Path::new("/a/wg0.conf")).as_deref(), Some("wg0"));
        for refused in ["/a/wg0", "/a/.conf", "/a/a name.conf", "/a/sixteen-letters-.conf", "/a/wg0.conf/.."]
        {
            assert_eq!(interface_of(Path::new(refused)), None, "{refused}");
        }
    }
}
