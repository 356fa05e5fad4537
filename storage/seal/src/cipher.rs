//! The seal of a batch: XAES-256-GCM (C2SP), that is AES-256-GCM under a key derived from the
//! first 12 bytes of a 24-byte nonce, with the last 12 bytes as its nonce. Random nonces of this
//! length never repeat (2^80 batches a key for a risk of 2^-32), whatever failover, restored
//! disk or reseal makes a node start over.
//!
//! Hot path: one key schedule and one hash key a batch, then in place, no copies.

use crate::Error;
use crate::keys::KEY_BYTES;
use aes_gcm::aes::Aes256;
use aes_gcm::aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use aes_gcm::{AeadInOut, Aes256Gcm};
use std::fmt;
use zeroize::{Zeroize, Zeroizing};

/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 24;
/// Bytes of a tag.
pub const TAG_BYTES: usize = 16;

/// Random bytes, new for each batch, kept in its header.
pub type Nonce = [u8; NONCE_BYTES];
/// What shows that ciphertext and header are those that were sealed.
pub type Tag = [u8; TAG_BYTES];

/// The seam between sealing and the library that does it.
pub trait BatchCipher: Send + Sync {
    /// Encrypts `text` in place and returns the tag over it and `header`. The nonce must be
    /// fresh from the operating system's randomness.
    ///
    /// # Errors
    /// [`Error::TooLong`]; `text` is then unchanged.
    fn seal_batch(&self, nonce: &Nonce, header: &[u8], text: &mut [u8]) -> Result<Tag, Error>;

    /// Checks `tag`, then decrypts `text` in place.
    ///
    /// # Errors
    /// [`Error::Unauthentic`], [`Error::TooLong`]; `text` is then unchanged.
    fn open_batch(
        &self,
        nonce: &Nonce,
        header: &[u8],
        text: &mut [u8],
        tag: &Tag,
    ) -> Result<(), Error>;
}

/// [`BatchCipher`] by the crates aes and aes-gcm. Holds the key schedule that all batches of a
/// key share; wiped when dropped.
#[derive(Clone)]
pub struct Xaes256Gcm {
    schedule: Aes256,
    /// The CMAC subkey K1 (NIST SP 800-38B, section 6.1).
    cmac_subkey: Zeroizing<[u8; 16]>,
}

impl Xaes256Gcm {
    /// The cipher under this key.
    #[must_use]
    pub fn new(key: &[u8; KEY_BYTES]) -> Self {
        let schedule = Aes256::new(&Array(*key));
        let mut block = Array([0u8; 16]);
        schedule.encrypt_block(&mut block);
        let mut doubled = u128::from_be_bytes(block.0);
        block.zeroize();
        // Doubling in GF(2^128), without a branch on the key.
        let carry = doubled >> 127;
        doubled = (doubled << 1) ^ (carry * 0b1000_0111);
        Self { schedule, cmac_subkey: Zeroizing::new(doubled.to_be_bytes()) }
    }

    /// The key of one batch: two blocks of CMAC in counter mode (NIST SP 800-108r1).
    fn batch_key(&self, nonce: &Nonce) -> Zeroizing<[u8; KEY_BYTES]> {
        let mut key = Zeroizing::new([0u8; KEY_BYTES]);
        for (counter, half) in (1u8..).zip(key.chunks_exact_mut(16)) {
            let mut block = Array([0u8; 16]);
            block[1] = counter;
            block[2] = b'X';
            block[4..].copy_from_slice(&nonce[..12]);
            for (byte, mask) in block.iter_mut().zip(self.cmac_subkey.iter()) {
                *byte ^= mask;
            }
            self.schedule.encrypt_block(&mut block);
            half.copy_from_slice(&block);
            block.zeroize();
        }
        key
    }

    fn batch(&self, nonce: &Nonce) -> (Aes256Gcm, Array<u8, aes_gcm::aead::consts::U12>) {
        let cipher = Aes256Gcm::new((&*self.batch_key(nonce)).into());
        let mut inner = Array([0u8; 12]);
        inner.copy_from_slice(&nonce[12..]);
        (cipher, inner)
    }
}

impl BatchCipher for Xaes256Gcm {
    fn seal_batch(&self, nonce: &Nonce, header: &[u8], text: &mut [u8]) -> Result<Tag, Error> {
        let (cipher, inner) = self.batch(nonce);
        let tag = cipher
            .encrypt_inout_detached(&inner, header, text.into())
            .map_err(|_| Error::TooLong)?;
        Ok(tag.0)
    }

    fn open_batch(
        &self,
        nonce: &Nonce,
        header: &[u8],
        text: &mut [u8],
        tag: &Tag,
    ) -> Result<(), Error> {
        let (cipher, inner) = self.batch(nonce);
        if text.len() as u64 > aes_gcm::P_MAX {
            return Err(Error::TooLong);
        }
        cipher
            .decrypt_inout_detached(&inner, header, text.into(), &Array(*tag))
            .map_err(|_| Error::Unauthentic)
    }
}

impl fmt::Debug for Xaes256Gcm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Xaes256Gcm(…)")
    }
}

#[cfg(test)]
#[path = "cipher_test.rs"]
mod tests;
