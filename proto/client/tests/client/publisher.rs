//! Every branch of the publisher: what is kept in the end is what was sent, once, in order.

use crate::fake::{Fake, Fault};
use dtm_client::{Endpoint, Error, Event, Publisher, PublisherConfig, Record, Window};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tonic::Status;

const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn record(number: u64) -> Record {
    Record { payload: format!("{{\"n\":{number}}}").into_bytes().into(), ..Record::default() }
}

pub(crate) fn endpoint(fakes: &[&Fake]) -> Endpoint {
    Endpoint::plaintext(fakes.iter().map(|fake| fake.address.clone()))
        .unwrap()
        .with_connect_timeout(Duration::from_secs(2))
}

pub(crate) fn config() -> PublisherConfig {
    let mut config = PublisherConfig::new("tinh-01", "s", "payment");
    config.seed = Some(0);
    config.backoff_max = Duration::from_millis(100);
    config.ack_timeout = Duration::from_millis(400);
    config.open_timeout = Some(Duration::from_secs(10));
    config.frame_bytes_max = 256;
    config.frame_bytes_min = 128;
    config
}

pub(crate) type Events = Arc<Mutex<Vec<Event>>>;

pub(crate) fn watched(config: PublisherConfig) -> (PublisherConfig, Events) {
    let events: Events = Arc::default();
    let sink = events.clone();
    (config.on_event(move |event| sink.lock().push(event)), events)
}

pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("in time")
}

