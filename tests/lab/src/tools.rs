//! `ip`, `nft` and settings of the kernel, in a namespace.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{fs, io};

use crate::error::LabError;
use crate::namespace::Namespace;

/// Runs lines of `ip`'s commands.
pub(crate) fn ip(namespace: &Namespace, lines: &str) -> Result<(), LabError> {
    feed(namespace, "ip", &["-batch", "-"], lines)
}

/// Loads a rule set, all of it or nothing.
pub(crate) fn nft(namespace: &Namespace, rules: &str) -> Result<(), LabError> {
    feed(namespace, "nft", &["-f", "-"], rules)
}

/// Writes a setting of the kernel, `net/ipv4/ip_forward` for example, and reads it again. Some writes succeed and do nothing.
pub(crate) fn set(namespace: &Namespace, name: &str, value: &str) -> Result<(), LabError> {
    let path = format!("/proc/sys/{name}");
    let found = namespace.run(|| fs::write(&path, value).and_then(|()| fs::read_to_string(&path)));
    let found = found.map_err(LabError::of(format!("set {path}")))?;
    if found.trim() == value {
        return Ok(());
    }
    Err(LabError::Setting { path, written: value.to_owned(), found: found.trim().to_owned() })
}

/// Whether the kernel has a setting in the namespace.
pub(crate) fn has(namespace: &Namespace, name: &str) -> bool {
    namespace.run(|| Path::new("/proc/sys").join(name).exists())
}

/// Whether the kernel has IPv6.
pub(crate) fn has_ipv6(namespace: &Namespace) -> bool {
    has(namespace, NO_IPV6)
}

/// Gives IPv6 to a namespace, or takes it away.
pub(crate) fn set_ipv6(namespace: &Namespace, has_it: bool) -> Result<(), LabError> {
    // A kernel without IPv6 has nothing to disable.
    if has_it || has_ipv6(namespace) {
        set(namespace, NO_IPV6, if has_it { "0" } else { "1" })
    } else {
        Ok(())
    }
}

/// The setting that takes IPv6 away.
const NO_IPV6: &str = "net/ipv6/conf/all/disable_ipv6";

fn feed(namespace: &Namespace, program: &str, arguments: &[&str], input: &str) -> Result<(), LabError> {
    let called = || format!("{program} {}", arguments.join(" "));
    let run = || -> io::Result<_> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that does not read to the end says why on its standard error.
            _ = stdin.write_all(input.as_bytes());
        }
        child.wait_with_output()
    };
    let output = namespace.run(run).map_err(LabError::of(format!("run {}", called())))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(LabError::Program { program: called(), input: input.to_owned(), said })
}
