//! Certificate requests (PKCS#10): the key is made here and stays here. Certificates as text.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use zeroize::Zeroizing;

use crate::Failure;

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
    NewFile::create(path, mode)?.fill(content)
}

/// Where the key and the certificate of `name` go: new files of a folder that is made where there is
/// none.
///
/// # Errors
/// [`Failure::File`]: one of them is there already, or the folder cannot be made.
pub(crate) fn key_files(folder: &Path, name: &str) -> Result<(PathBuf, PathBuf), Failure> {
    std::fs::create_dir_all(folder).map_err(Failure::file(folder))?;
    let files = (folder.join(format!("{name}.key")), folder.join(format!("{name}.pem")));
    for file in [&files.0, &files.1] {
        if file.exists() {
            return Err(Failure::file(file)(io::ErrorKind::AlreadyExists.into()));
        }
    }
    Ok(files)
}

/// A new file that is there before what goes into it is made: a secret that is shown once has its
/// place first. Dropped unfilled, it is removed.
pub(crate) struct NewFile {
    file: File,
    path: PathBuf,
    is_filled: bool,
}

impl NewFile {
    /// An empty file; one that is there is not touched.
    pub(crate) fn create(path: &Path, mode: u32) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        Ok(Self { file, path: path.to_owned(), is_filled: false })
    }

    /// Writes it and syncs it and its folder.
    pub(crate) fn fill(mut self, content: &[u8]) -> io::Result<()> {
        // What was written in part may be all there is of a secret: it stays.
        self.is_filled = true;
        self.file.write_all(content)?;
        self.file.sync_all()?;
        let folder = self.path.parent().filter(|p| !p.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.is_filled {
            // Empty, and nobody else's: it was made here.
            let _ = std::fs::remove_file(&self.path);
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_and_certificate_go_into_a_folder_that_is_made_and_over_nothing() {
        let scratch = tempfile::tempdir().expect("a folder");
        let folder = scratch.path().join("a/b");
        let (key, certificate) = key_files(&folder, "lan").expect("made");
        assert!(folder.is_dir() && !key.exists() && !certificate.exists());
        std::fs::write(&certificate, "x").expect("written");
        let told = key_files(&folder, "lan").expect_err("it is there");
        for lang in [dtm_types::text::Lang::Vi, dtm_types::text::Lang::En] {
            let told = told.tell(lang);
            assert!(told.contains("lan.pem") && told.contains("--out"), "{told}");
        }
        assert!(key_files(&folder, "an").is_ok());
    }

    #[test]
    fn a_new_file_is_empty_until_it_is_filled_and_goes_when_it_is_not() {
        let scratch = tempfile::tempdir().expect("a folder");
        let path = scratch.path().join("key");
        drop(NewFile::create(&path, 0o600).expect("made"));
        assert!(!path.exists());
        let file = NewFile::create(&path, 0o600).expect("made again");
        assert!(NewFile::create(&path, 0o600).is_err(), "it is there");
        assert!(path.exists());
        file.fill(b"x").expect("filled");
        assert_eq!(std::fs::read(&path).expect("reads"), b"x");
        assert!(NewFile::create(&scratch.path().join("none/key"), 0o600).is_err());
    }
}
