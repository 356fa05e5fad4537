//! The issuing certificate at work: signs requests of nodes, operators and sources.

use dtm_identity::{Certificate, Identity};
use dtm_types::NodeId;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls_pki_types::{
    CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer,
};
use zeroize::Zeroizing;

use super::authority::{common_name, set_validity};
use super::{Error, NODE_DAYS};

/// Largest request that is looked at, bytes.
const REQUEST_BYTES_MAX: usize = 16 * 1024;

/// Who a certificate is for. Nothing of it comes from the request.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The `dtm://` name.
    pub identity: Identity,
    /// Names and addresses a node is reached by; empty for others.
    pub names: Vec<String>,
    /// Days of validity, 1 to 3,650; cut at the end of the issuing certificate.
    pub days: u32,
}

/// The DNS name under which peers reach a node, whatever its address is today.
pub fn peer_name(node: NodeId) -> String {
    format!("{node}.node.dtm.invalid")
}

/// The issuing certificate with its key.
pub struct Issuing {
    certificate: CertificateDer<'static>,
    /// PKCS#8, DER.
    key: Zeroizing<Vec<u8>>,
}

impl Issuing {
    /// Name of the secret under which the keyring holds it.
    pub const SECRET: &'static str = "pki/issuing";

    pub(super) fn new(certificate: CertificateDer<'static>, key: Zeroizing<Vec<u8>>) -> Self {
        Self { certificate, key }
    }

    /// For the keyring: length of the certificate (4 bytes, little endian), certificate, key.
    pub fn to_secret(&self) -> Zeroizing<Vec<u8>> {
        let length = u32::try_from(self.certificate.len()).expect("a certificate is small");
        let mut secret =
            Zeroizing::new(Vec::with_capacity(4 + self.certificate.len() + self.key.len()));
        secret.extend_from_slice(&length.to_le_bytes());
        secret.extend_from_slice(&self.certificate);
        secret.extend_from_slice(&self.key);
        secret
    }

    /// From the keyring; `None` where it is not what [`Issuing::to_secret`] gave.
    pub fn from_secret(secret: &[u8]) -> Option<Self> {
        let (length, rest) = secret.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let (certificate, key) = rest.split_at_checked(length)?;
        let issuing = Self::new(certificate.to_vec().into(), Zeroizing::new(key.to_vec()));
        issuing.issuer().is_ok().then_some(issuing)
    }

    /// The issuing certificate (DER).
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Its end, Unix microseconds; what it signs ends no later.
    ///
    /// # Errors
    /// [`Error::Request`] where it is malformed.
    pub fn not_after_us(&self) -> Result<i64, Error> {
        let (_, own) = x509_parser::parse_x509_certificate(&self.certificate)
            .map_err(|_| Error::Request("the issuing certificate is malformed"))?;
        Ok(own.validity().not_after.timestamp().saturating_mul(1_000_000))
    }

    /// Signs a PKCS#10 request (DER) of which only the key is taken. Returns the chain, the new
    /// certificate first.
    ///
    /// # Errors
    /// [`Error::Request`] where it is malformed or its signature is wrong, [`Error::Name`].
    pub fn sign(
        &self,
        request: &[u8],
        subject: &Subject,
        now_us: i64,
    ) -> Result<Vec<CertificateDer<'static>>, Error> {
        if request.len() > REQUEST_BYTES_MAX {
            return Err(Error::Request("larger than 16 KiB"));
        }
        let request = CertificateSigningRequestDer::from(request);
        let mut request = CertificateSigningRequestParams::from_der(&request)
            .map_err(|_| Error::Request("not PKCS#10, or not signed by its own key"))?;
        request.params = self.params(subject, now_us)?;
        let certificate = request.signed_by(&self.issuer()?)?;
        Ok(vec![certificate.der().clone(), self.certificate.clone()])
    }

    fn issuer(&self) -> Result<Issuer<'static, KeyPair>, Error> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.as_slice()));
        let key = KeyPair::try_from(&key)?;
        Ok(Issuer::from_ca_cert_der(&self.certificate, key)?)
    }

    fn params(&self, subject: &Subject, now_us: i64) -> Result<CertificateParams, Error> {
        let mut names = subject.names.clone();
        if let Identity::Node { node, .. } = &subject.identity {
            names.push(peer_name(*node));
        }
        let mut params =
            CertificateParams::new(names).map_err(|_| Error::Name(subject.names.join(", ")))?;
        let uri = subject.identity.to_string();
        let name = match &subject.identity {
            Identity::Node { node, .. } => node.to_string(),
            Identity::Operator { name, .. } => name.clone(),
            Identity::Source { source, .. } => source.to_string(),
        };
        params.distinguished_name = common_name(&name);
        params
            .subject_alt_names
            .push(SanType::URI(uri.as_str().try_into().map_err(|_| Error::Name(uri.clone()))?));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if matches!(subject.identity, Identity::Node { .. }) {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, now_us, subject.days.clamp(1, 3_650));
        let (_, own) = x509_parser::parse_x509_certificate(&self.certificate)
            .map_err(|_| Error::Request("the issuing certificate is malformed"))?;
        let own_end = own.validity().not_after.to_datetime();
        params.not_after = params.not_after.min(own_end);
        Ok(params)
    }

    /// Signs a node's own first request.
    ///
    /// # Errors
    /// As [`Issuing::sign`].
    pub fn sign_node(
        &self,
        request: &[u8],
        identity: Identity,
        names: &[String],
        now_us: i64,
    ) -> Result<Vec<CertificateDer<'static>>, Error> {
        self.sign(request, &Subject { identity, names: names.to_vec(), days: NODE_DAYS }, now_us)
    }

    /// Facts of a certificate that [`Issuing::sign`] returned.
    ///
    /// # Errors
    /// [`Error::Request`].
    pub fn facts(chain: &[CertificateDer<'static>]) -> Result<Certificate, Error> {
        chain
            .first()
            .and_then(|leaf| Certificate::parse(leaf).ok())
            .ok_or(Error::Request("the chain holds no certificate of ours"))
    }
}
