//! Who may do what: one table, deny by default.
//!
//! Callers are the columns, operations the rows; a cell is *no*, *yes*, or *own* (only what
//! belongs to the calling source). An operator never reads payloads.

use dtm_types::SourceId;
use dtm_types::text::Told;

use crate::{Caller, Error, Role};

macro_rules! operations {
    ($($(#[$doc:meta])* $variant:ident = $name:literal [$node:ident $operator:ident $approver:ident $auditor:ident $source:ident $anonymous:ident];)*) => {
        /// Everything that can be asked of a node.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Operation { $($(#[$doc])* $variant,)* }

        impl Operation {
            /// All operations.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// In English, as it stands in logs.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// In the reader's language.
            pub fn told(self) -> Told {
                Told::new(match self {
                    $(Self::$variant => concat!("operation.", stringify!($variant)),)*
                })
            }

            fn cells(self) -> [Decision; 6] {
                match self { $(Self::$variant => [
                    Decision::$node, Decision::$operator, Decision::$approver,
                    Decision::$auditor, Decision::$source, Decision::$anonymous,
                ],)* }
            }
        }
    };
}

/// A cell of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Denied.
    No,
    /// Allowed.
    Yes,
    /// Allowed on what belongs to the calling source.
    Own,
}

operations! {
    //                                           node oper appr audi sour anon
    /// Send records.
    Publish = "publish records"                 [No   No   No   No   Own  No];
    /// Where a stream stands.
    StreamStatus = "ask for a stream's status"  [No   Yes  No   Yes  Own  No];
    /// Read payloads.
    ReadPayloads = "read payloads"              [No   No   No   No   Own  No];
    /// Read positions, hashes and digests without payloads.
    ReadDigests = "read digests"                [No   Yes  No   Yes  Own  No];
    /// Which records were refused and why.
    ListQuarantine = "list the quarantine"      [No   Yes  No   Yes  Own  No];
    /// The content of refused records.
    ReadQuarantine = "read quarantined content" [No   No   No   No   Own  No];
    /// Send a refused record again, as it was or corrected.
    ResendQuarantined = "resend a refused record" [No  Yes  No   No   Own  No];
    /// Nodes, groups, ledgers.
    ClusterStatus = "see the cluster's status"  [No   Yes  Yes  Yes  No   No];
    /// Let another node join.
    CreateJoinToken = "create a join token"     [No   Yes  No   No   No   No];
    /// Come in with a one-time token (checked by the call itself).
    Join = "join the cluster"                   [No   No   No   No   No   Yes];
    /// Move leadership.
    TransferLeader = "transfer leadership"      [No   Yes  No   No   No   No];
    /// Empty a node of leaders and sessions.
    DrainNode = "drain a node"                  [No   Yes  No   No   No   No];
    /// Take a node out for good.
    RemoveNode = "remove a node"                [No   Yes  No   No   No   No];
    /// Give a node that runs a new key and certificate.
    RenewNodeCertificate = "renew a node's certificate" [No Yes No No No No];
    /// Register or change a source.
    PutSource = "register a source"             [No   Yes  No   No   No   No];
    /// See sources, keys' ids and streams.
    ListSources = "list sources"                [No   Yes  Yes  Yes  Own  No];
    /// Make a source key.
    IssueSourceKey = "issue a source key"       [No   Yes  No   No   No   No];
    /// Cut a source key off.
    RevokeSourceKey = "revoke a source key"     [No   Yes  No   No   No   No];
    /// Sign a source's certificate.
    IssueSourceCertificate = "issue a source certificate" [No Yes No No No No];
    /// Cut a source's certificate off.
    RevokeSourceCertificate = "revoke a source certificate" [No Yes No No No No];
    /// Raise the version of the groups.
    UpgradeCluster = "upgrade the cluster"      [No   Yes  No   No   No   No];
    /// Publish a data set or a new version of one.
    PublishDataset = "publish a data set"       [No   Yes  No   No   No   No];
    /// See data sets and their definitions.
    ListDatasets = "list data sets"             [No   Yes  Yes  Yes  Yes  No];
    /// Make an operator.
    AddOperator = "add an operator"             [No   Yes  No   No   No   No];
    /// See operators.
    ListOperators = "list operators"            [No   Yes  Yes  Yes  No   No];
    /// Cut an operator off.
    RevokeOperator = "revoke an operator"       [No   Yes  No   No   No   No];
    /// Make a new cluster key and wrap the data keys under it.
    RotateClusterKey = "rotate the cluster key" [No   Yes  No   No   No   No];
    /// See who asks for a second person's word, and what for.
    ListApprovals = "see approvals"             [No   Yes  Yes  Yes  No   No];
    /// Ask for a second person's word.
    RequestApproval = "ask for an approval"     [No   Yes  No   No   No   No];
    /// Give it: another person than who asked, which apply sees to.
    GrantApproval = "grant an approval"         [No   Yes  Yes  No   No   No];
    /// Refuse it: another person than who asked, which apply sees to.
    DenyApproval = "deny an approval"           [No   Yes  Yes  No   No   No];
    /// Set what the whole cluster goes by, or bring an older version back.
    ChangeSettings = "change the cluster's settings" [No Yes No No No No];
    /// See the cluster's settings and their history.
    ReadSettings = "see the cluster's settings" [No  Yes  Yes  Yes  No   No];
    /// Write a backup of the whole cluster.
    CreateBackup = "write a backup"             [No   Yes  No   No   No   No];
    /// Decide how replicas lie over sites.
    PutLayout = "lay replicas out over sites"   [No   Yes  No   No   No   No];
    /// Give a standby up; by two people on a cluster of production, which apply sees to.
    DetachSite = "detach a site"                [No   Yes  No   No   No   No];
    /// See sites, their replicas and how far these are behind.
    SiteStatus = "see the status of sites"      [No   Yes  Yes  Yes  No   No];
    /// Say the one word that the second channel between sites waits for.
    ConfirmChannel = "confirm the second channel" [No Yes No   No   No   No];
    /// Make the standby primary.
    PromoteSite = "promote a site"              [No   Yes  No   No   No   No];
    /// See what a node held of a life that is over.
    LeftBehind = "see what was left behind"     [No   Yes  Yes  Yes  No   No];
    /// Send it again, or give it up.
    SettleLeft = "settle what was left behind"  [No   Yes  No   No   No   No];
    /// See which site is primary.
    Primacy = "see which site is primary"       [No   Yes  Yes  Yes  No   No];
    /// Make a 10-minute link to the page.
    ConsoleLink = "open the console"            [No   Yes  Yes  Yes  No   No];
    /// See the live page.
    ViewPage = "see the page"                   [No   Yes  Yes  Yes  No   No];
    /// Fetch metrics.
    ReadMetrics = "read metrics"                [No   Yes  No   Yes  No   No];
    /// Speak Raft.
    PeerCall = "speak as a peer"                [Yes  No   No   No   No   No];
    /// Read the contracts over gRPC reflection.
    Reflection = "read the contracts"           [No   Yes  Yes  Yes  Yes  No];
    /// Alive and ready.
    Health = "ask for health"                   [Yes  Yes  Yes  Yes  Yes  Yes];
}

/// The cell of the table for this caller.
pub fn decide(caller: &Caller, operation: Operation) -> Decision {
    let [node, operator, approver, auditor, source, anonymous] = operation.cells();
    match caller {
        Caller::Node { .. } => node,
        Caller::Operator { role: Role::Operator, .. } => operator,
        Caller::Operator { role: Role::Approver, .. } => approver,
        Caller::Operator { role: Role::Auditor, .. } => auditor,
        Caller::Source { .. } => source,
        Caller::Anonymous => anonymous,
    }
}

/// Allows the operation on what belongs to `owner` (`None`: on everything), or says why not.
///
/// # Errors
/// [`Error::Denied`]; for a caller without a credential [`Error::Unknown`].
pub fn authorize(
    caller: &Caller,
    operation: Operation,
    owner: Option<&SourceId>,
) -> Result<(), Error> {
    let allowed = match decide(caller, operation) {
        Decision::Yes => true,
        Decision::No => false,
        Decision::Own => owner.is_some() && owner == caller.source(),
    };
    match (allowed, caller) {
        (true, _) => Ok(()),
        (false, Caller::Anonymous) => Err(Error::Unknown(caller.to_string())),
        (false, _) => Err(Error::Denied { caller: caller.to_string(), operation }),
    }
}

#[cfg(test)]
#[path = "access_test.rs"]
mod tests;
