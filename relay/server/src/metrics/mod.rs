//! What the relay exports to Prometheus at scrape time: the numbers of the data plane and of the STUN server.
//!
//! Names and labels are derper's wherever the thing counted is the same, so that dashboards keep working; what derper
//! does not count begins with `towpath_`. Nothing here is on the path of a packet. What the control plane and the mesh count
//! is declared beside them.

mod families;
mod plane;
mod stun;

pub(crate) use plane::PlaneScrape;
pub(crate) use stun::StunScrape;
