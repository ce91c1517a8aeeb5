//! What clients will make of the relay's certificate: its names, its dates, its chain.
//!
//! Clients verify a certificate by the roots of their system, or, where the DERP map pins it, by its hash; in both cases it
//! must be for the name that they dial, and valid at that time. A relay with a certificate that no client accepts looks
//! healthy from its own side, so the relay judges it first.

use std::fmt;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use time::OffsetDateTime;
use towpath_relay_client::{Validity, plain_name};
use towpath_service::Visible;

const DAY: i64 = 24 * 60 * 60;
/// How long before its end a certificate is warned of. Certificates of Let's Encrypt are renewed 30 days before it, so that a
/// renewal which fails is noticed in its second week.
const NOTICE: i64 = 21 * DAY;
/// The part of its life, one in so many, in which a certificate is warned of where that is shorter: some live for six days.
const NOTICE_PART: i64 = 3;
/// Names that a message repeats.
const NAMES_SHOWN: usize = 5;

/// Something that clients will not like about a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Objection {
    /// No subjectAltName: clients do not look at the common name.
    NoNames,
    /// Every name is another one.
    OtherNames(Vec<String>),
    /// The dates cannot be read, so that no client can either.
    NoDates(usize),
    /// The time is over.
    Expired { place: usize, not_after: i64 },
    /// The time has not begun.
    NotYetValid { place: usize, not_before: i64 },
    /// The time is about to be over.
    ExpiresSoon { place: usize, not_after: i64, days: i64 },
    /// Another certificate has signed it, which does not come with it.
    Alone,
    /// The certificates behind it are not those that lead to its issuer.
    Gap,
    /// It is self-signed, and others come with it, which clients that pin it do not accept.
    NotAlone,
    /// The chain does not verify, for this reason.
    Chain(String),
}

impl Objection {
    /// Whether the relay refuses such a certificate unless `tls.check_name` is off.
    pub(crate) const fn is_about_names(&self) -> bool {
        matches!(self, Self::NoNames | Self::OtherNames(_))
    }

    /// Whether clients refuse the certificate at this time only.
    pub(crate) const fn is_out_of_date(&self) -> bool {
        matches!(self, Self::Expired { .. } | Self::NotYetValid { .. })
    }
}

/// An objection to a certificate that is for `hostname`, as the rest of a sentence that begins with the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told<'a> {
    pub(crate) objection: &'a Objection,
    pub(crate) hostname: &'a str,
}

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hostname = self.hostname;
        match self.objection {
            Objection::NoNames => write!(
                f,
                "has no subject alternative name, and clients do not look at the common name: make a certificate with the \
                 name {hostname} (openssl req … -addext subjectAltName={kind}:{hostname})",
                kind = if hostname.parse::<std::net::IpAddr>().is_ok() { "IP" } else { "DNS" }
            ),
            Objection::OtherNames(names) if names.iter().any(|name| name == hostname) => write!(
                f,
                "has the address {hostname} as a DNS name, so that clients refuse it: it needs subjectAltName=IP:{hostname}"
            ),
            Objection::OtherNames(names) => write!(
                f,
                "is not for {hostname}, so that clients refuse it; it is for {}",
                Names(names)
            ),
            Objection::NoDates(place) => write!(f, "{}has no dates that can be read", InChain(*place)),
            Objection::Expired { place, not_after } => {
                write!(f, "{}has expired on {}: clients refuse it; renew it", InChain(*place), Date(*not_after))
            }
            Objection::NotYetValid { place, not_before } => write!(
                f,
                "{}is not valid before {}: clients refuse it; check the clock of this host and the certificate",
                InChain(*place),
                Date(*not_before)
            ),
            Objection::ExpiresSoon { place, not_after, days } => write!(
                f,
                "{}expires on {}, in {days} {}: renew it",
                InChain(*place),
                Date(*not_after),
                if *days == 1 { "day" } else { "days" }
            ),
            Objection::Alone => f.write_str(
                "is not self-signed and alone: use the full chain (fullchain.pem of an ACME client), since clients that do \
                 not know its issuer refuse it",
            ),
            Objection::Gap => f.write_str(
                "comes with other certificates, and none of them is its issuer's: use the full chain (fullchain.pem of an \
                 ACME client)",
            ),
            Objection::NotAlone => f.write_str(
                "is self-signed, and other certificates follow it: clients that pin it refuse them; remove them",
            ),
            Objection::Chain(reason) => write!(f, "does not verify by its chain: {reason}"),
        }
    }
}

/// The subject of an objection, where it is not the relay's own certificate.
struct InChain(usize);

impl fmt::Display for InChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            place => write!(f, "(certificate {} of the chain) ", place + 1),
        }
    }
}

/// A date in UTC.
struct Date(i64);

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match OffsetDateTime::from_unix_timestamp(self.0) {
            Ok(time) => write!(f, "{}", time.date()),
            Err(_) => write!(f, "Unix time {}", self.0),
        }
    }
}

