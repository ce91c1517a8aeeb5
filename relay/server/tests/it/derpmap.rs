//! `derpmap` of the real binary: maps from files, checked, compared and printed. What is said of which map is tested in
//! the `derpmap` crate; here it is options, exit codes and where output goes.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

const GOOD: &str = r#"regions:
  900:
    regionid: 900
    regioncode: "fra"
    regionname: "Frankfurt"
    nodes:
      - name: "900a"
        regionid: 900
        hostname: "relay.example.com"
"#;

const GOOD_JSON: &str = r#"{
  "Regions": {
    "900": {
      "RegionID": 900,
      "RegionCode": "fra",
      "RegionName": "Frankfurt",
      "Nodes": [
        {
          "Name": "900a",
          "RegionID": 900,
          "HostName": "relay.example.com"
        }
      ]
    }
  }
}
"#;

/// The binary in a directory of its own.
struct Derpmap {
    directory: TempDir,
}

impl Derpmap {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path().join(name), bytes).unwrap();
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Exit code, standard output, standard error.
    fn run(&self, args: &[&str]) -> (i32, String, String) {
        self.run_with(args, b"")
    }

    fn run_with(&self, args: &[&str], stdin: &[u8]) -> (i32, String, String) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_towpath-relay"))
            .arg("derpmap")
            .args(args)
            .current_dir(self.path())
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that does not read standard input has closed it.
        let _ = child.stdin.take().unwrap().write_all(stdin);
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    #[track_caller]
    fn assert(&self, args: &[&str], code: i32, out: &str, err: &str) {
        assert_eq!(self.run(args), (code, out.to_owned(), err.to_owned()), "{args:?}");
    }
}

#[test]
fn a_good_map_passes() {
    let derpmap = Derpmap::new();
    derpmap.write("derp.yaml", GOOD);
    let report = "derp.yaml: read as YAML for Headscale's derp.paths\nderp.yaml: 0 errors, 0 warnings\n";
    derpmap.assert(&["--from", "derp.yaml", "--check"], 0, report, "");
}

#[test]
fn a_warning_passes_and_an_error_does_not() {
    let derpmap = Derpmap::new();
    derpmap.write("warning.yaml", GOOD.replace("regioncode", "regoincode"));
    let (code, out, err) = derpmap.run(&["--from", "warning.yaml", "--check"]);
    assert_eq!((code, &*err), (0, ""));
    assert!(out.contains("\n    fix: did you mean regioncode?\n"), "{out}");
    assert!(out.ends_with("warning.yaml: 0 errors, 2 warnings\n"), "{out}");

    derpmap.write("error.yaml", GOOD.replace("hostname", "HostName"));
    let report = "error.yaml: read as YAML for Headscale's derp.paths
error.yaml:9: error[wrong-case]: region 900, node 900a: HostName is written for hostname
    so: Headscale ignores it without a word: clients have no name to dial
    fix: write hostname
error.yaml: 1 error, 0 warnings
";
    derpmap.assert(&["--from", "error.yaml", "--check"], 1, report, "");
}

#[test]
fn the_report_is_json_for_programs() {
    let derpmap = Derpmap::new();
    derpmap.write("old.yaml", GOOD);
    derpmap.write("new.yaml", GOOD.replace("regionid: 900", "regionid: 901"));
    let (code, out, err) =
        derpmap.run(&["--from", "new.yaml", "--check", "--diff", "old.yaml", "--report", "json"]);
    assert_eq!((code, &*err), (1, ""));
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["file"], "new.yaml");
    assert_eq!(report["format"], "headscale");
    assert_eq!(report["findings"][0]["code"], "region-id-mismatch");
    assert_eq!(report["findings"][0]["severity"], "error");
    assert_eq!(report["findings"][0]["line"], 3);
    assert_eq!(report["findings"][0]["place"], "region 900");
    assert_eq!(report["diff"]["from"], "old.yaml");
    assert_eq!(report["diff"]["impact"], "reconnect");
    assert_eq!(report["diff"]["changes"][0]["code"], "region-id-changed");
    assert_eq!(report["diff"]["changes"][0]["region"], 900);
}

#[test]
fn a_change_that_disconnects_is_told_from_one_that_does_not() {
    let derpmap = Derpmap::new();
    derpmap.write("old.yaml", GOOD);
    derpmap.write("same.json", GOOD_JSON);
    let report = "same.json: read as JSON for Tailscale's clients and Headscale's derp.urls
from old.yaml to same.json:
from old.yaml to same.json: the same map to clients
";
    derpmap.assert(&["--from", "same.json", "--diff", "old.yaml"], 0, report, "");

    derpmap.write("moved.yaml", GOOD.replace("relay.", "other."));
    let report = "moved.yaml: read as YAML for Headscale's derp.paths
from old.yaml to moved.yaml:
disconnect[host-changed]: region 900, node 900a: HostName changed from relay.example.com to other.example.com
    so: every client of the region reconnects, to that name; the certificate has to be for it
from old.yaml to moved.yaml: clients of 1 of 1 region have to move, or to find the relay anew
";
    derpmap.assert(&["--from", "moved.yaml", "--diff", "old.yaml"], 1, report, "");
}

