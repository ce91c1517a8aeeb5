//! What the relay exports to Prometheus at scrape time: the numbers of the data plane and of the STUN server.
//!
//! Names and labels are derper's if the thing counted is the same, so that dashboards keep working. Other names begin
//! with `towpath_`. Nothing here is on the path of a packet. The metrics of the control plane and of the mesh are
//! declared beside them.

mod plane;
mod stun;

pub(crate) use plane::PlaneScrape;
pub(crate) use stun::StunScrape;
