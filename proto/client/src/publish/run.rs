//! One input on its way: what is there is passed by and, where that is not certain by the stream's
//! name, compared; the rest is sent.

use super::compare::Last;
use super::error::Error;
use super::history::{Entry, History};
use super::input::Batches;
use super::plan::Plan;
use super::records::{Item, member_text};
use super::summary::{REFUSALS_MAX, Report, Summary};
use super::{OnProgress, PublishOptions, record_of, status_of};
use crate::{Endpoint, Publisher, PublisherConfig, Reader};
use bytes::Bytes;
use dtm_proto::records::{QuarantineRequest, QuarantinedRecord};
use futures::future::BoxFuture;
use std::collections::VecDeque;
use std::sync::Arc;

/// One input.
pub(crate) struct Job<'a> {
    pub(crate) name: &'a str,
    pub(crate) bytes_total: u64,
    /// The stream is this input's alone and ends with it.
    pub(crate) finishes: bool,
    pub(crate) plan: Plan,
    /// Where it is noted, and under which digest.
    pub(crate) history: Option<(&'a mut History, &'a str)>,
}

pub(crate) fn run<'a>(
    endpoint: &'a Endpoint,
    options: &'a PublishOptions,
    job: Job<'a>,
    config: PublisherConfig,
    batches: Batches,
    on_progress: OnProgress<'a>,
) -> BoxFuture<'a, Result<Summary, Error>> {
    Box::pin(async move {
        let Job { name, bytes_total, finishes, plan, mut history } = job;
        let report = Arc::new(Report::new(name, bytes_total));
        let id_member = options.message_id_member.as_deref();
        let mut items = Items { batches, waiting: VecDeque::new(), bytes_read: 0, id_member };
        if plan.refused > 0 {
            let known = refused(endpoint, &config, plan).await;
            report.earlier(plan.refused, known);
        }
        let last = pass_by(&mut items, name, plan, &report).await?;
        let next = items.next_record(name, &report).await?;
        let end = plan.base + plan.there;
        if plan.is_compared
            && plan.there > 0
            && let Some(sequence) = last.differs(endpoint, &config, end).await?
        {
            let (file, stream) = (name.to_owned(), config.stream);
            return Err(Error::OtherContent { file, stream, sequence });
        }
        if let Some((history, input)) = &mut history
            && !plan.is_whole
        {
            history.begin(Entry {
                input: (*input).to_owned(),
                file: name.to_owned(),
                bytes: bytes_total,
                base: plan.base,
                records: None,
                refused_before: plan.refused_before,
                refused: 0,
            })?;
        }
        let mut records = plan.there;
        if next.is_some() || (finishes && plan.there > 0) {
            let sender = Sender { endpoint, name, finishes, plan, report: &report, on_progress };
            records = sender.send(&config, &mut items, next).await?;
            let status = status_of(endpoint, &config).await?;
            report.refused_in_all(status.refused.saturating_sub(plan.refused_before));
            report.duplicates(status.duplicates.saturating_sub(plan.duplicates_before));
        }
        if bytes_total > 0 && items.bytes_read != bytes_total {
            // The note must not say that this content is whole.
            return Err(Error::Changed { file: name.to_owned() });
        }
        report.read(items.bytes_read, plan.base + records);
        let summary = report.summary(plan.base + records);
        if let Some((history, _)) = history
            && !plan.is_whole
        {
            history.end_with(records, summary.refused - summary.unsendable)?;
        }
        Ok(summary)
    })
}

/// Passes by what is there; the last of it comes back.
async fn pass_by(
    items: &mut Items<'_>,
    name: &str,
    plan: Plan,
    report: &Report,
) -> Result<Last, Error> {
    let mut last = Last::default();
    for passed in 0..plan.there {
        let Some((line, payload)) = items.next_record(name, report).await? else {
            let (file, held) = (name.to_owned(), plan.there);
            return Err(Error::StreamLonger { file, held, sequence: passed });
        };
        report.skipped(plan.base + passed + 1, line);
        last.push(record_of(payload, items.id_member));
    }
    Ok(last)
}

/// The first refused records of what is there; those that are not told stay counted.
async fn refused(
    endpoint: &Endpoint,
    config: &PublisherConfig,
    plan: Plan,
) -> Vec<QuarantinedRecord> {
    let mut pages = Reader::new(endpoint.clone()).quarantine(QuarantineRequest {
        source: config.source.clone(),
        stream: config.stream.clone(),
        from_sequence: plan.base + 1,
        records_max: REFUSALS_MAX as u64,
        ..QuarantineRequest::default()
    });
    let mut found = Vec::new();
    // Ends with the listing, which `records_max` bounds.
    while let Ok(Some(page)) = pages.next().await {
        let end = plan.base + plan.there;
        found.extend(page.records.into_iter().filter(|record| record.sequence <= end));
    }
    found
}

