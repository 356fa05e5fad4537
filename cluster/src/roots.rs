//! RAFT-1, live: replicas of a group compare their ledgers at equal applied indexes.

use bytes::Bytes;
use dtm_proto::cluster as wire;

use crate::applied::Head;

pub(crate) fn head_to_wire(head: &Head) -> wire::Head {
    wire::Head {
        index: head.index,
        ledger_size: head.ledger_size,
        ledger_root: Bytes::copy_from_slice(&head.ledger_root),
    }
}
