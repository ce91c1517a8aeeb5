//! Names of peers as a setting: a table.

use std::ops::Range;

use toml::Spanned;
use toml::de::DeValue;
use towpath::NodePublic;
use towpath_service::config::{Value, quote};
use towpath_wireguard::hosts::is_host_name;
use towpath_wireguard::quick::{public_from_text, to_text};

/// Names and the public keys of their peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names(pub(crate) Vec<(String, NodePublic)>);

impl Names {
    fn of(entries: impl Iterator<Item = (String, Option<NodePublic>)>) -> Option<Self> {
        let entries = entries.map(|(name, key)| Some((name, key?))).collect::<Option<Vec<_>>>()?;
        entries.iter().all(|(name, _)| is_host_name(name)).then_some(Self(entries))
    }
}

impl Value for Names {
    fn allowed() -> String {
        "a table of names of hosts with public keys of WireGuard, as in dev = \"xTIB…8Dg=\"".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        Self::of(pairs.map(|(name, key)| (name.trim().to_owned(), public_from_text(key.trim()))))
    }

    fn from_toml(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Range<usize>>> {
        let table = value.get_ref().as_table().ok_or_else(|| vec![value.span()])?;
        let mut names = Vec::new();
        let mut rejected = Vec::new();
        for (name, key) in table {
            let name = name.get_ref().to_string();
            match key.get_ref().as_str().and_then(public_from_text) {
                Some(public) if is_host_name(&name) => names.push((name, public)),
                _ => rejected.push(key.span()),
            }
        }
        if rejected.is_empty() { Ok(Self(names)) } else { Err(rejected) }
    }

    fn to_toml(&self) -> String {
        let entries: Vec<_> =
            self.0.iter().map(|(name, key)| format!("{} = {}", quote(name), quote(&to_text(key)))).collect();
        format!("{{ {} }}", entries.join(", "))
    }
}
