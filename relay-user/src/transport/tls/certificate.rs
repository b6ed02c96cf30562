//! Reads a certificate and checks whether it can serve, before the first client sees it.

use std::fmt;
use std::net::IpAddr;

use anyhow::{Context, bail};
use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use time::{Duration, OffsetDateTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::files::{Certificate, CertificatePaths};

/// A certificate that expires within this time causes a warning.
const SOON: Duration = Duration::days(14);

/// Facts about the served certificate, for the operator.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The certificate's files.
    pub files: CertificatePaths,
    /// Host names and addresses that the certificate is for.
    pub names: Vec<String>,
    /// Start of the validity.
    pub not_before: OffsetDateTime,
    /// End of the validity.
    pub not_after: OffsetDateTime,
    /// `sha256-raw:` and the SHA-256 of the leaf in hex: the form in which a DERP map's `CertName` pins it.
    pub pin: String,
    /// Whether clients can and should pin the certificate: it is the only one in its chain, and no authority
    /// that clients know has signed it.
    pub pinned: bool,
}

/// Whether clients accept a certificate on a given date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// Clients accept it.
    Valid,
    /// Clients accept it, but for 14 days at most.
    ExpiresSoon,
    /// Clients no longer accept it.
    Expired,
    /// Clients do not accept it yet.
    NotYetValid,
}

impl fmt::Display for Validity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Valid => "valid",
            Self::ExpiresSoon => "expires soon",
            Self::Expired => "expired",
            Self::NotYetValid => "not yet valid",
        })
    }
}

impl Facts {
    /// Reads the leaf and checks that it is for `hostname`. As in derper, its dates are not checked: clients
    /// that ignore them go on working.
    ///
    /// # Errors
    /// The message names the file and the remedy.
    pub fn of(certificate: &Certificate, hostname: &str) -> anyhow::Result<Self> {
        let crt = certificate.files.crt.display();
        let leaf = certificate.chain.first().context("a certificate without a leaf")?;
        let unreadable = || format!("{crt} holds no X.509 certificate (-certdir, -hostname); replace it");
        let (_, parsed) = X509Certificate::from_der(leaf).with_context(unreadable)?;
        let names = names(&parsed);
        if !is_for(leaf, hostname).with_context(unreadable)? {
            let listed = if names.is_empty() {
                "nobody (a common name alone does not count)".to_owned()
            } else {
                names.join(", ")
            };
            bail!(
                "the certificate {crt} is for {listed}, not for -hostname {hostname}; give -hostname a name \
                 that it is for, or put a certificate for {hostname} there, first in the file"
            );
        }
        let self_signed = parsed.issuer() == parsed.subject();
        let is_alone = certificate.chain.len() == 1;
        Ok(Self {
            files: certificate.files.clone(),
            names,
            not_before: parsed.validity().not_before.to_datetime(),
            not_after: parsed.validity().not_after.to_datetime(),
            pin: format!("sha256-raw:{}", fingerprint(leaf)),
            // Clients refuse a pinned certificate that comes with others.
            pinned: is_alone && (self_signed || hostname.parse::<IpAddr>().is_ok()),
        })
    }

    /// The validity at a given time.
    pub fn state(&self, now: OffsetDateTime) -> Validity {
        if now > self.not_after {
            Validity::Expired
        } else if now < self.not_before {
            Validity::NotYetValid
        } else if self.not_after - now <= SOON {
            Validity::ExpiresSoon
        } else {
            Validity::Valid
        }
    }

    /// Whole days until the certificate expires; negative after that.
    pub fn days_left(&self, now: OffsetDateTime) -> i64 {
        (self.not_after - now).whole_seconds().div_euclid(Duration::DAY.whole_seconds())
    }

