//! The settings of `towpath proxy`.

use std::path::{Path, PathBuf};

use clap::Args;
use towpath_service::config::{ConfigReader, Problems, Resolved, SettingKey, Sources};

use super::names::Names;
use super::{CONFIG_VARIABLE, EndpointSettings, RELAY_MAP, ServiceSettings, sources};

const WG: SettingKey = SettingKey::new("wg").with_flag("--wg");
const NAMES: SettingKey = SettingKey::new("names");
const HOSTS_FILE: SettingKey = SettingKey::new("hosts_file");
const STATE_DIR: SettingKey = SettingKey::new("state_dir").with_flag("--state-dir");

/// Settings that the command line may give.
#[derive(Args, Debug, Default)]
pub(crate) struct ProxyFlags {
    /// The file of wg-quick, or the name of its interface, as wg-quick takes it
    #[arg(long, value_name = "FILE")]
    wg: Option<String>,
    /// The DERP map with the relays
    #[arg(long, value_name = "FILE")]
    relay_map: Option<String>,
    /// Where it is written down what was found before it is changed
    #[arg(long, value_name = "DIR")]
    state_dir: Option<String>,
}

/// The settings of a proxy.
#[derive(Debug)]
pub(crate) struct ProxySettings {
    /// The file of wg-quick, or the name of its interface.
    pub(crate) wg: PathBuf,
    /// Names of peers besides those in the file.
    pub(crate) names: Names,
    /// The file for names; `None` for none.
    pub(crate) hosts_file: Option<PathBuf>,
    pub(crate) state_dir: PathBuf,
    pub(crate) endpoint: EndpointSettings,
    pub(crate) service: ServiceSettings,
}

impl ProxyFlags {
    fn sources(&self, file: Option<&Path>) -> Sources {
        sources(file)
            .flag(WG, self.wg.clone())
            .flag(RELAY_MAP, self.relay_map.clone())
            .flag(STATE_DIR, self.state_dir.clone())
    }
}

impl ProxySettings {
    /// Reads all settings.
    pub(crate) fn read(flags: &ProxyFlags, file: Option<&Path>) -> Result<(Self, Resolved), Problems> {
        Self::read_sources(&flags.sources(file))
    }

    fn read_sources(sources: &Sources) -> Result<(Self, Resolved), Problems> {
        let mut reader = ConfigReader::new(sources);
        reader.accept_variable(CONFIG_VARIABLE);
        let settings = Self {
            wg: wg(&mut reader),
            names: reader.key(NAMES).or(Names::default()),
            hosts_file: reader.key(HOSTS_FILE).or(Some("/etc/hosts".into())),
            state_dir: state_dir(&mut reader),
            endpoint: EndpointSettings::look_up(&mut reader),
            service: ServiceSettings::look_up(&mut reader),
        };
        Ok((settings, reader.finish()?))
    }

    /// Reads which interface is meant, and where it is written down what was found there. What is wrong with other settings is not
    /// looked at.
    pub(crate) fn read_place(
        flags: &ProxyFlags,
        file: Option<&Path>,
    ) -> Result<(PathBuf, PathBuf), Problems> {
        let sources = flags.sources(file);
        let mut reader = ConfigReader::new(&sources);
        reader.accept_variable(CONFIG_VARIABLE);
        let place = (wg(&mut reader), state_dir(&mut reader));
        reader.finish_part()?;
        Ok(place)
    }
}

fn wg(reader: &mut ConfigReader<'_>) -> PathBuf {
    reader.key(WG).required()
}

fn state_dir(reader: &mut ConfigReader<'_>) -> PathBuf {
    reader.key(STATE_DIR).or("/var/lib/towpath".into())
}

#[cfg(test)]
mod tests {
    use towpath_wireguard::quick::public_from_text;

    use super::*;

    const KEY: &str = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=";

    fn read(text: &str) -> Result<(ProxySettings, Resolved), Problems> {
        ProxySettings::read_sources(&Sources::new("UNSET").text("proxy.toml", text))
    }

    #[test]
    fn names_are_a_table_and_files_have_defaults() {
        let text = format!("wg = \"wg0\"\nrelay_map = \"map.json\"\n[names]\ndev = \"{KEY}\"\n");
        let (settings, _) = read(&text).expect("it is right");
        assert_eq!(settings.names.0, [("dev".to_owned(), public_from_text(KEY).expect("a key"))]);
        assert_eq!(settings.hosts_file.as_deref(), Some(Path::new("/etc/hosts")));
        let (settings, _) =
            read("wg = \"wg0\"\nrelay_map = \"map.json\"\nhosts_file = \"\"").expect("it is right");
        assert_eq!(settings.hosts_file, None);
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let text = "relay_map = \"map.json\"\npeers = []\n[names]\ndev = \"key\"\n\"a b\" = \"x\"\n";
        let problems = read(text).expect_err("much is wrong").to_string();
        for part in
            ["wg", "proxy.toml:2: peers", "proxy.toml:4: names", "proxy.toml:5: names", "a table of names"]
        {
            assert!(problems.contains(part), "no `{part}` in {problems}");
        }
    }
}
