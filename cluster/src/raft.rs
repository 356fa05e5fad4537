//! openraft of one group, by name.

use crate::state_machine::StateMachine;
use crate::type_config::TypeConfig;

pub(crate) type GroupRaft = openraft::Raft<TypeConfig, StateMachine>;
pub(crate) type ServerMetrics = openraft::metrics::RaftServerMetrics<TypeConfig>;
