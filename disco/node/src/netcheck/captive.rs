//! Whether a captive portal answers in place of a relay.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use towpath_wire::ports;

use crate::relay_map::{RelayMap, addresses};

/// How long the challenge may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest answer that is looked at.
const LONGEST: u64 = 4096;

/// Whether something else than the relay answers the challenge of a relay's port 80 (`derphttp.ServeNoContent`). `None` if no relay of
/// the map answers one, or none can be reached.
pub(super) async fn is_there(map: &RelayMap) -> Option<bool> {
    let nodes = map.regions().iter().flat_map(|region| &region.nodes);
    for node in nodes.filter(|node| node.can_port80) {
        let host = &node.host_name;
        let asked = async {
            let addresses = addresses(node, ports::HTTP).await.ok()?;
            let mut stream = TcpStream::connect(&addresses[..]).await.ok()?;
            let request = format!(
                "GET /generate_204 HTTP/1.1\r\nHost: {host}\r\nX-Tailscale-Challenge: ts_{host}\r\nConnection: close\r\n\r\n"
            );
            stream.write_all(request.as_bytes()).await.ok()?;
            let mut answer = Vec::new();
            stream.take(LONGEST).read_to_end(&mut answer).await.ok()?;
            Some(!is_of_relay(&String::from_utf8_lossy(&answer), host))
        };
        if let Ok(Some(is_there)) = timeout(PATIENCE, asked).await {
            return Some(is_there);
        }
    }
    None
}

fn is_of_relay(answer: &str, host: &str) -> bool {
    let mut lines = answer.lines();
    let is_empty = lines.next().and_then(|status| status.split(' ').nth(1)) == Some("204");
    let expected = format!("response ts_{host}");
    is_empty
        && lines.take_while(|line| !line.is_empty()).any(|line| {
            line.split_once(':').is_some_and(|(name, value)| {
                name.eq_ignore_ascii_case("x-tailscale-response") && value.trim() == expected
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_answer_to_the_challenge_is_of_a_relay() {
        let answer = "HTTP/1.1 204 No Content\r\nX-Tailscale-Response: response ts_a.example\r\n\r\n";
        assert!(is_of_relay(answer, "a.example"));
        assert!(!is_of_relay(answer, "b.example"));
        for portal in [
            "HTTP/1.1 302 Found\r\nLocation: http://portal/\r\n\r\n",
            "HTTP/1.1 204 No Content\r\n\r\nX-Tailscale-Response: response ts_a.example",
            "HTTP/1.1 200 OK\r\nX-Tailscale-Response: response ts_a.example\r\n\r\n",
            "",
        ] {
            assert!(!is_of_relay(portal, "a.example"), "{portal}");
        }
    }
}
