//! The relay's configuration: a file and the environment.

use towpath_relay::config::Config;
use towpath_service::config::{Resolved, Sources};

/// How a private key begins in text.
const SECRET_MARK: &str = "privkey:";

/// A configuration that is taken reads back as it is printed. One that is not says why, in lines, and repeats no secret.
///
/// The input is `d` for a trial run or anything else, the file, and behind each zero byte a variable.
pub(crate) fn read(input: &[u8]) {
    let Ok(input) = std::str::from_utf8(input) else { return };
    let mut chars = input.chars();
    let dev = chars.next() == Some('d');
    let mut parts = chars.as_str().split('\0');
    let file = parts.next().unwrap_or_default();
    let variables: Vec<_> = parts.filter_map(|part| part.split_once('=')).collect();
    let sources = Sources::new("TOWPATH").text("towpath.toml", file).variables(variables);
    match Config::read(&sources, dev) {
        Ok((config, resolved)) => {
            let printed = settings(&resolved);
            let debugged = format!("{config:?}");
            for secret in secrets(input) {
                assert!(!printed.contains(secret) && !debugged.contains(secret), "a secret is shown");
            }
            // What stands for a secret is no secret.
            if !printed.contains("private_key = ") {
                let again = Sources::new("TOWPATH").text("towpath.toml", &printed);
                let (_, again) =
                    Config::read(&again, dev).unwrap_or_else(|problems| panic!("{printed}\n{problems}"));
                assert_eq!(settings(&again), printed);
            }
        }
        Err(problems) => {
            let message = problems.to_string();
            assert!(!message.trim().is_empty() && !message.contains(|c: char| c.is_control() && c != '\n'));
            for secret in secrets(input) {
                assert!(!message.contains(secret), "a secret is shown: {message}");
            }
        }
    }
}

/// The configuration as it is printed, without the comments that say where each value is from.
fn settings(resolved: &Resolved) -> String {
    resolved.to_toml().lines().fold(String::new(), |mut settings, line| {
        settings.push_str(line.rsplit_once("  # ").map_or(line, |(setting, _origin)| setting));
        settings.push('\n');
        settings
    })
}

/// The digits of each private key in a text, unless they are elsewhere in it, too.
fn secrets(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices(SECRET_MARK).filter_map(|(at, _)| {
        let digits = text[at + SECRET_MARK.len()..].get(..32)?;
        let is_secret = digits.bytes().all(|digit| digit.is_ascii_hexdigit())
            && text.match_indices(digits).all(|(at, _)| text[..at].ends_with(SECRET_MARK));
        is_secret.then_some(digits)
    })
}
