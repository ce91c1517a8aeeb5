//! Reading a file, line by line.

use std::net::IpAddr;

use ipnet::IpNet;
use towpath::{NodePrivate, NodePublic};

use super::line::Line;
use super::{KEY_TEXT, Mistake, QuickFile, QuickPeer, public_from_text, secret_from_text};
use crate::hosts::is_host_name;

/// Settings of an interface that only wg-quick and WireGuard look at.
const OF_OTHERS: [&str; 9] =
    ["listenport", "fwmark", "dns", "table", "preup", "postup", "predown", "postdown", "saveconfig"];
/// Settings of a peer that only WireGuard looks at.
const OF_WIREGUARD: [&str; 2] = ["presharedkey", "persistentkeepalive"];

/// The section of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Section {
    None,
    Interface,
    Peer,
    /// One that is none of WireGuard's, which was said.
    Unknown,
}

/// A peer whose section has not ended.
#[derive(Debug, Default)]
struct OpenPeer {
    line: usize,
    key: Option<NodePublic>,
    name: Option<String>,
    allowed: Vec<IpNet>,
    endpoint: Option<String>,
    is_served: Option<bool>,
}

#[derive(Debug, Default)]
struct Reading {
    secret_key: Option<NodePrivate>,
    addresses: Vec<IpNet>,
    mtu: Option<u32>,
    peers: Vec<QuickPeer>,
    open: Option<OpenPeer>,
    mistakes: Vec<Mistake>,
}

impl QuickFile {
    /// Reads the text of a file for an interface.
    ///
    /// # Errors
    ///
    /// What is wrong, by line.
    pub fn parse(interface: &str, text: &str) -> Result<Self, Vec<Mistake>> {
        let mut reading = Reading::default();
        let (mut section, mut has_interface) = (Section::None, false);
        for (line, text) in (1..).zip(text.lines()) {
            let read = match Line::read(text) {
                Line::Empty => Ok(()),
                Line::Section(name) => {
                    reading.close_peer();
                    section = section_of(name);
                    match section {
                        Section::Interface if has_interface => Err("a file has one [Interface]".into()),
                        Section::Interface => {
                            has_interface = true;
                            Ok(())
                        }
                        Section::Peer => {
                            reading.open = Some(OpenPeer { line, ..OpenPeer::default() });
                            Ok(())
                        }
                        Section::None | Section::Unknown => {
                            Err(format!("[{name}] is no section of WireGuard: [Interface] or [Peer]"))
                        }
                    }
                }
                Line::Setting(name, value) => reading.set(section, name, value),
                Line::Note(name, value) => reading.note(section, name, value),
                Line::Other => Err("it is neither a section, as [Peer], nor a setting, as MTU = 1420".into()),
            };
            if let Err(reason) = read {
                reading.mistakes.push(Mistake { line, reason });
            }
        }
        reading.close_peer();
        if !has_interface {
            reading.mistakes.push(Mistake { line: 1, reason: "there is no [Interface] section".into() });
        }
        let Reading { secret_key, addresses, mtu, peers, mut mistakes, .. } = reading;
        if mistakes.is_empty() {
            return Ok(Self { interface: interface.into(), secret_key, addresses, mtu, peers });
        }
        mistakes.sort_by_key(|mistake| mistake.line);
        Err(mistakes)
    }
}

fn section_of(name: &str) -> Section {
    match name.to_ascii_lowercase().as_str() {
        "interface" => Section::Interface,
        "peer" => Section::Peer,
        _ => Section::Unknown,
    }
}

impl Reading {
    fn set(&mut self, section: Section, name: &str, value: &str) -> Result<(), String> {
        let known = name.to_ascii_lowercase();
        match (section, &mut self.open) {
            (Section::Interface, _) => self.set_of_interface(name, &known, value),
            (Section::Peer, Some(peer)) => set_of_peer(peer, name, &known, value),
            (Section::None, _) => Err(format!("{name} stands before the first section")),
            // The section was said to be unknown.
            (Section::Unknown | Section::Peer, _) => Ok(()),
        }
    }

