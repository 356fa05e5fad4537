//! `dtm.admin.v1.BackupService`: writes a backup of the cluster into a folder of this node.
//!
//! ```text
//!  entry "begun" in meta ─▶ the next anchor ─▶ every group confirmed by its leader, then frozen here;
//!    meta last, so that it knows every source that the others know
//!  ─▶ rows and new entries, sealed, file by file ─▶ all of it read back and opened ─▶ manifest
//!  ─▶ entry with the digest of the manifest
//! ```
//! What it guarantees: every record that was acknowledged before the call is in it, and each group is
//! at least where the anchor has it. One backup at a time on a node; a call that is cut ends it, and
//! what it left is no backup. Owner of the state: the folder.

mod job;
mod schedule;

use std::pin::Pin;
use std::sync::Arc;

use dtm_backup::Folder;
use dtm_doors::Shared;
use dtm_doors::audit::Actor;
use dtm_doors::auth::address;
use dtm_doors::status::{status, told};
use dtm_identity::Operation;
use dtm_proto::admin as wire;
use dtm_proto::admin::backup_service_server::BackupService;
use dtm_types::ErrorCode;
use dtm_types::text::Told;
use futures::Stream;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};

use self::job::Job;
pub use self::schedule::keep_backups;

/// Answers that wait for the caller.
const ANSWERS_MAX: usize = 16;

type Answers = Pin<Box<dyn Stream<Item = Result<wire::CreateBackupResponse, Status>> + Send>>;

/// The service.
pub struct BackupDoor(pub Arc<Shared>);

#[tonic::async_trait]
impl BackupService for BackupDoor {
    type CreateBackupStream = Answers;

    async fn create_backup(
        &self,
        request: Request<wire::CreateBackupRequest>,
    ) -> Result<Response<Self::CreateBackupStream>, Status> {
        let shared = &self.0;
        let caller = shared.allow(&request, Operation::CreateBackup, None).await?;
        let from = address(&request);
        let asked = request.into_inner();
        let why = asked.context.unwrap_or_default();
        if !why.second_factor.is_empty() {
            let detail = "a second factor is not supported by this version";
            return Err(status(ErrorCode::NotSupported, detail));
        }
        let folder = &shared.config.backup.folder;
        if folder.as_os_str().is_empty() {
            let what = Told::new("refused.no_backup_folder").with("node", &shared.row.name);
            return Err(told(ErrorCode::InvalidArgument, &what));
        }
        let Ok(turn) = Arc::clone(&shared.room.backups).try_lock_owned() else {
            return Err(told(ErrorCode::Overloaded, &Told::new("refused.backup_runs")));
        };
        let (answers, receiver) = mpsc::channel(ANSWERS_MAX);
        let job = Job {
            shared: Arc::clone(shared),
            folder: Folder::new(folder),
            full: asked.full,
            reason: why.reason,
            request_id: why.request_id,
            answers: answers.clone(),
        };
        tokio::spawn(async move {
            let _turn = turn;
            let ended = Box::pin(job.run(Actor::of(&caller, from))).await;
            let answer = ended.map(|done| answer(wire::create_backup_response::Answer::Done(done)));
            if let Err(status) = &answer {
                failed(status);
            }
            // Whoever asked may have gone: the backup, or what is none, stays.
            let _ = answers.send(answer).await;
        });
        let next = |mut receiver: mpsc::Receiver<_>| async move {
            receiver.recv().await.map(|answer| (answer, receiver))
        };
        Ok(Response::new(Box::pin(futures::stream::unfold(receiver, next))))
    }
}

fn answer(of: wire::create_backup_response::Answer) -> wire::CreateBackupResponse {
    wire::CreateBackupResponse { answer: Some(of) }
}

/// Says that no backup was written.
fn failed(status: &Status) {
    metrics::counter!("dtm_backups_failed_total").increment(1);
    tracing::warn!(message = status.message(), "no backup was written");
}
