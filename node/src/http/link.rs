//! Links of ten minutes to the live page: `EXPIRY-MAC`, under a key that this node made at its
//! start. A link holds on the node that gave it, until then or until that node's next start.

use dtm_types::{ErrorCode, NodeId};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

/// How long a link holds.
pub const LINK_SECONDS: i64 = 600;

/// Makes and checks links.
pub struct LinkKey {
    key: Zeroizing<[u8; 32]>,
    node: NodeId,
}

impl LinkKey {
    /// A key from fresh randomness.
    pub fn new(key: [u8; 32], node: NodeId) -> Self {
        Self { key: Zeroizing::new(key), node }
    }

    /// A token and its end in Unix microseconds.
    pub fn issue(&self, now_us: i64) -> (String, i64) {
        let expires_s = now_us / 1_000_000 + LINK_SECONDS;
        let mac = self.mac(expires_s).finalize().into_bytes();
        (format!("{expires_s}-{}", hex::encode(mac)), expires_s * 1_000_000)
    }

    /// Checks a token in constant time.
    ///
    /// # Errors
    /// [`ErrorCode::Unauthenticated`], [`ErrorCode::Expired`].
    pub fn check(&self, token: &str, now_us: i64) -> Result<(), ErrorCode> {
        let (expires, mac) = token.split_once('-').ok_or(ErrorCode::Unauthenticated)?;
        let expires_s: i64 = expires.parse().map_err(|_| ErrorCode::Unauthenticated)?;
        let mut shown = [0; 32];
        hex::decode_to_slice(mac, &mut shown).map_err(|_| ErrorCode::Unauthenticated)?;
        self.mac(expires_s).verify_slice(&shown).map_err(|_| ErrorCode::Unauthenticated)?;
        if now_us / 1_000_000 > expires_s { Err(ErrorCode::Expired) } else { Ok(()) }
    }

    fn mac(&self, expires_s: i64) -> Hmac<Sha256> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(self.key.as_ref()).expect("any length is a key");
        mac.update(b"dtm console link\0");
        mac.update(&self.node.0);
        mac.update(&expires_s.to_be_bytes());
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_holds_ten_minutes_on_its_node() {
        let key = LinkKey::new([1; 32], NodeId([1; 16]));
        let (token, expires_us) = key.issue(1_000_000_000);
        assert_eq!(expires_us, 1_600_000_000);
        assert_eq!(key.check(&token, expires_us), Ok(()));
        assert_eq!(key.check(&token, expires_us + 1_000_000), Err(ErrorCode::Expired));
        let other = LinkKey::new([1; 32], NodeId([2; 16]));
        assert_eq!(other.check(&token, 0), Err(ErrorCode::Unauthenticated));
        let later = token.replacen("1600", "9600", 1);
        for forged in [later.as_str(), "", "-", "1-2", "1600-zz", &token[..token.len() - 2]] {
            assert_eq!(key.check(forged, 0), Err(ErrorCode::Unauthenticated), "{forged}");
        }
    }
}