    fn set_of_interface(&mut self, name: &str, known: &str, value: &str) -> Result<(), String> {
        match known {
            "privatekey" => {
                let key = secret_from_text(value).ok_or(format!("{name} must be {KEY_TEXT}"))?;
                self.secret_key = Some(key);
            }
            "address" => self.addresses.extend(prefixes(name, value)?),
            "mtu" => {
                let mtu = value.parse().ok().filter(|mtu| (576..=65_535).contains(mtu));
                self.mtu = Some(mtu.ok_or(format!("{name} must be bytes from 576 to 65535"))?);
            }
            _ if OF_OTHERS.contains(&known) => {}
            _ => return Err(format!("{name} is no setting of an [Interface]")),
        }
        Ok(())
    }

    /// Takes in what a comment says to Towpath. Other comments are the owner's.
    fn note(&mut self, section: Section, name: &str, value: &str) -> Result<(), String> {
        let Some(peer) = self.open.as_mut().filter(|_| section == Section::Peer) else { return Ok(()) };
        match name.to_ascii_lowercase().as_str() {
            "name" if is_host_name(value) => peer.name = Some(value.to_owned()),
            "name" => {
                return Err(format!(
                    "`# name = {value}` is no name of a host: letters, digits and - between them, in parts of at most 63 with \
                     dots between them"
                ));
            }
            "towpath" => {
                peer.is_served = Some(match value.to_ascii_lowercase().as_str() {
                    "yes" => true,
                    "no" => false,
                    _ => return Err("`# towpath =` must be yes or no".into()),
                });
            }
            _ => {}
        }
        Ok(())
    }

    fn close_peer(&mut self) {
        let Some(peer) = self.open.take() else { return };
        let line = peer.line;
        if let Err(reason) = self.add(peer) {
            self.mistakes.push(Mistake { line, reason });
        }
    }

    fn add(&mut self, peer: OpenPeer) -> Result<(), String> {
        let OpenPeer { line, key, name, allowed, endpoint, is_served } = peer;
        let Some(key) = key else {
            // A key that was wrong was said to be.
            let is_said = self.mistakes.iter().any(|mistake| mistake.line > line);
            return if is_said { Ok(()) } else { Err("this [Peer] has no PublicKey".into()) };
        };
        if let Some(before) = self.peers.iter().find(|peer| peer.key == key) {
            return Err(format!("this [Peer] has the PublicKey of that of line {}", before.line));
        }
        let has_name = |peer: &&QuickPeer| {
            let names = peer.name.as_ref().zip(name.as_ref());
            names.is_some_and(|(one, other)| one.eq_ignore_ascii_case(other))
        };
        if let Some(before) = self.peers.iter().find(has_name) {
            return Err(format!("this [Peer] has the name of that of line {}", before.line));
        }
        self.peers.push(QuickPeer { line, key, name, allowed, endpoint, is_served });
        Ok(())
    }
}

fn set_of_peer(peer: &mut OpenPeer, name: &str, known: &str, value: &str) -> Result<(), String> {
    match known {
        "publickey" => peer.key = Some(public_from_text(value).ok_or(format!("{name} must be {KEY_TEXT}"))?),
        "allowedips" => peer.allowed.extend(prefixes(name, value)?),
        "endpoint" if is_endpoint(value) => peer.endpoint = Some(value.to_owned()),
        "endpoint" => return Err(format!("{name} must be a host and a port, as in vpn.example.com:51820")),
        _ if OF_WIREGUARD.contains(&known) => {}
        _ => return Err(format!("{name} is no setting of a [Peer]")),
    }
    Ok(())
}

/// Prefixes with commas between them; an address is the prefix of itself alone.
fn prefixes(name: &str, value: &str) -> Result<Vec<IpNet>, String> {
    let prefix = |text: &str| text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let parts = value.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| {
            prefix(part).map_err(|_| format!("{name}: {part} is no address or prefix, as in 10.0.0.2/32"))
        })
        .collect()
}

