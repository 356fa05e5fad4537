//! Wrapped keys: how a key is stored and sent.
//!
//! ```text
//!  ┌─────────┬───────────┬────────────────────────────────┬──────────┐
//!  │ version │ nonce     │ the key, sealed (XAES-256-GCM) │ tag      │
//!  │ 1 byte  │ 24 bytes  │ 32 bytes                       │ 16 bytes │
//!  └─────────┴───────────┴────────────────────────────────┴──────────┘
//!  associated data:  "dtm wrap" ‖ version ‖ purpose ‖ wrapping key id (16)
//!                    ‖ group (4) ‖ month (4) ‖ key id (16) ‖ source
//! ```
//! The associated data is not stored in it: a key put in another row, group, source or month
//! does not unwrap there. Moving a source to another group therefore re-wraps its keys.

use crate::Error;
use crate::cipher::{BatchCipher, NONCE_BYTES, Nonce, TAG_BYTES, Xaes256Gcm};
use crate::keys::{ClusterKey, KEY_BYTES, Secret};
use dtm_types::format::KeyPurpose;
use dtm_types::{GroupId, KeyId, Month, SourceId};
use zeroize::Zeroizing;

/// Bytes of a wrapped key of version 1.
pub const WRAPPED_BYTES: usize = 1 + NONCE_BYTES + KEY_BYTES + TAG_BYTES;

const VERSION: u8 = 1;

/// What a wrapped key belongs to; it unwraps nowhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrapContext<'a> {
    /// What it is for.
    pub purpose: KeyPurpose,
    /// The group whose state holds it.
    pub group: GroupId,
    /// The source; none for audit keys.
    pub source: Option<&'a SourceId>,
    /// The month; `Month(0)` for source keys.
    pub month: Month,
    /// Its own id.
    pub key_id: KeyId,
}

/// Wraps `key` under `wrapping`, whose id is `wrapping_id`. The nonce must be fresh from the operating system's randomness.
#[must_use]
pub fn wrap_key<K: Secret>(
    wrapping: &ClusterKey,
    wrapping_id: KeyId,
    context: &WrapContext<'_>,
    nonce: &Nonce,
    key: &K,
) -> [u8; WRAPPED_BYTES] {
    assert_ne!(context.purpose, KeyPurpose::Unspecified, "a key is made for a purpose");
    let mut text = Zeroizing::new(*key.expose());
    let tag = Xaes256Gcm::new(wrapping.expose())
        .seal_batch(nonce, &associated_data(wrapping_id, context), text.as_mut())
        .expect("32 bytes are within one AES-GCM message");
    let mut wrapped = [VERSION; WRAPPED_BYTES];
    wrapped[1..25].copy_from_slice(nonce);
    wrapped[25..57].copy_from_slice(text.as_ref());
    wrapped[57..].copy_from_slice(&tag);
    wrapped
}

/// Unwraps what [`wrap_key`] made for the same context.
///
/// # Errors
/// [`Error::WrapVersion`], [`Error::WrapLength`], [`Error::Unauthentic`] for another wrapping
/// key, context or a changed byte.
pub fn unwrap_key<K: Secret>(
    wrapping: &ClusterKey,
    wrapping_id: KeyId,
    context: &WrapContext<'_>,
    wrapped: &[u8],
) -> Result<K, Error> {
    match wrapped.first() {
        Some(&VERSION) | None => {}
        Some(&version) => return Err(Error::WrapVersion(version)),
    }
    let wrapped: &[u8; WRAPPED_BYTES] =
        wrapped.try_into().map_err(|_| Error::WrapLength { found: wrapped.len() })?;
    let (mut nonce, mut tag) = ([0u8; NONCE_BYTES], [0u8; TAG_BYTES]);
    let mut text = Zeroizing::new([0u8; KEY_BYTES]);
    nonce.copy_from_slice(&wrapped[1..25]);
    text.copy_from_slice(&wrapped[25..57]);
    tag.copy_from_slice(&wrapped[57..]);
    let header = associated_data(wrapping_id, context);
    Xaes256Gcm::new(wrapping.expose()).open_batch(&nonce, &header, text.as_mut(), &tag)?;
    Ok(K::from_bytes(&mut text))
}

fn associated_data(wrapping_id: KeyId, context: &WrapContext<'_>) -> Vec<u8> {
    let source = context.source.map_or("", SourceId::as_str);
    let mut data = Vec::with_capacity(50 + source.len());
    data.extend_from_slice(b"dtm wrap");
    data.push(VERSION);
    data.push(context.purpose as u8);
    data.extend_from_slice(&wrapping_id.0);
    data.extend_from_slice(&context.group.0.to_be_bytes());
    data.extend_from_slice(&context.month.0.to_be_bytes());
    data.extend_from_slice(&context.key_id.0);
    // Last, so that it needs no length.
    data.extend_from_slice(source.as_bytes());
    data
}

#[cfg(test)]
#[path = "wrap_test.rs"]
mod tests;
