//! Where a client goes that was told of another node.

use dtm_client::{Endpoint, Publisher};

use crate::fake::{Fake, Fault, away};
use crate::publisher::{config, record, within};

#[tokio::test]
async fn a_node_that_is_no_seed_is_tried_where_it_is_named() {
    let one = Fake::start().await;
    let two = one.beside().await;
    one.script([vec![Fault::Refuse(away("unavailable", Some(&two.address)))]]);
    within(async {
        let endpoint = Endpoint::plaintext([one.address.clone()]).unwrap();
        let publisher = Publisher::open(endpoint, config()).await.unwrap();
        assert_eq!(publisher.snapshot().address, two.address);
        publisher.send(record(1)).await.unwrap();
        publisher.flush().await.unwrap();
    })
    .await;
}

/// Its turn comes, after those that were not asked yet.
#[tokio::test]
async fn a_seed_that_is_named_without_leading_waits_for_its_turn() {
    let one = Fake::start().await;
    let (two, three) = (one.beside().await, one.beside().await);
    one.script([vec![Fault::Refuse(away("unavailable", Some(&three.address)))]]);
    within(async {
        let seeds = [&one, &two, &three].map(|fake| fake.address.clone());
        let endpoint = Endpoint::plaintext(seeds).unwrap();
        let publisher = Publisher::open(endpoint, config()).await.unwrap();
        assert_eq!(publisher.snapshot().address, two.address);
    })
    .await;
}
