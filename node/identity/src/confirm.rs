//! Holds a credential against the row of the meta group that stands behind it.

use dtm_types::NodeId;
use dtm_types::command::{NodeRow, OperatorRow, SourceCertificateRow, SourceKeyRow};

use crate::{Caller, Credential, Error, SourceKey};

/// The source behind a key: one of its rows has this id, this secret, is not revoked and covers
/// `now_us`. Several keys of a source hold at once, so that one can be rotated without a gap.
///
/// # Errors
/// [`Error::SourceKey`] where no row fits, [`Error::Revoked`] where the fitting one does not hold,
/// [`Error::NotYet`] where it will.
pub fn confirm_source_key(
    key: &SourceKey,
    rows: &[SourceKeyRow],
    now_us: i64,
) -> Result<Caller, Error> {
    let row = rows
        .iter()
        .find(|row| row.source == key.source().as_str() && row.key_id == key.key_id().as_slice())
        .filter(|row| key.matches(&row.secret_hash))
        .ok_or(Error::SourceKey)?;
    covers(row, now_us, || {
        format!("key {} of source {}", hex::encode(key.key_id()), key.source())
    })?;
    Ok(Caller::Source { source: key.source().clone(), credential: Credential::Key(key.key_id()) })
}

/// Whether a key covers `now_us` and is not revoked. What begins later is told apart: a node whose
/// clock is behind sees a new key so, and for its source that must not be the end.
fn covers(row: &SourceKeyRow, now_us: i64, who: impl Fn() -> String) -> Result<(), Error> {
    if row.revoked || now_us > row.not_after_us {
        return Err(Error::Revoked(who()));
    }
    if now_us < row.not_before_us {
        return Err(Error::NotYet(who()));
    }
    Ok(())
}

/// Checks what a source showed against its row: `key` and `certificate` are the rows under the
/// caller's name and credential. Without its row no certificate holds, whoever signed it.
///
/// # Errors
/// [`Error::Unknown`], [`Error::Revoked`], [`Error::NotYet`]. A caller that is no source is [`Error::Unknown`].
pub fn confirm_credential(
    caller: &Caller,
    key: Option<&SourceKeyRow>,
    certificate: Option<&SourceCertificateRow>,
    now_us: i64,
) -> Result<(), Error> {
    let unknown = || Error::Unknown(caller.to_string());
    let Caller::Source { source, credential } = caller else {
        return Err(unknown());
    };
    let revoked = |what: String| Err(Error::Revoked(format!("{what} of {caller}")));
    match credential {
        Credential::Key(id) => {
            let row =
                key.filter(|row| row.source == source.as_str() && row.key_id == id.as_slice());
            let row = row.ok_or_else(unknown)?;
            covers(row, now_us, || format!("key {} of {caller}", hex::encode(id)))
        }
        Credential::Certificate(digest) => {
            let row = certificate
                .filter(|row| row.source == source.as_str() && row.digest == digest.as_slice());
            let row = row.ok_or_else(unknown)?;
            if row.revoked || now_us > row.not_after_us {
                return revoked(format!("certificate {}", hex::encode(digest)));
            }
            Ok(())
        }
    }
}

/// Checks an operator's certificate against their row: same certificate, same role, in force.
///
/// # Errors
/// [`Error::Unknown`], [`Error::Revoked`]. A caller that is no operator is [`Error::Unknown`].
pub fn confirm_operator(
    caller: &Caller,
    row: Option<&OperatorRow>,
    now_us: i64,
) -> Result<(), Error> {
    let Caller::Operator { name, role, certificate_digest } = caller else {
        return Err(Error::Unknown(caller.to_string()));
    };
    let row =
        row.filter(|row| row.name == *name).ok_or_else(|| Error::Unknown(caller.to_string()))?;
    let same = row.certificate_digest == certificate_digest.as_slice() && row.role == role.name();
    if row.revoked || !same || now_us > row.not_after_us {
        return Err(Error::Revoked(format!("certificate of {caller}")));
    }
    Ok(())
}