/// Whether a text is a host and a port.
fn is_endpoint(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=";
    const B: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";

    fn mistakes(text: &str) -> Vec<(usize, String)> {
        let mistakes = QuickFile::parse("wg0", text).expect_err("it is wrong");
        mistakes.into_iter().map(|mistake| (mistake.line, mistake.reason)).collect()
    }

    #[test]
    fn a_file_of_wg_quick_is_read_with_the_notes_in_its_comments() {
        let text = format!(
            "[Interface]\r\nPrivateKey = {B}\r\nAddress = 10.0.0.1/24, fd00::1/64\nListenPort = 51820 # any\nPostUp = echo a=b; true\n\
             MTU = 1380\n\n[peer]\n# name = dev\n  publickey={A}\nAllowedIPs = 10.1.0.0/16, 10.0.0.2\nAllowedIPs = fd00::2/128\n\
             PersistentKeepalive = 25\n\n[Peer]\n# the office\n#towpath = no\nPublicKey = {B}\nAllowedIPs =\nEndpoint = [2001:db8::1]:51820\n"
        );
        let file = QuickFile::parse("wg0", &text).expect("it is right");
        assert_eq!(file.secret_key.expect("a key").public(), public_from_text(A).expect("a key"));
        assert_eq!((file.addresses.len(), file.mtu, file.peers.len()), (2, Some(1380), 2));
        let [dev, office] = &file.peers[..] else { unreachable!("two") };
        assert_eq!(
            (dev.line, dev.name.as_deref(), dev.is_served, &dev.endpoint),
            (8, Some("dev"), None, &None)
        );
        let single: Vec<_> = dev.single_addresses().map(|address| address.to_string()).collect();
        assert_eq!(single, ["10.0.0.2", "fd00::2"]);
        assert_eq!(
            (office.name.as_deref(), office.is_served, office.single_addresses().count()),
            (None, Some(false), 0)
        );
        assert_eq!(office.endpoint.as_deref(), Some("[2001:db8::1]:51820"));
    }

    #[test]
    fn every_mistake_is_said_with_its_line() {
        let text = format!(
            "MTU = 1\n[Interface]\nPrivateKey = secret\nMTU = 100\nAdress = 10.0.0.1/24\nAddress = 10.0.0.1/40\n[Peer]\n[Peer]\n\
             PublicKey = {A}\nEndpoint = host\n# name = a b\n# towpath = perhaps\nwhat\n[Pear]\nPublicKey = x\n[Peer]\nPublicKey = {A}\n[Interface]\n"
        );
        let mistakes = mistakes(&text);
        let lines: Vec<_> = mistakes.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [1, 3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 16, 18], "{mistakes:#?}");
        let all = mistakes.iter().map(|(_, reason)| reason.as_str()).collect::<Vec<_>>().join("\n");
        assert!(!all.contains("secret"), "a value that may be a key is not repeated: {all}");
        for part in [
            "before the first section",
            "Adress is no setting",
            "no PublicKey",
            "that of line 8",
            "one [Interface]",
        ] {
            assert!(all.contains(part), "{part}: {all}");
        }
    }

    #[test]
    fn a_peer_needs_a_key_and_a_name_of_its_own() {
        assert_eq!(mistakes("")[0].1, "there is no [Interface] section");
        let text = format!(
            "[Interface]\n[Peer]\nPublicKey = {A}\n# name = dev\n[Peer]\nPublicKey = {B}\n# name = DEV\n"
        );
        assert_eq!(mistakes(&text), [(5, "this [Peer] has the name of that of line 2".into())]);
    }

    #[test]
    fn no_text_makes_the_reader_panic() {
        let words = [
            "[Interface]",
            "[Peer]",
            "PublicKey",
            "=",
            "#",
            "name",
            "\n",
            "\u{fffd}",
            "[",
            "]",
            ":",
            "/",
            ",",
            A,
            " ",
        ];
        let mut state = 1_u32;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..12 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                text.push_str(words[(state >> 16) as usize % words.len()]);
            }
            let _ = QuickFile::parse("wg0", &text);
        }
    }
}
