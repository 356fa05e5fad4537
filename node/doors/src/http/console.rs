//! How a browser comes to the live page without a certificate.
//!
//! ```text
//!  dtm console open ──▶ link: 32 random bytes, holds 10 minutes, once
//!  GET /?t=LINK     ──▶ session: 32 random bytes in a cookie, holds 12 hours ▶ redirect to /
//!  GET /            ──▶ session ▶ the operator who asked for the link, held against their row
//! ```
//! The secret leaves the address bar and the history with the redirect. Links and sessions hold on
//! the node that gave them, until its next start, and for as long as the operator's certificate.
//!
//! Owner of the state: [`Console`], in memory; secrets are kept as digests, and their number is
//! bounded: where it is reached, the one that ends soonest goes.

use std::collections::HashMap;
use std::sync::Arc;

use dtm_identity::Caller;
use dtm_machine::seams::Entropy;
use dtm_types::{ErrorCode, NodeId};
use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

/// How long a link holds.
pub const LINK_SECONDS: i64 = 600;
/// How long a session holds.
pub const SESSION_SECONDS: i64 = 12 * 3_600;
/// Links that are out and not used.
const LINKS_MAX: usize = 256;
/// Open sessions.
const SESSIONS_MAX: usize = 1_024;
/// Cookies of one request that are looked at.
const COOKIES_MAX: usize = 64;

/// Gives links, takes each once, and knows who is behind a session.
pub struct Console {
    entropy: Arc<dyn Entropy>,
    /// Cookies know no ports: two nodes on one address must not take each other's. The end of an id is
    /// random, its start is a time.
    cookie: String,
    links: Mutex<Grants>,
    sessions: Mutex<Grants>,
}

/// Who holds a secret, and until when, by the digest of the secret.
struct Grants {
    max: usize,
    held: HashMap<[u8; 32], (i64, Caller)>,
}

impl Console {
    /// No link, no session.
    pub fn new(entropy: Arc<dyn Entropy>, node: NodeId) -> Self {
        let grants = |max| Mutex::new(Grants { max, held: HashMap::new() });
        Self {
            entropy,
            cookie: format!("__Host-dtm-{}", hex::encode(&node.0[12..])),
            links: grants(LINKS_MAX),
            sessions: grants(SESSIONS_MAX),
        }
    }

    /// A link's secret and its end in Unix microseconds, for an operator who was checked.
    pub fn link(&self, caller: Caller, now_us: i64) -> (String, i64) {
        let until_us = now_us + LINK_SECONDS * 1_000_000;
        (self.grant(&self.links, caller, now_us, until_us), until_us)
    }

    /// Takes a link, which then holds no more, and gives the cookie of a new session.
    ///
    /// # Errors
    /// [`ErrorCode::Unauthenticated`] for what is no link, [`ErrorCode::Expired`].
    pub fn exchange(&self, link: &str, now_us: i64) -> Result<HeaderValue, ErrorCode> {
        let taken = self.links.lock().held.remove(&digest(link));
        let (until_us, caller) = taken.ok_or(ErrorCode::Unauthenticated)?;
        if now_us > until_us {
            return Err(ErrorCode::Expired);
        }
        let until_us = now_us + SESSION_SECONDS * 1_000_000;
        let session = self.grant(&self.sessions, caller, now_us, until_us);
        let cookie = format!(
            "{}={session}; Path=/; Max-Age={SESSION_SECONDS}; Secure; HttpOnly; SameSite=Strict",
            self.cookie
        );
        Ok(HeaderValue::from_str(&cookie).expect("hexadecimal is allowed in a header"))
    }

    /// Who is behind the session of a request; nobody where it brings none.
    ///
    /// # Errors
    /// [`ErrorCode::Expired`] where the session is not held: it ended, or the node started anew.
    pub fn caller(&self, headers: &HeaderMap, now_us: i64) -> Result<Option<Caller>, ErrorCode> {
        let Some(session) = self.session(headers) else { return Ok(None) };
        match self.sessions.lock().held.get(&digest(session)) {
            Some((until_us, caller)) if now_us <= *until_us => Ok(Some(caller.clone())),
            _ => Err(ErrorCode::Expired),
        }
    }

