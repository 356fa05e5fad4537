//! The systems that are measured: clusters of three nodes on loopback, and for the peers the
//! smallest client of each protocol that does not stand in the server's way. No client library: a
//! peer must not be slowed by our side of the wire, and 500 connections share two cores with three
//! servers.

pub mod amqp;
pub mod dtm_cluster;
pub mod dtm_metrics;
pub mod dtm_node;
pub mod echo_node;
pub mod etcd_api;
pub mod etcd_cluster;
pub mod nats_cluster;
pub mod nats_wire;
pub mod rabbit_cluster;
pub mod wire;
