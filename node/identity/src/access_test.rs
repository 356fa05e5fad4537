//! The declared matrix, written down a second time by hand: a change of the table must be made
//! here too, on purpose.

use dtm_types::NodeId;
use dtm_types::text::Lang;

use super::*;
use crate::Credential;

/// Allowed only: operation, then the callers. Whatever is not here is denied.
const DECLARED: &[(&str, &str)] = &[
    ("publish records", "source:own"),
    ("ask for a stream's status", "operator auditor source:own"),
    ("read payloads", "source:own"),
    ("read digests", "operator auditor source:own"),
    ("list the quarantine", "operator auditor source:own"),
    ("read quarantined content", "source:own"),
    ("resend a refused record", "operator source:own"),
    ("see the cluster's status", "operator approver auditor"),
    ("create a join token", "operator"),
    ("join the cluster", "anonymous"),
    ("transfer leadership", "operator"),
    ("drain a node", "operator"),
    ("remove a node", "operator"),
    ("renew a node's certificate", "operator"),
    ("register a source", "operator"),
    ("list sources", "operator approver auditor source:own"),
    ("issue a source key", "operator"),
    ("revoke a source key", "operator"),
    ("issue a source certificate", "operator"),
    ("revoke a source certificate", "operator"),
    ("upgrade the cluster", "operator"),
    ("publish a data set", "operator"),
    ("list data sets", "operator approver auditor source"),
    ("add an operator", "operator"),
    ("list operators", "operator approver auditor"),
    ("revoke an operator", "operator"),
    ("rotate the cluster key", "operator"),
    ("see approvals", "operator approver auditor"),
    ("ask for an approval", "operator"),
    ("grant an approval", "operator approver"),
    ("deny an approval", "operator approver"),
    ("change the cluster's settings", "operator"),
    ("see the cluster's settings", "operator approver auditor"),
    ("write a backup", "operator"),
    ("lay replicas out over sites", "operator"),
    ("detach a site", "operator"),
    ("see the status of sites", "operator approver auditor"),
    ("confirm the second channel", "operator"),
    ("promote a site", "operator"),
    ("see what was left behind", "operator approver auditor"),
    ("settle what was left behind", "operator"),
    ("see which site is primary", "operator approver auditor"),
    ("open the console", "operator approver auditor"),
    ("see the page", "operator approver auditor"),
    ("read metrics", "operator auditor"),
    ("speak as a peer", "node"),
    ("read the contracts", "operator approver auditor source"),
    ("ask for health", "node operator approver auditor source anonymous"),
];

fn source(code: &str) -> SourceId {
    SourceId::parse(code).expect("a code")
}

fn operator(role: Role) -> Caller {
    Caller::Operator { name: "lan".into(), role, certificate_digest: [0; 32] }
}

fn callers() -> Vec<(&'static str, Caller)> {
    vec![
        ("node", Caller::Node { node: NodeId([1; 16]) }),
        ("operator", operator(Role::Operator)),
        ("approver", operator(Role::Approver)),
        ("auditor", operator(Role::Auditor)),
        (
            "source",
            Caller::Source { source: source("mine"), credential: Credential::Certificate([1; 32]) },
        ),
        ("anonymous", Caller::Anonymous),
    ]
}

// holds: SEC-2
#[test]
fn every_caller_against_every_operation_is_as_declared() {
    assert_eq!(DECLARED.len(), Operation::ALL.len());
    for &operation in Operation::ALL {
        let (_, allowed) = DECLARED
            .iter()
            .find(|(name, _)| *name == operation.name())
            .unwrap_or_else(|| panic!("{} is not declared", operation.name()));
        for (name, caller) in callers() {
            let yes = allowed.split(' ').any(|word| word == name);
            let own = allowed.split(' ').any(|word| word == format!("{name}:own"));
            for (owner, expected) in
                [(None, yes), (Some(source("mine")), yes || own), (Some(source("theirs")), yes)]
            {
                let found = authorize(&caller, operation, owner.as_ref()).is_ok();
                assert_eq!(found, expected, "{name}: {} of {owner:?}", operation.name());
            }
        }
    }
}

#[test]
fn the_refusal_tells_unknown_from_forbidden() {
    let code =
        |caller: &Caller| authorize(caller, Operation::PutSource, None).map_err(|e| e.code());
    assert_eq!(code(&Caller::Anonymous), Err(dtm_types::ErrorCode::Unauthenticated));
    assert_eq!(code(&operator(Role::Auditor)), Err(dtm_types::ErrorCode::PermissionDenied));
    assert_eq!(code(&operator(Role::Operator)), Ok(()));
}

#[test]
fn the_page_of_roles_says_what_the_table_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/roles.md");
    let page = std::fs::read_to_string(path).expect("docs/roles.md");
    let (_, table) = page.split_once("| operation |").expect("a table");
    let rows: Vec<Vec<&str>> = table
        .lines()
        .skip(2)
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    assert_eq!(rows.len(), Operation::ALL.len(), "a row for each operation");
    let columns = ["operator", "approver", "auditor", "source", "node", "anonymous"];
    let callers = callers();
    for (&operation, row) in Operation::ALL.iter().zip(rows) {
        assert_eq!((row.len(), row[0]), (2 + columns.len(), operation.name()));
        let words = operation.told();
        assert_eq!((words.to_string().as_str(), &*words.of(Lang::Vi)), (row[0], row[1]));
        for (column, said) in columns.iter().zip(&row[2..]) {
            let (_, caller) = callers.iter().find(|(name, _)| name == column).expect("a caller");
            let wanted = match decide(caller, operation) {
                Decision::No => "–",
                Decision::Yes => "yes",
                Decision::Own => "own",
            };
            assert_eq!(*said, wanted, "{}: {column}", operation.name());
        }
    }
}
