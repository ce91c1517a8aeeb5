//! The certificate as TLS shows it, and how another one takes its place.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGaugeVec, Opts, Registry};
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use towpath_service::{ErrorChain, visible_path};
use towpath_wire::pin::CertificatePin;

use super::judge::{self, Objection};
use super::pair::{Certificate, Expected};
use crate::config::CertFiles;
use crate::reload::ReloadOutcome;

/// The certificate that new connections are shown.
pub(crate) struct ShownCertificate {
    /// Behind the chain of the file: the relay's key, for clients.
    meta: CertificateDer<'static>,
    /// `None` for one that is in no file.
    files: Option<CertFiles>,
    expected: Expected,
    current: RwLock<Current>,
}

/// A certificate in two forms.
#[derive(Clone)]
struct Current {
    certificate: Arc<Certificate>,
    certified: Arc<CertifiedKey>,
}

impl fmt::Debug for ShownCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShownCertificate").field("files", &self.files).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for ShownCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current().certified)
    }
}

impl ShownCertificate {
    /// # Errors
    ///
    /// The error of rustls if it cannot use the pair.
    pub(crate) fn new(
        certificate: Certificate,
        files: Option<CertFiles>,
        expected: Expected,
        meta: CertificateDer<'static>,
    ) -> Result<Self, rustls::Error> {
        let current = RwLock::new(Current::of(certificate, &meta)?);
        Ok(Self { meta, files, expected, current })
    }

    /// The files, if there are any.
    pub(super) const fn files(&self) -> Option<&CertFiles> {
        self.files.as_ref()
    }

    /// The pin of what is shown, if it is self-signed.
    pub(crate) fn pin(&self) -> Option<CertificatePin> {
        self.current().certificate.pin()
    }

    fn current(&self) -> Current {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What clients do not like about the certificate at this time, as lines of a log.
    pub(super) fn warnings(&self, now: i64) -> Vec<String> {
        let current = self.current();
        let objections = judge::judge(&current.certificate.chain, &self.expected.hostname, now);
        objections.iter().map(|objection| self.told(objection)).collect()
    }

    fn told(&self, objection: &Objection) -> String {
        let path = self.files.as_ref().map_or_else(
            || "the certificate of this run".into(),
            |CertFiles { cert, .. }| visible_path(cert),
        );
        format!("{path} {}", judge::Told { objection, hostname: &self.expected.hostname })
    }

    /// Reads the files again, and shows what is in them from now on if clients accept it. `said` gets the lines that an
    /// operator should read.
    pub(super) fn reload(&self, now: i64, said: &mut Vec<String>) -> ReloadOutcome {
        let Some(files) = &self.files else { return ReloadOutcome::Unchanged };
        let read = Certificate::read(files, said).map_err(|faults| {
            faults.iter().map(|fault| ErrorChain(&fault.error).to_string()).collect::<Vec<_>>().join("; ")
        });
        match read.and_then(|certificate| self.replace(certificate, &files.cert, now, said)) {
            Ok(outcome) => outcome,
            Err(reason) => {
                said.push(reason);
                ReloadOutcome::Refused
            }
        }
    }

    fn replace(
        &self,
        certificate: Certificate,
        path: &Path,
        now: i64,
        said: &mut Vec<String>,
    ) -> Result<ReloadOutcome, String> {
        certificate.judge(path, &self.expected, now, said).map_err(|error| ErrorChain(&error).to_string())?;
        let shown = self.current();
        if certificate.chain == shown.certificate.chain {
            return Ok(ReloadOutcome::Unchanged);
        }
        // One that is out of date is better than another that is.
        let out_of_date = |certificate: &Certificate| {
            let objections = judge::judge(&certificate.chain, &self.expected.hostname, now);
            objections.into_iter().find(Objection::is_out_of_date)
        };
        if let (Some(objection), None) = (out_of_date(&certificate), out_of_date(&shown.certificate)) {
            return Err(self.told(&objection));
        }
        let current = Current::of(certificate, &self.meta).map_err(|error| ErrorChain(&error).to_string())?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = current;
        Ok(ReloadOutcome::Replaced)
    }
}

impl Current {
    fn of(certificate: Certificate, meta: &CertificateDer<'static>) -> Result<Self, rustls::Error> {
        let certified = Arc::new(certificate.certified(std::slice::from_ref(meta))?);
        Ok(Self { certificate: Arc::new(certificate), certified })
    }
}

/// Registers the metric of the ends of the certificates that `shown` has.
pub(crate) fn register_expiry(registry: &Registry, shown: Arc<ShownCertificate>) -> prometheus::Result<()> {
    registry.register(Box::new(ExpiryScrape::new(shown)?))
}

/// Reads the dates of the shown certificate when Prometheus asks.
struct ExpiryScrape {
    shown: Arc<ShownCertificate>,
    ends: IntGaugeVec,
}

impl ExpiryScrape {
    fn new(shown: Arc<ShownCertificate>) -> prometheus::Result<Self> {
        let opts = Opts::new(
            "towpath_certificate_expires_seconds",
            "Time at which a certificate that the relay shows stops being valid, in seconds since 1970; `place` is 0 for its \
             own and counts on through its chain",
        );
        Ok(Self { shown, ends: IntGaugeVec::new(opts, &["place"])? })
    }
}

impl Collector for ExpiryScrape {
    fn desc(&self) -> Vec<&Desc> {
        self.ends.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let current = self.shown.current();
        // The chain may be shorter than at the last scrape.
        self.ends.reset();
        for (place, end) in judge::ends(&current.certificate.chain).into_iter().enumerate() {
            self.ends.with_label_values(&[place.to_string()]).set(end);
        }
        self.ends.collect()
    }
}
