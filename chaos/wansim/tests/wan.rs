//! Each fault of the network as a plain program meets it, and that it was counted.

#![allow(clippy::disallowed_methods, reason = "waits and measures by the machine's own clock")]
#![allow(clippy::unwrap_used, reason = "a test says what it expects by failing")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use dtm_wansim::{NodeId, Plan, Ppm, Settings, SiteId, Wan, can_run, did_not_run};

const A: SiteId = SiteId(0);
const B: SiteId = SiteId(1);
const MS: fn(u64) -> Duration = Duration::from_millis;

/// None where the machine does not let it happen.
fn wan(seed: u64, nodes: &[usize], between_sites: Settings) -> Option<Wan> {
    if let Err(why) = can_run() {
        did_not_run(&why);
        return None;
    }
    let plan = Plan { between_sites, ..Plan::new(seed, nodes) };
    Some(Wan::build(plan).unwrap())
}

fn udp(wan: &Wan, node: NodeId) -> (UdpSocket, SocketAddr) {
    let open = || UdpSocket::bind((wan.address(node), 0)).unwrap();
    let socket = wan.namespace(node).unwrap().enter(open).unwrap();
    socket.set_read_timeout(Some(MS(400))).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// Whether a datagram of `from` reaches `to`.
fn hears(wan: &Wan, from: NodeId, to: NodeId) -> bool {
    let (sender, _) = udp(wan, from);
    let (receiver, address) = udp(wan, to);
    sender.send_to(b"x", address).unwrap();
    receiver.recv(&mut [0; 8]).is_ok()
}

/// Numbered datagrams from the first site to the second; those that came, in their order.
fn numbers(wan: &Wan, count: u32) -> Vec<u32> {
    let (sender, _) = udp(wan, NodeId::new(0, 0));
    let (receiver, address) = udp(wan, NodeId::new(1, 0));
    let mut came = Vec::new();
    let mut buffer = [0; 4];
    for number in 0..count {
        sender.send_to(&number.to_be_bytes(), address).unwrap();
        // The socket's buffer must not be what loses them.
        std::thread::sleep(Duration::from_micros(50));
        receiver.set_nonblocking(true).unwrap();
        while receiver.recv(&mut buffer).is_ok() {
            came.push(u32::from_be_bytes(buffer));
        }
    }
    receiver.set_nonblocking(false).unwrap();
    while receiver.recv(&mut buffer).is_ok() {
        came.push(u32::from_be_bytes(buffer));
    }
    came
}

/// Sends `bytes` by TCP from the first site to the second; how long it took. Each byte is checked.
fn tcp(wan: &Wan, bytes: usize) -> Duration {
    let (one, other) = (NodeId::new(0, 0), NodeId::new(1, 0));
    let listen = || TcpListener::bind((wan.address(other), 0)).unwrap();
    let listener = wan.namespace(other).unwrap().enter(listen).unwrap();
    let address = listener.local_addr().unwrap();
    let began = Instant::now();
    std::thread::scope(|scope| {
        let received = scope.spawn(move || {
            let mut all = Vec::new();
            listener.accept().unwrap().0.read_to_end(&mut all).unwrap();
            all
        });
        let connect = || TcpStream::connect(address).unwrap();
        let mut stream = wan.namespace(one).unwrap().enter(connect).unwrap();
        let sent: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
        stream.write_all(&sent).unwrap();
        drop(stream);
        assert!(received.join().unwrap() == sent, "bytes differ");
    });
    began.elapsed()
}

// fault: F18
#[test]
fn loss_duplicates_and_reordering_fire_and_are_counted() {
    let faulty = Settings {
        loss: Ppm::percent(10.0),
        duplicate: Ppm::percent(5.0),
        reorder: Ppm::percent(5.0),
        ..Settings::wan(MS(5), Ppm::default())
    };
    let Some(wan) = wan(1, &[1, 1], faulty) else { return };
    let came = numbers(&wan, 2_000);
    let counts = wan.counts(A, B).unwrap();
    assert_eq!(counts.packets, 2_000, "{counts:?}");
    assert_eq!(counts.overrun, 0, "{counts:?}");
    assert!((150..250).contains(&counts.lost), "{counts:?}");
    assert!((60..130).contains(&counts.duplicated), "{counts:?}");
    assert!(counts.reordered > 20, "{counts:?}");
    assert_eq!(u64::try_from(came.len()).unwrap(), counts.delivered, "{counts:?}");
    let backwards = came.windows(2).filter(|two| two[0] > two[1]).count();
    assert!(backwards > 10, "{backwards}");
    assert_eq!(wan.counts(B, A).unwrap().packets, 0);
}

#[test]
fn the_same_seed_loses_the_same_datagrams() {
    let lossy = Settings::wan(Duration::ZERO, Ppm::percent(20.0));
    let Some(first) = wan(77, &[1, 1], lossy) else { return };
    let came = numbers(&first, 500);
    drop(first);
    let Some(second) = wan(77, &[1, 1], lossy) else { return };
    assert_eq!(numbers(&second, 500), came);
    assert!(came.len() < 450);
}

#[test]
fn delay_is_added_each_way_and_changes_while_it_runs() {
    let Some(wan) = wan(2, &[1, 1], Settings::wan(MS(20), Ppm::default())) else { return };
    let (one, _) = udp(&wan, NodeId::new(0, 0));
    let (other, address) = udp(&wan, NodeId::new(1, 0));
    let round = || {
        let began = Instant::now();
        one.send_to(b"to", address).unwrap();
        let (_, back) = other.recv_from(&mut [0; 8]).unwrap();
        other.send_to(b"fro", back).unwrap();
        one.recv(&mut [0; 8]).unwrap();
        began.elapsed()
    };
    let before = round();
    assert!((MS(40)..MS(400)).contains(&before), "{before:?}");
    wan.change(B, A, |settings| settings.delay = MS(100)).unwrap();
    let after = round();
    assert!((MS(120)..MS(480)).contains(&after), "{after:?}");
    assert_eq!(wan.counts(A, B).unwrap().delayed, 2);
}

// fault: F16 F17 F27
#[test]
fn a_cut_may_be_one_way_and_a_site_may_be_lost_and_come_back() {
    let Some(wan) = wan(3, &[1, 1, 1], Settings::default()) else { return };
    let (a, b, c) = (NodeId::new(0, 0), NodeId::new(1, 0), NodeId::new(2, 0));
    assert!(hears(&wan, a, b) && hears(&wan, b, a) && hears(&wan, a, c));
    wan.cut(A, B).unwrap();
    assert!(!hears(&wan, a, b) && hears(&wan, b, a));
    assert_eq!(wan.counts(A, B).unwrap().cut, 1);
    wan.cut_off(B).unwrap();
    assert!(!hears(&wan, b, a) && !hears(&wan, c, b) && hears(&wan, a, c));
    wan.heal().unwrap();
    assert!(hears(&wan, a, b) && hears(&wan, b, a) && hears(&wan, c, b));
}

// fault: F16 F17
#[test]
fn nodes_of_one_site_are_parted_one_way_or_but_for_a_bridge() {
    let Some(wan) = wan(4, &[5], Settings::default()) else { return };
    let [one, two, bridge, four, five] = [0, 1, 2, 3, 4].map(|at| NodeId::new(0, at));
    wan.block(one, two).unwrap();
    assert!(!hears(&wan, one, two) && hears(&wan, two, one) && hears(&wan, one, bridge));
    assert_eq!(wan.blocked_packets(one, two).unwrap(), 1);
    assert_eq!(wan.blocked_packets(two, one).unwrap(), 0);
    wan.unblock(one, two).unwrap();
    assert!(hears(&wan, one, two));
    wan.part(&[one, two], &[four, five]).unwrap();
    assert!(!hears(&wan, one, four) && !hears(&wan, five, two) && hears(&wan, one, two));
    for side in [one, five] {
        assert!(hears(&wan, side, bridge) && hears(&wan, bridge, side));
    }
    wan.heal().unwrap();
    assert!(hears(&wan, one, four));
    assert_eq!(wan.blocked_packets(one, four).unwrap(), 1);
}

// fault: F18 F19
#[test]
fn tcp_gets_everything_through_a_bad_wire_and_keeps_to_its_rate() {
    let bad = Settings {
        jitter: MS(3),
        duplicate: Ppm::percent(1.0),
        reorder: Ppm::percent(1.0),
        ..Settings::wan(MS(2), Ppm::percent(1.0))
    };
    let Some(wan) = wan(5, &[1, 1], bad) else { return };
    tcp(&wan, 1 << 20);
    let counts = wan.counts(A, B).unwrap();
    assert!(counts.lost > 0 && counts.reordered > 0 && counts.duplicated > 0, "{counts:?}");
    wan.change_both(A, B, |settings| {
        *settings = Settings { bytes_per_second: Some(1_000_000), ..Settings::default() };
    })
    .unwrap();
    let took = tcp(&wan, 1 << 20);
    assert!((MS(900)..MS(8_000)).contains(&took), "{took:?}");
}

#[test]
fn a_perfect_wire_is_fast_at_either_mtu() {
    for mtu in [1_500, 9_000] {
        if let Err(why) = can_run() {
            return did_not_run(&why);
        }
        let wan = Wan::build(Plan { mtu, ..Plan::new(6, &[1, 1]) }).unwrap();
        let took = tcp(&wan, 32 << 20);
        println!("MTU {mtu}: 32 MiB in {took:?}");
        assert!(took < Duration::from_secs(20), "{took:?}");
        assert_eq!(wan.counts(A, B).unwrap().lost, 0);
        // Packets of another size than the link would carry do not appear.
        let (sender, _) = udp(&wan, NodeId::new(0, 0));
        let (receiver, address) = udp(&wan, NodeId::new(1, 0));
        sender.send_to(&[7; 20_000], address).unwrap();
        assert_eq!(receiver.recv(&mut [0; 30_000]).unwrap(), 20_000, "fragments are put together");
    }
}

#[test]
fn names_are_found_and_wrong_plans_refused() {
    let refused = [vec![], vec![0], vec![65]];
    for nodes in refused {
        assert!(Wan::build(Plan::new(1, &nodes)).is_err());
    }
    assert!(Wan::build(Plan { mtu: 100, ..Plan::new(1, &[1]) }).is_err());
    let Some(wan) = wan(8, &[2, 1], Settings::default()) else { return };
    assert_eq!(wan.node("a2").unwrap(), NodeId::new(0, 1));
    assert_eq!(wan.address(NodeId::new(1, 0)).to_string(), "198.18.1.1");
    for wrong in ["a3", "a0", "a", "c1", "", "a-1"] {
        assert!(wan.node(wrong).is_err(), "{wrong}");
    }
    assert!(wan.cut(A, A).is_err() && wan.cut(A, SiteId(9)).is_err());
}