/// What a certificate that was made anew does, before the map is handed out.
#[test]
fn the_map_of_the_configuration_is_compared_too() {
    let derpmap = Derpmap::new();
    derpmap.write("deployed.yaml", GOOD);
    let (cert, key) = self_signed();
    derpmap.write("relay.crt", cert);
    derpmap.write("relay.key", key);
    let settings = ["--hostname", "relay.example.com", "--cert", "relay.crt", "--key", "relay.key"];
    let (code, out, err) = derpmap
        .run(&[&settings[..], &["--check", "--diff", "deployed.yaml", "--format", "headscale"]].concat());
    assert_eq!((code, &*err), (1, ""));
    assert!(out.starts_with("the configuration: read as YAML for Headscale's derp.paths\n"), "{out}");
    assert!(out.contains("the configuration: 0 errors, 0 warnings\n"), "{out}");
    assert!(out.contains("CertName changed from nothing to sha256-raw:"), "{out}");
}

/// A self-signed certificate and its key, PEM.
fn self_signed() -> (String, String) {
    let certified = rcgen::generate_simple_self_signed(vec!["relay.example.com".into()]).unwrap();
    (certified.cert.pem(), certified.signing_key.serialize_pem())
}

#[test]
fn standard_input_is_a_file() {
    let derpmap = Derpmap::new();
    derpmap.write("old.json", GOOD_JSON);
    let (code, out, _) = derpmap.run_with(&["--from", "-", "--check"], GOOD.as_bytes());
    assert_eq!(code, 0);
    assert!(out.ends_with("standard input: 0 errors, 0 warnings\n"), "{out}");
    let (code, out, _) = derpmap.run_with(&["--from", "old.json", "--diff", "-"], GOOD.as_bytes());
    assert_eq!(code, 0);
    assert!(out.ends_with("from standard input to old.json: the same map to clients\n"), "{out}");
    let err = "towpath-relay: --from and --diff cannot both read standard input\n";
    derpmap.assert(&["--from", "-", "--diff", "-"], 2, "", err);
}

#[test]
fn the_reader_can_be_named() {
    let derpmap = Derpmap::new();
    derpmap.write("derp.json", GOOD_JSON);
    derpmap.assert(
        &["--from", "derp.json", "--check"],
        0,
        "derp.json: read as JSON for Tailscale's clients and Headscale's derp.urls\nderp.json: 0 errors, \
            0 warnings\n",
        "",
    );
    // Given to derp.paths by mistake.
    let (code, out, _) = derpmap.run(&["--from", "derp.json", "--check", "--format", "headscale"]);
    assert_eq!(code, 1);
    assert!(out.contains("derp.json:2: error[wrong-case]: Regions is written for regions\n"), "{out}");
}

#[test]
fn a_map_is_printed_for_another_reader() {
    let derpmap = Derpmap::new();
    derpmap.write("derp.yaml", GOOD);
    derpmap.write("derp.json", GOOD_JSON);
    derpmap.assert(&["--from", "derp.yaml"], 0, GOOD_JSON, "");
    derpmap.assert(&["--from", "derp.json", "--format", "headscale"], 0, GOOD, "");
    let (_, policy, _) = derpmap.run(&["--from", "derp.json", "--format", "tailscale-policy"]);
    derpmap.write("policy", policy);
    derpmap.assert(&["--from", "policy"], 0, GOOD_JSON, "");

    derpmap.write("error.yaml", GOOD.replace("nodes", "Nodes"));
    let (code, out, err) = derpmap.run(&["--from", "error.yaml"]);
    assert_eq!(code, 0);
    assert!(out.contains("\"Nodes\": []"), "as Headscale reads it: {out}");
    assert!(err.starts_with("towpath-relay: warning: there are errors in error.yaml"), "{err}");

    derpmap.write("port.json", GOOD_JSON.replace("\"HostName\"", "\"DERPPort\": 70000, \"HostName\""));
    let (code, out, err) = derpmap.run(&["--from", "port.json"]);
    assert_eq!((code, &*out), (1, ""));
    assert!(
        err.ends_with(
            "cannot print the map of port.json: region 900, node 900a: DERPPort is 70000, which no \
                DERPPort can be\n"
        ),
        "{err}"
    );
}

