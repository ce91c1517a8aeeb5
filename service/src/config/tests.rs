use std::ffi::OsString;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use super::*;

const NAME: SettingKey = SettingKey::new("name").with_flag("--name");
const SECRET: SettingKey = SettingKey::new("secret").secret();
const PORT: SettingKey = SettingKey::new("port").with_flag("--port");
const VERBOSE: SettingKey = SettingKey::new("verbose");
const THREADS: SettingKey = SettingKey::new("threads");
const FILE: SettingKey = SettingKey::new("file");
const LISTEN: SettingKey = SettingKey::new("net.listen").with_flag("--listen");
const ADMIN: SettingKey = SettingKey::new("net.admin");
const ADDRESSES: SettingKey = SettingKey::new("net.addresses").with_flag("--address");
const AGE: SettingKey = SettingKey::new("queue.age");
const BYTES: SettingKey = SettingKey::new("queue.bytes");
const COLOUR: SettingKey = SettingKey::new("queue.colour");

#[derive(Clone, Copy, Debug, PartialEq)]
enum Colour {
    Red,
    Blue,
}

impl Choice for Colour {
    const ALL: &'static [(&'static str, Self)] = &[("red", Self::Red), ("blue", Self::Blue)];
}

#[derive(Debug, PartialEq)]
struct Settings {
    name: Option<String>,
    secret: Option<String>,
    port: u16,
    verbose: bool,
    threads: NonZeroUsize,
    file: PathBuf,
    listen: SocketAddr,
    admin: Option<SocketAddr>,
    addresses: Vec<SocketAddr>,
    age: Duration,
    bytes: ByteSize,
    colour: Colour,
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn read(sources: &Sources) -> Result<(Settings, Resolved), Problems> {
    let mut reader = ConfigReader::new(sources);
    let settings = Settings {
        name: reader.key(NAME).optional(),
        secret: reader.key(SECRET).matching("text of 4 letters", |text: &String| text.len() == 4).optional(),
        port: reader.key(PORT).within(1..=1023).or(443),
        verbose: reader.key(VERBOSE).or(false),
        threads: reader.key(THREADS).or(NonZeroUsize::MIN),
        file: reader.key(FILE).or("a.key".into()),
        listen: reader.key(LISTEN).or(address("[::]:443")),
        admin: reader.key(ADMIN).or(Some(address("127.0.0.1:9090"))),
        addresses: reader.key(ADDRESSES).or(vec![address("0.0.0.0:1"), address("[::]:1")]),
        age: reader
            .key(AGE)
            .within(Duration::from_millis(10)..=Duration::from_secs(60))
            .or(Duration::from_secs(1)),
        bytes: reader.key(BYTES).within(ByteSize::kib(64)..=ByteSize::mib(64)).or(ByteSize::kib(512)),
        colour: reader.key(COLOUR).or(Colour::Red),
    };
    reader.finish().map(|resolved| (settings, resolved))
}

fn of_file(text: &str) -> Sources {
    Sources::new("APP").text("app.toml", text)
}

fn problems(sources: &Sources) -> Vec<String> {
    let problems = read(sources).expect_err("the configuration is wrong");
    problems.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn assert_problem(text: &str, expected: &str) {
    assert_eq!(problems(&of_file(text)), [expected], "{text}");
}

#[test]
fn nothing_given_is_all_defaults() {
    let (settings, resolved) = read(&Sources::new("APP")).unwrap();
    assert_eq!(settings.listen, address("[::]:443"));
    let expected = r#"# name is not set
# secret is not set
port = 443  # default
verbose = false  # default
threads = 1  # default
file = "a.key"  # default

[net]
listen = "[::]:443"  # default
admin = "127.0.0.1:9090"  # default
addresses = ["0.0.0.0:1", "[::]:1"]  # default

[queue]
age = "1s"  # default
bytes = "512KiB"  # default
colour = "red"  # default
"#;
    assert_eq!(resolved.to_toml(), expected);
}

#[test]
fn every_type_reads_from_the_file_and_from_the_environment_alike() {
    let expected = Settings {
        name: Some("a \"b\"".into()),
        secret: Some("abcd".into()),
        port: 80,
        verbose: true,
        threads: NonZeroUsize::new(16).unwrap(),
        file: "/b".into(),
        listen: address("127.0.0.1:1"),
        admin: None,
        addresses: vec![address("127.0.0.1:2"), address("[::1]:3")],
        age: Duration::from_millis(1500),
        bytes: ByteSize::bytes(65537),
        colour: Colour::Blue,
    };
    let file = r#"
        name = 'a "b"'
        secret = "abcd"
        port = 80
        verbose = true
        threads = 0x10
        file = "/b"
        net = { listen = "127.0.0.1:1", admin = "", addresses = ["127.0.0.1:2", "[::1]:3"] }
        [queue]
        age = "1500ms"
        bytes = 65_537
        colour = "blue"
    "#;
    assert_eq!(read(&of_file(file)).unwrap().0, expected);
    let variables = [
        ("APP_NAME", "a \"b\""),
        ("APP_SECRET", "abcd"),
        ("APP_PORT", "80"),
        ("APP_VERBOSE", "true"),
        ("APP_THREADS", "16"),
        ("APP_FILE", "/b"),
        ("APP_NET_LISTEN", "127.0.0.1:1"),
        ("APP_NET_ADMIN", ""),
        ("APP_NET_ADDRESSES", "127.0.0.1:2, [::1]:3"),
        ("APP_QUEUE_AGE", "1500ms"),
        ("APP_QUEUE_BYTES", "65537"),
        ("APP_QUEUE_COLOUR", "blue"),
    ];
    let (settings, resolved) = read(&Sources::new("APP").variables(variables)).unwrap();
    assert_eq!(settings, expected);
    assert_eq!(resolved.warnings(), [""; 0]);

    // What print-config writes is a configuration that resolves to the same values, but for secrets.
    let printed = resolved.to_toml().replace("********", "abcd");
    assert_eq!(read(&of_file(&printed)).unwrap().0, expected);
}

#[test]
fn each_layer_overrides_the_one_below_and_is_named() {
    let file = || of_file("port = 1\n[net]\nlisten = \"127.0.0.1:1\"\n");
    let (settings, resolved) = read(&file()).unwrap();
    assert_eq!((settings.port, settings.listen), (1, address("127.0.0.1:1")));
    assert_eq!(resolved.origin(PORT), Some(&Origin::File { name: "app.toml".into(), line: 1 }));
    assert_eq!(resolved.origin(LISTEN), Some(&Origin::File { name: "app.toml".into(), line: 3 }));
    assert_eq!(resolved.origin(AGE), Some(&Origin::Default));

    let variables = [("APP_PORT", "2"), ("APP_NET_LISTEN", "127.0.0.1:2")];
    let (settings, resolved) = read(&file().variables(variables)).unwrap();
    assert_eq!((settings.port, settings.listen), (2, address("127.0.0.1:2")));
    assert_eq!(resolved.origin(PORT), Some(&Origin::Variable("APP_PORT".into())));

    let (settings, resolved) =
        read(&file().variables(variables).flag(PORT, Some("3".into())).flag(NAME, None)).unwrap();
    assert_eq!((settings.port, settings.listen), (3, address("127.0.0.1:2")));
    assert_eq!(resolved.origin(PORT), Some(&Origin::Flag("--port")));
    assert!(resolved.to_toml().contains("port = 3  # --port\n"));
    assert!(resolved.to_toml().contains("listen = \"127.0.0.1:2\"  # APP_NET_LISTEN\n"));
}

#[test]
fn wrong_types_say_what_is_allowed() {
    assert_problem("name = 3", "app.toml:1: name: found 3, allowed: text");
    assert_problem("\nverbose = \"yes\"", "app.toml:2: verbose: found \"yes\", allowed: true or false");
    assert_problem("threads = -1", "app.toml:1: threads: found -1, allowed: a whole number, 1 or more");
    assert_problem("threads = 0", "app.toml:1: threads: found 0, allowed: a whole number, 1 or more");
    assert_problem("threads = 1.5", "app.toml:1: threads: found 1.5, allowed: a whole number, 1 or more");
    assert_problem("file = \"\"", "app.toml:1: file: found \"\", allowed: a path");
    assert_problem(
        "[net]\nlisten = \":443\"",
        "app.toml:2: net.listen: found \":443\", allowed: an IP address and port such as \"0.0.0.0:443\" or \"[::]:443\"",
    );
    assert_problem(
        "net.admin = false",
        "app.toml:1: net.admin: found false, allowed: an IP address and port such as \"0.0.0.0:443\" or \"[::]:443\", \
         or \"\" to turn it off",
    );
    assert_problem(
        "net.addresses = \"127.0.0.1:1\"",
        "app.toml:1: net.addresses: found \"127.0.0.1:1\", allowed: a list of IP addresses with ports such as \
         [\"192.0.2.7:3478\", \"[2001:db8::7]:3478\"]",
    );
    assert_problem(
        "queue.colour = \"green\"",
        "app.toml:1: queue.colour: found \"green\", allowed: \"red\", \"blue\"",
    );
}

#[test]
fn values_out_of_range_say_the_range() {
    assert_problem("port = 1024", "app.toml:1: port: found 1024, allowed: 1 to 1023");
    assert_problem("port = 70000", "app.toml:1: port: found 70000, allowed: 1 to 1023");
    for (age, found) in [("\"9ms\"", "\"9ms\""), ("\"2m\"", "\"2m\""), ("10", "10"), ("\"10\"", "\"10\"")] {
        let expected = format!("app.toml:1: queue.age: found {found}, allowed: \"10ms\" to \"1m\"");
        assert_problem(&format!("queue.age = {age}"), &expected);
    }
    // 2^64 and 64 KiB more.
    const WRAPS: &str = "\"18014398509482048KiB\"";
    for bytes in ["1023", "\"1KiB\"", "\"1GiB\"", "\"64KB\"", "\"99999999999999999999KiB\"", "-1", WRAPS] {
        let expected = format!("app.toml:1: queue.bytes: found {bytes}, allowed: \"64KiB\" to \"64MiB\"");
        assert_problem(&format!("queue.bytes = {bytes}"), &expected);
    }
}

#[test]
fn the_environment_and_flags_are_checked_like_the_file() {
    let sources = Sources::new("APP").variables([("APP_PORT", "1024"), ("APP_NET_LISTEN", "")]);
    let sources = sources.flag(PORT, Some("http".into())).flag(ADDRESSES, Some("127.0.0.1:1,x".into()));
    let expected = [
        "APP_PORT: port: found 1024, allowed: 1 to 1023",
        "APP_NET_LISTEN: net.listen: found an empty value, allowed: an IP address and port such as \"0.0.0.0:443\" or \
         \"[::]:443\"",
        "--port: port: found http, allowed: 1 to 1023",
        "--address: net.addresses: found 127.0.0.1:1,x, allowed: a list of IP addresses with ports such as \
         [\"192.0.2.7:3478\", \"[2001:db8::7]:3478\"]",
    ];
    assert_eq!(problems(&sources), expected);
}

#[test]
fn an_overridden_value_is_checked_too() {
    let sources = of_file("port = 0").flag(PORT, Some("1".into()));
    assert_eq!(problems(&sources), ["app.toml:1: port: found 0, allowed: 1 to 1023"]);
}

#[test]
fn a_variable_that_is_not_text_is_an_error() {
    let sources = Sources::new("APP").variables([("APP_QUEUE_COLOUR", OsString::from_vec(vec![0xff]))]);
    let expected =
        "APP_QUEUE_COLOUR: queue.colour: found bytes that are not UTF-8, allowed: \"red\", \"blue\"";
    assert_eq!(problems(&sources), [expected]);

    let sources = Sources::new("APP").variables([("APP_NAME", OsString::from_vec(vec![0xff]))]);
    assert_eq!(problems(&sources), ["APP_NAME: name: found bytes that are not UTF-8, allowed: text"]);
}

#[test]
fn unknown_keys_are_errors_with_a_suggestion() {
    assert_problem("prot = 1", "app.toml:1: prot: unknown key; did you mean port?");
    assert_problem("[queue]\nagee = 1", "app.toml:2: queue.agee: unknown key; did you mean queue.age?");
    assert_problem("colour = 1", "app.toml:1: colour: unknown key; did you mean queue.colour?");
    assert_problem("[queu]\nage = \"1s\"\nbytes = 1", "app.toml:1: queu: unknown key; did you mean queue?");
    assert_problem(
        "enable_relay = true",
        "app.toml:1: enable_relay: unknown key; allowed here: name, secret, port, verbose, threads, file, [net], [queue]",
    );
    assert_problem(
        "[net]\nwhatever = 1",
        "app.toml:2: net.whatever: unknown key; allowed here: listen, admin, addresses",
    );
    assert_problem(
        "\"queue.age\" = \"1s\"",
        "app.toml:1: \"queue.age\": unknown key; did you mean queue.age?",
    );
    assert_problem(
        "[net.listen]\nx = 1",
        "app.toml:1: net.listen: found [net.listen], allowed: an IP address and port \
         such as \"0.0.0.0:443\" or \"[::]:443\"",
    );
    assert_problem("queue = 3", "app.toml:1: queue: found 3, allowed: a table with age, bytes, colour");
    assert_problem(
        "[[queue]]",
        "app.toml:1: queue: found [[queue]], allowed: a table with age, bytes, colour",
    );
}

#[test]
fn all_problems_are_reported_at_once_in_reading_order() {
    let sources = of_file(
        "prot = 1\nverbose = 1\n\n[net]\naddresses = [\n  \"127.0.0.1:1\",\n  \"x\",\n  3,\n]\n[queue]\nage = \"0s\"\ncolor = \"red\"\n",
    );
    let sources = sources.variables([("APP_THREADS", "0"), ("APP_QUEUE_AG", "1s"), ("OTHER_THREADS", "1")]);
    let sources = sources.flag(PORT, Some("0".into()));
    let expected = "\
8 problems in the configuration
  app.toml:1: prot: unknown key; did you mean port?
  app.toml:2: verbose: found 1, allowed: true or false
  app.toml:7: net.addresses: found \"x\", allowed: a list of IP addresses with ports such as [\"192.0.2.7:3478\", \"[2001:db8::7]:3478\"]
  app.toml:8: net.addresses: found 3, allowed: a list of IP addresses with ports such as [\"192.0.2.7:3478\", \"[2001:db8::7]:3478\"]
  app.toml:11: queue.age: found \"0s\", allowed: \"10ms\" to \"1m\"
  app.toml:12: queue.color: unknown key; did you mean queue.colour?
  APP_THREADS: threads: found 0, allowed: a whole number, 1 or more
  --port: port: found 0, allowed: 1 to 1023
  note: APP_QUEUE_AG is not a setting and is ignored; did you mean APP_QUEUE_AGE?";
    assert_eq!(read(&sources).unwrap_err().to_string(), expected);
}

#[test]
fn a_file_that_is_not_toml_reports_its_syntax_errors_and_no_consequences() {
    let sources = of_file("name = \"a\"\nport = \nverbose = maybe\nport = 3\n");
    let mut reader = ConfigReader::new(&sources);
    let _: String = reader.key(NAME).required();
    let problems = reader.finish().unwrap_err();
    let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(problems.len(), 3, "{problems:?}");
    for (problem, line) in problems.iter().zip([2, 3, 4]) {
        assert!(problem.starts_with(&format!("app.toml:{line}: not valid TOML: ")), "{problem}");
    }
}

#[test]
fn a_missing_file_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("missing.toml");
    let problems = problems(&Sources::new("APP").file(&path));
    assert_eq!(
        problems,
        [format!("{}: cannot be read: No such file or directory (os error 2)", path.display())]
    );
}

#[test]
fn a_file_is_read_and_named_by_its_path() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.toml");
    std::fs::write(&path, "\nport = 5\n").unwrap();
    let (settings, resolved) = read(&Sources::new("APP").file(&path)).unwrap();
    assert_eq!(settings.port, 5);
    assert_eq!(resolved.origin(PORT).unwrap().to_string(), format!("{}:2", path.display()));
}

#[test]
fn required_settings_tell_every_way_to_give_them() {
    let sources = Sources::new("APP");
    let mut reader = ConfigReader::new(&sources);
    let _: String = reader.key(NAME).required();
    let _: u16 = reader.key(SettingKey::new("net.port")).required();
    let expected = "\
2 problems in the configuration
  name: not set; give it in the file, as APP_NAME or as --name (allowed: text)
  net.port: not set; give it in the file or as APP_NET_PORT (allowed: a whole number from 0 to 65535)";
    assert_eq!(reader.finish().unwrap_err().to_string(), expected);
}

#[test]
fn a_required_setting_that_is_wrong_is_not_also_missing() {
    let sources = of_file("name = 1");
    let mut reader = ConfigReader::new(&sources);
    let _: String = reader.key(NAME).required();
    let problems = reader.finish().unwrap_err();
    assert_eq!(
        problems.to_string(),
        "1 problem in the configuration\n  app.toml:1: name: found 1, allowed: text"
    );
}

#[test]
fn conflicts_name_the_place_of_the_value() {
    let sources = of_file("port = 1\nverbose = true").variables([("APP_VERBOSE", "true")]);
    let mut reader = ConfigReader::new(&sources);
    let _: u16 = reader.key(PORT).or(1);
    let _: bool = reader.key(VERBOSE).or(false);
    reader.conflict(VERBOSE, "excludes port");
    reader.conflict(PORT, "excludes verbose");
    let problems: Vec<_> = reader.finish().unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(problems, ["app.toml:1: port: excludes verbose", "APP_VERBOSE: verbose: excludes port"]);
}

#[test]
fn secrets_are_never_shown() {
    let (settings, resolved) = read(&of_file("secret = \"abcd\"")).unwrap();
    assert_eq!(settings.secret.as_deref(), Some("abcd"));
    assert!(resolved.to_toml().contains("secret = \"********\"  # app.toml:1\n"));
    assert!(!format!("{resolved:?}").contains("abcd"));

    assert_problem(
        "secret = \"hunter2\"",
        "app.toml:1: secret: found a value that is not shown, allowed: text of 4 letters",
    );
    assert_problem("port = \"PrivKey:0102\"", "app.toml:1: port: found a private key, allowed: 1 to 1023");
    for swapped in ["\"privkey:0102\" = \"secret\"", "'PrivKey:0102'.secret = 1"] {
        let [problem] = &problems(&of_file(swapped))[..] else { panic!("one problem") };
        assert!(problem.starts_with("app.toml:1: a private key: unknown key; allowed here: "), "{problem}");
    }
    for broken in
        ["secret = \"hunter2", "secret = hunter2", "secret = \"hunter2\" hunter2", "secret = [hunter2"]
    {
        for problem in problems(&of_file(broken)) {
            assert!(!problem.contains("hunter2"), "{problem}");
        }
    }
}

#[test]
fn unknown_variables_are_warnings() {
    let variables = [
        ("APP_SERVICE_HOST", "10.0.0.1"),
        ("APP_PROT", "1"),
        ("APP_CONFIG", "x"),
        ("APPLE", "1"),
        ("APP_\x1b[2J", ""),
    ];
    let sources = Sources::new("APP").variables(variables);
    let mut reader = ConfigReader::new(&sources);
    reader.accept_variable("APP_CONFIG");
    let _: u16 = reader.key(PORT).or(1);
    let resolved = reader.finish().unwrap();
    let expected = [
        "APP_\\u{1b}[2J is not a setting and is ignored",
        "APP_PROT is not a setting and is ignored; did you mean APP_PORT?",
        "APP_SERVICE_HOST is not a setting and is ignored",
    ];
    assert_eq!(resolved.warnings(), expected);
}

#[test]
fn what_a_message_repeats_is_short_and_on_one_line() {
    let sources = of_file(&format!("port = \"\"\"a\n{}\"\"\"", "b".repeat(100)));
    let expected = format!("app.toml:1: port: found \"\"\"a\\n{}…, allowed: 1 to 1023", "b".repeat(55));
    assert_eq!(problems(&sources), [expected]);
}

/// A value of a secret that is mounted or passed on, as in Kubernetes.
#[test]
fn line_breaks_at_the_end_of_a_variable_are_dropped() {
    for end in ["", "\n", "\r\n", "\r", "\n\n"] {
        let variables = [("APP_PORT", format!("7{end}")), ("APP_SECRET", format!("abcd{end}"))];
        let (settings, _) = read(&Sources::new("APP").variables(variables)).unwrap();
        assert_eq!((settings.port, settings.secret.as_deref()), (7, Some("abcd")), "{end:?}");
    }
    let expected = "APP_SECRET: secret: found an empty value, allowed: text of 4 letters";
    for empty in ["", "\n"] {
        assert_eq!(problems(&Sources::new("APP").variables([("APP_SECRET", empty)])), [expected]);
    }
}

#[test]
fn what_cannot_be_seen_in_a_value_is_spelt_out() {
    for (value, shown) in [
        ("8\n0", r"8\n0"),
        ("\u{feff}80", r"\u{feff}80"),
        ("80\u{200b}", r"80\u{200b}"),
        (" 80", "\" 80\""),
        ("80 \t", r#""80 \t""#),
        (" ", "\" \""),
    ] {
        let expected = format!("APP_PORT: port: found {shown}, allowed: 1 to 1023");
        assert_eq!(problems(&Sources::new("APP").variables([("APP_PORT", value)])), [expected]);
    }
    let mesh_key = format!("{}\n", "ab".repeat(32));
    let sources = Sources::new("APP").flag(PORT, Some(mesh_key));
    assert_eq!(problems(&sources), ["--port: port: found what looks like a mesh key, allowed: 1 to 1023"]);
}

#[test]
fn a_program_adds_what_it_finds_behind_the_values() {
    let sources = of_file("port = 0\nname = \"a\"");
    let mut reader = ConfigReader::new(&sources);
    let (_, _): (u16, Option<String>) = (reader.key(PORT).within(1..=9).or(1), reader.key(NAME).optional());
    assert_eq!([PORT, NAME].map(|key| reader.is_sound(key)), [false, true]);
    reader.conflict(NAME, "is no name");
    assert!(!reader.is_sound(NAME));
    reader.warn("a warning");
    let found = reader.finish().unwrap_err();
    assert_eq!(found.iter().count(), 2);
    assert_eq!(found.warnings(), ["a warning"]);
    let broken = of_file("port = ");
    assert!(!ConfigReader::new(&broken).is_sound(NAME), "a file that cannot be read has no values");
}

#[test]
fn toml_forms_read_back() {
    for millis in [0, 1, 999, 1000, 1500, 60_000, 90_000, 3_600_000, 86_400_000] {
        let duration = Duration::from_millis(millis);
        let text = duration.to_toml();
        assert_eq!(Duration::from_text(text.trim_matches('"')), Some(duration), "{text}");
    }
    for bytes in [0, 1, 1023, 1024, 1536, 1 << 20, 1 << 30, usize::MAX] {
        let size = ByteSize::bytes(bytes);
        let text = size.to_toml();
        assert_eq!(ByteSize::from_text(text.trim_matches('"')), Some(size), "{text}");
    }
    assert_eq!(Duration::from_secs(90).to_toml(), "\"90s\"");
    assert_eq!(Duration::ZERO.to_toml(), "\"0s\"");
    assert_eq!(ByteSize::kib(1536).to_toml(), "\"1536KiB\"");
}

#[test]
fn no_truncation_or_mutation_of_a_file_panics() {
    let text = "name = 'é'\nport = 0x1_0\nnet = { listen = \"[::]:1\", addresses = [\"[::1]:3\", '''\n'''] }\n[queue]\nage = \"1s\" # é\n\"b\\u00e9\" = 1.5\n[[x]]\ny = 1979-05-27\n";
    for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
        let _ = read(&of_file(&text[..end]));
    }
    let mut outcomes = [0; 2];
    for (at, old) in text.char_indices() {
        for new in [
            '\0', '\n', '\r', '"', '\'', '[', ']', '{', '}', '=', ',', '.', '#', '\\', '-', '0', 'e', 'é',
            '\u{feff}',
        ] {
            let mutated = format!("{}{new}{}", &text[..at], &text[at + old.len_utf8()..]);
            outcomes[usize::from(read(&of_file(&mutated)).is_ok())] += 1;
        }
    }
    assert!(outcomes[0] > 1000, "{outcomes:?}");
}
