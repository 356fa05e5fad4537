//! Sequences that do not follow, and a second connection of one stream: what each is told, and that
//! what is held stays as it was. Through the real port, of the leader and of another node.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use dtm_proto::ingest::ingest_service_client::IngestServiceClient;
use dtm_proto::ingest::publish_request::Request as Asked;
use dtm_proto::ingest::publish_response::Response as Answer;
use dtm_proto::ingest::{
    Ack, Frame, IdPolicy, Open, Opened, PublishRequest, PublishResponse, Record, Rewind,
    RewindReason,
};
use dtm_proto::records::StoredRecord;
use dtm_types::ErrorCode;
use tokio::sync::mpsc;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::cluster::{Cluster, NODES};
use crate::readback::{all_of, records};
use crate::sources::Source;

const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// The older session is told: where the newer one is on the same node, or it sends something.
const TOLD_AT_ONCE: Duration = Duration::from_secs(2);
/// Where it sends nothing, and its node has to look.
const TOLD_WITHIN: Duration = Duration::from_secs(6);
const PAGE: &str = "docs/errors/superseded.md";

/// What must be held in the end: stream, sequence, payload.
type Held = BTreeMap<(String, u64), Vec<u8>>;

// Every case has a stream of its own; all of them run at once on one cluster.
//
// holds: ING-1, ING-2, ING-3
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_follow_is_told_and_the_newer_of_two_connections_wins() -> Result<()> {
    let cluster = Cluster::start().await?;
    let source = cluster.add_source("src-1", &["notes"]).await?;
    let leader = cluster.leader(source.group).await?;
    let other = (leader + 1) % NODES;
    let mut held = Held::new();
    for at in [leader, other] {
        gap(&Door::new(&cluster, &source, "gap", at), &mut held).await.context("a gap")?;
        resent(&Door::new(&cluster, &source, "same", at), &mut held).await.context("the same")?;
        let changed = changed(&Door::new(&cluster, &source, "other", at), &mut held).await;
        changed.context("other content")?;
    }
    let places = [(leader, leader), (leader, other), (other, leader)];
    let cases = places.into_iter().flat_map(|places| {
        [Pace::Idle, Pace::Busy].map(|pace| taken_over(&cluster, &source, places, pace))
    });
    for taken in futures::future::try_join_all(cases).await? {
        held.extend(taken);
    }
    for at in 0..NODES {
        let mut found = Held::new();
        let mut twice = 0;
        let tell = |record: StoredRecord| {
            let place = (record.stream.clone(), record.sequence);
            twice += usize::from(found.insert(place, record.payload.to_vec()).is_some());
        };
        records(cluster.endpoint_at(&source, &[at])?, all_of(&source), tell).await?;
        ensure!(twice == 0, "n{}: {twice} are stored twice", at + 1);
        let differs = |place: &&(String, u64)| found.get(*place) != held.get(*place);
        let wrong: Vec<_> = found.keys().chain(held.keys()).filter(differs).collect();
        ensure!(wrong.is_empty(), "n{}: other than it was acked: {wrong:?}", at + 1);
    }
    cluster.passed();
    Ok(())
}

/// The number that is expected is named, and nothing of the frame is taken.
async fn gap(door: &Door<'_>, held: &mut Held) -> Result<()> {
    let mut call = door.open().await?;
    for (sent, expected) in [(5, 1), (2, 1), (9, 3)] {
        call.send(sent, &["too early"]).await?;
        let rewind = call.rewind().await?;
        ensure!(rewind.reason() == RewindReason::Gap, "{rewind:?}");
        ensure!(rewind.expected_sequence == expected, "{sent} was sent: {rewind:?}");
        ensure!(rewind.conflict_sequences.is_empty(), "{rewind:?}");
        if sent == 2 {
            call.send(1, &["first", "second"]).await?;
            call.acked(2).await?;
        }
    }
    call.send(3, &["third"]).await?;
    call.acked(3).await?;
    door.keeps(held, 1, &["first", "second", "third"]);
    Ok(())
}

/// Acked again, on the session that sent it and on the next one, and stored once.
async fn resent(door: &Door<'_>, held: &mut Held) -> Result<()> {
    let all = ["first", "second", "third", "fourth"];
    let mut call = door.open().await?;
    for _ in 0..2 {
        call.send(1, &all[..3]).await?;
        ensure!(call.acked(3).await?.duplicates == 0, "none of them bore an id");
    }
    drop(call);
    let mut call = door.open().await?;
    ensure!(call.opened.next_sequence == 4, "{:?}", call.opened);
    call.send(2, &all[1..2]).await?;
    call.acked(3).await?;
    // Old and new in one frame.
    call.send(2, &all[1..]).await?;
    call.acked(4).await?;
    door.keeps(held, 1, &all);
    Ok(())
}

