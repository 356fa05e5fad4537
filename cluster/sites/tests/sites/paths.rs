//! What a cut does, and which path is in use.

use std::sync::Arc;
use std::time::Duration;

use dtm_sites::{
    Channel, ChannelKind, Error, Event, Lane, Path, Settings, SharedPart, SiteTls, StandbyRule,
    shared_parts,
};
use tokio::time::Instant;

use crate::harness::{A, B, Node, Pair, at, fresh, node, pair, ping, quick, until};
use crate::tls::Ca;

const TWO_HOURS: Duration = Duration::from_secs(7_200);

fn path_in_use(node: &Node) -> Option<usize> {
    node.lines.state(B).and_then(|state| state.path)
}

async fn echoes(pair: &mut Pair) {
    let (mut here, mut there) = pair.lane(Lane::Log(1)).await;
    ping(&mut here, &mut there).await.expect("bytes");
}

/// A cut is found, and lanes are open again when the path is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_is_cut_is_found_and_comes_back() {
    let settings = Settings { standby: StandbyRule::Automatic, ..quick() };
    let mut pair = pair(settings).await;
    let (mut here, mut there) = pair.lane(Lane::Log(1)).await;
    ping(&mut here, &mut there).await.expect("bytes");
    pair.weather[0].cut(true);
    let begun = Instant::now();
    until("the cut", || path_in_use(&pair.a).is_none()).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    ping(&mut here, &mut there).await.expect_err("the lane is gone with its connection");
    pair.weather[0].cut(false);
    echoes(&mut pair).await;
    let up = |event: &&Event| matches!(event, Event::Up { node: B, path: 0, .. });
    until("the word of it", || pair.a.heard.all().iter().filter(up).count() >= 2).await;
    let heard = pair.a.heard.all();
    assert!(heard.iter().any(|event| matches!(event, Event::Cut { node: B, path: 0 })));
    assert!(!heard.iter().any(|event| matches!(event, Event::Switched { .. })), "{heard:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_path_takes_over_and_the_first_is_taken_again() {
    let mut pair = pair(quick()).await;
    echoes(&mut pair).await;
    assert_eq!(path_in_use(&pair.a), Some(0));
    pair.weather[0].cut(true);
    until("the second path", || path_in_use(&pair.a) == Some(1)).await;
    echoes(&mut pair).await;
    pair.weather[0].cut(false);
    let works_again = Instant::now();
    until("the first path", || path_in_use(&pair.a) == Some(0)).await;
    assert!(works_again.elapsed() >= quick().return_after, "{:?}", works_again.elapsed());
    echoes(&mut pair).await;
    let returned = |event: &Event| matches!(event, Event::Returned { node: B, from: 1, .. });
    until("the word of it", || pair.a.heard.all().iter().any(returned)).await;
    let heard = pair.a.heard.all();
    let switched =
        heard.iter().position(|e| matches!(e, Event::Switched { node: B, from: 0, to: 1, .. }));
    let returned = heard.iter().position(returned);
    assert!(switched.is_some() && switched < returned, "{heard:?}");
    // The second one may fail as well, and the first carries on.
    pair.weather[1].cut(true);
    echoes(&mut pair).await;
}

