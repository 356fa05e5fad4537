//! Sources and their credentials.

use std::collections::BTreeMap;

use bytes::Bytes;
use dtm_doors::status::{at_most, internal, source_id, told, told_with};
use dtm_identity::{Identity, Operation, SourceKey};
use dtm_machine::reads;
use dtm_machine::seams::Freshness;
use dtm_proto::admin as wire;
use dtm_types::command::admin::Op;
use dtm_types::command::{
    RevokeSourceCertificate, RevokeSourceKey, SourceCertificateRow, SourceKeyRow, SourceLimits,
    SourceRow,
};
use dtm_types::text::Told;
use dtm_types::{DAY_US, ErrorCode, GroupId, LABEL_MAX};
use prost::Message;
use serde_json::json;
use tonic::{Request, Status};

use super::{AdminDoor, Signed, source_limits, valid_days};

/// Streams listed of one source.
const STREAMS_MAX: usize = 1_000;
/// Sources of one answer, and bytes after which it ends: the next one goes on from there.
const PAGE_SOURCES: usize = 1_000;
const PAGE_BYTES: usize = 4 << 20;
/// Largest text of a source, bytes.
const TEXT_BYTES_MAX: usize = 512;
/// Agreements of a source at most.
const AGREEMENTS_MAX: usize = 256;

/// A row is read with every stream that is opened, and listed with all others.
fn check_texts(row: &SourceRow) -> Result<(), Status> {
    let texts = [
        ("title_vi", &row.title_vi),
        ("title_en", &row.title_en),
        ("agency_code", &row.agency_code),
        ("class", &row.class),
        ("sector", &row.sector),
        ("locality", &row.locality),
    ];
    texts.iter().try_for_each(|(field, text)| at_most(field, text, TEXT_BYTES_MAX))?;
    if row.agreements.len() > AGREEMENTS_MAX {
        let what = Told::new("refused.agreements_max").with("max", AGREEMENTS_MAX);
        let values =
            [("limit", "agreements_max".to_owned()), ("value", AGREEMENTS_MAX.to_string())];
        return Err(told_with(ErrorCode::TooLarge, &what, &values));
    }
    Ok(())
}

impl AdminDoor {
    pub(crate) async fn put_source(
        &self,
        request: Request<wire::PutSourceRequest>,
    ) -> Result<wire::PutSourceResponse, Status> {
        let asked = request.get_ref();
        let asker = self.asker(&request, Operation::PutSource, asked.context.as_ref()).await?;
        let mut row = asked.source.clone().unwrap_or_default();
        check_texts(&row)?;
        self.check_agreements(&row).await?;
        let limits = row.limits.unwrap_or_default();
        source_limits::check(&limits, &self.0.settings.now().running)?;
        row.limits = (limits != SourceLimits::default()).then_some(limits);
        let expected = asked.update.then_some(row.version);
        if !asked.update {
            row.id = Bytes::copy_from_slice(&self.0.entropy.id16());
        }
        let detail = json!({"source": row.source, "title": row.title_vi, "agency": row.agency_code,
            "datasets": row.agreements.iter().map(|a| a.dataset.clone()).collect::<Vec<_>>(),
            "limits": limits.named().collect::<BTreeMap<_, _>>()});
        let done = self.act(asker, Op::PutSource(row), expected, detail).await?;
        Ok(wire::PutSourceResponse { group: done.group, version: done.version })
    }

    /// An agreement names a published data set, modes and a form; masks must fit the definition.
    async fn check_agreements(&self, row: &SourceRow) -> Result<(), Status> {
        for agreement in &row.agreements {
            self.0.directory.definition(self.0.view(), &agreement.dataset, 0).await?;
            if agreement.modes.is_empty()
                || agreement.form() == dtm_types::format::Form::Unspecified
            {
                let what = Told::new("refused.agreement").with("dataset", &agreement.dataset);
                return Err(told(ErrorCode::InvalidArgument, &what));
            }
            if dtm_types::command::AckLevel::try_from(agreement.ack_level).is_err() {
                let what = Told::new("session.unknown_value").with("field", "ack_level");
                let what = what.with("value", agreement.ack_level);
                return Err(told(ErrorCode::InvalidArgument, &what));
            }
            // 0 = as the data set says.
            if agreement.security_status.max(agreement.priority) > LABEL_MAX {
                let what = Told::new("refused.labels").with("max", LABEL_MAX);
                return Err(told(ErrorCode::InvalidArgument, &what));
            }
        }
        Ok(())
    }