/// Refused with every sequence that is held otherwise; what is held stays, the stream goes on.
async fn changed(door: &Door<'_>, held: &mut Held) -> Result<()> {
    let all = ["first", "second", "third", "fourth"];
    let mut call = door.open().await?;
    call.send(1, &all).await?;
    call.acked(4).await?;
    let cases: [(u64, &[&str], &[u64]); 3] = [
        (1, &["FIRST", "second", "THIRD", "fourth"], &[1, 3]),
        (2, &["SECOND"], &[2]),
        (3, &["third", "FOURTH"], &[4]),
    ];
    for (first, sent, conflicts) in cases {
        call.send(first, sent).await?;
        let rewind = call.rewind().await?;
        ensure!(rewind.reason() == RewindReason::Conflict, "{rewind:?}");
        ensure!(rewind.conflict_sequence == conflicts[0], "{rewind:?}");
        ensure!(rewind.conflict_sequences == conflicts, "{rewind:?}");
        ensure!(rewind.expected_sequence == first + sent.len() as u64, "{rewind:?}");
    }
    call.send(5, &["fifth"]).await?;
    call.acked(5).await?;
    door.keeps(held, 1, &all);
    door.keeps(held, 5, &["fifth"]);
    Ok(())
}

/// What the older of two sessions does meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    Idle,
    Busy,
}

/// Opens a stream that is open on one node at another or the same; what is held then.
async fn taken_over(
    cluster: &Cluster,
    source: &Source,
    (older, newer): (usize, usize),
    pace: Pace,
) -> Result<Held> {
    let what = format!("{pace:?} on n{}, newer on n{}", older + 1, newer + 1);
    let stream = format!("taken-{pace:?}-{older}-{newer}").to_lowercase();
    let named = |at| Door { stream: stream.clone(), ..Door::new(cluster, source, "", at) };
    let (at_older, at_newer) = (named(older), named(newer));
    let mut first = at_older.open().await?;
    first.send(1, &["older 1"]).await?;
    first.acked(1).await?;
    let session = first.opened.session;
    let second = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut second = at_newer.open().await?;
        let opened = Instant::now();
        // Both are at the same number: the newer one's record is the one that counts.
        let next = second.opened.next_sequence;
        second.send(next, &["newer"]).await?;
        second.acked(next).await?;
        anyhow::Ok((second, opened))
    };
    let (ended, second) = tokio::join!(end_of(first, pace), second);
    let ((status, acked, at), (mut second, opened)) = (ended.context(what.clone())?, second?);
    told_superseded(&status).context(what.clone())?;
    let waited = at.saturating_duration_since(opened);
    println!("{what}: told after {waited:?}");
    let is_looked_for = pace == Pace::Idle && older != newer;
    let within = if is_looked_for { TOLD_WITHIN } else { TOLD_AT_ONCE };
    ensure!(waited <= within, "{what}: told only after {waited:?}");

    let next = second.opened.next_sequence;
    ensure!(second.opened.session > session, "{what}: {:?} after {session}", second.opened);
    ensure!(acked < next, "ING-1: {what}: {acked} was acked, {next} is expected");
    second.send(next + 1, &["newer still"]).await?;
    second.acked(next + 1).await.with_context(|| format!("{what}: the newer one goes on"))?;
    let mut held = Held::new();
    for sequence in 1..next {
        at_older.keeps(&mut held, sequence, &[&format!("older {sequence}")]);
    }
    at_newer.keeps(&mut held, next, &["newer", "newer still"]);
    Ok(held)
}

/// How the older session ends, the last number that it was acked, and when.
async fn end_of(mut call: Call, pace: Pace) -> Result<(Status, u64, Instant)> {
    let end = Instant::now() + ANSWER_WITHIN;
    let (mut sequence, mut acked) = (1, 1);
    while Instant::now() < end {
        tokio::select! {
            answer = call.answers.message() => match answer {
                Ok(Some(PublishResponse { response: Some(Answer::Ack(ack)) })) => {
                    acked = ack.acked_through;
                }
                Ok(Some(_)) => {}
                Ok(None) => bail!("the older session ended without a word"),
                Err(status) => return Ok((status, acked, Instant::now())),
            },
            () = tokio::time::sleep(Duration::from_millis(20)) => if pace == Pace::Busy {
                sequence += 1;
                // It may have ended: then that is read next.
                let _ = call.send(sequence, &[&format!("older {sequence}")]).await;
            },
        }
    }
    bail!("the older session goes on beside the newer one")
}

