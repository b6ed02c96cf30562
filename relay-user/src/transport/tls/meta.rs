//! The meta certificate holds the relay's DERP key. A TLS 1.3 client sees it before it sends its first byte.
//!
//! A client that finds it sends request and ClientInfo at once and waits for no answer ("fast start"). The
//! certificate must parse with Go's x509 and carry basic constraints, but neither key identifier. The
//! handshake gives authenticity.

use anyhow::Context;
use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, DnValue, KeyPair, PKCS_ED25519,
    SerialNumber,
};
use relay_common::derp::PROTOCOL_VERSION;
use relay_common::key::NodePublic;
use rustls::pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};

/// The certificate is valid this long before and after the daemon's start.
const VALIDITY: Duration = Duration::days(30);

/// 2.5.29.19, critical, an empty sequence: not a CA.
const BASIC_CONSTRAINTS: &[u64] = &[2, 5, 29, 19];
const EMPTY_SEQUENCE: &[u8] = &[0x30, 0x00];

/// Makes the certificate for a DERP key, around `now`.
///
/// # Errors
/// The provider cannot make or sign it.
pub fn certificate(key: &NodePublic, now: OffsetDateTime) -> anyhow::Result<CertificateDer<'static>> {
    let signer = KeyPair::generate_for(&PKCS_ED25519).context("meta certificate key")?;
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from(u64::from(PROTOCOL_VERSION)));
    params.not_before = now - VALIDITY;
    params.not_after = now + VALIDITY;
    params.distinguished_name = name(key)?;
    let mut constraints = CustomExtension::from_oid_content(BASIC_CONSTRAINTS, EMPTY_SEQUENCE.to_vec());
    constraints.set_criticality(true);
    params.custom_extensions = vec![constraints];
    Ok(params.self_signed(&signer).context("meta certificate")?.into())
}

/// The only name is a common name, `derpkey` and the key's 64 hex digits. It is longer than X.520 allows, and
/// clients look for it.
fn name(key: &NodePublic) -> anyhow::Result<DistinguishedName> {
    let text = format!("derpkey{}", key.hex());
    let mut name = DistinguishedName::new();
    name.push(
        DnType::CommonName,
        DnValue::PrintableString(text.try_into().context("meta certificate name")?),
    );
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_certificate_has_the_bytes_that_clients_look_for() {
        let key = NodePublic::from_bytes([0xab; 32]);
        let der = certificate(&key, OffsetDateTime::UNIX_EPOCH + Duration::days(20_000)).expect("made");
        let has = |needle: &[u8]| der.windows(needle.len()).any(|window| window == needle);
        // Version 3, then serial number 2, then Ed25519: the structure of derper's own certificate.
        assert!(has(&[0xa0, 3, 2, 1, 2, 2, 1, 2, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70]));
        let name = format!("derpkey{}", "ab".repeat(32));
        assert!(has(&[&[0x13, 71], name.as_bytes()].concat()), "printable string");
        // The only extension: basic constraints, critical, empty.
        assert!(has(&[
            0xa3, 0x10, 0x30, 0x0e, 0x30, 0x0c, 6, 3, 0x55, 0x1d, 0x13, 1, 1, 0xff, 4, 2, 0x30, 0
        ]));
        assert_eq!(der.len(), 359);
    }
}
