//! Reading a group of which this node holds no replica: the answers of a node that holds one are
//! passed on; when it fails the next one goes on from the position that was reached.

use std::time::Duration;

use dtm_proto::admin::ReadGroupRequest;
use dtm_proto::records::{Position, ReadRequest, ReadResponse};
use dtm_types::text::Told;
use dtm_types::{ErrorCode, GroupId};
use prost::Message;
use tonic::Status;

use super::driven::Giver;
use super::{Plan, Progress};
use crate::elsewhere::{another_may_answer, nobody_answers};
use crate::status::{internal, told};

/// How long the next answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Reads through the nodes that hold the group, the leader first; each is asked once.
pub(crate) async fn read(
    plan: &mut Plan,
    group: GroupId,
    current: bool,
    progress: &mut Progress,
    giver: &Giver<ReadResponse>,
) -> Result<(), Status> {
    let mut last = nobody_answers(group);
    for peer in plan.shared.cluster.holders(group) {
        let mut client = plan.shared.peers.client(peer.node, &peer.grpc_address)?;
        let records_max = match progress.limit {
            u64::MAX => 0,
            limit => limit - progress.given,
        };
        let read = ReadRequest {
            position: plan.position.encode_to_vec().into(),
            records_max,
            current,
            digests_only: plan.digests_only,
            ..plan.request.clone()
        };
        let request = ReadGroupRequest { group: group.0, read: Some(read) };
        let passed = match client.read_group(request).await {
            Ok(answers) => pass_on(plan, answers.into_inner(), progress, giver).await,
            Err(status) => Err(status),
        };
        match passed {
            Ok(is_current) => {
                progress.current &= is_current;
                return Ok(());
            }
            Err(status) if another_may_answer(&status) => last = status,
            Err(status) => return Err(status),
        }
    }
    Err(last)
}

/// Whether the answers were current, once all of them are passed on.
async fn pass_on(
    plan: &mut Plan,
    mut answers: tonic::Streaming<ReadResponse>,
    progress: &mut Progress,
    giver: &Giver<ReadResponse>,
) -> Result<bool, Status> {
    let late = |_| told(ErrorCode::Unavailable, &Told::new("refused.fell_silent"));
    let mut is_current = false;
    loop {
        plan.reading.room().await;
        let next = tokio::time::timeout(ANSWER_WITHIN, answers.message()).await.map_err(late)??;
        let Some(mut answer) = next else {
            plan.reading.holds(0);
            return Ok(is_current);
        };
        plan.reading.holds(answer.encoded_len() as u64);
        is_current = answer.current;
        plan.position = Position::decode(answer.position.clone()).map_err(internal)?;
        progress.given += answer.records.len() as u64;
        if answer.records.is_empty() {
            continue;
        }
        answer.current &= progress.current;
        giver.give(Ok(answer)).await;
    }
}