    /// Logs the validity if the operator must act.
    pub fn report(&self, now: OffsetDateTime) {
        let (crt, end, days) = (self.files.crt.display(), self.not_after.date(), self.days_left(now));
        let is_made_here = self.names.iter().all(|name| name.parse::<IpAddr>().is_ok());
        let remedy = match (self.pinned, is_made_here) {
            (true, true) => {
                "move it and its key away, restart relayd, and give the DERP map the new CertName"
            }
            (true, false) => "put a new one there, restart relayd, and give the DERP map the new CertName",
            (false, _) => "renew it, and restart relayd",
        };
        match self.state(now) {
            Validity::Valid => {}
            Validity::ExpiresSoon => {
                tracing::warn!("the certificate {crt} ends in {days} days, on {end}: {remedy}")
            }
            Validity::Expired => {
                tracing::error!("the certificate {crt} has ended on {end}; clients refuse it: {remedy}")
            }
            Validity::NotYetValid => tracing::error!(
                "the certificate {crt} begins only on {}; clients refuse it until then: is the clock right?",
                self.not_before.date()
            ),
        }
    }
}

/// Follows Go's `VerifyHostname`: only the subject alternative names count, and an address must be listed as
/// an address.
fn is_for(leaf: &CertificateDer<'_>, hostname: &str) -> Result<bool, rustls::Error> {
    let parsed = ParsedCertificate::try_from(leaf)?;
    Ok(ServerName::try_from(hostname).is_ok_and(|name| verify_server_name(&parsed, &name).is_ok()))
}

fn names(parsed: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = parsed.subject_alternative_name() else { return Vec::new() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|ip| IpAddr::from(ip).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|ip| IpAddr::from(ip).to_string()),
        },
        _ => None,
    };
    extension.value.general_names.iter().filter_map(name).collect()
}

fn fingerprint(leaf: &CertificateDer<'_>) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, leaf);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use rustls::pki_types::PrivateKeyDer;

    use super::*;

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn certificate(names: &[&str]) -> Certificate {
        let key = KeyPair::generate().expect("key");
        let names: Vec<_> = names.iter().map(|name| name.to_string()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        (params.not_before, params.not_after) = (NOW, NOW + Duration::days(100));
        let crt = params.self_signed(&key).expect("signed");
        Certificate {
            chain: vec![crt.der().clone()],
            key: PrivateKeyDer::try_from(key.serialize_der()).expect("key"),
            files: CertificatePaths::new("/certs".as_ref(), "relay.example"),
            fresh: false,
            unfinished: None,
        }
    }

    #[test]
    fn a_certificate_is_for_its_names_alone() {
        let made = certificate(&["relay.example", "*.wild.example", "192.0.2.1", "2001:db8::1"]);
        for name in ["relay.example", "RELAY.example", "a.wild.example", "192.0.2.1", "2001:db8::1"] {
            let facts = Facts::of(&made, name).expect(name);
            assert_eq!(facts.names, ["relay.example", "*.wild.example", "192.0.2.1", "2001:db8::1"]);
        }
        for name in ["other.example", "wild.example", "a.b.wild.example", "192.0.2.2", ""] {
            let error = Facts::of(&made, name).expect_err(name).to_string();
            assert!(error.contains("/certs/relay.example.crt") && error.contains("-hostname"), "{error}");
        }
        let error = Facts::of(&certificate(&[]), "relay.example").expect_err("nobody").to_string();
        assert!(error.contains("common name"), "{error}");
    }

    #[test]
    fn its_state_follows_its_dates() {
        let facts = Facts::of(&certificate(&["relay.example"]), "relay.example").expect("for it");
        let at = |days| NOW + Duration::days(days);
        assert_eq!((facts.state(at(-1)), facts.days_left(at(-1))), (Validity::NotYetValid, 101));
        assert_eq!(facts.state(at(0)), Validity::Valid);
        assert_eq!(facts.state(at(85)), Validity::Valid);
        assert_eq!((facts.state(at(86)), facts.days_left(at(86))), (Validity::ExpiresSoon, 14));
        assert_eq!(facts.state(at(100)), Validity::ExpiresSoon);
        assert_eq!((facts.state(at(101)), facts.days_left(at(101))), (Validity::Expired, -1));
        assert_eq!(facts.days_left(at(100) + Duration::SECOND), -1);
    }

    #[test]
    fn only_a_lone_certificate_is_pinned() {
        let mut made = certificate(&["relay.example", "192.0.2.1"]);
        assert!(Facts::of(&made, "relay.example").expect("for it").pinned, "self-signed");
        made.chain.push(made.chain[0].clone());
        assert!(!Facts::of(&made, "192.0.2.1").expect("for it").pinned, "clients refuse a second one");
    }
}