/// Names of a certificate, the first few of them.
struct Names<'a>(&'a [String]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in self.0.iter().take(NAMES_SHOWN).enumerate() {
            write!(f, "{}{}", if index == 0 { "" } else { ", " }, Visible(name))?;
        }
        match self.0.len().saturating_sub(NAMES_SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// Judges a chain that parses, at this time in seconds since 1970.
pub(crate) fn judge(chain: &[CertificateDer<'_>], hostname: &str, now: i64) -> Vec<Objection> {
    let mut objections = Vec::new();
    objections.extend(name(chain, hostname));
    for (place, certificate) in chain.iter().enumerate() {
        match Validity::of(certificate) {
            Some(validity) => objections.extend(date(place, validity, now)),
            None => objections.push(Objection::NoDates(place)),
        }
    }
    objections.extend(issuers(chain, now));
    objections
}

/// The dates of a chain, for metrics: the last second of each certificate.
pub(crate) fn ends(chain: &[CertificateDer<'_>]) -> Vec<i64> {
    chain.iter().filter_map(|certificate| Some(Validity::of(certificate)?.not_after)).collect()
}

/// Whether the first of `chain` is self-signed.
pub(crate) fn is_self_signed(chain: &[CertificateDer<'_>]) -> bool {
    let leaf = chain.first().and_then(|leaf| webpki::EndEntityCert::try_from(leaf).ok());
    leaf.is_some_and(|leaf| leaf.issuer() == leaf.subject())
}

fn name(chain: &[CertificateDer<'_>], hostname: &str) -> Option<Objection> {
    let leaf = webpki::EndEntityCert::try_from(chain.first()?).ok()?;
    let name = ServerName::try_from(hostname).ok()?;
    match leaf.verify_is_valid_for_subject_name(&name) {
        Ok(()) => None,
        Err(webpki::Error::CertNotValidForName(context)) if !context.presented.is_empty() => Some(
            Objection::OtherNames(context.presented.iter().map(|name| plain_name(name).to_owned()).collect()),
        ),
        Err(_) => Some(Objection::NoNames),
    }
}

fn date(place: usize, Validity { not_before, not_after }: Validity, now: i64) -> Option<Objection> {
    let notice = NOTICE.min((not_after - not_before) / NOTICE_PART);
    let left = not_after - now;
    if left < 0 {
        Some(Objection::Expired { place, not_after })
    } else if now < not_before {
        Some(Objection::NotYetValid { place, not_before })
    } else if left < notice {
        Some(Objection::ExpiresSoon { place, not_after, days: left / DAY })
    } else {
        None
    }
}

/// Judges whether the certificates of a chain lead from one to the next. Which root they lead to is the clients' business.
fn issuers(chain: &[CertificateDer<'_>], now: i64) -> Option<Objection> {
    let (leaf, others) = chain.split_first()?;
    let parsed = webpki::EndEntityCert::try_from(leaf).ok()?;
    if parsed.issuer() == parsed.subject() {
        return (!others.is_empty()).then_some(Objection::NotAlone);
    }
    if others.is_empty() {
        return Some(Objection::Alone);
    }
    let is_issuer = |other: &CertificateDer<'_>| {
        webpki::EndEntityCert::try_from(other).is_ok_and(|other| other.subject() == parsed.issuer())
    };
    if !others.iter().any(is_issuer) {
        return Some(Objection::Gap);
    }
    let anchors: Vec<_> =
        others.iter().filter_map(|other| webpki::anchor_from_trusted_cert(other).ok()).collect();
    let verified = parsed.verify_for_usage(
        aws_lc_rs::default_provider().signature_verification_algorithms.all,
        &anchors,
        others,
        UnixTime::since_unix_epoch(std::time::Duration::from_secs(now.try_into().ok()?)),
        webpki::KeyUsage::server_auth(),
        None,
        None,
    );
    match verified {
        Ok(_) => None,
        // Dates are objections of their own. A certificate that may sign others is one that Go's clients accept.
        Err(
            webpki::Error::CertExpired { .. }
            | webpki::Error::CertNotValidYet { .. }
            | webpki::Error::CaUsedAsEndEntity,
        ) => None,
        Err(webpki::Error::RequiredEkuNotFoundContext(_)) => {
            Some(Objection::Chain("its extended key usage is not that of servers".into()))
        }
        Err(
            webpki::Error::InvalidSignatureForPublicKey
            | webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_),
        ) => Some(Objection::Chain(
            "the certificates behind it are of another issuer with the same name".into(),
        )),
        Err(webpki::Error::UnsupportedSignatureAlgorithmContext(_)) => {
            Some(Objection::Chain("it is signed by an algorithm that is too weak or not known".into()))
        }
        Err(error) => Some(Objection::Chain(format!("{error:?}"))),
    }
}
