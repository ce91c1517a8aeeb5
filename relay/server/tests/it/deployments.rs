//! Published deployments of derper, each translated as docs/moving-from-derper.md says: it starts with its admission.
//!
//! The command lines are those of images, units and modules that people publish, with other names. Where an image reads
//! variables, it is the line that it makes of them.

use std::os::unix::net::UnixListener;
use std::process::Command;

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

/// A published deployment.
struct Deployment {
    /// What it is of.
    of: &'static str,
    /// The command line of derper.
    derper: &'static str,
    /// The settings that it becomes, with free ports.
    settings: &'static str,
    /// The policies that these ask.
    asked: &'static str,
    /// What an unknown client meets while no backend answers.
    met: Met,
}

const DEPLOYMENTS: [Deployment; 11] = [
    Deployment {
        of: "a module of NixOS; HAProxy in front of it ends TLS",
        derper: "-a :3340 -http-port -1 -stun-port 3478 -hostname derp.example.com -verify-clients -home blank",
        settings: "listen = ''\nhttp.listen = '127.0.0.1:0'\nhttp.home = 'blank'\ntailscaled.socket = 'SOCKET'",
        asked: "tailscaled",
        met: Met::Refused,
    },
    Deployment {
        of: "an image, as it is unless told otherwise",
        derper: "--hostname=derp.example.com --certmode=letsencrypt --certdir=/app/certs --a=:443 --stun=true --stun-port=3478 \
                 --http-port=80 --verify-clients=false --verify-client-url=",
        settings: "listen = '127.0.0.1:0'\nhttp.redirect_listen = '127.0.0.1:0'\nadmission = 'open'",
        asked: "open",
        met: Met::Admitted,
    },
    Deployment {
        of: "an image that takes its certificate from Caddy's folder, beside Headscale",
        derper: "-hostname derp.example.com -certmode manual -certdir /caddy/certificates/derp.example.com -a [::]:8443 -stun \
                 -stun-port 34479 -verify-client-url http://127.0.0.1:9/verify -verify-client-url-fail-open=false",
        settings: "listen = '127.0.0.1:0'\nverify.url = 'http://127.0.0.1:9/verify'",
        asked: "verify_url",
        met: Met::Refused,
    },
    Deployment {
        of: "an image with a tailscaled of its own",
        derper: "-a :443 --hostname derp.example.com --certmode manual --certdir /cert --stun --verify-clients",
        settings: "listen = '127.0.0.1:0'\nhttp.redirect_listen = '127.0.0.1:0'\ntailscaled.socket = 'SOCKET'",
        asked: "tailscaled",
        met: Met::Refused,
    },
    Deployment {
        of: "a Compose file that gives an image the socket of the host's tailscaled",
        derper: "--hostname=derp.example.com --certmode=manual --certdir=/certs --a=:55557 --stun=true --stun-port=55555 \
                 --http-port=-1 --verify-clients=true --verify-client-url=",
        settings: "listen = '127.0.0.1:0'\ntailscaled.socket = 'SOCKET'",
        asked: "tailscaled",
        met: Met::Refused,
    },
    Deployment {
        of: "an image for hosts without a name",
        derper: "-hostname=127.0.0.1 -certmode=manual -certdir=/app/certs/ -stun=true -stun-port 3478 -a=:30443 \
                 -http-port=30080 -verify-clients=false",
        settings: "listen = '127.0.0.1:0'\nhttp.redirect_listen = '127.0.0.1:0'\nadmission = 'open'",
        asked: "open",
        met: Met::Admitted,
    },
    Deployment {
        of: "a module of NixOS that asks Headscale on another host",
        derper: "-a :8443 -http-port -1 -stun-port 3478 -c /var/lib/derper/derper.key -hostname derp.example.com -certmode manual \
                 -certdir /var/lib/derper/certs -verify-client-url https://localhost:9/verify -verify-client-url-fail-open=false",
        settings: "listen = '127.0.0.1:0'\nverify.url = 'https://localhost:9/verify'",
        asked: "verify_url",
        met: Met::Refused,
    },
    Deployment {
        of: "an image without root, which speaks plain HTTP on this port, and admits all while the URL does not answer",
        derper: "--hostname=derp.example.com --certmode=letsencrypt --certdir=/app/certs --a=:8443 --stun=true --stun-port=3478 \
                 --http-port=8080 --verify-clients=false --verify-client-url=http://127.0.0.1:9/verify",
        settings: "listen = ''\nhttp.listen = '127.0.0.1:0'\nverify.url = 'http://127.0.0.1:9/verify'\n\
                   confirm.unknown = 'admit'",
        asked: "verify_url",
        met: Met::Admitted,
    },
    Deployment {
        of: "an image, started by a script that sets up nginx in front of it to end TLS",
        derper: "--hostname=derp.example.com --certmode=letsencrypt --certdir=/app/certs --a=:12345 --stun=true --stun-port=3478 \
                 --http-port=80 --verify-clients=false --verify-client-url=",
        settings: "listen = ''\nhttp.listen = '127.0.0.1:0'\nadmission = 'open'",
        asked: "open",
        met: Met::Admitted,
    },
    Deployment {
        of: "an image that adds the URL only where tailscaled is asked as well, so that both must allow",
        derper: "--hostname=derp.example.com --certmode=manual --certdir=/app/certs --a=:443 --http-port=80 --stun --stun-port=3478 \
                 --verify-clients --verify-client-url=http://127.0.0.1:9/verify",
        settings: "listen = '127.0.0.1:0'\nhttp.redirect_listen = '127.0.0.1:0'\nrequire = ['tailscaled', 'verify_url']\n\
                   tailscaled.socket = 'SOCKET'\nverify.url = 'http://127.0.0.1:9/verify'",
        asked: "require: tailscaled verify_url",
        met: Met::Refused,
    },
    Deployment {
        of: "an image with ports of its own",
        derper: "-hostname 127.0.0.1 -a :22448 -stun -stun-port 22484 -certmode manual",
        settings: "listen = '127.0.0.1:0'\nadmission = 'open'",
        asked: "open",
        met: Met::Admitted,
    },
];

