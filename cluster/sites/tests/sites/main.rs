//! Lines between two nodes over loopback UDP: who is refused, what does not wait for what, what a
//! cut does.

mod handshake;
mod harness;
mod lanes;
mod paths;
mod proxy;
mod tcp;
mod tls;
