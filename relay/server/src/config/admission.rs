//! The settings of admission: which policies decide on a login, and how long a decision holds.

use std::path::{Path, PathBuf};
use std::time::Duration;

use towpath_relay_proto::admission::PolicyName;
use towpath_relay_proto::admission::policies::PolicyOrder;
use towpath_service::config::{Choice, ConfigReader, Element, SettingKey, Value, WordOr, Wordy};

use super::keys;
use super::node_key::KeySource;
use super::rules::path;

/// The lines that make a relay with a policy out of one without.
const HOW_TO_ADMIT: &str = "
    admission = \"open\"                            # every client; TOWPATH_ADMISSION=open and --open mean the same
or one of
    [allow_list]
    file = \"/etc/towpath/allowed-keys\"            # node keys, one a line
    [verify]
    url = \"https://headscale.example.com/verify\"    # Headscale, or a program of yours
    [tailscaled]
    socket = \"/run/tailscale/tailscaled.sock\"       # the tailscaled of this machine
    [tokens]
    key_file = \"/etc/towpath/token-keys\"           # tokens that an operator signs";

/// Which clients may use the relay, and for how long a decision on one holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmissionSettings {
    /// The policies, in the order in which they are asked. Each of them is configured, and none is configured that is not
    /// asked.
    pub order: PolicyOrder,
    /// The file of the policy `allow_list`.
    pub allow_list: Option<PathBuf>,
    /// The file with the public keys of the policy `tokens`.
    pub tokens: Option<PathBuf>,
    /// How long a decision holds.
    pub confirm: Confirm,
    /// Where the keys that were allowed are kept; `None` to forget them at the end.
    pub state_dir: Option<PathBuf>,
}

/// How long decisions hold, and what holds while a policy cannot tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirm {
    /// How often the policies are asked again about a connected client, 5 s to 1 h.
    pub interval: Duration,
    /// How long a client works without an answer, from `interval` to 30 days.
    pub grace: Duration,
    /// Whether a client that is not known is admitted while the policies cannot tell.
    pub admit_unknown: bool,
}

/// A policy that the configuration can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Named(PolicyName);

impl Choice for Named {
    const ALL: &'static [(&'static str, Self)] = &[
        (PolicyName::AllowList.label(), Self(PolicyName::AllowList)),
        (PolicyName::Tokens.label(), Self(PolicyName::Tokens)),
        (PolicyName::Tailscaled.label(), Self(PolicyName::Tailscaled)),
        (PolicyName::VerifyUrl.label(), Self(PolicyName::VerifyUrl)),
        (PolicyName::Require.label(), Self(PolicyName::Require)),
    ];
}

impl Element for Named {
    fn allowed_list() -> String {
        format!("a list of policies, each once: {}", Self::allowed())
    }
}

impl Wordy for Named {
    const WORD: &'static str = PolicyName::Open.label();
}

fn names(list: &[Named]) -> Vec<PolicyName> {
    list.iter().map(|name| name.0).collect()
}

fn named(names: &[PolicyName]) -> WordOr<Named> {
    if names.contains(&PolicyName::Open) {
        return WordOr::Word;
    }
    WordOr::List(names.iter().copied().map(Named).collect())
}

/// Whether an unknown client is admitted.
#[derive(Clone, Copy, PartialEq)]
struct Unknown(bool);

impl Choice for Unknown {
    const ALL: &'static [(&'static str, Self)] = &[("refuse", Self(false)), ("admit", Self(true))];
}

impl AdmissionSettings {
    pub(super) fn read(reader: &mut ConfigReader<'_>, node_key: &KeySource, dev: bool) -> Self {
        // The policies that are configured are the default of `admission`, so they are looked at before they are read.
        let is_configured = |(key, _): &(SettingKey, _)| reader.foresee::<String>(*key).is_some();
        let configured: Vec<_> =
            POLICIES.into_iter().filter(is_configured).map(|(_, policy)| policy).collect();
        let group = names(&reader.foresee::<Vec<Named>>(keys::REQUIRE).unwrap_or_default());
        let mut default = configured.clone();
        default.retain(|policy| !group.contains(policy));
        default.extend((!group.is_empty()).then_some(PolicyName::Require));
        default.extend((default.is_empty() && dev).then_some(PolicyName::Open));
        let order = reader
            .key(keys::ADMISSION)
            .matching(WordOr::<Named>::allowed(), |order| match order {
                WordOr::Word => true,
                WordOr::List(list) => each_once(list),
            })
            .or(named(&default));
        let order = match order {
            WordOr::Word => vec![PolicyName::Open],
            WordOr::List(list) => names(&list),
        };
        let allowed = format!("{}, two of them or more, without \"require\"", Named::allowed_list());
        let require = reader
            .key(keys::REQUIRE)
            .matching(allowed, |list: &Vec<Named>| {
                each_once(list) && !list.contains(&Named(PolicyName::Require)) && list.len() != 1
            })
            .or(Vec::new());
        let order = PolicyOrder { order, require: names(&require) };
        check(reader, &order, &configured);
        let allow_list = path(reader, keys::ALLOW_LIST_FILE).optional();
        let tokens = path(reader, keys::TOKENS_KEY_FILE).optional();
        let confirm = Confirm::read(reader);
        Self { order, allow_list, tokens, confirm, state_dir: state_dir(reader, node_key) }
    }
}