#[test]
fn what_cannot_be_read_is_named() {
    let derpmap = Derpmap::new();
    let missing = "towpath-relay: nothing.yaml: cannot be read: No such file or directory (os error 2)\n";
    derpmap.assert(&["--from", "nothing.yaml", "--check"], 2, "", missing);
    derpmap.write("empty.json", "");
    derpmap.assert(&["--from", "empty.json", "--check"], 2, "", "towpath-relay: empty.json: is empty\n");
    // Headscale reads that as a map without regions.
    derpmap.write("empty.yaml", "");
    let (code, out, err) = derpmap.run(&["--from", "empty.yaml", "--check"]);
    assert_eq!((code, &*err), (1, ""));
    assert!(out.contains("empty.yaml: error[no-regions]: "), "{out}");
    derpmap.write("cut.json", &GOOD_JSON[..100]);
    let cut = "towpath-relay: cut.json: line 6: not JSON: a value is missing\n";
    derpmap.assert(&["--from", "cut.json", "--check"], 2, "", cut);
    derpmap.write("binary.yaml", b"regions:\n  \xff\n");
    let binary = "towpath-relay: binary.yaml: line 2: not YAML: the text is not UTF-8\n";
    derpmap.assert(&["--from", "binary.yaml", "--diff", "binary.yaml"], 2, "", binary);
    let large = "towpath-relay: large.yaml: is larger than 4 MiB, which no DERP map is\n";
    fs::File::create(derpmap.path().join("large.yaml")).unwrap().set_len(1 << 40).unwrap();
    derpmap.assert(&["--from", "large.yaml", "--check"], 2, "", large);
}

#[test]
fn what_its_reader_refuses_is_not_compared() {
    let derpmap = Derpmap::new();
    derpmap.write("old.yaml", GOOD);
    derpmap.write("quoted.yaml", GOOD.replace("  900:", "  \"900\":"));
    let err = "towpath-relay: quoted.yaml:2: \"900\" is the key of a region: Headscale refuses the whole file and does not \
               start; --from quoted.yaml --check says more\n";
    derpmap.assert(&["--from", "quoted.yaml", "--diff", "old.yaml"], 2, "", err);
    derpmap.assert(&["--from", "old.yaml", "--diff", "quoted.yaml"], 2, "", err);
    derpmap.assert(&["--from", "quoted.yaml"], 2, "", err);
    // The check is said all the same.
    let (code, out, err) = derpmap.run(&["--from", "quoted.yaml", "--check", "--diff", "old.yaml"]);
    assert_eq!((code, &*err), (1, ""));
    assert!(out.ends_with("quoted.yaml: 1 error, 0 warnings\n"), "{out}");
}

#[test]
fn a_file_and_settings_exclude_each_other() {
    let derpmap = Derpmap::new();
    for settings in [["--hostname", "a.example"], ["--ipv4", "203.0.113.7"], ["--config", "relay.toml"]] {
        let (code, out, err) = derpmap.run(&[&["--from", "derp.yaml"], &settings[..]].concat());
        assert_eq!((code, &*out), (2, ""));
        assert!(err.contains("cannot be used with"), "{err}");
    }
}

/// A check of several files reports on each, and ends as the worst of them does.
#[test]
fn several_files_are_checked_in_one_run() {
    let derpmap = Derpmap::new();
    derpmap.write("good.yaml", GOOD);
    derpmap.write("bad.yaml", GOOD.replace("hostname", "HostName"));
    derpmap.write("none.yaml", "regions: [");
    let (code, out, err) = derpmap.run(&["--check", "--from", "good.yaml", "bad.yaml"]);
    assert_eq!((code, &*err), (1, ""));
    assert!(out.contains("good.yaml: 0 errors, 0 warnings\n"), "{out}");
    assert!(out.ends_with("bad.yaml: 1 error, 0 warnings\n"), "{out}");

    let (code, out, err) = derpmap.run(&["--check", "--from", "none.yaml", "good.yaml"]);
    assert_eq!(code, 2);
    assert!(out.ends_with("good.yaml: 0 errors, 0 warnings\n"), "{out}");
    assert_eq!(
        err,
        "towpath-relay: none.yaml: line 1: not YAML: did not find expected node content\n\
        towpath-relay: 1 of 2 files cannot be read\n"
    );

    let (code, out, _) = derpmap.run(&["--check", "--report", "json", "--from", "none.yaml", "good.yaml"]);
    assert_eq!(code, 2);
    let reports: Vec<serde_json::Value> =
        serde_json::Deserializer::from_str(&out).into_iter().collect::<Result<_, _>>().unwrap();
    assert_eq!(reports[0]["error"], "none.yaml: line 1: not YAML: did not find expected node content");
    assert_eq!(reports[1]["map"]["Regions"]["900"]["Nodes"][0]["HostName"], "relay.example.com");
    assert_eq!(reports.len(), 2);
}

#[test]
fn several_files_are_neither_printed_nor_compared() {
    let derpmap = Derpmap::new();
    derpmap.write("a.yaml", GOOD);
    for args in [&["--from", "a.yaml", "a.yaml"][..], &["--from", "a.yaml", "a.yaml", "--diff", "a.yaml"]] {
        let (code, out, err) = derpmap.run(args);
        assert_eq!((code, &*out), (1, ""), "{err}");
        assert!(err.starts_with("towpath-relay: error: --") || err.starts_with("towpath-relay: --"), "{err}");
    }
}
