//! Hands the keyring to a node that joins: sealed to a key that this node made for this one join.
//!
//! ```text
//!  version (1) ‖ sender's X25519 key (32) ‖ AES-256-GCM ciphertext and tag
//!  key = HKDF-SHA256(salt = both public keys, secret = X25519, info = "dtm keyring handover v1" ‖ cluster)
//! ```
//! The sender's key pair lives for one message, so each AES key seals once and its nonce may be
//! zero. Whoever records the message and later takes either node's disk cannot open it. The TLS
//! connection around it says who is who.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{self, EphemeralPrivateKey, UnparsedPublicKey, X25519};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::rand::SystemRandom;
use dtm_types::ClusterId;
use zeroize::Zeroizing;

const VERSION: u8 = 1;
const PUBLIC_BYTES: usize = 32;
const INFO: &[u8] = b"dtm keyring handover v1";
/// Largest keyring that is handed over, bytes.
const KEYRING_BYTES_MAX: usize = 8 << 20;

/// A handover that cannot be sealed or opened. Which part is wrong is not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the keyring's handover was altered, or is for another node or cluster")]
pub struct Error;

impl From<Unspecified> for Error {
    fn from(_: Unspecified) -> Self {
        Self
    }
}

/// The joining node's half: made for one join, used once.
pub struct Receiver {
    private: EphemeralPrivateKey,
    public: [u8; PUBLIC_BYTES],
}

impl Receiver {
    /// A fresh key pair.
    ///
    /// # Errors
    /// [`Error`] where the operating system gives no randomness.
    pub fn new() -> Result<Self, Error> {
        let private = EphemeralPrivateKey::generate(&X25519, &SystemRandom::new())?;
        let public = public_bytes(&private)?;
        Ok(Self { private, public })
    }

    /// Goes into the join request.
    pub fn public_key(&self) -> [u8; PUBLIC_BYTES] {
        self.public
    }

    /// Opens what came back.
    ///
    /// # Errors
    /// [`Error`].
    pub fn open(self, sealed: &[u8], cluster: ClusterId) -> Result<Zeroizing<Vec<u8>>, Error> {
        let Some((&VERSION, rest)) = sealed.split_first() else {
            return Err(Error);
        };
        let (sender, ciphertext) = rest.split_at_checked(PUBLIC_BYTES).ok_or(Error)?;
        if ciphertext.len() > KEYRING_BYTES_MAX + AES_256_GCM.tag_len() {
            return Err(Error);
        }
        let (sender, receiver) =
            (<[u8; PUBLIC_BYTES]>::try_from(sender).map_err(|_| Error)?, self.public);
        let key = agree(self.private, &sender, [&sender, &receiver], cluster)?;
        let mut buffer = Zeroizing::new(ciphertext.to_vec());
        let length = key.open_in_place(nonce(), Aad::empty(), &mut buffer)?.len();
        buffer.truncate(length);
        Ok(buffer)
    }
}

/// Seals an exported keyring to the public key of a join request.
///
/// # Errors
/// [`Error`] where the public key is not one, or the keyring is too large.
pub fn seal(keyring: &[u8], receiver: &[u8], cluster: ClusterId) -> Result<Vec<u8>, Error> {
    let receiver: [u8; PUBLIC_BYTES] = receiver.try_into().map_err(|_| Error)?;
    if keyring.len() > KEYRING_BYTES_MAX {
        return Err(Error);
    }
    let private = EphemeralPrivateKey::generate(&X25519, &SystemRandom::new())?;
    let sender = public_bytes(&private)?;
    let key = agree(private, &receiver, [&sender, &receiver], cluster)?;
    let mut buffer = Zeroizing::new(Vec::with_capacity(keyring.len() + AES_256_GCM.tag_len()));
    buffer.extend_from_slice(keyring);
    key.seal_in_place_append_tag(nonce(), Aad::empty(), &mut *buffer)?;
    let mut message = Vec::with_capacity(1 + PUBLIC_BYTES + buffer.len());
    message.push(VERSION);
    message.extend_from_slice(&sender);
    message.extend_from_slice(&buffer);
    Ok(message)
}

fn public_bytes(private: &EphemeralPrivateKey) -> Result<[u8; PUBLIC_BYTES], Error> {
    private.compute_public_key()?.as_ref().try_into().map_err(|_| Error)
}

fn agree(
    own: EphemeralPrivateKey,
    other: &[u8; PUBLIC_BYTES],
    both: [&[u8; PUBLIC_BYTES]; 2],
    cluster: ClusterId,
) -> Result<LessSafeKey, Error> {
    let peer = UnparsedPublicKey::new(&X25519, other);
    agreement::agree_ephemeral(own, peer, Error, |secret| {
        let salt = Salt::new(HKDF_SHA256, &both.map(<[u8; 32]>::as_slice).concat());
        let info = [INFO, &cluster.0];
        let key = salt.extract(secret).expand(&info, &AES_256_GCM).map(UnboundKey::from)?;
        Ok(LessSafeKey::new(key))
    })
}

/// One message a key.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: ClusterId = ClusterId([7; 16]);

    #[test]
    fn only_the_receiver_of_this_cluster_opens() {
        let receiver = || Receiver::new().expect("randomness");
        let (one, two, three) = (receiver(), receiver(), receiver());
        let sealed = seal(b"keys", &one.public_key(), CLUSTER).expect("sealed");
        assert!(!sealed.windows(4).any(|w| w == b"keys"));
        assert!(two.open(&sealed, CLUSTER).is_err());
        let for_three = seal(b"keys", &three.public_key(), CLUSTER).expect("sealed");
        assert!(three.open(&for_three, ClusterId([8; 16])).is_err());
        assert_eq!(one.open(&sealed, CLUSTER).expect("opens").as_slice(), b"keys");
    }

    #[test]
    fn what_was_altered_is_not_opened() {
        for index in [0, 1, 32, 33, 36, 40] {
            let receiver = Receiver::new().expect("randomness");
            let mut sealed = seal(b"keys", &receiver.public_key(), CLUSTER).expect("sealed");
            sealed[index] ^= 1;
            assert!(receiver.open(&sealed, CLUSTER).is_err(), "byte {index}");
        }
        for short in [&[][..], &[1], &[1; 33], &[2; 60]] {
            assert!(Receiver::new().expect("randomness").open(short, CLUSTER).is_err());
        }
        assert!(seal(b"keys", &[0; 31], CLUSTER).is_err());
    }
}
