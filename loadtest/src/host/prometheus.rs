//! The server's own metrics, in the text format of Prometheus.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};

const TIMEOUT: Duration = Duration::from_secs(5);
/// More bytes than the metrics of a server without a mesh have.
const MAX_LEN: u64 = 16 << 20;

/// The values of metrics, by name with labels.
pub(crate) type MetricSamples = BTreeMap<String, f64>;

/// Fetches the metrics at `url`, which is `http://HOST:PORT/PATH`.
pub(crate) fn fetch(url: &str) -> Result<MetricSamples> {
    let rest =
        url.strip_prefix("http://").context("the URL of the metrics must begin with http:// (--metrics)")?;
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let path = if path.is_empty() { "/" } else { path };
    let mut stream = TcpStream::connect(host).with_context(|| format!("connecting to {host}"))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    // In HTTP/1.0 the response ends with the connection.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
    let mut response = String::new();
    stream.take(MAX_LEN).read_to_string(&mut response).with_context(|| format!("reading {url}"))?;
    let (head, body) =
        response.split_once("\r\n\r\n").with_context(|| format!("{url} did not answer with HTTP"))?;
    match head.lines().next().and_then(|line| line.split(' ').nth(1)) {
        Some("200") => Ok(parse(body)),
        _ => bail!("{url}: {}", head.lines().next().unwrap_or_default()),
    }
}

/// The metrics of dropped packets, not bytes, that rose between two fetches, and by how much.
pub(crate) fn drops(before: &MetricSamples, after: &MetricSamples) -> MetricSamples {
    let new = after.iter().map(|(name, value)| (name, value - before.get(name).copied().unwrap_or(0.0)));
    new.filter(|(name, count)| name.contains("drop") && !name.contains("bytes") && *count > 0.0)
        .map(|(name, count)| (name.clone(), count))
        .collect()
}

fn parse(text: &str) -> MetricSamples {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    // Labels may contain spaces, the value does not. Timestamps are not supported.
    lines
        .filter_map(|line| line.rsplit_once(' '))
        .filter_map(|(name, value)| Some((name.trim().to_owned(), value.parse().ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    const BEFORE: &str =
        "# HELP x Drops\n# TYPE x counter\nx_dropped{reason=\"queue full\"} 5\nx_dropped 1\nx_sent 7\n";
    const AFTER: &str = "x_dropped{reason=\"queue full\"} 105\nx_dropped{reason=\"gone\"} 3\nx_dropped 1\nx_sent 9\nx_bytes_dropped 8\n";

    #[test]
    fn risen_drop_counters_are_listed_by_reason() {
        let drops = drops(&parse(BEFORE), &parse(AFTER));
        let drops: Vec<_> = drops.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        assert_eq!(drops, [("x_dropped{reason=\"gone\"}", 3.0), ("x_dropped{reason=\"queue full\"}", 100.0)]);
    }

    #[test]
    fn metrics_are_fetched() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            for status in ["200 OK", "404 Not Found"] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    request.extend(byte);
                }
                assert!(request.starts_with(b"GET /metrics?x HTTP/1.0\r\n"));
                write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\n\r\n{AFTER}").unwrap();
            }
        });
        let url = format!("http://{host}/metrics?x");
        assert_eq!(fetch(&url).unwrap(), parse(AFTER));
        assert!(fetch(&url).unwrap_err().to_string().contains("404"));
        assert!(fetch("https://localhost/").is_err());
        server.join().unwrap();
    }
}
