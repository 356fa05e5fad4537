//! Only nodes of the cluster, and only the one that was called.

use std::sync::Arc;
use std::time::Duration;

use dtm_sites::{Error, Lane, Path, SiteTls};
use dtm_types::NodeId;

use crate::harness::{A, B, Node, at, fresh, node, ping, quick, until};
use crate::tls::{Ca, NodeTls};

/// A calls who listens as B; what A shows and what B shows.
fn called(shown_by_a: Arc<NodeTls>, shown_by_b: Arc<NodeTls>) -> (Node, Node) {
    let test = fresh();
    let a = node(A, vec![(at(test, 1), shown_by_a as Arc<dyn SiteTls>)], quick());
    let b = node(B, vec![(at(test, 2), shown_by_b as Arc<dyn SiteTls>)], quick());
    let remote = b.lines.addresses()[0].to_string();
    a.lines.place(B, vec![Path { channel: 0, remote }]).expect("a path");
    (a, b)
}

async fn refused((a, mut b): (Node, Node)) {
    let opened = a.lines.open(B, Lane::Control).await;
    assert!(matches!(opened, Err(Error::Cut(B))), "a line to {:?}", a.lines.state(B));
    assert!(a.heard.all().is_empty() && b.heard.all().is_empty());
    assert!(b.arrived.try_recv().is_err());
}

#[tokio::test]
async fn a_node_of_the_cluster_is_heard() {
    let ca = Ca::new();
    let (a, mut b) = called(ca.node(A), ca.node(B));
    let mut here = a.lines.open(B, Lane::Log(3)).await.expect("a line");
    let mut there = b.arrived.recv().await.expect("arrives");
    assert_eq!((there.node, there.lane), (A, Lane::Log(3)));
    ping(&mut here, &mut there.io).await.expect("bytes");
}

#[tokio::test]
async fn a_node_of_another_cluster_is_refused_by_both() {
    let (own, foreign) = (Ca::new(), Ca::new());
    refused(called(own.node(A), foreign.node(B))).await;
    refused(called(foreign.node(A), own.node(B))).await;
}

#[tokio::test]
async fn whoever_answers_for_the_node_that_was_called_is_refused() {
    let ca = Ca::new();
    let other = NodeId([3; 16]);
    // Neither the name that was called, nor, with that name, a certificate of another node.
    refused(called(ca.node(A), ca.node(other))).await;
    refused(called(ca.node(A), ca.issue(B, Some(other)))).await;
}

#[tokio::test]
async fn a_certificate_of_the_cluster_that_is_not_a_nodes_is_refused() {
    let ca = Ca::new();
    refused(called(ca.node(A), ca.issue(B, None))).await;
    // TLS 1.3: the caller has its connection before it is refused, but no line lasts.
    let (a, mut b) = called(ca.issue(A, None), ca.node(B));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(b.heard.all().is_empty() && b.arrived.try_recv().is_err());
    assert_eq!(b.lines.state(A), None);
    drop(a);
}

#[tokio::test]
async fn certificates_are_asked_for_at_each_connection() {
    let (ca, other) = (Ca::new(), Ca::new());
    let (shown, next) = (ca.node(A), other.node(A));
    let (a, b) = called(Arc::clone(&shown), ca.node(B));
    until("a line", || a.lines.state(B).is_some_and(|state| state.path.is_some())).await;
    // What is open stays; the next connection shows the new certificate, which B does not trust.
    shown.replace(&next);
    let paths = a.lines.addresses();
    b.lines.forget(A);
    until("the cut", || a.lines.state(B).is_some_and(|state| state.path.is_none())).await;
    assert!(matches!(a.lines.open(B, Lane::Control).await, Err(Error::Cut(B))), "{paths:?}");
}
