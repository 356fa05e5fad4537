//! Records are kept until the standby has them; where it takes over what it lacks is sent again.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use dtm_client::{Event, Publisher, Spool, SpoolConfig};

use crate::fake::{Fake, Fault, away};
use crate::publisher::{config, endpoint, record, watched, within};

/// More than any test sends: the other site has nothing yet.
const FAR: u64 = 1_000;
/// The site is lost before this frame; the tests send one record a frame.
const LOST_AT: u64 = 21;

fn spool(folder: &Path) -> Spool {
    let mut config = SpoolConfig::new(folder);
    config.segment_bytes = 200;
    config.spool_bytes_max = 64 << 10;
    Spool::open(config).unwrap()
}

/// Puts records in, one a block.
fn take(spool: &mut Spool, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        assert_eq!(spool.append(&[record(number)], Bytes::new()).unwrap(), number);
    }
}

/// The standby takes over with what it holds, in the next life.
fn promote(fake: &Fake, holds: u64) {
    let mut world = fake.world.lock();
    world.promotions += 1;
    let held = world.streams.get_mut("s").unwrap();
    held.cursor = holds;
    held.records.retain(|sequence, _| *sequence <= holds);
}

fn expected(count: u64) -> Vec<Vec<u8>> {
    (1..=count).map(|number| record(number).payload.to_vec()).collect()
}

// holds: ING-1, ING-2, ING-3
#[tokio::test]
async fn what_the_standby_lacked_when_it_took_over_is_sent_again() {
    let (fake, folder) = (Fake::start().await, tempfile::tempdir().unwrap());
    fake.world.lock().site_lag = Some(FAR);
    fake.script([vec![Fault::FrameLost(LOST_AT)]]);
    let mut spool = spool(folder.path());
    let (config, events) = watched(config());
    take(&mut spool, 1..=20);
    let publisher = Publisher::over_spool(endpoint(&[&fake]), config, &spool);
    within(publisher.wait_acked(20)).await.unwrap();
    // Acked before anything was said of the other site: the open told that there is one.
    let held = publisher.snapshot();
    assert!(held.site_copies && held.waits_for_site_bytes > 0, "{held:?}");
    assert_eq!((held.site_through, held.let_go), (0, 0));

    promote(&fake, 7);
    take(&mut spool, 21..=30);
    publisher.spooled();
    within(publisher.wait_acked(30)).await.unwrap();
    assert_eq!(fake.payloads("s"), expected(30), "all, once, in order");
    let mended = |event: &Event| matches!(event, Event::LossMended { from: 8, to: 20 });
    assert!(events.lock().iter().any(mended), "{:?}", events.lock());
    assert!(fake.world.lock().streams["s"].lost.is_empty());
    // What the cursor went back to is told by the old number of the life once.
    let opens = fake.world.lock().opens.clone();
    let shown: Vec<_> = opens.iter().map(|open| (open.acked_through, open.incarnation)).collect();
    assert_eq!(shown[1], (20, 1), "{shown:?}");
}

// holds: ING-1
#[tokio::test]
async fn what_the_standby_has_is_released_by_its_word_alone() {
    let (fake, folder) = (Fake::start().await, tempfile::tempdir().unwrap());
    fake.world.lock().site_lag = Some(FAR);
    fake.script([vec![Fault::SiteHas(20)]]);
    let mut spool = spool(folder.path());
    let publisher = Publisher::over_spool(endpoint(&[&fake]), config(), &spool);
    for number in 1..=20 {
        take(&mut spool, number..=number);
        publisher.spooled();
        within(publisher.wait_acked(number)).await.unwrap();
    }
    let mut acks = publisher.acked();
    within(acks.wait_for(|acked| acked.site_through == 20)).await.unwrap();
    let held = publisher.snapshot();
    assert_eq!((held.site_through, held.waits_for_site_bytes), (20, 0), "{held:?}");
    assert!(spool.bytes() < 1_000, "{} bytes are left on disk", spool.bytes());
}

// holds: ING-1
#[tokio::test]
async fn what_neither_has_is_a_loss_told_exactly() {
    let (fake, folder) = (Fake::start().await, tempfile::tempdir().unwrap());
    fake.script([vec![Fault::FrameLost(LOST_AT)]]);
    let mut spool = spool(folder.path());
    take(&mut spool, 1..=10);
    let (config, events) = watched(config());
    let publisher = Publisher::over_spool(endpoint(&[&fake]), config, &spool);
    // No standby yet: what is acked goes.
    within(publisher.wait_acked(10)).await.unwrap();
    assert!(!publisher.snapshot().site_copies);
    fake.world.lock().site_lag = Some(FAR);
    take(&mut spool, 11..=20);
    publisher.spooled();
    within(publisher.wait_acked(20)).await.unwrap();
    // Acks told of it meanwhile.
    assert!(publisher.snapshot().site_copies);
    promote(&fake, 4);
    take(&mut spool, 21..=21);
    publisher.spooled();
    let lost = || {
        events.lock().iter().find_map(|event| match event {
            Event::LossDetected { from, to } => Some((*from, *to)),
            _ => None,
        })
    };
    within(async {
        while lost().is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let (from, to) = lost().unwrap();
    assert_eq!((from, to), (5, 10), "what was released, and nothing else");
    publisher.confirm_lost(from, to);
    within(publisher.wait_acked(21)).await.unwrap();
    assert_eq!(fake.world.lock().streams["s"].lost, [(5, 10)]);
    let kept: Vec<u64> = fake.world.lock().streams["s"].records.keys().copied().collect();
    assert_eq!(kept, (1..=4).chain(11..=21).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_spool_that_is_full_says_what_waits_for_the_standby() {
    let (fake, folder) = (Fake::start().await, tempfile::tempdir().unwrap());
    fake.world.lock().site_lag = Some(FAR);
    let mut settings = SpoolConfig::new(folder.path());
    (settings.segment_bytes, settings.spool_bytes_max) = (200, 3_000);
    let mut spool = Spool::open(settings).unwrap();
    let publisher = Publisher::over_spool(endpoint(&[&fake]), config(), &spool);
    let mut taken = 0;
    let full = loop {
        match spool.append(&[record(taken + 1)], Bytes::new()) {
            Ok(last) => taken = last,
            Err(error) => break error,
        }
        publisher.spooled();
        within(publisher.wait_acked(taken)).await.unwrap();
    };
    assert!(full.to_string().contains("acked and waiting for the standby"), "{full}");
    assert!(full.retryable());
    let held = publisher.snapshot();
    assert!(held.waits_for_site_bytes > 0 && held.acked_through == taken, "{held:?}");
}

// holds: ING-1
#[tokio::test]
async fn a_node_of_the_life_that_is_over_is_left_for_another() {
    let (fake, folder) = (Fake::start().await, tempfile::tempdir().unwrap());
    let old = Fake::start().await;
    let behind = || vec![Fault::Refuse(away("wrong-incarnation", None))];
    old.script([behind(), behind(), behind(), behind()]);
    let mut spool = spool(folder.path());
    take(&mut spool, 1..=5);
    let publisher = Publisher::over_spool(endpoint(&[&old, &fake]), config(), &spool);
    within(publisher.wait_acked(5)).await.unwrap();
    assert_eq!(fake.payloads("s"), expected(5));
    drop(publisher);
    // Where every node says so nobody else is to be asked.
    let alone = Publisher::over_spool(endpoint(&[&old]), config(), &spool);
    let told = within(alone.failure()).await;
    assert_eq!(told.code(), Some(dtm_types::ErrorCode::WrongIncarnation), "{told}");
}
