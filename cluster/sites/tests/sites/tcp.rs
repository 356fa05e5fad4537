//! The second channel over TCP: another kind than the first.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dtm_sites::{ChannelKind, Error, Event, Lane, LaneIo, Path, SiteTls};
use dtm_types::NodeId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use crate::harness::{
    A, B, Node, PATIENCE, Pair, at, fresh, node_of_kinds, pair_of, ping, quick, until,
};
use crate::proxy::Weather;
use crate::tls::Ca;

const KINDS: [ChannelKind; 2] = [ChannelKind::Quic, ChannelKind::Tcp];

/// Starts a TCP path to `target`; it ends with the runtime. While it is cut, bytes and new connections
/// wait as where a router is gone; nothing is told of it.
pub(crate) async fn proxy(
    front: SocketAddr,
    target: SocketAddr,
    weather: &Arc<Weather>,
) -> SocketAddr {
    let listener = TcpListener::bind(front).await.expect("a port");
    let (address, weather) = (listener.local_addr().expect("bound"), Arc::clone(weather));
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let weather = Arc::clone(&weather);
            tokio::spawn(async move {
                clear(&weather).await;
                let Ok(far) = TcpStream::connect(target).await else { return };
                let ((near_in, near_out), (far_in, far_out)) =
                    (near.into_split(), far.into_split());
                tokio::select! {
                    () = carry(near_in, far_out, &weather) => {}
                    () = carry(far_in, near_out, &weather) => {}
                }
            });
        }
    });
    address
}

async fn clear(weather: &Weather) {
    while weather.is_cut.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(5)).await;
    }
}

async fn carry(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    weather: &Weather,
) {
    let mut bytes = vec![0; 65_536];
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        clear(weather).await;
        if to.write_all(&bytes[..length]).await.is_err() {
            return;
        }
    }
}

/// Two nodes that have only a channel over TCP.
fn over_tcp() -> (Node, Node) {
    let (ca, test) = (Ca::new(), fresh());
    let of = |id, host| {
        let tls = ca.node(id) as Arc<dyn SiteTls>;
        node_of_kinds(id, vec![(ChannelKind::Tcp, at(test, host), tls)], quick())
    };
    let (a, b) = (of(A, 1), of(B, 2));
    let remote = b.lines.addresses()[0].to_string();
    a.lines.place(B, vec![Path { channel: 0, remote }]).expect("a path");
    (a, b)
}

async fn arrived(node: &mut Node, lane: Lane) -> LaneIo {
    let arrived = timeout(PATIENCE, node.arrived.recv()).await.expect("arrives").expect("runs");
    assert_eq!(arrived.lane, lane);
    arrived.io
}

/// From A to B, as often as it takes: a path may go while it is opened.
async fn echoes(pair: &mut Pair) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (mut here, mut there) = pair.lane(Lane::Log(1)).await;
        if let Ok(Ok(_)) = timeout(Duration::from_secs(2), ping(&mut here, &mut there)).await {
            return;
        }
        assert!(Instant::now() < deadline, "no bytes in time");
    }
}

async fn in_use(pair: &Pair, path: usize) {
    until("the path", || pair.a.lines.state(B).and_then(|state| state.path) == Some(path)).await;
}

