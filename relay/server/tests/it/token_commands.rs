//! `towpath-relay token`: keys of issuers, tokens, and what they say.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::cli::{Cli, Outcome, mode};

const CLIENT: &str = "nodekey:358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd166254";
const OTHER: &str = "nodekey:0707070707070707070707070707070707070707070707070707070707070707";

#[test]
fn a_token_is_made_with_a_key_and_says_what_it_is_for() {
    let cli = Cli::new();
    let made = cli.run(&["token", "keygen", "issuer.key"]);
    assert_eq!((made.code, &*made.err, mode(&cli.path("issuer.key"))), (Some(0), "", 0o600));
    assert!(made.out.starts_with("k4.public.") && made.out.lines().count() == 1, "{}", made.out);
    cli.write("token.keys", &format!("# the issuer\n{}", made.out));
    let again = cli.run(&["token", "keygen", "issuer.key"]);
    again.assert_failure(1, "towpath-relay: cannot create issuer.key: File exists (os error 17)\n");

    let issue = ["token", "issue", "--key", "issuer.key", "--for", CLIENT, "--expires", "30d"];
    let issued = cli.run(&[&issue[..], &["--relay", OTHER]].concat());
    assert_eq!((issued.code, &*issued.err), (Some(0), ""));
    cli.write("token", &issued.out);
    let inspect = |args: &[&str]| {
        let token = fs::File::open(cli.path("token")).unwrap();
        let mut command = cli.command(&[&["token", "inspect"], args].concat());
        Outcome::from(command.stdin(token).output().unwrap())
    };
    let text = inspect(&["-"]);
    assert_eq!((text.code, &*text.err), (Some(1), ""), "{}", text.out);
    for line in [
        format!("for         {CLIENT}\n"),
        format!("relay       {OTHER}\n"),
        "signed by   not verified\n".into(),
    ] {
        assert!(text.out.contains(&line), "{}", text.out);
    }
    assert!(text.out.ends_with("valid       not known: --key-file verifies the signature\n"), "{}", text.out);
    let text = inspect(&["-", "--key-file", "token.keys"]);
    assert!(text.code == Some(0) && text.out.ends_with("valid       yes\n"), "{text:?}");
    let json = inspect(&["-", "--key-file", "token.keys", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(
        (&json["for"], &json["valid"], &json["reason"], &json["signed_by"]),
        (&CLIENT.into(), &true.into(), &serde_json::Value::Null, &made.out.trim().into())
    );
    let argument = inspect(&[issued.out.trim(), "--key-file", "token.keys"]);
    assert_eq!(argument.code, Some(0), "{argument:?}");

    let other = cli.run(&["token", "keygen", "other.key"]);
    cli.write("token.keys", &other.out);
    let forged = inspect(&["-", "--key-file", "token.keys"]);
    assert!(forged.code == Some(1) && forged.out.contains("valid       no: no accepted key"), "{forged:?}");
    let json = inspect(&["-", "--key-file", "token.keys", "--json"]);
    assert!(json.code == Some(1) && json.out.contains(r#""reason": "token_forged""#), "{json:?}");
}

#[test]
fn what_no_token_can_be_made_of_is_told_and_no_secret_is_repeated() {
    let cli = Cli::new();
    cli.run(&["token", "keygen", "issuer.key"]);
    let secret = fs::read_to_string(cli.path("issuer.key")).unwrap();
    let issue = |key: &str, client: &str, expires: &str| {
        cli.run(&["token", "issue", "--key", key, "--for", client, "--expires", expires])
    };
    for (client, expires) in [(CLIENT, "30"), (CLIENT, "5s"), ("nodekey:00", "30d"), (secret.trim(), "30d")] {
        assert_eq!(issue("issuer.key", client, expires).code, Some(2), "{client} {expires}");
    }
    assert_eq!(issue("missing.key", CLIENT, "1h").code, Some(1));
    cli.write("public.key", "k4.public.xyz");
    fs::set_permissions(cli.path("public.key"), fs::Permissions::from_mode(0o600)).unwrap();
    issue("public.key", CLIENT, "1h").assert_failure(
        1,
        "towpath-relay: public.key: not a signing key for tokens: expected `k4.secret.` and 86 characters, as token keygen \
         makes it\n",
    );
    fs::copy(cli.path("issuer.key"), cli.path("token.keys")).unwrap();
    let token = issue("issuer.key", CLIENT, "1h").out;
    let wrong_file = cli.run(&["token", "inspect", token.trim(), "--key-file", "token.keys"]);
    assert!(
        wrong_file.code == Some(2) && wrong_file.err.contains("line 1 is a signing key"),
        "{wrong_file:?}"
    );
    assert!(!wrong_file.err.contains(&secret[10..40]));
    let mut long = fs::read(cli.path("issuer.key")).unwrap();
    long.splice(..0, std::iter::repeat_n(b'\n', 64 * 1024));
    cli.write("token.keys", str::from_utf8(&long).unwrap());
    let too_long = cli.run(&["token", "inspect", token.trim(), "--key-file", "token.keys"]);
    assert!(too_long.code == Some(2) && too_long.err.contains("longer than 64 KiB"), "{too_long:?}");
    for text in ["v4.public.AAAA", "x", "no token"] {
        assert_eq!(cli.run(&["token", "inspect", text]).code, Some(2), "{text}");
    }
}