    pub(crate) async fn list_sources(
        &self,
        request: Request<wire::ListSourcesRequest>,
    ) -> Result<wire::ListSourcesResponse, Status> {
        let wire::ListSourcesRequest { source, after } = request.get_ref().clone();
        let owner = (!source.is_empty()).then_some(source.as_str());
        self.0.allow(&request, Operation::ListSources, owner).await?;
        let meta = self.0.directory.meta_now(self.0.view()).await?;
        let state = meta.state.as_ref();
        let rows = match owner {
            Some(source) => reads::source(state, source).map_err(internal)?.into_iter().collect(),
            None => {
                let after = (!after.is_empty()).then_some(after.as_str());
                reads::sources(state, after, PAGE_SOURCES).map_err(internal)?
            }
        };
        let (mut sources, mut bytes) = (Vec::with_capacity(rows.len()), 0);
        let mut next = match rows.last() {
            Some(last) if rows.len() == PAGE_SOURCES => last.source.clone(),
            _ => String::new(),
        };
        for row in rows {
            let name = row.source.clone();
            let mut keys = reads::source_keys(state, &row.source).map_err(internal)?;
            keys.iter_mut().for_each(|key| key.secret_hash = Bytes::new());
            let streams = if owner.is_some() { self.streams(&row).await? } else { Vec::new() };
            let certificates = reads::source_certificates(state, &row.source).map_err(internal)?;
            let detail = wire::SourceDetail { source: Some(row), keys, streams, certificates };
            bytes += detail.encoded_len();
            sources.push(detail);
            if bytes >= PAGE_BYTES && owner.is_none() {
                next = name;
                break;
            }
        }
        Ok(wire::ListSourcesResponse { sources, next })
    }

    async fn streams(&self, row: &SourceRow) -> Result<Vec<wire::StreamDetail>, Status> {
        let range = reads::streams_range(&row.source);
        let rows = self.0.rows(GroupId(row.group), Freshness::Local, range).await?;
        let found = reads::streams(rows.as_ref(), &row.source, STREAMS_MAX).map_err(internal)?;
        Ok(found
            .into_iter()
            .map(|(stream, cursor)| wire::StreamDetail {
                stream,
                dataset: cursor.dataset,
                through: cursor.through,
                records: cursor.records,
                refused: cursor.refused,
                duplicates: cursor.duplicates,
                last_time_us: cursor.last_time_us,
                finished: cursor.closed,
                reported: cursor.reported,
                unmasked: cursor.unmasked,
            })
            .collect())
    }

    pub(crate) async fn issue_source_key(
        &self,
        request: Request<wire::IssueSourceKeyRequest>,
    ) -> Result<wire::IssueSourceKeyResponse, Status> {
        let asked = request.get_ref();
        let asker = self.asker(&request, Operation::IssueSourceKey, asked.context.as_ref()).await?;
        let source = source_id(&asked.source)?;
        let days = valid_days(asked.valid_days)?;
        let (mut key_id, mut secret) = ([0_u8; 8], [0_u8; 32]);
        self.0.entropy.fill(&mut key_id);
        self.0.entropy.fill(&mut secret);
        let key = SourceKey::new(source, key_id, &mut secret);
        let now_us = self.0.clock.now_us();
        let row = SourceKeyRow {
            source: asked.source.clone(),
            key_id: Bytes::copy_from_slice(&key_id),
            secret_hash: Bytes::copy_from_slice(&key.secret_hash()),
            // Nodes' clocks differ by less than this.
            not_before_us: now_us - 60_000_000,
            not_after_us: now_us + i64::from(days) * DAY_US,
            revoked: false,
        };
        let not_after_us = row.not_after_us;
        let detail =
            json!({"source": row.source, "key": hex::encode(key_id), "not_after_us": not_after_us});
        self.act(asker, Op::PutSourceKey(row), None, detail).await?;
        self.is_the_stored_one(&key).await?;
        Ok(wire::IssueSourceKeyResponse {
            key: key.reveal().to_string(),
            key_id: Bytes::copy_from_slice(&key_id),
            not_after_us,
        })
    }