impl AdmissionSettings {
    /// Notes that no policy is configured. A command that does not run the relay can do without.
    pub(crate) fn check_given(&self, reader: &mut ConfigReader<'_>) {
        if self.order.order.is_empty() && reader.is_sound(keys::ADMISSION) {
            let why =
                "no policy is configured, and the relay is not open: add a policy, or make the relay open";
            reader.conflict(keys::ADMISSION, format!("{why}{HOW_TO_ADMIT}"));
        }
    }
}

/// The state is beside the node key unless the configuration says otherwise.
fn state_dir(reader: &mut ConfigReader<'_>, node_key: &KeySource) -> Option<PathBuf> {
    let beside = match node_key {
        // The parent of a bare name is the empty path, which names no directory.
        KeySource::File(file) => {
            file.parent().map(|folder| if folder == Path::new("") { ".".into() } else { folder.into() })
        }
        KeySource::Inline(_) | KeySource::Ephemeral => None,
    };
    let lookup = path(reader, keys::STATE_DIR);
    match beside {
        Some(beside) => Some(lookup.or(beside)),
        None => lookup.optional(),
    }
}

/// The settings whose presence configures a policy, the cheapest policies first.
const POLICIES: [(SettingKey, PolicyName); 4] = [
    (keys::ALLOW_LIST_FILE, PolicyName::AllowList),
    (keys::TOKENS_KEY_FILE, PolicyName::Tokens),
    (keys::TAILSCALED_SOCKET, PolicyName::Tailscaled),
    (keys::VERIFY_URL, PolicyName::VerifyUrl),
];

fn each_once(list: &[Named]) -> bool {
    list.iter().enumerate().all(|(index, name)| !list[..index].contains(name))
}

/// Notes policies that are asked and not configured, and the reverse.
fn check(reader: &mut ConfigReader<'_>, order: &PolicyOrder, configured: &[PolicyName]) {
    for (key, policy) in POLICIES {
        if order.asks(policy) && !configured.contains(&policy) {
            let asked_in = if order.order.contains(&policy) { keys::ADMISSION } else { keys::REQUIRE };
            reader
                .conflict(asked_in, format!("names {}, which needs {} as well", policy.label(), key.path()));
        }
        if configured.contains(&policy) && !order.asks(policy) && !order.order.is_empty() {
            let why = format!(
                "configures the policy {}, which admission = {} does not ask: name it there or in require, or take it out",
                policy.label(),
                named(&order.order).to_toml()
            );
            reader.conflict(key, why);
        }
    }
    let is_named = order.order.contains(&PolicyName::Require);
    if is_named == order.require.is_empty() {
        let why = if is_named {
            "names require, which needs the setting require as well"
        } else {
            "does not name \"require\", so that the setting require is not asked"
        };
        reader.conflict(keys::ADMISSION, why);
    }
}

impl Confirm {
    fn read(reader: &mut ConfigReader<'_>) -> Self {
        let secs = Duration::from_secs;
        let interval = reader.key(keys::CONFIRM_INTERVAL).within(secs(5)..=secs(3_600)).or(secs(60));
        let grace = reader.key(keys::CONFIRM_GRACE).within(secs(5)..=secs(30 * 86_400)).or(secs(86_400));
        if grace < interval {
            let why = format!("{} is less than confirm.interval, {}", grace.to_toml(), interval.to_toml());
            reader.conflict(keys::CONFIRM_GRACE, why);
        }
        let admit_unknown = reader.key(keys::CONFIRM_UNKNOWN).or(Unknown(false)).0;
        Self { interval, grace, admit_unknown }
    }
}
