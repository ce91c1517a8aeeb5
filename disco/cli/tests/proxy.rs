//! What `towpath proxy` says of files that it cannot use, as an owner of one sees it. Nothing of the system is touched.

use std::fs;
use std::process::Command;

use tempfile::TempDir;

const A: &str = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=";
const B: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";

/// The exit code for a file that cannot be used.
const UNUSABLE: i32 = 2;

/// Runs the proxy on a file. Returns its exit code and what it has said, with the file as `FILE`.
fn run(name: &str, text: Option<&str>) -> (Option<i32>, String) {
    let dir = TempDir::new().expect("a directory");
    let file = dir.path().join(name);
    if let Some(text) = text {
        fs::write(&file, text).expect("a file");
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_towpath"));
    command.env_clear().arg("proxy").arg("--wg").arg(&file).args(["--relay-map", "map.json"]);
    command.arg("--state-dir").arg(dir.path());
    let output = command.output().expect("the program runs");
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code(), said.replace(&file.display().to_string(), "FILE"))
}

#[test]
fn each_mistake_in_a_file_is_said_with_its_line_and_its_reason() {
    let peer = format!("[Interface]\nPrivateKey = {B}\n\n[Peer]\nPublicKey = {A}\n");
    for (text, said) in [
        (format!("{peer}AllowedIP = 10.0.0.2/32\n"), "FILE:6: AllowedIP is no setting of a [Peer]"),
        (
            format!("{peer}AllowedIPs = 10.0.0.2/33\n"),
            "FILE:6: AllowedIPs: 10.0.0.2/33 is no address or prefix",
        ),
        (format!("{peer}Endpoint = 192.0.2.1\n"), "FILE:6: Endpoint must be a host and a port"),
        (format!("{peer}# towpath = maybe\n"), "FILE:6: `# towpath =` must be yes or no"),
        (format!("{peer}# name = the desk\n"), "FILE:6: `# name = the desk` is no name of a host"),
        (
            format!("{peer}[Peer]\nPublicKey = {A}\n"),
            "FILE:6: this [Peer] has the PublicKey of that of line 4",
        ),
        (format!("{peer}[Peer]\nAllowedIPs = 10.0.0.2/32\n"), "FILE:6: this [Peer] has no PublicKey"),
        (format!("{peer}[Pear]\n"), "FILE:6: [Pear] is no section of WireGuard"),
        (format!("{peer}PublicKey {B}\n"), "FILE:6: it is neither a section"),
        (peer.replace("PrivateKey =", "PrivateKey"), "FILE:2: it is neither a section"),
        (peer.replace(B, "c2VjcmV0"), "FILE:2: PrivateKey must be 44 letters of base64"),
        (peer.replace("[Interface]", "MTU = 1420"), "FILE:1: MTU stands before the first section"),
        (peer.replace("[Interface]", "[Interface]\nMTU = 99"), "FILE:2: MTU must be bytes from 576"),
    ] {
        let (code, all) = run("wg0.conf", Some(&text));
        assert_eq!(code, Some(UNUSABLE), "{text}\n{all}");
        assert!(all.contains(said), "{said} is not in\n{all}");
        assert!(
            !all.contains("c2VjcmV0") && !all.contains(B.trim_end_matches('=')),
            "a key is repeated: {all}"
        );
    }
}

#[test]
fn all_mistakes_are_said_at_once() {
    let (code, said) = run("wg0.conf", Some("[Interface]\nPrivateKey = x\n[Peer]\nEndpoint = y\n"));
    assert_eq!(code, Some(UNUSABLE));
    assert!(said.contains("FILE:2: ") && said.contains("FILE:4: "), "{said}");
}

#[test]
fn a_file_that_is_not_there_or_has_no_name_of_an_interface_is_said() {
    let (code, said) = run("wg0.conf", None);
    assert_eq!(code, Some(UNUSABLE));
    assert!(said.contains("cannot read FILE: No such file"), "{said}");
    let (code, said) = run("a name that is too long.conf", Some(""));
    assert_eq!(code, Some(UNUSABLE));
    assert!(said.contains("its name must be that of an interface"), "{said}");
}