/// The policies that these settings ask.
fn policies(settings: &str) -> String {
    let text = format!("hostname = 'derp.example.com'\n{settings}");
    let (config, _) = Config::read(&Sources::new("UNSET").text("relay.toml", &text), false).expect(settings);
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
    for Deployment { of, settings, asked, met, .. } in DEPLOYMENTS {
        let settings = settings.replace("SOCKET", &socket.to_string_lossy());
        assert_eq!(policies(&settings), asked, "{of}");
        // A trial run has TLS in any case.
        let relay = Relay::start_at(&settings.replace("listen = ''", "listen = '127.0.0.1:0'"));
        let dialer = match relay.addresses.http {
            Some(plain) => Dialer::plain("localhost", plain.port()).at(plain),
            None => relay.dialer(),
        };
        let client = dialer.connect(&NodePrivate::from_random([1; 32])).await;
        let has_met = if client.is_ok() { Met::Admitted } else { Met::Refused };
        assert_eq!(has_met, met, "{of}");
    }
}

#[test]
fn the_command_line_of_a_published_deployment_is_answered_flag_by_flag() {
    for Deployment { of, derper, .. } in DEPLOYMENTS {
        let words: Vec<_> = derper.split(' ').collect();
        let run = Command::new(env!("CARGO_BIN_EXE_towpath-relay"))
            .args(&words)
            .output()
            .expect("the program runs");
        let said = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.code(), Some(2), "{of}: {said}");
        // The value of -http-port may be -1.
        for flag in words.iter().filter(|word| word.starts_with('-') && **word != "-1") {
            let name = flag.split('=').next().unwrap_or(flag);
            assert!(said.contains(&format!("  {name}: ")), "{of}, {name}: {said}");
        }
    }
}
