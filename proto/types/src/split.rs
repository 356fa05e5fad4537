//! A promotion without the places that decide: what two people sign.
//!
//! Nobody takes the right from the old primary then: it may go on acknowledging until it hears of the
//! life that begins. So one person is not enough, and what they sign says everything that is done.

use crate::{ClusterId, Incarnation, NodeId};

/// The life that begins is at least so far above the one that ends: the places may have decided lives
/// in between that nobody of this site heard of, and no two lives have one number.
pub const LIVES_APART: u64 = 1_000;
/// And at most so far: the numbers of lives are not used up by a slip.
pub const LIVES_APART_MAX: u64 = 1_000_000;
/// Of how many numbers one is drawn by the time of the request.
const LIVES_SPREAD: u64 = 900_000;
/// A request holds no longer, microseconds.
pub const SPLIT_VALID_US_MAX: i64 = 24 * 3_600_000_000;
/// Longest reason, bytes.
pub const SPLIT_REASON_BYTES_MAX: usize = 512;
/// People who sign.
pub const SPLIT_SIGNATURES: usize = 2;

/// Lives that are asked for are at least [`LIVES_APART`] above the one in force, and two files that are made
/// at different seconds name two lives: else each of two coordinators could draw up a plan of the same one.
#[must_use]
pub fn split_life(in_force: Incarnation, made_us: i64) -> Incarnation {
    let spread = u64::try_from(made_us / 1_000_000).unwrap_or_default() % LIVES_SPREAD;
    Incarnation(in_force.0.saturating_add(LIVES_APART + spread))
}

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SplitRequest {
    /// The cluster.
    pub cluster: ClusterId,
    /// The life that the site lives in, and that ends for it.
    pub life: Incarnation,
    /// The life that begins.
    pub next: Incarnation,
    /// The site that becomes primary.
    pub site: String,
    /// The node of it that draws the plan up.
    pub coordinator: NodeId,
    /// When it was made, Unix microseconds.
    pub made_us: i64,
    /// Until when it may be carried out, Unix microseconds.
    pub expires_us: i64,
    /// Why.
    pub reason: String,
}

impl SplitRequest {
    /// What is signed: these bytes, and nothing else. Final: a signature of today is checked by later
    /// releases.
    pub fn signed_text(&self) -> String {
        format!(
            "dtm promotion without the places, version 1\n\
             the old primary may go on acknowledging until it hears of this\n\
             cluster={}\nlife={}\nnext={}\nsite={}\ncoordinator={}\nmade_us={}\nexpires_us={}\n\
             reason={}\n",
            self.cluster,
            self.life,
            self.next,
            self.site,
            self.coordinator,
            self.made_us,
            self.expires_us,
            self.reason
        )
    }

    /// The text key of what is wrong with it by itself, at a time in Unix microseconds.
    ///
    /// # Errors
    /// The key of a text in `proto/types/text`.
    pub fn check(&self, now_us: i64) -> Result<(), &'static str> {
        let is_line = |text: &str| !text.is_empty() && !text.chars().any(char::is_control);
        if !is_line(&self.site)
            || !is_line(self.reason.trim())
            || self.reason.chars().any(char::is_control)
            || self.reason.len() > SPLIT_REASON_BYTES_MAX
        {
            return Err("refused.split.words");
        }
        let apart = self.next.0.saturating_sub(self.life.0);
        if !(LIVES_APART..=LIVES_APART_MAX).contains(&apart) {
            return Err("refused.split.lives");
        }
        let is_long = self.expires_us.saturating_sub(self.made_us) > SPLIT_VALID_US_MAX;
        if now_us >= self.expires_us || is_long || self.made_us >= self.expires_us {
            return Err("refused.split.expired");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_files_name_two_lives_within_the_bounds() {
        let (first, later) = (split_life(Incarnation(3), 0), split_life(Incarnation(3), 1_000_000));
        assert_eq!((first, later), (Incarnation(1_003), Incarnation(1_004)));
        let last = split_life(Incarnation(3), i64::MAX);
        assert!(last.0 - 3 <= LIVES_APART_MAX, "{last}");
    }

    fn request() -> SplitRequest {
        SplitRequest {
            cluster: ClusterId([1; 16]),
            life: Incarnation(2),
            next: Incarnation(1_002),
            site: "da-nang".to_owned(),
            coordinator: NodeId([2; 16]),
            made_us: 1_000,
            expires_us: 2_000,
            reason: "mất cả hai nơi".to_owned(),
        }
    }

    #[test]
    fn every_field_is_signed() {
        let first = request();
        let others = [
            SplitRequest { cluster: ClusterId([9; 16]), ..request() },
            SplitRequest { life: Incarnation(3), ..request() },
            SplitRequest { next: Incarnation(1_003), ..request() },
            SplitRequest { site: "hue".to_owned(), ..request() },
            SplitRequest { coordinator: NodeId([9; 16]), ..request() },
            SplitRequest { made_us: 1_001, ..request() },
            SplitRequest { expires_us: 2_001, ..request() },
            SplitRequest { reason: "else".to_owned(), ..request() },
        ];
        for other in others {
            assert_ne!(other.signed_text(), first.signed_text(), "{other:?}");
        }
        assert!(first.signed_text().ends_with("reason=mất cả hai nơi\n"));
    }

    #[test]
    fn what_cannot_be_carried_out_is_told() {
        assert_eq!(request().check(1_500), Ok(()));
        let day = SPLIT_VALID_US_MAX;
        let wrong = [
            (SplitRequest { site: String::new(), ..request() }, "refused.split.words"),
            (SplitRequest { reason: " ".to_owned(), ..request() }, "refused.split.words"),
            // A line more would be a field more.
            (SplitRequest { reason: "x\nlife=1".to_owned(), ..request() }, "refused.split.words"),
            (SplitRequest { site: "x\ny".to_owned(), ..request() }, "refused.split.words"),
            (SplitRequest { reason: "x".repeat(513), ..request() }, "refused.split.words"),
            (SplitRequest { next: Incarnation(3), ..request() }, "refused.split.lives"),
            (SplitRequest { next: Incarnation(u64::MAX), ..request() }, "refused.split.lives"),
            (SplitRequest { expires_us: 1_500, ..request() }, "refused.split.expired"),
            (SplitRequest { expires_us: 1_001 + day, ..request() }, "refused.split.expired"),
        ];
        for (request, key) in wrong {
            assert_eq!(request.check(1_500), Err(key), "{request:?}");
        }
    }
}