/// Records of an input; what cannot be one is told on the way.
struct Items<'a> {
    batches: Batches,
    waiting: VecDeque<Item>,
    bytes_read: u64,
    id_member: Option<&'a str>,
}

impl Items<'_> {
    /// The next record and its line.
    async fn next_record(
        &mut self,
        name: &str,
        report: &Report,
    ) -> Result<Option<(u64, Bytes)>, Error> {
        loop {
            match self.waiting.pop_front() {
                Some(Item::Record { line, payload }) => return Ok(Some((line, payload))),
                Some(Item::Unsendable { line, reason }) => report.unsendable(line, reason),
                None => match self.batches.next().await? {
                    None => return Ok(None),
                    Some(batch) => {
                        if self.bytes_read == 0 {
                            self.check_member(name, &batch.items)?;
                        }
                        self.bytes_read = batch.bytes_read;
                        self.waiting.extend(batch.items);
                    }
                },
            }
        }
    }

    /// A name that none of the first records has is a slip: every record would be refused.
    fn check_member(&self, name: &str, items: &[Item]) -> Result<(), Error> {
        let Some(member) = self.id_member else {
            return Ok(());
        };
        let mut records = items.iter().filter_map(|item| match item {
            Item::Record { payload, .. } => Some(payload),
            Item::Unsendable { .. } => None,
        });
        let mut is_empty = true;
        if records.any(|payload| {
            is_empty = false;
            member_text(payload, member).is_some()
        }) || is_empty
        {
            return Ok(());
        }
        Err(Error::IdMember { file: name.to_owned(), member: member.to_owned() })
    }
}

/// Sends what is not there.
struct Sender<'a> {
    endpoint: &'a Endpoint,
    name: &'a str,
    finishes: bool,
    plan: Plan,
    report: &'a Arc<Report>,
    on_progress: OnProgress<'a>,
}

impl Sender<'_> {
    /// Sends `next` and what follows it; says how many records the input has.
    async fn send(
        &self,
        config: &PublisherConfig,
        items: &mut Items<'_>,
        mut next: Option<(u64, Bytes)>,
    ) -> Result<u64, Error> {
        let Plan { base, there, is_whole, .. } = self.plan;
        let mut sequence = base + there;
        if is_whole && next.is_some() {
            let (file, stream) = (self.name.to_owned(), config.stream.clone());
            return Err(Error::OtherContent { file, stream, sequence: sequence + 1 });
        }
        let publisher = Publisher::open(self.endpoint.clone(), self.telling(config)).await?;
        let (expected, found) = (sequence + 1, publisher.next_sequence());
        // In a stream of its own only an earlier run of the same input can have gone on.
        if found < expected || (found > expected && !self.finishes) {
            return Err(Error::Moved { stream: config.stream.clone(), expected, found });
        }
        let mut told = 0;
        while let Some((line, payload)) = next {
            sequence += 1;
            if sequence < found {
                self.report.skipped(sequence, line);
                next = items.next_record(self.name, self.report).await?;
                continue;
            }
            self.report.line(sequence, line);
            let given = publisher.send(&record_of(payload, items.id_member)).await?;
            assert!(given == sequence, "the n-th record has the n-th sequence");
            if told != items.bytes_read {
                told = items.bytes_read;
                self.report.read(told, publisher.acked().borrow().acked_through);
                (self.on_progress)(&self.report.progress());
            }
            next = items.next_record(self.name, self.report).await?;
        }
        if sequence + 1 < found {
            let (file, held) = (self.name.to_owned(), found - 1);
            return Err(Error::StreamLonger { file, held, sequence });
        }
        self.drain(publisher).await?;
        Ok(sequence - base)
    }

    /// The settings with every event told to the report first.
    fn telling(&self, config: &PublisherConfig) -> PublisherConfig {
        let (told, outer) = (self.report.clone(), config.on_event.clone());
        config.clone().on_event(move |event| {
            told.event(&event);
            if let Some(outer) = &outer {
                outer(event);
            }
        })
    }

    /// Waits for the last acks and shows how far they are.
    async fn drain(&self, publisher: Publisher) -> Result<(), Error> {
        let mut acked = publisher.acked();
        let last = publisher.next_sequence() - 1;
        let waiting = async {
            while acked.borrow_and_update().acked_through < last {
                (self.on_progress)(&self.report.at(acked.borrow().acked_through));
                if acked.changed().await.is_err() {
                    break;
                }
            }
        };
        let failed = tokio::select! {
            () = waiting => None,
            error = publisher.failure() => Some(error),
        };
        if let Some(error) = failed {
            return Err(error.into());
        }
        (self.on_progress)(&self.report.at(last));
        publisher.close(self.finishes).await?;
        Ok(())
    }
}
