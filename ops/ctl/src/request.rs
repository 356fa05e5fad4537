//! Certificate requests (PKCS#10): the key is made here and stays here. Certificates as text.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use zeroize::Zeroizing;

/// A fresh key and the request for it.
pub struct Request {
    /// The private key (PEM): never leaves this machine.
    pub key_pem: Zeroizing<String>,
    /// The request (DER).
    pub der: Vec<u8>,
}

/// Makes an ECDSA P-256 key and a request. The name is for people: the authority decides what
/// stands in the certificate.
///
/// # Errors
/// What the library said.
pub fn make_request(name: &str) -> Result<Request, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name.chars().take(64).collect::<String>());
    let request = params.serialize_request(&key)?;
    Ok(Request { key_pem: Zeroizing::new(key.serialize_pem()), der: request.der().to_vec() })
}

/// Writes a new file of this mode and syncs it and its folder; one that is there is not touched.
///
/// # Errors
/// `AlreadyExists`, or what the operating system said.
pub fn write_new(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content)?;
    file.sync_all()?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// Certificates (DER) as PEM.
pub fn pem(certificates: impl IntoIterator<Item = impl AsRef<[u8]>>) -> String {
    let mut text = String::new();
    for certificate in certificates {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        for line in STANDARD.encode(certificate).as_bytes().chunks(64) {
            text.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}
