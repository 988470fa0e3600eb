//! The certificate of a client, once it is verified.

use std::fmt::Write as _;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::prelude::{AttributeTypeAndValue, FromDer as _, X509Certificate};

/// A certificate that a client has shown, and that an authority of `server.tls.clients.ca` has signed. It was valid at
/// the handshake. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate(Arc<Inner>);

#[derive(Debug, PartialEq, Eq)]
struct Inner {
    subject: String,
    certificate: CertificateDer<'static>,
}

impl ClientCertificate {
    /// Of a certificate that was verified. `None` for one whose subject cannot be read.
    pub(crate) fn new(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        // The order of RFC 4514: the last part, which is the most specific one, is the first.
        let mut parts: Vec<String> = parsed
            .subject()
            .iter_rdn()
            .map(|part| part.iter().map(attribute).collect::<Vec<_>>().join("+"))
            .collect();
        parts.reverse();
        let certificate = certificate.clone().into_owned();
        Some(Self(Arc::new(Inner { subject: parts.join(","), certificate })))
    }

    /// Who it was given to, as RFC 4514 writes it: `CN=ada,O=Example`. It can be compared as a whole: what would make
    /// one subject look like another is escaped.
    pub fn subject(&self) -> &str {
        &self.0.subject
    }

    /// The certificate itself, DER.
    pub fn der(&self) -> &[u8] {
        &self.0.certificate
    }
}

/// `TYPE=VALUE`. A type without a short name is written as its number, and a value that is no text as hexadecimal DER.
fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let oid = attribute.attr_type();
    let name = oid2abbrev(oid, oid_registry()).map_or_else(|_| oid.to_id_string(), ToOwned::to_owned);
    let value = match attribute.as_str() {
        Ok(text) => escaped(text),
        Err(_) => attribute.as_slice().iter().fold("#".to_owned(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        }),
    };
    format!("{name}={value}")
}

/// RFC 4514, section 2.4.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for (at, character) in text.char_indices() {
        let is_last = at + character.len_utf8() == text.len();
        match character {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' | '=' => escaped.extend(['\\', character]),
            '#' if at == 0 => escaped.push_str("\\#"),
            ' ' if at == 0 || is_last => escaped.push_str("\\ "),
            character if character.is_control() => {
                let mut bytes = [0; 4];
                for byte in character.encode_utf8(&mut bytes).bytes() {
                    let _ = write!(escaped, "\\{byte:02X}");
                }
            }
            character => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;

    fn subject(parts: &[(DnType, &str)]) -> String {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in parts {
            params.distinguished_name.push(kind.clone(), *value);
        }
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        ClientCertificate::new(certificate.der()).unwrap().subject().to_owned()
    }

    #[test]
    fn the_subject_is_written_as_rfc_4514_has_it() {
        let parts =
            [(DnType::CountryName, "CH"), (DnType::OrganizationName, "Example"), (DnType::CommonName, "ada")];
        assert_eq!(subject(&parts), "CN=ada,O=Example,C=CH");
        assert_eq!(subject(&[]), "");
    }

    #[test]
    fn a_value_cannot_look_like_a_part_of_its_own() {
        assert_eq!(subject(&[(DnType::CommonName, "ada,O=Example")]), r"CN=ada\,O\=Example");
        assert_eq!(subject(&[(DnType::CommonName, " #ä\n\\+ ")]), r"CN=\ #ä\0A\\\+\ ");
        assert_eq!(subject(&[(DnType::CommonName, "#1")]), r"CN=\#1");
    }
}