    /// A request id that was used before is answered with the outcome of that time, and the key of
    /// that time was shown then or never: its secret is stored nowhere.
    async fn is_the_stored_one(&self, key: &SourceKey) -> Result<(), Status> {
        let meta = self.0.directory.meta_now(self.0.view()).await?;
        let row = reads::source_key(meta.state.as_ref(), key.source().as_str(), &key.key_id());
        let row = row.map_err(internal)?;
        if row.is_some_and(|row| key.matches(&row.secret_hash)) {
            return Ok(());
        }
        Err(told(ErrorCode::AlreadyExists, &Told::new("refused.key_issued")))
    }

    pub(crate) async fn revoke_source_key(
        &self,
        request: Request<wire::RevokeSourceKeyRequest>,
    ) -> Result<wire::RevokeSourceKeyResponse, Status> {
        let asked = request.get_ref();
        let asker =
            self.asker(&request, Operation::RevokeSourceKey, asked.context.as_ref()).await?;
        source_id(&asked.source)?;
        let op = RevokeSourceKey { source: asked.source.clone(), key_id: asked.key_id.clone() };
        let detail = json!({"source": asked.source, "key": hex::encode(&asked.key_id)});
        // Every node sees it in its own meta and cuts the streams that stand on this key.
        self.act(asker, Op::RevokeSourceKey(op), None, detail).await?;
        Ok(wire::RevokeSourceKeyResponse {})
    }

    pub(crate) async fn issue_source_certificate(
        &self,
        request: Request<wire::IssueSourceCertificateRequest>,
    ) -> Result<wire::IssueSourceCertificateResponse, Status> {
        let asked = request.get_ref();
        let asker =
            self.asker(&request, Operation::IssueSourceCertificate, asked.context.as_ref()).await?;
        let source = source_id(&asked.source)?;
        let row = self.0.directory.source(self.0.view(), &asked.source).await?;
        let identity = Identity::Source { cluster: self.0.cluster_id, source };
        let signed = self.sign(&asked.certificate_request, identity, asked.valid_days)?;
        // Entered first: a certificate without its row opens nothing.
        let Signed { chain, digest, serial, not_after_us } = signed;
        let certificate = SourceCertificateRow {
            source: row.source.clone(),
            digest: digest.clone(),
            serial,
            not_after_us,
            ..SourceCertificateRow::default()
        };
        let detail = json!({"source": row.source, "certificate": hex::encode(&digest),
            "not_after_us": not_after_us});
        self.act(asker, Op::PutSourceCertificate(certificate), None, detail).await?;
        Ok(wire::IssueSourceCertificateResponse { certificate_chain: chain, digest })
    }

    pub(crate) async fn revoke_source_certificate(
        &self,
        request: Request<wire::RevokeSourceCertificateRequest>,
    ) -> Result<wire::RevokeSourceCertificateResponse, Status> {
        let asked = request.get_ref();
        let asker = self
            .asker(&request, Operation::RevokeSourceCertificate, asked.context.as_ref())
            .await?;
        source_id(&asked.source)?;
        let (source, digest) = (asked.source.clone(), asked.digest.clone());
        let detail = json!({"source": source, "certificate": hex::encode(&digest)});
        let op = Op::RevokeSourceCertificate(RevokeSourceCertificate { source, digest });
        self.act(asker, op, None, detail).await?;
        Ok(wire::RevokeSourceCertificateResponse {})
    }
}
