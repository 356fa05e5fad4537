//! What a client may send on an open stream: any messages in any order end in good order, and what
//! was stored is in order and once. A hole may be: what a client lost and reported.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dtm_chaos::checker::Image;
use dtm_chaos::sandbox::GROUP;
use dtm_chaos::sandbox::session::{self, FixedVault};
use dtm_machine::seams::{Freshness, ReadView, SeededEntropy};
use dtm_proto::ingest::publish_request::Request;
use dtm_proto::ingest::publish_response::Response;
use dtm_proto::ingest::{Close, Frame, Lost, PublishRequest, Record};
use futures::StreamExt;
use prost::Message;

const MESSAGES_MAX: usize = 64;
const PATIENCE: Duration = Duration::from_secs(20);

thread_local! {
    static RUNTIME: RefCell<tokio::runtime::Runtime> = RefCell::new(
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"),
    );
}

/// The input is messages, each behind its length in two bytes.
pub(super) fn publish(input: &[u8]) {
    let mut messages = Vec::new();
    let mut rest = input;
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length)).min(after.len());
        let (message, after) = after.split_at(length);
        messages.extend(PublishRequest::decode(message).ok().and_then(|m| m.request));
        rest = after;
        if messages.len() >= MESSAGES_MAX {
            break;
        }
    }
    run(messages);
}

fn run(messages: Vec<Request>) -> u64 {
    RUNTIME.with_borrow_mut(|runtime| {
        runtime.block_on(async {
            let played = tokio::time::timeout(PATIENCE, play(messages)).await;
            played.expect("a session ends when its client does")
        })
    })
}

/// Through which sequence it was acked.
async fn play(messages: Vec<Request>) -> u64 {
    let groups = session::groups();
    let entropy = Arc::new(SeededEntropy::new(1));
    let (_sources, session, mut answers) =
        session::open(&groups, entropy, Arc::new(FixedVault)).await;
    let mut failed = false;
    for message in messages {
        let taken = match message {
            Request::Open(_) => Err(session.protocol("a second open")),
            Request::Frame(frame) => session.frame(frame).await,
            Request::Lost(lost) => session.lost(lost).await,
            Request::Close(close) => session.close(close.finished),
        };
        // As the door does: the first error ends the stream.
        if let Err(error) = taken {
            session.fail(error);
            failed = true;
            break;
        }
    }
    session.half_closed();
    let mut acked = 0;
    while let Some(answer) = answers.next().await {
        match answer.map(|answer| answer.response) {
            Ok(Some(Response::Ack(ack))) => {
                assert!(ack.acked_through >= acked, "acks never go back");
                acked = ack.acked_through;
            }
            Ok(_) => {}
            Err(_) => failed = true,
        }
    }
    let view = groups.view(GROUP, Freshness::Current).await.expect("held here");
    let image = Image::read("one", &view).expect("memory");
    let sequences: Vec<u64> = image.records().iter().map(|record| record.sequence).collect();
    assert!(sequences.is_sorted_by(|a, b| a < b), "ING-2, ING-3: {sequences:?}");
    let last = image.batches().last().map_or(0, |batch| batch.place.last_sequence);
    assert!(failed || acked >= last, "what is stored is answered: {acked} of {last}");
    acked
}

fn encoded(requests: &[Request]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for request in requests {
        let message = PublishRequest { request: Some(request.clone()) }.encode_to_vec();
        let length = u16::try_from(message.len()).expect("seeds are small");
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&message);
    }
    bytes
}

fn frame(first_sequence: u64, payloads: &[&str]) -> Request {
    let record = |payload: &&str| Record {
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        ..Record::default()
    };
    let records = payloads.iter().map(record).collect();
    Request::Frame(Frame { first_sequence, records, ..Frame::default() })
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let good = frame(1, &[r#"{"n":1}"#, r#"{ "n" : 2 }"#]);
    let close = Request::Close(Close { finished: true });
    let lost = Request::Lost(Lost { from_sequence: 3, to_sequence: 5 });
    vec![
        encoded(&[good.clone(), frame(3, &[r#"{"n":"x"}"#]), close.clone()]),
        encoded(&[good.clone(), good.clone(), frame(9, &[r#"{"n":9}"#])]),
        encoded(&[good, lost, frame(6, &[r#"{"n":6}"#]), close]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_acked() {
        let good = frame(1, &[r#"{"n":1}"#, r#"{ "n" : 2 }"#]);
        let close = Request::Close(Close { finished: true });
        assert_eq!(run(vec![good, close]), 2);
    }
}