/// Checks a peer's certificate against its row: a member that was not removed. `None` for the row
/// is refused: a node joins through its token, not through a certificate alone.
///
/// # Errors
/// [`Error::Unknown`], [`Error::Revoked`].
pub fn confirm_node(node: NodeId, row: Option<&NodeRow>) -> Result<(), Error> {
    match row.filter(|row| row.node == node.0.as_slice()) {
        None => Err(Error::Unknown(format!("node {node}"))),
        Some(row) if row.removed => Err(Error::Revoked(format!("node {node}"))),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use dtm_types::{ErrorCode, SourceId};

    use super::*;
    use crate::Role;

    const DAY_US: i64 = 86_400_000_000;

    fn key(id: u8) -> SourceKey {
        SourceKey::new(SourceId::parse("tinh-01").expect("a code"), [id; 8], &mut [id; 32])
    }

    fn row(key: &SourceKey, from: i64, to: i64) -> SourceKeyRow {
        SourceKeyRow {
            source: key.source().to_string(),
            key_id: key.key_id().to_vec().into(),
            secret_hash: key.secret_hash().to_vec().into(),
            not_before_us: from,
            not_after_us: to,
            revoked: false,
        }
    }

    #[test]
    fn rotation_overlaps_and_expiry_ends_it() {
        let (old, new) = (key(1), key(2));
        let rows = [row(&old, 0, 10 * DAY_US), row(&new, 9 * DAY_US, 99 * DAY_US)];
        let at = |key: &SourceKey, day: i64| confirm_source_key(key, &rows, day * DAY_US).is_ok();
        assert!(at(&old, 9) && at(&new, 9), "both hold while they overlap");
        assert!(!at(&new, 8), "not before its time");
        let early = confirm_source_key(&new, &rows, 8 * DAY_US).expect_err("too early");
        assert!(
            early.retryable() && early.code().retryable(),
            "not the end of its source: {early}"
        );
        assert!(at(&new, 11) && !at(&old, 11), "the old one ends");
    }

    #[test]
    fn a_revoked_key_tells_so_only_to_who_holds_its_secret() {
        let held = key(1);
        let mut rows = [row(&held, 0, DAY_US)];
        rows[0].revoked = true;
        let code = |key: &SourceKey| confirm_source_key(key, &rows, 1).map_err(|e| e.code());
        assert_eq!(code(&held), Err(ErrorCode::CredentialRevoked));
        let forged = SourceKey::new(held.source().clone(), held.key_id(), &mut [3; 32]);
        assert_eq!(code(&forged), Err(ErrorCode::Unauthenticated));
    }

    #[test]
    fn a_key_of_another_source_does_not_hold() {
        let stolen =
            SourceKey::new(SourceId::parse("tinh-02").expect("a code"), [1; 8], &mut [1; 32]);
        assert_eq!(
            confirm_source_key(&stolen, &[row(&key(1), 0, DAY_US)], 1),
            Err(Error::SourceKey)
        );
    }

    #[test]
    fn an_operator_needs_their_row() {
        let caller = Caller::Operator {
            name: "lan".into(),
            role: Role::Operator,
            certificate_digest: [5; 32],
        };
        let good = OperatorRow {
            name: "lan".into(),
            role: "operator".into(),
            certificate_digest: vec![5; 32].into(),
            not_after_us: DAY_US,
            ..OperatorRow::default()
        };
        assert_eq!(confirm_operator(&caller, Some(&good), 1), Ok(()));
        let code = |row: &OperatorRow, now| {
            confirm_operator(&caller, Some(row), now).map_err(|e| e.code())
        };
        assert_eq!(
            confirm_operator(&caller, None, 1).map_err(|e| e.code()),
            Err(ErrorCode::Unauthenticated)
        );
        for bad in [
            OperatorRow { revoked: true, ..good.clone() },
            OperatorRow { role: "auditor".into(), ..good.clone() },
            OperatorRow { certificate_digest: vec![6; 32].into(), ..good.clone() },
        ] {
            assert_eq!(code(&bad, 1), Err(ErrorCode::CredentialRevoked));
        }
        assert_eq!(code(&good, DAY_US + 1), Err(ErrorCode::CredentialRevoked));
    }

    // holds: SEC-2
    #[test]
    fn a_source_needs_the_row_of_its_credential() {
        let name = SourceId::parse("tinh-01").expect("a code");
        let caller = |credential| Caller::Source { source: name.clone(), credential };
        let certificate = SourceCertificateRow {
            source: "tinh-01".into(),
            digest: vec![7; 32].into(),
            not_after_us: DAY_US,
            ..SourceCertificateRow::default()
        };
        let by = caller(Credential::Certificate([7; 32]));
        let code = |row: Option<&SourceCertificateRow>, now| {
            confirm_credential(&by, None, row, now).map_err(|error| error.code())
        };
        assert_eq!(code(Some(&certificate), 1), Ok(()));
        let (unknown, revoked) =
            (Err(ErrorCode::Unauthenticated), Err(ErrorCode::CredentialRevoked));
        assert_eq!(code(None, 1), unknown, "signed, and never entered");
        let theirs = SourceCertificateRow { source: "tinh-02".into(), ..certificate.clone() };
        assert_eq!(code(Some(&theirs), 1), unknown);
        let gone = SourceCertificateRow { revoked: true, ..certificate.clone() };
        assert_eq!(code(Some(&gone), 1), revoked);
        assert_eq!(code(Some(&certificate), DAY_US + 1), revoked, "expired");

        let by = caller(Credential::Key([1; 8]));
        let code = |row: Option<&SourceKeyRow>, now| {
            confirm_credential(&by, row, None, now).map_err(|error| error.code())
        };
        let held = SourceKeyRow {
            source: "tinh-01".into(),
            key_id: vec![1; 8].into(),
            not_after_us: DAY_US,
            ..SourceKeyRow::default()
        };
        assert_eq!(code(Some(&held), 1), Ok(()));
        assert_eq!(code(None, 1), unknown);
        assert_eq!(code(Some(&held), DAY_US + 1), revoked);
        assert_eq!(code(Some(&SourceKeyRow { revoked: true, ..held.clone() }), 1), revoked);
    }

    #[test]
    fn a_removed_node_is_refused() {
        let node = NodeId([4; 16]);
        let mut row = NodeRow { node: node.0.to_vec().into(), ..NodeRow::default() };
        assert_eq!(confirm_node(node, Some(&row)), Ok(()));
        row.removed = true;
        assert!(matches!(confirm_node(node, Some(&row)), Err(Error::Revoked(_))));
        assert!(matches!(confirm_node(NodeId([9; 16]), Some(&row)), Err(Error::Unknown(_))));
    }
}