fn told_superseded(status: &Status) -> Result<()> {
    ensure!(status.code() as i32 == ErrorCode::Superseded.grpc_code(), "{status:?}");
    let details = String::from_utf8_lossy(status.details());
    ensure!(details.contains(ErrorCode::Superseded.name()), "no reason: {details:?}");
    ensure!(details.contains(PAGE), "no page: {details:?}");
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(PAGE);
    ensure!(page.is_file(), "there is no {}", page.display());
    Ok(())
}

/// Where a stream is opened.
struct Door<'a> {
    cluster: &'a Cluster,
    source: &'a Source,
    stream: String,
    at: usize,
}

impl<'a> Door<'a> {
    fn new(cluster: &'a Cluster, source: &'a Source, what: &str, at: usize) -> Self {
        Self { cluster, source, stream: format!("{what}-{at}"), at }
    }

    async fn open(&self) -> Result<Call> {
        let address = self.cluster.nodes[self.at].grpc.to_string();
        let endpoint = self.cluster.endpoint_at(self.source, &[self.at])?;
        let open = Open {
            source: self.source.code.clone(),
            stream: self.stream.clone(),
            dataset: "notes".to_owned(),
            mode: dtm_client::Mode::Realtime.into(),
            form: dtm_client::Form::Raw.into(),
            ids: IdPolicy::Sequence.into(),
            ..Open::default()
        };
        let (requests, outgoing) = mpsc::channel(64);
        requests.send(PublishRequest { request: Some(Asked::Open(open)) }).await?;
        let mut client = IngestServiceClient::new(endpoint.channel(&address).await?);
        let request = endpoint.request(ReceiverStream::new(outgoing));
        let answers = tokio::time::timeout(ANSWER_WITHIN, client.publish(request)).await??;
        let opened = Opened::default();
        let mut call = Call { requests, answers: answers.into_inner(), opened };
        match call.next().await? {
            Answer::Opened(opened) => call.opened = opened,
            other => bail!("the first answer is {other:?}"),
        }
        Ok(call)
    }

    /// Notes what must be held.
    fn keeps(&self, held: &mut Held, first: u64, notes: &[&str]) {
        for (sequence, note) in (first..).zip(notes) {
            held.insert((self.stream.clone(), sequence), payload(sequence, note));
        }
    }
}

/// A session as any client has it, so that each answer is seen whole.
struct Call {
    requests: mpsc::Sender<PublishRequest>,
    answers: Streaming<PublishResponse>,
    opened: Opened,
}

impl Call {
    async fn send(&self, first_sequence: u64, notes: &[&str]) -> Result<()> {
        let record = |(sequence, note): (u64, &&str)| Record {
            payload: payload(sequence, note).into(),
            ..Record::default()
        };
        let records = (first_sequence..).zip(notes).map(record).collect();
        let frame = Frame { first_sequence, records, ..Frame::default() };
        Ok(self.requests.send(PublishRequest { request: Some(Asked::Frame(frame)) }).await?)
    }

    async fn next(&mut self) -> Result<Answer> {
        let answer = tokio::time::timeout(ANSWER_WITHIN, self.answers.message()).await;
        let answer = answer.context("no answer in time")??.context("it ended")?;
        answer.response.context("an answer of another kind")
    }

    async fn acked(&mut self, through: u64) -> Result<Ack> {
        loop {
            match self.next().await? {
                Answer::Ack(ack) if ack.acked_through < through => {}
                Answer::Ack(ack) if ack.acked_through == through => return Ok(ack),
                other => bail!("{other:?} instead of an ack of {through}"),
            }
        }
    }

    async fn rewind(&mut self) -> Result<Rewind> {
        match self.next().await? {
            Answer::Rewind(rewind) => Ok(rewind),
            other => bail!("{other:?} instead of a rewind"),
        }
    }
}

fn payload(sequence: u64, note: &str) -> Vec<u8> {
    format!("{{\"code\":\"A-{sequence}\",\"note\":\"{note}\"}}").into_bytes()
}
