//! A device in the LAN that answers searches for a UPnP gateway and is none.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use towpath_lab::Namespace;

/// The group and the port of SSDP.
const SSDP: (Ipv4Addr, u16) = (Ipv4Addr::new(239, 255, 255, 250), 1900);

/// Answers searches with the address of a description that it serves itself: a whole gateway with one action.
#[derive(Debug)]
pub struct Impostor {
    searches: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Impostor {
    /// Starts in the namespace of a host with an address. Where its answers say that the description is: at `described`. Its threads end
    /// with the process.
    pub fn start(namespace: &Namespace, own: IpAddr, described: IpAddr) -> Self {
        let (searches, requests) = (Arc::default(), Arc::default());
        let impostor = Self { searches, requests };
        let IpAddr::V4(interface) = own else { panic!("{own} is not of IPv4") };
        let (http, ssdp) = namespace.run(|| {
            let ssdp = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, SSDP.1)).expect("the port of SSDP");
            ssdp.join_multicast_v4(&SSDP.0, &interface).expect("the group of SSDP");
            (TcpListener::bind((own, 0)).expect("a port"), ssdp)
        });
        let location = SocketAddr::new(described, http.local_addr().expect("an address").port());
        let searches = impostor.searches.clone();
        thread::spawn(move || answer_searches(&ssdp, location, &searches));
        let requests = impostor.requests.clone();
        thread::spawn(move || serve(&http, &requests));
        impostor
    }

    /// How many searches it has answered.
    pub fn searches(&self) -> usize {
        self.searches.load(Ordering::Relaxed)
    }

    /// The first lines of the requests of HTTP that have come.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn answer_searches(ssdp: &UdpSocket, location: SocketAddr, searches: &AtomicUsize) {
    let mut search = [0; 1500];
    while let Ok((_, from)) = ssdp.recv_from(&mut search) {
        let answer = format!(
            "HTTP/1.1 200 OK\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n\
             LOCATION: http://{location}/description.xml\r\n\r\n"
        );
        searches.fetch_add(1, Ordering::Relaxed);
        // The host that has searched may have gone.
        _ = ssdp.send_to(answer.as_bytes(), from);
    }
}

const DESCRIPTION: &str = "<root><device><serviceList><service>\
 <serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>\
 <SCPDURL>/actions.xml</SCPDURL><controlURL>/control</controlURL>\
 </service></serviceList></device></root>";
const ACTIONS: &str = "<scpd><actionList><action><name>AddPortMapping</name><argumentList><argument>\
 <name>NewExternalPort</name><direction>in</direction></argument></argumentList></action></actionList></scpd>";
/// The answer to every action.
const DONE: &str = "<Envelope><Body><GetExternalIPAddressResponse><NewExternalIPAddress>9.9.9.9</NewExternalIPAddress>\
 </GetExternalIPAddressResponse><AddPortMappingResponse/></Body></Envelope>";

fn serve(http: &TcpListener, requests: &Mutex<Vec<String>>) {
    for stream in http.incoming() {
        let Ok(mut stream) = stream else { return };
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a time");
        let mut reader = BufReader::new(&mut stream);
        let mut request = String::new();
        if reader.read_line(&mut request).is_err() {
            continue;
        }
        let (mut line, mut length) = (String::new(), 0);
        while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
            if let Some(said) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = said.trim().parse().unwrap_or_default();
            }
            line.clear();
        }
        _ = reader.read_exact(&mut vec![0; length]);
        let body = match request.split(' ').nth(1) {
            Some("/description.xml") => DESCRIPTION,
            Some("/actions.xml") => ACTIONS,
            _ => DONE,
        };
        requests.lock().unwrap_or_else(PoisonError::into_inner).push(request.trim_end().to_owned());
        // The host that has asked may have gone.
        _ = write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
    }
}
