//! A new key and certificate for this node while it runs.
//!
//! ```text
//!  key made here ─▶ signed by the issuing certificate of the keyring
//!                ─▶ entry in meta: who, which node, serial ─▶ files, then every port and every call
//! ```
//! The entry comes before the certificate is in use: without one there is none. Connections that are
//! open go on under the certificate that they began with.
//!
//! Owner of the state: [`dtm_setup::tls::Material`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dtm_identity::Identity;
use dtm_proto::admin as wire;
use dtm_setup::pki::{self, Issuing};
use dtm_types::command::IssueNodeCertificate;
use dtm_types::command::admin::Op;
use dtm_types::text::Told;
use dtm_types::{DAY_US, ErrorCode};
use serde_json::json;
use tonic::Status;

use super::audit::{Action, Actor, act};
use super::shared::Shared;
use super::status::{internal, told};

/// How often it is looked whether this node's certificate is due.
const LOOK_EVERY: Duration = Duration::from_secs(3_600);
/// What failed is tried again after so long: each try leaves an entry where there is a majority.
const AGAIN_AFTER: Duration = Duration::from_secs(600);
/// The first look comes so long after the start, which has more to do.
const FIRST_AFTER: Duration = Duration::from_secs(10);

impl Shared {
    /// Gives this node a new key and certificate and takes them into use.
    ///
    /// # Errors
    /// `not-supported` where its certificate was issued elsewhere; those of [`act`]; `internal` where
    /// the files cannot be written: then the entry is there and the certificate before stays in use.
    pub async fn renew_certificate(
        &self,
        actor: Actor,
        reason: String,
    ) -> Result<wire::RenewCertificateResponse, Status> {
        let issuing = self.issuing()?;
        let node = &self.row.name;
        if !self.material.is_issued_by(issuing.certificate()) {
            let what = Told::new("refused.issued_elsewhere").with("name", node);
            return Err(told(ErrorCode::NotSupported, &what));
        }
        let former = self.material.own();
        let request = pki::make_request(node).map_err(internal)?;
        let (identity, names) = (self.identity(), &self.config.node.advertise);
        let now_us = self.clock.now_us();
        let chain = issuing.sign_node(&request.der, identity, names, now_us).map_err(internal)?;
        let facts = Issuing::facts(&chain).map_err(internal)?;
        let serial = Bytes::from(facts.serial.clone());
        let op = Op::IssueNodeCertificate(IssueNodeCertificate {
            node: Bytes::copy_from_slice(&self.node.0),
            digest: Bytes::copy_from_slice(&facts.digest),
            serial: serial.clone(),
            not_after_us: facts.not_after_us,
        });
        let detail = json!({"node": node, "serial": hex::encode(&serial),
            "former_serial": hex::encode(&former.serial), "not_after_us": facts.not_after_us,
            "names": names});
        let request_id = Bytes::new();
        let action = Action { op, expected_version: None, reason, request_id, detail };
        act(self, actor, action).await?;
        let material = Arc::clone(&self.material);
        let taken = move || material.renew(&request.key_pem, &chain);
        let taken = tokio::task::spawn_blocking(taken).await.map_err(internal)?;
        taken.map_err(|error| {
            tracing::error!(%error, "a new certificate of this node is not in use");
            let what = Told::new("refused.certificate_not_taken").with("name", node);
            told(ErrorCode::Internal, &what.with("what", error))
        })?;
        tracing::info!(
            serial = hex::encode(&serial),
            former = hex::encode(&former.serial),
            not_after_us = facts.not_after_us,
            "this node's certificate is renewed"
        );
        Ok(wire::RenewCertificateResponse {
            serial,
            not_after_us: facts.not_after_us,
            former_serial: former.serial.into(),
            former_not_after_us: former.not_after_us,
        })
    }

    fn identity(&self) -> Identity {
        Identity::Node { cluster: self.cluster_id, node: self.node }
    }

    async fn renew_in_time(&self) -> Result<(), Status> {
        if !self.is_due()? {
            return Ok(());
        }
        let reason = "its end comes near".to_owned();
        self.renew_certificate(Actor::node(self), reason).await.map(|_| ())
    }

    /// Whether this node is to renew its certificate by itself now.
    fn is_due(&self) -> Result<bool, Status> {
        let (own, percent) = (self.material.own(), self.config.tls.renew_left_percent);
        if !pki::is_due(&own, percent, self.clock.now_us()) {
            return Ok(false);
        }
        let issuing = self.issuing()?;
        if !self.material.is_issued_by(issuing.certificate()) {
            tracing::warn!("this node's certificate ends soon, and was issued elsewhere");
            return Ok(false);
        }
        if issuing.not_after_us().map_err(internal)? <= own.not_after_us + DAY_US {
            tracing::warn!(
                "the cluster's issuing certificate ends with this node's: nothing to gain"
            );
            return Ok(false);
        }
        Ok(true)
    }
}

/// Renews this node's certificate in time. Runs as long as the node.
pub async fn keep_certificate(shared: Arc<Shared>) {
    let mut pause = FIRST_AFTER;
    loop {
        tokio::time::sleep(pause).await;
        pause = match shared.renew_in_time().await {
            Ok(()) => LOOK_EVERY,
            Err(error) => {
                let error = error.message();
                tracing::warn!(error, "this node's certificate is not renewed yet");
                AGAIN_AFTER
            }
        };
    }
}
