//! The text that `--dev` prints once the relay runs: everything that is needed to try it, ready to paste.

use std::net::SocketAddr;

use towpath_relay::config::Config;
use towpath_relay::derpmap::Advertised;
use towpath_wire::host::bracketed;
use towpath_wire::key::NodePublic;
use towpath_wire::ports;

/// A running relay in development mode.
#[derive(Debug)]
pub(super) struct Trial<'a> {
    pub(super) config: &'a Config,
    /// The advertised addresses: those that were bound, and the pin of the certificate that was made.
    pub(super) advertised: Advertised,
    pub(super) admin: Option<SocketAddr>,
    pub(super) node_public: NodePublic,
}

impl Trial<'_> {
    pub(super) fn to_text(&self) -> String {
        let Self { config, advertised, node_public, .. } = self;
        let map = advertised.derp_map(config);
        let stun: Vec<_> = advertised.stun.iter().map(SocketAddr::to_string).collect();
        let stun = if stun.is_empty() { "off".into() } else { stun.join(", ") };
        let admin = self.admin.map_or_else(|| "off".into(), |address| format!("http://{address}"));
        let metrics =
            self.admin.map(|address| format!("\n  curl http://{address}/metrics")).unwrap_or_default();
        let relay = format!(
            "https://{}:{}",
            bracketed(&config.hostname),
            advertised.listen.map_or(ports::HTTPS, |listen| listen.port())
        );
        let json = map.to_json();
        let yaml = map.to_headscale_yaml();
        let region = config.region.id;
        format!(
            "\
Development mode: only this machine can connect; the key and certificate are discarded on exit.

  relay  {relay}
  STUN   {stun}
  admin  {admin}
  key    {node_public}

DERP map for Tailscale clients, JSON:

{json}
DERP map for Headscale, YAML. Save it as derp.yaml and name it in config.yaml:
  derp: {{ urls: [], paths: [derp.yaml] }}

{yaml}
Try next:

  curl -k {relay}/derp/probe{metrics}

and with a Tailscale client on this machine, once its control server has the map:

  tailscale netcheck
  tailscale debug derp {region}
"
        )
    }
}

#[cfg(test)]
mod tests {
    use towpath_service::config::Sources;
    use towpath_wire::pin::CertificatePin;

    use super::*;

    #[test]
    fn text_is_complete() {
        let (config, _) = Config::read(&Sources::new("TOWPATH"), true).expect("a trial needs no settings");
        let mut advertised = Advertised::of(&config);
        advertised.certificate_pin = Some(CertificatePin::from_sha256([0xab; 32]));
        let trial = Trial {
            config: &config,
            advertised,
            admin: config.admin.listen,
            node_public: NodePublic::from_bytes([7; 32]),
        };
        let expected = r#"Development mode: only this machine can connect; the key and certificate are discarded on exit.

  relay  https://localhost:3340
  STUN   127.0.0.1:3478
  admin  http://127.0.0.1:9090
  key    nodekey:0707070707070707070707070707070707070707070707070707070707070707

DERP map for Tailscale clients, JSON:

{
  "Regions": {
    "900": {
      "RegionID": 900,
      "RegionCode": "towpath",
      "RegionName": "Towpath",
      "Nodes": [
        {
          "Name": "900a",
          "RegionID": 900,
          "HostName": "localhost",
          "CertName": "sha256-raw:abababababababababababababababababababababababababababababababab",
          "IPv4": "127.0.0.1",
          "IPv6": "none",
          "DERPPort": 3340
        }
      ]
    }
  }
}

DERP map for Headscale, YAML. Save it as derp.yaml and name it in config.yaml:
  derp: { urls: [], paths: [derp.yaml] }

regions:
  900:
    regionid: 900
    regioncode: "towpath"
    regionname: "Towpath"
    nodes:
      - name: "900a"
        regionid: 900
        hostname: "localhost"
        certname: "sha256-raw:abababababababababababababababababababababababababababababababab"
        ipv4: "127.0.0.1"
        ipv6: "none"
        derpport: 3340

Try next:

  curl -k https://localhost:3340/derp/probe
  curl http://127.0.0.1:9090/metrics

and with a Tailscale client on this machine, once its control server has the map:

  tailscale netcheck
  tailscale debug derp 900
"#;
        assert_eq!(trial.to_text(), expected);
    }
}
