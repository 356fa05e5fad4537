//! Groups of which this node holds no replica: their rows and records come from a node that holds
//! one, asked in turn, the leader first.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use dtm_machine::seams::{Freshness, GroupView, ReadError, ReadView, StateError, StateRead};
use dtm_proto::admin as wire;
use dtm_proto::admin::node_service_client::NodeServiceClient;
use dtm_types::text::Told;
use dtm_types::{ErrorCode, GroupId};
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use super::shared::Shared;
use super::status::{LEADER_ADDRESS, internal, status, status_with, told, told_with};

/// Rows of one question.
const ROWS_MAX: u32 = 1_024;

/// Whether another node may answer where this one could not.
pub fn another_may_answer(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::DeadlineExceeded | Code::DataLoss | Code::Cancelled
    )
}

/// What a request asks for, as the groups know it.
pub fn freshness(is_current: bool) -> Freshness {
    if is_current { Freshness::Current } else { Freshness::Local }
}

/// No node that holds the group answers.
pub fn nobody_answers(group: GroupId) -> Status {
    told(ErrorCode::Unavailable, &Told::new("refused.nobody_answers").with("group", group))
}

impl Shared {
    /// This node's replica of a group.
    pub async fn here(&self, group: GroupId, freshness: Freshness) -> Result<GroupView, Status> {
        view_of(self.view(), group, freshness).await
    }

    /// Asks the nodes that hold a group in turn until one answers for good.
    pub async fn ask_holders<T, F>(
        &self,
        group: GroupId,
        call: impl Fn(NodeServiceClient<Channel>) -> F,
    ) -> Result<T, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut last = nobody_answers(group);
        for peer in self.cluster.holders(group) {
            let client = self.peers.client(peer.node, &peer.grpc_address)?;
            match call(client).await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) if another_may_answer(&status) => last = status,
                Err(status) => return Err(status),
            }
        }
        Err(last)
    }

    /// The rows of a range, from this node's replica, or a holder's, which sends at most 1,024 of
    /// them. Nothing may be read outside the range.
    pub async fn rows(
        &self,
        group: GroupId,
        freshness: Freshness,
        (from, to): (Vec<u8>, Vec<u8>),
    ) -> Result<Arc<dyn StateRead>, Status> {
        match self.cluster.view(group, freshness).await {
            Ok(view) => return Ok(view.state),
            Err(ReadError::NotHere(_)) => {}
            Err(error) => return Err(status(error.code(), &error)),
        }
        let request = wire::RowsRequest {
            group: group.0,
            current: freshness == Freshness::Current,
            from: from.into(),
            to: to.into(),
            rows_max: ROWS_MAX,
        };
        let answer: wire::RowsResponse = self
            .ask_holders(group, |mut client| {
                let request = request.clone();
                async move { client.rows(request).await }
            })
            .await?;
        let rows = answer.rows.into_iter().map(|row| (row.key, row.value)).collect();
        Ok(Arc::new(Rows { group, rows }))
    }
}

/// A group as a view shows it, its error as the caller sees it.
pub async fn view_of(
    view: &dyn ReadView,
    group: GroupId,
    freshness: Freshness,
) -> Result<GroupView, Status> {
    match view.view(group, freshness).await {
        Ok(view) => Ok(view),
        Err(error) => {
            let instead = view.instead(group).map(|address| (LEADER_ADDRESS, address));
            Err(match &error {
                ReadError::Unavailable { group, cause } => {
                    let what = not_current(*group, cause);
                    told_with(error.code(), &what, instead.as_slice())
                }
                _ => status_with(error.code(), &error, instead.as_slice()),
            })
        }
    }
}

/// Why a group cannot be read, in the reader's language where it is for want of a majority.
fn not_current(group: GroupId, cause: &str) -> Told {
    let told = Told::new("refused.no_current_read");
    let name = if group == GroupId::META { "meta".to_owned() } else { group.to_string() };
    let counted = cause
        .strip_prefix("no majority, ")
        .and_then(|rest| rest.strip_suffix(" replicas answer")?.split_once(" of "));
    let told = told.with("group", name);
    match counted {
        Some((answering, voters)) => {
            let what = Told::new("refused.no_majority").with("count", answering);
            told.with_told("what", what.with("voters", voters))
        }
        None => told.with("what", cause),
    }
}

/// Answers another node from this node's own replica.
pub async fn rows_here(
    shared: &Shared,
    asked: wire::RowsRequest,
) -> Result<wire::RowsResponse, Status> {
    let view = shared.here(GroupId(asked.group), freshness(asked.current)).await?;
    let limit = asked.rows_max.min(ROWS_MAX) as usize;
    let rows = view.state.scan(&asked.from, &asked.to, limit).map_err(internal)?;
    let rows = rows.into_iter().map(|(key, value)| wire::StateRow { key, value });
    Ok(wire::RowsResponse { rows: rows.collect() })
}

/// Rows that another node sent, read as if they were here.
struct Rows {
    group: GroupId,
    rows: BTreeMap<Bytes, Bytes>,
}

impl StateRead for Rows {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        Ok(self.rows.get(key).cloned())
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StateError> {
        let (from, to) = (Bytes::copy_from_slice(from), Bytes::copy_from_slice(to));
        let found = self.rows.range(from..to).take(limit);
        Ok(found.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<(Bytes, Bytes)>, StateError> {
        let (from, to) = (Bytes::copy_from_slice(from), Bytes::copy_from_slice(to));
        let found = self.rows.range(from..to).next_back();
        Ok(found.map(|(key, value)| (key.clone(), value.clone())))
    }

    fn group(&self) -> GroupId {
        self.group
    }
}

#[cfg(test)]
mod tests {
    use dtm_types::text::Lang;

    use super::*;

    #[test]
    fn a_lost_majority_is_told_in_the_readers_language() {
        let told = not_current(GroupId::META, "no majority, 1 of 3 replicas answer");
        assert!(told.of(Lang::Vi).contains("nhóm meta"), "{told:?}");
        assert!(told.of(Lang::Vi).contains("1 trên 3 bản sao"), "{told:?}");
        let known = "group meta cannot confirm a current read: no majority, 1 of 3 replicas answer";
        assert!(told.of(Lang::En).starts_with(known), "{told:?}");
        let other = not_current(GroupId(4), "it took too long").of(Lang::Vi);
        assert!(other.contains("nhóm 4") && other.contains("it took too long"), "{other}");
    }
}
