//! derper's flags, given to this program: what each is called here.
//!
//! A command line of derper, kept while the binary was replaced, gets an answer for each flag. Without it, the command line is
//! a request for help: `-hostname` begins with `-h`.

/// A flag of derper.
struct Flag {
    name: &'static str,
    /// Whether the next word is its value.
    has_value: bool,
    /// What it is here, to end the line.
    here: &'static str,
}

const fn value(name: &'static str, here: &'static str) -> Flag {
    Flag { name, has_value: true, here }
}

const fn switch(name: &'static str, here: &'static str) -> Flag {
    Flag { name, has_value: false, here }
}

const TAILSCALED: &str = "tailscaled.socket, the path of tailscaled's socket";
const NO_ACME: &str = "no such thing here: an ACME client writes the PEM files that cert and key name";
const NO_SECRETS: &str = "no such thing here: write the key into the file that mesh.key_file names";
const NO_RATE: &str =
    "login.max_pending and login.max_pending_per_host bound logins at a time, not their rate";

/// Every flag of derper, in the order of its help.
const FLAGS: &[Flag] = &[
    value(
        "a",
        "listen, with an IP address: \":443\" is \"[::]:443\". On other ports than 443, derper speaks plain HTTP unless -certmode is manual: that is http.listen",
    ),
    value("accept-connection-burst", NO_RATE),
    value("accept-connection-limit", NO_RATE),
    switch("ace", "no such thing here"),
    value("acme-eab-key", NO_ACME),
    value("acme-eab-kid", NO_ACME),
    value("acme-email", NO_ACME),
    switch("acme-ip-certs", NO_ACME),
    value("bootstrap-dns-names", "bootstrap_dns.names, a list"),
    value("c", "key_file (--key-file), the same file"),
    value("certdir", "cert and key (--cert, --key), the files CERTDIR/HOSTNAME.crt and CERTDIR/HOSTNAME.key"),
    value("certmode", "manual: cert and key; letsencrypt and gcp: an ACME client that writes PEM files"),
    switch("derp", "no such thing here: --stun-only runs STUN without a relay"),
    switch("dev", "--dev"),
    value("disallow-app-names", "login.refuse_app_names, a list"),
    value("home", "http.home"),
    value("hostname", "hostname (--hostname)"),
    value("http-port", "http.redirect_listen, an address with port; off unless set"),
    value("mesh-psk-file", "mesh.key_file, the same file"),
    value("mesh-with", "mesh.peers, each with its node key, which \"towpath-relay key HOST\" prints"),
    value("rate-config", "no such thing here: traffic is not limited"),
    value("secrets-cache-dir", NO_SECRETS),
    value("secrets-path-prefix", NO_SECRETS),
    value("secrets-url", NO_SECRETS),
    value("socket", TAILSCALED),
    switch("stun", "stun.listen (--stun-listen); [] is off"),
    value("stun-port", "stun.listen (--stun-listen), a list of addresses with ports"),
    value("tcp-keepalive-time", "fixed at derper's default, 10 minutes"),
    value(
        "tcp-user-timeout",
        "fixed at derper's default, 15 s, or outbox.write_timeout where that is longer",
    ),
    value("tcp-write-timeout", "outbox.write_timeout"),
    value("unpublished-bootstrap-dns-names", "bootstrap_dns.unpublished_names, a list"),
    value("verify-client-url", "verify.url"),
    switch("verify-client-url-fail-open", "confirm.unknown, \"admit\" or \"refuse\""),
    switch("verify-clients", TAILSCALED),
    switch("version", "--version"),
];

/// The flags that this program has as well, with two hyphens.
const OURS: &[&str] = &["dev", "hostname", "version"];

/// Returns the answer to a command line that has flags of derper, as an error for the operator; `None` if it has none.
/// `words` are those behind the program's name. No value is repeated: some are secrets.
pub(super) fn answer(words: impl IntoIterator<Item = String>) -> Option<String> {
    let mut words = words.into_iter().peekable();
    // derper has no commands, and those that ask a running relay have a flag of its name.
    let has_command = words.peek().is_some_and(|word| !word.starts_with('-'));
    let mut lines = Vec::new();
    let mut is_derpers = false;
    while let Some(word) = words.next() {
        if word == "--" {
            break;
        }
        let Some(name) = word.strip_prefix('-') else { continue };
        let (hyphens, name) = name.strip_prefix('-').map_or(("-", name), |name| ("--", name));
        let (name, has_value) = name.split_once('=').map_or((name, false), |(name, _)| (name, true));
        let Some(flag) = FLAGS.iter().find(|flag| flag.name == name) else { continue };
        let is_ours = OURS.contains(&name) || has_command && name == "socket";
        is_derpers |= hyphens == "-" || !is_ours;
        if flag.has_value && !has_value {
            words.next();
        }
        let line = format!("\n  {hyphens}{}: {}", flag.name, flag.here);
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    is_derpers.then(|| {
        format!(
            "these are flags of derper. Here settings come from a file (--config), the environment or flags of another form, \
             see docs/moving-from-derper.md:{}",
            lines.concat()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str) -> Option<Vec<String>> {
        let answer = answer(line.split(' ').map(str::to_owned))?;
        Some(answer.lines().skip(1).map(|line| line.trim().split(':').next().unwrap().to_owned()).collect())
    }

    #[test]
    fn each_flag_of_derper_gets_a_line_and_our_own_get_none() {
        for (line, flags) in [
            ("-hostname x -a :443", &["-hostname", "-a"][..]),
            ("-a=:3340 -stun=false -c derper.key", &["-a", "-stun", "-c"]),
            ("--verify-clients --stun-port 3478", &["--verify-clients", "--stun-port"]),
            ("--hostname x --mesh-with a,b", &["--hostname", "--mesh-with"]),
            ("-dev", &["-dev"]),
            // The word behind a flag is its value.
            ("-home -a", &["-home"]),
            ("-a :1 -a :2", &["-a"]),
            ("--socket /run/tailscale/tailscaled.sock", &["--socket"]),
        ] {
            let expected: Vec<_> = flags.iter().map(|flag| (*flag).to_owned()).collect();
            assert_eq!(asked(line), Some(expected), "{line}");
        }
        for line in [
            "",
            "-h",
            "--help",
            "-V",
            "--dev",
            "--hostname x --config f",
            "--listen=:1",
            "-x",
            "check-config",
            "-- -a",
            "clients --socket /run/towpath/admin.sock",
        ] {
            assert_eq!(asked(line), None, "{line}");
        }
    }

    #[test]
    fn no_value_is_repeated() {
        let words = ["-acme-eab-key", "hunter2", "-acme-eab-kid=hunter2"].map(str::to_owned);
        assert!(!answer(words).unwrap().contains("hunter2"));
    }

    /// The table of flags in docs/moving-from-derper.md has a row for each.
    #[test]
    fn the_page_for_movers_has_every_flag() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/moving-from-derper.md");
        let page = std::fs::read_to_string(path).unwrap();
        let table = page.split("\n## Flags\n").nth(1).unwrap().split("\n## ").next().unwrap();
        for flag in FLAGS {
            let code = format!("`-{}", flag.name);
            let is_named = |end: char| table.contains(&format!("{code}{end}"));
            let group =
                |prefix: &str| flag.name.starts_with(prefix) && table.contains(&format!("`-{prefix}…`"));
            assert!(
                is_named('`') || is_named(' ') || is_named('=') || group("acme-") || group("secrets-"),
                "-{}",
                flag.name
            );
        }
    }
}