    fn session<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
        let mut cookies = lines.flat_map(|line| line.split(';')).take(COOKIES_MAX);
        cookies.find_map(|cookie| cookie.trim().strip_prefix(&*self.cookie)?.strip_prefix('='))
    }

    fn grant(&self, to: &Mutex<Grants>, caller: Caller, now_us: i64, until_us: i64) -> String {
        let mut secret = [0; 32];
        self.entropy.fill(&mut secret);
        let secret = hex::encode(secret);
        to.lock().put(digest(&secret), (until_us, caller), now_us);
        secret
    }
}

impl Grants {
    fn put(&mut self, digest: [u8; 32], grant: (i64, Caller), now_us: i64) {
        if self.held.len() >= self.max {
            self.held.retain(|_, (until_us, _)| *until_us >= now_us);
        }
        if self.held.len() >= self.max {
            let soonest = self.held.iter().min_by_key(|(_, (until_us, _))| *until_us);
            if let Some(soonest) = soonest.map(|(digest, _)| *digest) {
                self.held.remove(&soonest);
            }
        }
        self.held.insert(digest, grant);
    }
}

/// What is looked up is no secret, so that a comparison that ends early tells nothing.
fn digest(secret: &str) -> [u8; 32] {
    Sha256::digest(secret).into()
}

#[cfg(test)]
mod tests {
    use dtm_identity::Role;
    use dtm_machine::seams::SeededEntropy;

    use super::*;

    const NOW_US: i64 = 1_795_000_000_000_000;

    fn console() -> Console {
        Console::new(Arc::new(SeededEntropy::new(1)), NodeId([0xab; 16]))
    }

    fn lan() -> Caller {
        Caller::Operator { name: "lan".into(), role: Role::Auditor, certificate_digest: [7; 32] }
    }

    fn with(cookie: &str) -> HeaderMap {
        let value = HeaderValue::from_str(cookie).expect("a header");
        HeaderMap::from_iter([(COOKIE, value)])
    }

    #[test]
    fn a_link_is_taken_once_and_its_session_ends() {
        let console = console();
        let (link, until_us) = console.link(lan(), NOW_US);
        assert_eq!(until_us, NOW_US + 600_000_000);
        let cookie = console.exchange(&link, until_us).expect("it holds to its end");
        let cookie = cookie.to_str().expect("text");
        let (pair, marks) = cookie.split_once("; ").expect("marks");
        assert!(pair.starts_with("__Host-dtm-abababab="), "{pair}");
        assert_eq!(marks, "Path=/; Max-Age=43200; Secure; HttpOnly; SameSite=Strict");
        assert!(!cookie.contains(&link), "the link is no session");
        assert_eq!(console.exchange(&link, NOW_US), Err(ErrorCode::Unauthenticated), "once");
        let end_us = until_us + SESSION_SECONDS * 1_000_000;
        let headers = with(&format!("theme=dark; {pair}"));
        assert_eq!(console.caller(&headers, end_us), Ok(Some(lan())));
        assert_eq!(console.caller(&headers, end_us + 1), Err(ErrorCode::Expired));
    }

    #[test]
    fn what_was_not_given_here_opens_nothing() {
        let console = console();
        assert_eq!(console.caller(&HeaderMap::new(), NOW_US), Ok(None));
        assert_eq!(console.caller(&with("theme=dark"), NOW_US), Ok(None));
        let forged = with("__Host-dtm-abababab=00");
        assert_eq!(console.caller(&forged, NOW_US), Err(ErrorCode::Expired));
        for forged in ["", "1-2", "00"] {
            assert_eq!(console.exchange(forged, NOW_US), Err(ErrorCode::Unauthenticated));
        }
        let (link, until_us) = console.link(lan(), NOW_US);
        assert_eq!(console.exchange(&link, until_us + 1), Err(ErrorCode::Expired));
    }

    #[test]
    fn links_are_bounded_and_the_oldest_goes() {
        let console = console();
        let links: Vec<_> =
            (0..=LINKS_MAX as i64).map(|n| console.link(lan(), NOW_US + n).0).collect();
        assert_eq!(console.links.lock().held.len(), LINKS_MAX);
        assert!(console.exchange(&links[0], NOW_US).is_err());
        assert!(console.exchange(&links[LINKS_MAX], NOW_US).is_ok());
    }
}