/// Sends `count` records through the script and checks what is kept.
async fn through(script: Vec<Vec<Fault>>, count: u64) -> (Fake, Events) {
    let fake = Fake::start().await;
    fake.script(script);
    let (config, events) = watched(config());
    within(async {
        let publisher = Publisher::open(endpoint(&[&fake]), config).await.unwrap();
        for number in 1..=count {
            assert_eq!(publisher.send(record(number)).await.unwrap(), number);
            if number % 7 == 0 {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(publisher.flush().await.unwrap().acked_through, count);
        publisher.close(true).await.unwrap();
    })
    .await;
    let expected: Vec<_> = (1..=count).map(|n| record(n).payload.to_vec()).collect();
    assert!(fake.payloads("s") == expected, "what was sent, once, in order");
    assert!(fake.world.lock().streams["s"].finished);
    (fake, events)
}

#[tokio::test]
async fn records_arrive_and_are_collected_into_frames() {
    let (fake, _) = through(vec![], 2000).await;
    let world = fake.world.lock();
    assert!(world.frames < 1000, "{} frames", world.frames);
    assert!(world.largest_frame <= 256);
}

// holds: ING-1, ING-2, ING-3
#[tokio::test]
async fn cuts_at_any_frame_lose_and_double_nothing() {
    for at in 1..=6 {
        let script =
            vec![vec![Fault::AckLost(at)], vec![Fault::FrameLost(at)], vec![Fault::AckLost(1)]];
        let (fake, events) = through(script, 300).await;
        assert!(fake.world.lock().connections >= 4);
        assert!(events.lock().iter().any(|e| matches!(e, Event::Disconnected { .. })));
    }
}

#[tokio::test]
async fn a_lost_frame_is_sent_again_after_the_rewind() {
    let (fake, _) = through(vec![vec![Fault::Gap(3)]], 500).await;
    assert_eq!(fake.world.lock().connections, 1, "a rewind needs no new connection");
}

#[tokio::test]
async fn acks_that_overtake_rewinds_renumber_nothing() {
    // Every frame in flight behind the gap is answered with the same rewind.
    let script = vec![vec![Fault::Gap(1)], vec![]];
    let (fake, _) = through(script, 3000).await;
    assert_eq!(fake.world.lock().connections, 1);
}

#[tokio::test]
async fn a_silent_server_is_left_and_the_outcome_asked_for() {
    let (fake, events) = through(vec![vec![Fault::Silent(2)]], 100).await;
    assert_eq!(fake.world.lock().connections, 2);
    let unknown =
        |e: &Event| matches!(e, Event::Disconnected { error: Error::OutcomeUnknown { .. } });
    assert!(events.lock().iter().any(unknown));
}

#[tokio::test]
async fn an_ack_of_a_part_keeps_the_rest() {
    // Each ack is three records behind; after the cut the cursor tells the truth.
    let fake = Fake::start().await;
    fake.script([vec![Fault::AckLess(3)]]);
    within(async {
        let publisher = Publisher::open(endpoint(&[&fake]), config()).await.unwrap();
        for number in 1..=100 {
            publisher.send(record(number)).await.unwrap();
        }
        publisher.flush().await.unwrap();
        assert_eq!(publisher.snapshot().held_bytes, 0);
    })
    .await;
    assert_eq!(fake.payloads("s").len(), 100);
    assert_eq!(fake.world.lock().connections, 2);
}

#[tokio::test]
async fn the_status_code_alone_tells_of_a_takeover() {
    let fake = Fake::start().await;
    fake.script([vec![Fault::Supersede(1)]]);
    within(async {
        let publisher = Publisher::open(endpoint(&[&fake]), config()).await.unwrap();
        publisher.send(record(1)).await.unwrap();
        assert!(matches!(publisher.flush().await, Err(Error::Superseded { .. })));
    })
    .await;
}

#[tokio::test]
async fn refused_opens_are_tried_again_while_that_may_help() {
    let busy = || vec![Fault::Refuse(Status::unavailable("no quorum"))];
    let (_, events) = through(vec![busy(), busy(), busy()], 10).await;
    let retries = events.lock().iter().filter(|e| matches!(e, Event::Retrying { .. })).count();
    assert_eq!(retries, 3);

    let fake = Fake::start().await;
    fake.script([vec![Fault::Refuse(Status::permission_denied("not agreed"))]]);
    let error = within(Publisher::open(endpoint(&[&fake]), config())).await.unwrap_err();
    assert!(matches!(error, Error::Rejected { grpc: tonic::Code::PermissionDenied, .. }));
    assert!(!error.retryable());
    assert_eq!(fake.world.lock().connections, 1);
}

#[tokio::test]
async fn another_seed_is_taken_when_one_is_gone() {
    let one = Fake::start().await;
    let two = one.beside().await;
    one.stop();
    within(async {
        let publisher = Publisher::open(endpoint(&[&one, &two]), config()).await.unwrap();
        publisher.send(record(1)).await.unwrap();
        publisher.flush().await.unwrap();
        assert_eq!(publisher.snapshot().address, two.address);
    })
    .await;
}

#[tokio::test]
async fn the_leader_is_followed_once_and_no_further() {
    let one = Fake::start().await;
    let two = one.beside().await;
    let stale = |to: &Fake| vec![Fault::Leader(to.address.clone())];
    // Each of the two says that the other leads.
    one.script([stale(&two), stale(&one)]);
    within(async {
        let publisher = Publisher::open(endpoint(&[&one]), config()).await.unwrap();
        assert_eq!(publisher.snapshot().address, two.address);
        publisher.send(record(1)).await.unwrap();
        publisher.flush().await.unwrap();
    })
    .await;
    assert_eq!(one.world.lock().connections, 2);
}

#[tokio::test]
async fn a_leader_that_cannot_be_reached_does_not_stop_the_stream() {
    let fake = Fake::start().await;
    let leader = || vec![Fault::Leader("127.0.0.1:1".into())];
    fake.script([leader(), leader(), leader()]);
    within(async {
        let publisher = Publisher::open(endpoint(&[&fake]), config()).await.unwrap();
        publisher.send(record(1)).await.unwrap();
        publisher.flush().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn advice_to_go_elsewhere_is_followed() {
    let one = Fake::start().await;
    let two = one.beside().await;
    one.script([vec![Fault::Advise(1, two.address.clone())]]);
    within(async {
        let publisher = Publisher::open(endpoint(&[&one]), config()).await.unwrap();
        for number in 1..=200 {
            publisher.send(record(number)).await.unwrap();
        }
        publisher.flush().await.unwrap();
        while publisher.snapshot().address != two.address {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(one.payloads("s").len(), 200);
}

#[tokio::test]
async fn a_newer_connection_ends_the_older_for_good() {
    let fake = Fake::start().await;
    within(async {
        let old = Publisher::open(endpoint(&[&fake]), config()).await.unwrap();
        old.send(record(1)).await.unwrap();
        old.flush().await.unwrap();
        let new = Publisher::open(endpoint(&[&fake]), config()).await.unwrap();
        assert_eq!(new.next_sequence(), 2);
        old.send(record(2)).await.unwrap();
        assert!(matches!(old.flush().await, Err(Error::Superseded { .. })));
        assert!(matches!(old.send(record(3)).await, Err(Error::Superseded { .. })));
        new.send(record(2)).await.unwrap();
        new.flush().await.unwrap();
    })
    .await;
    assert_eq!(fake.world.lock().connections, 2, "the older one does not fight back");
}

#[tokio::test]
async fn a_conflict_is_told_and_overwrites_nothing() {
    let fake = Fake::start().await;
    fake.script([vec![Fault::Conflict(5)]]);
    let (config, events) = watched(config());
    within(async {
        let publisher = Publisher::open(endpoint(&[&fake]), config).await.unwrap();
        for number in 1..=20 {
            publisher.send(record(number)).await.unwrap();
        }
        publisher.flush().await.unwrap();
        assert_eq!(publisher.snapshot().conflicts, 1);
    })
    .await;
    assert!(events.lock().iter().any(|e| matches!(e, Event::Conflict { sequence: 5 })));
    assert_eq!(fake.payloads("s")[4], b"other");
    assert_eq!(fake.payloads("s")[19], record(20).payload.to_vec());
}

/// The server's rewind may reach beyond the sequence that it names; nothing there is acked by it.
#[tokio::test]
async fn a_rewind_acks_nothing_beyond_the_conflict() {
    let fake = Fake::start().await;
    fake.script([vec![Fault::ConflictInside(3)]]);
    let (mut config, events) = watched(config());
    config.frame_bytes_min = 1 << 20;
    within(async {
        let publisher = Publisher::open(endpoint(&[&fake]), config).await.unwrap();
        for number in 1..=20 {
            publisher.send(record(number)).await.unwrap();
        }
        assert_eq!(publisher.flush().await.unwrap().acked_through, 20);
    })
    .await;
    assert!(events.lock().iter().any(|e| matches!(e, Event::Conflict { sequence: 3 })));
    let mut expected: Vec<_> = (1..=20).map(|n| record(n).payload.to_vec()).collect();
    expected[2] = b"other".to_vec();
    assert_eq!(fake.payloads("s"), expected, "each is held, none was passed over");
}

#[tokio::test]
async fn an_own_open_that_commits_late_is_no_takeover() {
    for fault in [Fault::OpenLate, Fault::OpenUnknown] {
        let fake = Fake::start().await;
        fake.script([vec![fault]]);
        let endpoint = endpoint(&[&fake]).with_connect_timeout(Duration::from_millis(200));
        within(async {
            let publisher = Publisher::open(endpoint, config()).await.unwrap();
            for number in 1..=50 {
                publisher.send(record(number)).await.unwrap();
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            assert_eq!(publisher.flush().await.unwrap().acked_through, 50);
            assert_eq!(publisher.snapshot().sessions, 2, "the late one cut the first off");
        })
        .await;
        assert_eq!(fake.payloads("s").len(), 50);
    }
}

#[tokio::test]
async fn refusals_are_told_with_their_sequence() {
    let fake = Fake::start().await;
    fake.world.lock().refuse_payload = Some(record(3).payload.to_vec());
    let (config, events) = watched(config());
    within(async {
        let publisher = Publisher::open(endpoint(&[&fake]), config).await.unwrap();
        for number in 1..=5 {
            publisher.send(record(number)).await.unwrap();
        }
        publisher.flush().await.unwrap();
        assert_eq!(publisher.snapshot().refused, 1);
    })
    .await;
    let told = events.lock().iter().any(|e| matches!(e, Event::Refused(r) if r[0].sequence == 3));
    assert!(told);
}

/// Sets the cursor back, as a promotion of a standby that lagged would.
fn set_back(fake: &Fake, to: u64) {
    let mut world = fake.world.lock();
    let held = world.streams.get_mut("s").unwrap();
    held.cursor = to;
    held.records.retain(|sequence, _| *sequence <= to);
}

async fn cut_and_lose(fake: &Fake, publisher: &Publisher, to: u64) {
    set_back(fake, to);
    // The next frame meets a cursor that went back.
    publisher.send(record(21)).await.unwrap();
}

#[tokio::test]
async fn what_the_cluster_lost_is_sent_again_while_it_is_held_for_another_site() {
    let fake = Fake::start().await;
    fake.world.lock().site_lag = Some(10);
    let (config, events) = watched(config());
    within(async {
        let publisher = Publisher::open(endpoint(&[&fake]), config).await.unwrap();
        for number in 1..=20 {
            publisher.send(record(number)).await.unwrap();
            publisher.flush().await.unwrap();
        }
        assert!(publisher.snapshot().held_bytes > 0);
        cut_and_lose(&fake, &publisher, 15).await;
        publisher.flush().await.unwrap();
    })
    .await;
    assert!(events.lock().iter().any(|e| matches!(e, Event::LossMended { from: 16, to: 20 })));
    assert_eq!(fake.payloads("s").len(), 21);
}

#[tokio::test]
async fn what_is_held_nowhere_is_reported_and_nothing_is_renumbered() {
    let fake = Fake::start().await;
    let (config, events) = watched(config());
    within(async {
        let publisher = Publisher::open(endpoint(&[&fake]), config).await.unwrap();
        for number in 1..=20 {
            publisher.send(record(number)).await.unwrap();
        }
        publisher.flush().await.unwrap();
        cut_and_lose(&fake, &publisher, 15).await;
        let asleep = tokio::time::timeout(Duration::from_millis(300), publisher.flush()).await;
        assert!(asleep.is_err(), "it waits for the caller's word");
        assert!(
            events.lock().iter().any(|e| matches!(e, Event::LossDetected { from: 16, to: 20 }))
        );
        assert_eq!(publisher.snapshot().acked_through, 15);
        publisher.confirm_lost(16, 20);
        assert_eq!(publisher.flush().await.unwrap().acked_through, 21);
    })
    .await;
    let world = fake.world.lock();
    assert_eq!(world.streams["s"].lost, [(16, 20)]);
    assert_eq!(world.streams["s"].records[&21], record(21).payload.to_vec());
    assert_eq!(world.streams["s"].records.len(), 16);
}

#[tokio::test]
async fn a_word_about_a_loss_holds_until_the_ack_and_sending_goes_on_after_it() {
    let fake = Fake::start().await;
    fake.script([vec![Fault::LostCut]]);
    let (config, events) = watched(config());
    within(async {
        let publisher = Publisher::open(endpoint(&[&fake]), config).await.unwrap();
        for number in 1..=20 {
            publisher.send(record(number)).await.unwrap();
        }
        publisher.flush().await.unwrap();
        cut_and_lose(&fake, &publisher, 15).await;
        publisher.confirm_lost(16, 20);
        assert_eq!(publisher.flush().await.unwrap().acked_through, 21);
        for number in 22..=40 {
            publisher.send(record(number)).await.unwrap();
        }
        assert_eq!(publisher.flush().await.unwrap().acked_through, 40);
        assert_eq!(publisher.snapshot().sessions, 2, "one ended at the word, unheard");
    })
    .await;
    let losses = |e: &&Event| matches!(e, Event::LossDetected { from: 16, to: 20 });
    assert_eq!(events.lock().iter().filter(losses).count(), 2);
    assert_eq!(fake.world.lock().streams["s"].lost, [(16, 20)]);
}

#[tokio::test]
async fn an_earlier_life_shows_what_was_acked_to_it() {
    let fake = Fake::start().await;
    let (mut config, events) = watched(config());
    config.acked_through = 9;
    config.incarnation = 1;
    config.ack_token = vec![1, 2, 3].into();
    within(async {
        let publisher = Publisher::open(endpoint(&[&fake]), config).await.unwrap();
        assert_eq!(publisher.next_sequence(), 10);
        publisher.confirm_lost(1, 9);
        publisher.send(record(10)).await.unwrap();
        publisher.flush().await.unwrap();
    })
    .await;
    assert!(events.lock().iter().any(|e| matches!(e, Event::LossDetected { from: 1, to: 9 })));
    let world = fake.world.lock();
    assert_eq!((world.opens[0].acked_through, world.opens[0].incarnation), (9, 1));
    assert_eq!(&world.opens[0].ack_token[..], [1, 2, 3]);
}

#[tokio::test]
async fn a_stream_that_somebody_else_wrote_is_not_guessed_about() {
    let fake = Fake::start().await;
    fake.script([vec![Fault::AckLost(1)]]);
    within(async {
        let publisher = Publisher::open(endpoint(&[&fake]), config()).await.unwrap();
        {
            let mut world = fake.world.lock();
            let held = world.streams.get_mut("s").unwrap();
            held.cursor = 7;
            held.records.extend((1..=7).map(|n| (n, record(n).payload.to_vec())));
        }
        publisher.send(record(1)).await.unwrap();
        let error = publisher.flush().await.unwrap_err();
        assert!(matches!(error, Error::StreamAhead { held: 7, given: 1, .. }), "{error}");
    })
    .await;
}

#[tokio::test]
async fn records_over_the_limit_are_refused_alone() {
    let fake = Fake::start().await;
    fake.world.lock().window = Some(Window {
        record_bytes_max: 1000,
        frame_bytes_max: 2000,
        in_flight_bytes_max: 500,
        frame_records_max: 3,
    });
    within(async {
        let publisher = Publisher::open(endpoint(&[&fake]), config()).await.unwrap();
        let of = |size: usize| Record { payload: vec![b'1'; size].into(), ..Record::default() };
        let error = publisher.send(of(1001)).await.unwrap_err();
        assert!(matches!(error, Error::TooLarge { limit: "record_bytes_max", bytes: 1001, .. }));
        // Larger than the whole window: goes when nothing else is in flight.
        for size in [10, 900, 10, 900, 900, 10] {
            publisher.send(of(size)).await.unwrap();
        }
        publisher.flush().await.unwrap();
    })
    .await;
    assert_eq!(fake.payloads("s").len(), 6);
}

#[tokio::test]
async fn send_waits_while_too_much_is_unacked() {
    let fake = Fake::start().await;
    fake.script([vec![Fault::Silent(1)]]);
    let mut config = config();
    config.unacked_bytes_max = 200;
    config.ack_timeout = Duration::from_millis(500);
    within(async {
        let publisher = Publisher::open(endpoint(&[&fake]), config).await.unwrap();
        let mut taken = 0;
        while publisher.try_send(record(taken + 1)).unwrap().is_some() {
            taken += 1;
        }
        assert!((5..40).contains(&taken), "{taken} records");
        publisher.send(record(taken + 1)).await.unwrap();
        publisher.flush().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn the_first_open_gives_up_in_time_and_says_why() {
    let mut config = config();
    config.open_timeout = Some(Duration::from_millis(300));
    let nobody = Endpoint::plaintext(["127.0.0.1:1"]).unwrap();
    let error = within(Publisher::open(nobody, config)).await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error}");
}
