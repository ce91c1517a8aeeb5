use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use prometheus::Registry;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::sleep;
use towpath_relay_client::certificate_pin;
use towpath_service::ErrorChain;

use super::judge::{Told, judge};
use super::*;
use crate::config::CertFiles;
use crate::identity::meta_certificate;
use crate::reload::{Reload, ReloadMetrics, ReloadOutcome, What};
use crate::secret_file;

const NAME: &str = "relay.example.com";
const DAY: i64 = 86_400;
/// The start of the year 2025, in which most certificates here are valid.
const BEGIN: i64 = 1_735_689_600;
/// The start of the year 2026.
const END: i64 = BEGIN + 365 * DAY;

/// An authority with an intermediate one.
struct Authority {
    root: CertificateDer<'static>,
    intermediate: CertificateDer<'static>,
    intermediate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let ca = |name: &str| {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            (params, KeyPair::generate().unwrap())
        };
        let ((root, root_key), (params, key)) = (ca("root"), ca("intermediate"));
        let root_der = root.self_signed(&root_key).unwrap().der().clone();
        let intermediate = params.signed_by(&key, &Issuer::new(root, root_key)).unwrap();
        Self {
            root: root_der,
            intermediate: intermediate.der().clone(),
            intermediate_pem: intermediate.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    fn leaf(&self, change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        self.leaf_of(&KeyPair::generate().unwrap(), change)
    }

    fn leaf_of(&self, key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        params(change).signed_by(key, &self.issuer).unwrap().der().clone()
    }
}

fn params(change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = CertificateParams::new([NAME.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, NAME);
    (params.not_before, params.not_after) = (date_time_ymd(2025, 1, 1), date_time_ymd(2026, 1, 1));
    change(&mut params);
    params
}

fn self_signed(change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
    params(change).self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
}

fn told(chain: &[CertificateDer<'_>], hostname: &str, now: i64) -> Vec<String> {
    let objections = judge(chain, hostname, now);
    objections.iter().map(|objection| Told { objection, hostname }.to_string()).collect()
}

#[test]
fn a_certificate_that_clients_accept_has_no_finding() {
    let authority = Authority::new();
    let leaf = authority.leaf(|_| {});
    let wildcard = authority.leaf(|params| {
        params.subject_alt_names = vec![rcgen::SanType::DnsName("*.example.com".try_into().unwrap())];
    });
    for chain in [
        vec![leaf.clone(), authority.intermediate.clone()],
        vec![leaf, authority.intermediate.clone(), authority.root.clone()],
        vec![wildcard, authority.intermediate.clone()],
        vec![self_signed(|_| {})],
        // As `openssl req -x509` makes them.
        vec![self_signed(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))],
    ] {
        assert_eq!(told(&chain, NAME, BEGIN + DAY), Vec::<String>::new());
    }
    let address = self_signed(|params| {
        params.subject_alt_names = vec![rcgen::SanType::IpAddress("192.0.2.7".parse().unwrap())];
    });
    assert_eq!(told(&[address], "192.0.2.7", BEGIN), Vec::<String>::new());
}

#[test]
fn names_are_those_that_clients_look_at() {
    let common_name_only = self_signed(|params| params.subject_alt_names.clear());
    let expected = "has no subject alternative name, and clients do not look at the common name: make a certificate with the \
                    name relay.example.com (openssl req … -addext subjectAltName=DNS:relay.example.com)";
    assert_eq!(told(&[common_name_only], NAME, BEGIN), [expected]);
    let expected = "is not for other.example.com, so that clients refuse it; it is for relay.example.com";
    assert_eq!(told(&[self_signed(|_| {})], "other.example.com", BEGIN), [expected]);
    let dns_address = self_signed(|params| {
        params.subject_alt_names = vec![rcgen::SanType::DnsName("192.0.2.7".try_into().unwrap())];
    });
    let expected = "has the address 192.0.2.7 as a DNS name, so that clients refuse it: it needs subjectAltName=IP:192.0.2.7";
    assert_eq!(told(&[dns_address], "192.0.2.7", BEGIN), [expected]);
}

#[test]
fn dates_are_told_before_they_are_reached() {
    let chain = [self_signed(|_| {})];
    for (now, expected) in [
        (
            BEGIN - 1,
            Some(
                "is not valid before 2025-01-01: clients refuse it; check the clock of this host and the certificate",
            ),
        ),
        (BEGIN, None),
        (END - 21 * DAY, None),
        (END - 21 * DAY + 1, Some("expires on 2026-01-01, in 20 days: renew it")),
        (END - DAY, Some("expires on 2026-01-01, in 1 day: renew it")),
        (END, Some("expires on 2026-01-01, in 0 days: renew it")),
        (END + 1, Some("has expired on 2026-01-01: clients refuse it; renew it")),
    ] {
        assert_eq!(told(&chain, NAME, now), Vec::from_iter(expected), "{now}");
    }
    // One that lives for six days is warned of in its last two.
    let short = [self_signed(|params| params.not_after = date_time_ymd(2025, 1, 7))];
    assert_eq!(told(&short, NAME, BEGIN + 4 * DAY), Vec::<String>::new());
    assert_eq!(told(&short, NAME, BEGIN + 4 * DAY + 1), ["expires on 2025-01-07, in 1 day: renew it"]);
}

#[test]
fn a_chain_leads_from_each_certificate_to_the_next() {
    let (authority, other) = (Authority::new(), Authority::new());
    let leaf = authority.leaf(|_| {});
    let alone = "is not self-signed and alone: use the full chain (fullchain.pem of an ACME client), since clients that do \
                 not know its issuer refuse it";
    assert_eq!(told(std::slice::from_ref(&leaf), NAME, BEGIN), [alone]);
    let gap = "comes with other certificates, and none of them is its issuer's: use the full chain (fullchain.pem of an ACME \
               client)";
    assert_eq!(told(&[leaf.clone(), authority.root.clone()], NAME, BEGIN), [gap]);
    // Of the same name, and with another key.
    let foreign = told(&[leaf, other.intermediate], NAME, BEGIN);
    assert!(
        foreign.len() == 1
            && foreign[0].ends_with(
                "by its chain: the certificates behind it are of another issuer with the same name"
            ),
        "{foreign:?}"
    );
    let not_alone =
        "is self-signed, and other certificates follow it: clients that pin it refuse them; remove them";
    assert_eq!(told(&[self_signed(|_| {}), authority.root.clone()], NAME, BEGIN), [not_alone]);
    let for_clients = authority.leaf(|params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    let found = told(&[for_clients, authority.intermediate.clone()], NAME, BEGIN);
    assert!(
        found.len() == 1 && found[0].ends_with("by its chain: its extended key usage is not that of servers"),
        "{found:?}"
    );
}

/// Files of a certificate, which the tests replace.
struct CertificateFolder {
    dir: TempDir,
    files: CertFiles,
}

impl CertificateFolder {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let files = CertFiles { cert: path("relay.crt"), key: path("relay.key") };
        Self { dir, files }
    }

    /// Replaces both files, as an ACME client does.
    fn write(&self, pem: &str, key: &KeyPair) {
        for (path, text) in [(&self.files.cert, pem), (&self.files.key, &key.serialize_pem())] {
            self.put(path, text);
        }
    }

    fn put(&self, path: &PathBuf, text: &str) {
        let _ = fs::remove_file(path);
        secret_file::create(path, text.as_bytes()).unwrap();
    }

    /// Replaces both files by a new pair, and returns the certificate.
    fn renew(&self, change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let certificate = params(change).self_signed(&key).unwrap();
        self.write(&certificate.pem(), &key);
        certificate.der().clone()
    }

    fn read(&self) -> Result<Certificate, Vec<String>> {
        let mut warnings = Vec::new();
        Certificate::read(&self.files, &mut warnings).map_err(|faults| {
            let dir = format!("{}/", self.dir.path().display());
            let told = faults
                .iter()
                .map(|fault| format!("{}: {}", fault.key.path(), ErrorChain(&fault.error)).replace(&dir, ""));
            told.collect()
        })
    }

    fn shown(&self) -> Arc<ShownCertificate> {
        let expected = Expected { hostname: NAME.into(), check_name: true };
        let key = towpath_wire::key::NodePrivate::from_random([1; 32]).public();
        let meta = meta_certificate(&key).unwrap();
        let certificate = self.read().unwrap();
        Arc::new(ShownCertificate::new(certificate, Some(self.files.clone()), expected, meta).unwrap())
    }
}

#[test]
fn each_thing_that_is_wrong_with_a_pair_is_named_by_its_setting() {
    let place = CertificateFolder::new();
    let CertFiles { cert, key } = &place.files;
    let missing = "No such file or directory (os error 2)";
    let both =
        [format!("cert: cannot read relay.crt: {missing}"), format!("key: cannot read relay.key: {missing}")];
    assert_eq!(place.read().unwrap_err(), both);

    place.renew(|_| {});
    place.read().unwrap();
    let [cert_text, key_text] = [cert, key].map(|path| fs::read_to_string(path).unwrap());
    place.put(cert, &key_text);
    place.put(key, &cert_text);
    let exchanged = [
        "cert: relay.crt holds a private key and no certificate: cert and key may be exchanged",
        "key: relay.key holds a certificate and no private key: cert and key may be exchanged",
    ];
    assert_eq!(place.read().unwrap_err(), exchanged);

    let other = KeyPair::generate().unwrap().serialize_pem();
    let damaged = "is a damaged PEM file: a section has no end; the file may have been cut off";
    let der = String::from_utf8(vec![0x30, 0x05]).unwrap();
    for (cert_text, key_text, expected) in [
        (&*cert_text, &*other, vec!["key: relay.key is not the private key of relay.crt".to_owned()]),
        ("", "", vec!["cert: relay.crt is empty".into(), "key: relay.key is empty".into()]),
        ("x", &key_text, vec!["cert: relay.crt holds no certificate in PEM form".into()]),
        (
            &der,
            &key_text,
            vec![
                "cert: relay.crt holds no certificate in PEM form, perhaps one in DER form: convert it (openssl x509 -inform \
                 der)"
                    .into(),
            ],
        ),
        (&cert_text[..cert_text.len() - 30], &key_text, vec![format!("cert: relay.crt {damaged}")]),
        (&cert_text, &key_text[..key_text.len() - 30], vec![format!("key: relay.key {damaged}")]),
        (
            &cert_text,
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
            vec![
                "key: relay.key is encrypted, and the relay has no way to ask for the password: decrypt it (openssl pkey)"
                    .into(),
            ],
        ),
    ] {
        place.put(cert, cert_text);
        place.put(key, key_text);
        assert_eq!(place.read().unwrap_err(), expected);
    }

    // In the wrong order.
    let authority = Authority::new();
    let leaf_key = KeyPair::generate().unwrap();
    let leaf = params(|_| {}).signed_by(&leaf_key, &authority.issuer).unwrap().pem();
    place.write(&format!("{}{leaf}", self_signed_pem()), &leaf_key);
    let expected = "cert: relay.crt has the certificate of relay.key in place 2 and another one first: put the relay's own \
                    certificate first";
    let found: Vec<_> = place
        .read()
        .unwrap_err()
        .iter()
        .map(|fault| fault.replace(&format!("{}/", place.dir.path().display()), ""))
        .collect();
    assert_eq!(found, [expected]);
}

fn self_signed_pem() -> String {
    params(|_| {}).self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
}

static CLOCK: AtomicI64 = AtomicI64::new(BEGIN + DAY);

/// What a scrape shows of the certificate.
fn expiry(registry: &Registry) -> Vec<f64> {
    let families = registry.gather();
    let family =
        families.iter().find(|family| family.name() == "towpath_certificate_expires_seconds").unwrap();
    family.get_metric().iter().map(|metric| metric.get_gauge().get_value()).collect()
}

/// A relay's certificate through its life: replaced by hand and by itself, refused when no client would take the new one.
#[tokio::test(start_paused = true)]
async fn a_certificate_is_replaced_while_it_runs_and_a_bad_one_is_not() {
    let place = CertificateFolder::new();
    place.renew(|_| {});
    let (shown, registry) = (place.shown(), Registry::new());
    register_expiry(&registry, shown.clone()).unwrap();
    let metrics = ReloadMetrics::register(&registry).unwrap();
    let (hangup, hangups) = watch::channel(0);
    let now = || CLOCK.load(Ordering::Relaxed);
    let renewal = Renewal { shown: shown.clone(), now };
    let reload =
        Reload { subjects: vec![Arc::new(renewal)], metrics: metrics.clone(), hangups: Some(hangups) };
    let task = tokio::spawn(reload.run());
    // The task has seen the files as they are.
    sleep(Duration::from_secs(1)).await;
    let counts = || ReloadOutcome::ALL.map(|outcome| metrics.reloads(What::Certificate, outcome));
    let ask = async || {
        let before: u64 = counts().iter().sum();
        hangup.send_modify(|hangups| *hangups += 1);
        while counts().iter().sum::<u64>() == before {
            sleep(Duration::from_millis(10)).await;
        }
    };
    let pin = |certificate: &CertificateDer<'_>| Some(certificate_pin(certificate));
    assert_eq!(expiry(&registry), [END as f64]);

    // Nothing has changed.
    ask().await;
    assert_eq!(counts(), [0, 1, 0]);
    let new = place.renew(|params| params.not_after = date_time_ymd(2026, 6, 1));
    ask().await;
    assert_eq!((counts(), shown.pin()), ([1, 1, 0], pin(&new)));
    assert_eq!(expiry(&registry), [(END + 151 * DAY) as f64]);

    // By itself, once the files have stayed the same.
    let newer = place.renew(|_| {});
    sleep(Duration::from_millis(900)).await;
    assert_eq!(shown.pin(), pin(&new), "the files may still be changing");
    sleep(Duration::from_secs(1)).await;
    assert_eq!((counts(), shown.pin()), ([2, 1, 0], pin(&newer)));

    // Another name, no name, out of date, a key of another certificate, and no file: each keeps the one that is shown.
    place.renew(|params| {
        params.subject_alt_names = vec![rcgen::SanType::DnsName("other.example.com".try_into().unwrap())];
    });
    ask().await;
    place.renew(|params| params.subject_alt_names.clear());
    ask().await;
    place.renew(|params| params.not_after = date_time_ymd(2025, 1, 2) - time::Duration::seconds(1));
    ask().await;
    place.put(&place.files.key, &KeyPair::generate().unwrap().serialize_pem());
    ask().await;
    fs::remove_file(&place.files.cert).unwrap();
    ask().await;
    assert_eq!((counts(), shown.pin()), ([2, 1, 5], pin(&newer)));
    assert_eq!(expiry(&registry), [END as f64], "the metric is that of the certificate that is shown");

    // One that is out of date may replace another that is.
    CLOCK.store(END + DAY, Ordering::Relaxed);
    let late = place.renew(|params| params.not_after = date_time_ymd(2025, 6, 1));
    ask().await;
    assert_eq!((counts(), shown.pin()), ([3, 1, 5], pin(&late)));
    task.abort();
}

#[test]
fn a_chain_has_an_end_for_each_certificate() {
    let (place, authority) = (CertificateFolder::new(), Authority::new());
    let key = KeyPair::generate().unwrap();
    let leaf = params(|_| {}).signed_by(&key, &authority.issuer).unwrap();
    place.write(&format!("{}{}", leaf.pem(), authority.intermediate_pem), &key);
    let registry = Registry::new();
    let shown = place.shown();
    register_expiry(&registry, shown.clone()).unwrap();
    let ends = expiry(&registry);
    assert_eq!((ends.len(), ends[0]), (2, END as f64));
    // The chain becomes shorter.
    place.renew(|_| {});
    assert_eq!(shown.reload(BEGIN + DAY, &mut Vec::new()), ReloadOutcome::Replaced);
    assert_eq!(expiry(&registry), [END as f64]);
    assert_eq!(shown.warnings(BEGIN + DAY), Vec::<String>::new());
    let [warning] = &shown.warnings(END - DAY)[..] else { panic!("a warning a day") };
    assert!(warning.ends_with("relay.crt expires on 2026-01-01, in 1 day: renew it"), "{warning}");
}
