//! A mesh of two: files for this machine, and a line to paste on the other one.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use towpath::RelayMap;
use towpath_derpmap::Loaded;
use towpath_relay::secret_file;
use towpath_service::command::{Failure, print};
use towpath_service::visible_path;
use towpath_wireguard::pair::{Invitation, Member};
use towpath_wireguard::quick::is_interface_name;
use zeroize::Zeroizing;

/// The command `pair`.
#[derive(Args, Debug)]
pub(crate) struct Pair {
    /// What this command has printed on the first machine. Without it, this is the first
    invitation: Option<String>,
    /// The DERP map with your relays, on the first machine
    #[arg(long, value_name = "FILE", conflicts_with = "invitation", required_unless_present = "invitation")]
    relay_map: Option<PathBuf>,
    /// The name by which the other machine knows this one
    #[arg(long, default_value = "laptop", conflicts_with = "invitation")]
    name: String,
    /// The name by which this machine knows the other one
    #[arg(long, default_value = "dev", conflicts_with = "invitation")]
    peer_name: String,
    /// The name of the interface
    #[arg(long, default_value = "towpath")]
    interface: String,
    /// Where the files are written
    #[arg(long, value_name = "DIR", default_value = "/etc/wireguard")]
    dir: PathBuf,
}

/// What is written on a machine.
struct Files {
    quick: Zeroizing<String>,
    map: String,
}

impl Pair {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        Ok(self.make()?)
    }

    fn make(&self) -> anyhow::Result<()> {
        if !is_interface_name(&self.interface) {
            anyhow::bail!(
                "{} is no name of an interface: at most 15 letters, digits and _ = + . -",
                self.interface
            );
        }
        match (&self.invitation, &self.relay_map) {
            (Some(text), _) => self.accept(text),
            (None, Some(map)) => self.invite(map),
            (None, None) => unreachable!("the command line asks for one of them"),
        }
    }

    fn invite(&self, map: &Path) -> anyhow::Result<()> {
        let map = read_map(map)?;
        let mut random = Zeroizing::new([0; 66]);
        getrandom::fill(&mut *random).context("the system gives no random bytes")?;
        let [own, other] = Member::two([&self.name, &self.peer_name], &random)?;
        let invitation = other.invitation(&own, &map)?.to_text();
        self.write(&Files { quick: own.file(&other), map })?;
        print(&Zeroizing::new(format!(
            "Paste this line on the other machine, as root. It holds that machine's private key: keep it secret.\n\n\
             towpath pair {}\n\n{}",
            *invitation,
            self.next_steps(&self.peer_name)
        )))
    }

    fn accept(&self, text: &str) -> anyhow::Result<()> {
        let invitation = Invitation::from_text(text)?;
        RelayMap::read("the map of the invitation", invitation.map().as_bytes())?;
        self.write(&Files { quick: invitation.file(), map: invitation.map().to_owned() })?;
        print(&self.next_steps(invitation.peer_name()))
    }

    /// What is to be done on a machine, and what works then.
    fn next_steps(&self, peer_name: &str) -> String {
        format!(
            "Then, on both machines:\n\n  wg-quick up {}\n  towpath proxy --config {}\n\nFrom here the other one is {peer_name}: ping \
             {peer_name}, ssh {peer_name}.\n",
            if self.dir == Path::new("/etc/wireguard") {
                self.interface.clone()
            } else {
                self.path("conf").display().to_string()
            },
            self.path("toml").display()
        )
    }

    fn path(&self, end: &str) -> PathBuf {
        self.dir.join(format!("{}.{end}", self.interface))
    }

    /// Writes all files of this machine, or none.
    fn write(&self, files: &Files) -> anyhow::Result<()> {
        // The configuration names its files so that it can be used from any directory.
        let dir = std::path::absolute(&self.dir).context("cannot tell where the files are to be")?;
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", visible_path(&dir)))?;
        let config = format!(
            "wg = {:?}\nrelay_map = {:?}\n",
            dir.join(format!("{}.conf", self.interface)),
            dir.join(format!("{}.map.json", self.interface))
        );
        let contents: [(&str, &str); 3] =
            [("conf", &files.quick), ("map.json", &files.map), ("toml", &config)];
        if let Some((end, _)) = contents.iter().find(|(end, _)| self.path(end).exists()) {
            anyhow::bail!(
                "{} is there already: take it away, or give --interface another name",
                self.path(end).display()
            );
        }
        for (at, (end, text)) in contents.iter().enumerate() {
            if let Err(error) = secret_file::create(&self.path(end), text.as_bytes()) {
                for (end, _) in &contents[..at] {
                    // The reason is told; a file that stays is in the way of the next try, which says so.
                    let _ = fs::remove_file(self.path(end));
                }
                return Err(error.into());
            }
        }
        Ok(())
    }
}

/// Reads a relay map of any form. Returns it as JSON.
fn read_map(path: &Path) -> anyhow::Result<String> {
    let shown = path.display().to_string();
    let bytes =
        fs::read(path).with_context(|| format!("cannot read the relay map {}", visible_path(path)))?;
    RelayMap::read(&shown, &bytes)?;
    Ok(Loaded::read(&shown, &bytes, None)?.map.to_wire()?.to_json())
}