/// What is shared is listed, and a path that shares anything is no second one.
#[tokio::test]
async fn shared_parts_are_listed_and_refused() {
    let (ca, test) = (Ca::new(), fresh());
    let channel = |host: u8, credentials: &str| Channel {
        name: credentials.to_owned(),
        kind: ChannelKind::Quic,
        bind: at(test, host),
        credentials: credentials.to_owned(),
        tls: ca.node(A) as Arc<dyn SiteTls>,
    };
    let (first, other_host, other_key) = (channel(1, "key"), channel(2, "key"), channel(1, "new"));
    let anywhere = Channel { bind: ([0, 0, 0, 0], 1).into(), ..channel(1, "third") };
    let channels = [&first, &other_host, &other_key, &anywhere];
    let path = |channel, remote: &str| Path { channel, remote: remote.to_owned() };
    let parts = |one: Path, other: Path| shared_parts(&channels, &one, &other).expect("channels");
    let here = SharedPart::LocalAddress(at(test, 1).ip());
    let key = SharedPart::Credentials("key".to_owned());
    let remote = SharedPart::RemoteHost("b.example".to_owned());
    let (b, other) = ("b.example:9445", "b2.example:9445");
    assert_eq!(parts(path(0, b), path(1, "B.example:1")), [remote.clone(), key.clone()]);
    assert_eq!(parts(path(0, b), path(1, other)), [key]);
    assert_eq!(parts(path(0, b), path(2, other)), std::slice::from_ref(&here));
    assert_eq!(parts(path(0, "[::1]:1"), path(2, "[::1]:2")).len(), 2);
    assert_eq!(parts(path(0, b), path(3, other)), [here], "bound to all addresses");
    assert!(matches!(shared_parts(&channels, &path(0, b), &path(9, b)), Err(Error::NoChannel(9))));

    let node = node(A, vec![(at(test, 1), ca.node(A)), (at(test, 2), ca.node(A))], quick());
    // By number: names would be asked for.
    let (b, other) = ("127.0.0.1:9", "127.0.0.2:9");
    let refused = node.lines.place(B, vec![path(0, b), path(1, b)]);
    let Err(Error::Shared { index: 1, other: 0, shared }) = refused else {
        panic!("{refused:?}");
    };
    assert!(shared.contains("127.0.0.1"), "{shared}");
    assert_eq!(node.lines.state(B), None, "nothing is kept of it");
    node.lines.place(B, vec![path(0, b), path(1, other)]).expect("independent");
}

/// A node whose first path leads nowhere.
fn cut_off(rule: StandbyRule) -> (Node, Node) {
    let (ca, test) = (Ca::new(), fresh());
    let tls = |id| ca.node(id) as Arc<dyn SiteTls>;
    let settings = Settings { standby: rule, ..quick() };
    let own = vec![(at(test, 1), tls(A)), (at(test, 2), tls(A))];
    let (a, b) = (node(A, own, settings.clone()), node(B, vec![(at(test, 3), tls(B))], settings));
    let dead = std::net::UdpSocket::bind(at(test, 4)).expect("a port");
    let nowhere = dead.local_addr().expect("bound").to_string();
    // It stays bound: nothing else may answer there.
    std::mem::forget(dead);
    let path = |channel, remote| Path { channel, remote };
    let there = b.lines.addresses()[0].to_string();
    a.lines.place(B, vec![path(0, nowhere), path(1, there)]).expect("independent");
    (a, b)
}

/// A second before two hours it is an incident and no more; then the rule speaks. Its words since then.
async fn at_two_hours(a: &Node) {
    let before = TWO_HOURS - Duration::from_secs(1);
    a.clock.advance_us(before.as_micros() as i64);
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(a.heard.all(), [Event::Interrupted { node: B, cut_for: before }]);
    a.clock.advance_us(1_000_000);
    until("the word of the rule", || a.heard.all().len() > 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_two_hours_the_standby_channel_is_ordered_and_used() {
    let (a, _b) = cut_off(StandbyRule::Automatic);
    at_two_hours(&a).await;
    let ordered = Event::StandbyOrdered { node: B, cut_for: TWO_HOURS, confirmed: false };
    assert_eq!(a.heard.all().get(1), Some(&ordered));
    until("the standby channel", || path_in_use(&a) == Some(1)).await;
    let switched = Event::Switched { node: B, from: 0, to: 1, cut_for: TWO_HOURS };
    until("the switch", || a.heard.all().contains(&switched)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_rule_says_so_one_confirmation_orders_it() {
    let (a, _b) = cut_off(StandbyRule::Confirmed);
    assert!(!a.lines.confirm(B), "nothing to confirm yet");
    at_two_hours(&a).await;
    let awaited = Event::ConfirmationAwaited { node: B, cut_for: TWO_HOURS };
    a.clock.advance_us(TWO_HOURS.as_micros() as i64);
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(a.heard.all()[1..], [awaited], "it waits");
    assert!(a.lines.state(B).is_some_and(|state| state.awaits && state.paths == 2));
    assert_eq!((a.lines.confirm_all(), a.lines.confirm_all()), (1, 0));
    assert!(!a.lines.confirm(B));
    let ordered = Event::StandbyOrdered { node: B, cut_for: TWO_HOURS * 2, confirmed: true };
    assert_eq!(a.heard.all().get(2), Some(&ordered));
    until("the standby channel", || path_in_use(&a) == Some(1)).await;
}
