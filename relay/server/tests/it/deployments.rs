//! Published deployments of derper, each translated as docs/moving-from-derper.md says: it starts with its admission.
//!
//! The command lines are those of images, units and modules that people publish, with other names.

use std::os::unix::net::UnixListener;

use towpath_relay::config::Config;
use towpath_relay_client::Dialer;
use towpath_relay_proto::admission::PolicyName;
use towpath_service::config::Sources;
use towpath_wire::key::NodePrivate;

use crate::common::Relay;

/// What a client that is not known meets while the backend is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Met {
    Admitted,
    Refused,
}

/// A command line of derper (behind a proxy that ends TLS, `listen` would be off), the settings that it becomes, the policies that it asks, and what an unknown client
/// meets while no backend answers.
const DEPLOYMENTS: [(&str, &str, &str, Met); 11] = [
    (
        "-a :3340 -http-port -1 -stun-port 3478 -hostname H -verify-clients -home blank",
        "http.listen = '127.0.0.1:0'\nhttp.home = 'blank'\ntailscaled.socket = 'SOCKET'",
        "tailscaled",
        Met::Refused,
    ),
    (
        "-hostname H -certmode letsencrypt -certdir /app/certs -a :443 -stun -http-port 80 -verify-clients=false",
        "http.redirect_listen = '127.0.0.1:0'\nadmission = 'open'",
        "open",
        Met::Admitted,
    ),
    (
        "-hostname H -certmode manual -certdir /caddy/H -a [::]:8443 -stun -stun-port 34479 -verify-client-url U \
         -verify-client-url-fail-open=false",
        "verify.url = 'http://127.0.0.1:9/verify'",
        "verify_url",
        Met::Refused,
    ),
    (
        "-hostname=127.0.0.1 -certmode=manual -certdir=/app/certs -stun=true -a=:443 -http-port=80 -verify-clients=true",
        "http.redirect_listen = '127.0.0.1:0'\ntailscaled.socket = 'SOCKET'",
        "tailscaled",
        Met::Refused,
    ),
    (
        "-hostname H -certmode manual -certdir /certs -a :55557 -stun -stun-port 55555 -http-port -1 -verify-clients",
        "tailscaled.socket = 'SOCKET'",
        "tailscaled",
        Met::Refused,
    ),
    (
        "-hostname 127.0.0.1 -certmode manual -certdir /app/certs -a :30443 -http-port 30080 -verify-clients=false",
        "http.redirect_listen = '127.0.0.1:0'\nadmission = 'open'",
        "open",
        Met::Admitted,
    ),
    (
        "-c=/var/lib/derper/derper.key -hostname=H -http-port=-1 -verify-client-url=https://C/verify \
         -verify-client-url-fail-open=false",
        "verify.url = 'https://localhost:9/verify'",
        "verify_url",
        Met::Refused,
    ),
    (
        "-hostname=H -certmode=manual -certdir=/certs -a=:8443 -stun=true -stun-port=26060 -verify-client-url=U",
        "verify.url = 'http://127.0.0.1:9/verify'\nconfirm.unknown = 'admit'",
        "verify_url",
        Met::Admitted,
    ),
    (
        "-hostname H -a :12345 -verify-clients=false (nginx in front of it ends TLS)",
        "http.listen = '127.0.0.1:0'\nadmission = 'open'",
        "open",
        Met::Admitted,
    ),
    (
        "-hostname H -certmode manual -certdir D -a :443 -verify-clients -verify-client-url U (both must allow)",
        "require = ['tailscaled', 'verify_url']\ntailscaled.socket = 'SOCKET'\nverify.url = 'http://127.0.0.1:9/verify'",
        "require: tailscaled verify_url",
        Met::Refused,
    ),
    (
        "-hostname 127.0.0.1 -a :22448 -stun -stun-port 22484 -certmode manual",
        "admission = 'open'",
        "open",
        Met::Admitted,
    ),
];

/// The policies that these settings ask.
fn policies(settings: &str) -> String {
    let (config, _) =
        Config::read(&Sources::new("UNSET").text("relay.toml", settings), true).expect(settings);
    let order = config.admission.order;
    let labels = |names: &[PolicyName]| names.iter().map(|name| name.label()).collect::<Vec<_>>().join(" ");
    let separator = if order.require.is_empty() { "" } else { ": " };
    labels(&order.order) + separator + &labels(&order.require)
}

#[tokio::test(flavor = "multi_thread")]
async fn published_deployments_start_with_their_admission() {
    let folder = tempfile::tempdir().expect("a folder");
    // The socket of a tailscaled that has gone.
    let socket = folder.path().join("tailscaled.sock");
    drop(UnixListener::bind(&socket).expect("a socket"));
    for (derper, settings, asked, met) in DEPLOYMENTS {
        let settings = settings.replace("SOCKET", &socket.to_string_lossy());
        assert_eq!(policies(&settings), asked, "{derper}");
        let relay = Relay::start(&settings);
        let dialer = match relay.addresses.http {
            Some(plain) => Dialer::plain("localhost", plain.port()).at(plain),
            None => relay.dialer(),
        };
        let client = dialer.connect(&NodePrivate::from_random([1; 32])).await;
        let has_met = if client.is_ok() { Met::Admitted } else { Met::Refused };
        assert_eq!(has_met, met, "{derper}");
    }
}