/// Only A can call; B opens lanes all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_ends_open_lanes_of_a_session_and_none_waits_for_another() {
    let (mut a, mut b) = over_tcp();
    let mut stuck = a.lines.open(B, Lane::Log(1)).await.expect("a lane");
    let _unread = arrived(&mut b, Lane::Log(1)).await;
    let full = timeout(Duration::from_secs(1), async {
        loop {
            stuck.write_all(&[7; 65_536]).await.expect("open");
        }
    });
    full.await.expect_err("whoever does not read is not written to without end");

    let mut here = a.lines.open(B, Lane::Control).await.expect("a lane");
    let mut there = arrived(&mut b, Lane::Control).await;
    ping(&mut here, &mut there).await.expect("bytes");
    let mut here = b.lines.open(A, Lane::Copies(3)).await.expect("a lane of the called end");
    let mut there = arrived(&mut a, Lane::Copies(3)).await;
    ping(&mut here, &mut there).await.expect("bytes");
    let state = a.lines.state(B).expect("a line");
    assert_eq!((state.path, state.paths), (Some(0), 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lanes_end_with_their_session() {
    let (a, mut b) = over_tcp();
    let mut here = a.lines.open(B, Lane::Log(1)).await.expect("a lane");
    let mut there = arrived(&mut b, Lane::Log(1)).await;
    ping(&mut here, &mut there).await.expect("bytes");
    a.lines.forget(B);
    here.read_u8().await.expect_err("ended here");
    let ended = timeout(PATIENCE, there.read_u8()).await.expect("found");
    ended.expect_err("ended there");
}

#[tokio::test]
async fn over_tcp_too_only_the_node_that_was_called_is_heard() {
    let (ca, other, test) = (Ca::new(), Ca::new(), fresh());
    let node = |id, host, tls: Arc<dyn SiteTls>| {
        node_of_kinds(id, vec![(ChannelKind::Tcp, at(test, host), tls)], quick())
    };
    let a = node(A, 1, ca.node(A));
    // Another cluster, another node under the right name, no node at all.
    let shown = [other.node(B), ca.issue(B, Some(NodeId([3; 16]))), ca.issue(B, None)];
    for (shown, host) in shown.into_iter().zip(2..) {
        let mut b = node(B, host, shown);
        let remote = b.lines.addresses()[0].to_string();
        a.lines.place(B, vec![Path { channel: 0, remote }]).expect("a path");
        let opened = a.lines.open(B, Lane::Control).await;
        assert!(matches!(opened, Err(Error::Cut(B))), "{:?}", a.lines.state(B));
        assert!(b.arrived.try_recv().is_err());
    }
    assert_eq!(a.heard.all(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_of_another_kind_takes_over_and_the_first_is_taken_again() {
    let mut pair = pair_of(KINDS, quick()).await;
    echoes(&mut pair).await;
    in_use(&pair, 0).await;
    pair.weather[0].cut(true);
    in_use(&pair, 1).await;
    echoes(&mut pair).await;
    pair.weather[0].cut(false);
    in_use(&pair, 0).await;
    echoes(&mut pair).await;
    until("the word of it", || {
        let heard = pair.a.heard.all();
        let at = |wanted: fn(&Event) -> bool| heard.iter().position(wanted);
        let switched = at(|e| matches!(e, Event::Switched { from: 0, to: 1, .. }));
        let mended = at(|e| matches!(e, Event::Mended { from: 1, .. }));
        let returned = at(|e| matches!(e, Event::Returned { from: 1, .. }));
        switched.is_some() && switched < mended && mended < returned
    })
    .await;
    // Its silence is found as that of the first is.
    pair.weather[0].cut(true);
    in_use(&pair, 1).await;
    pair.weather[1].cut(true);
    until("the cut", || pair.a.lines.state(B).is_some_and(|state| state.path.is_none())).await;
    pair.weather[1].cut(false);
    echoes(&mut pair).await;
}

/// Network path, certificate and address of the first channel, each in its turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_channel_works_whatever_of_the_first_does_not() {
    let mut pair = pair_of(KINDS, quick()).await;
    echoes(&mut pair).await;
    pair.weather[0].cut(true);
    in_use(&pair, 1).await;
    echoes(&mut pair).await;
    // The network path is mended, but what A shows there is of no use any more.
    let foreign = Ca::new().node(A);
    pair.shown[0].replace(&foreign);
    pair.weather[0].cut(false);
    sleep(quick().return_after * 3).await;
    in_use(&pair, 1).await;
    echoes(&mut pair).await;
    // Nor is anybody at its address.
    let own = at(fresh(), 1);
    let nobody = std::net::UdpSocket::bind(own).expect("a port").local_addr().expect("bound");
    let there = pair.b.lines.addresses()[1].to_string();
    let paths =
        vec![Path { channel: 0, remote: nobody.to_string() }, Path { channel: 1, remote: there }];
    pair.a.lines.place(B, paths).expect("independent");
    echoes(&mut pair).await;
    in_use(&pair, 1).await;
}
