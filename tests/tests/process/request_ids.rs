//! One request is found by its id in the logs of every node that it passed.

use anyhow::{Context, Result, ensure};
use dtm_client::{FrameBuilder, Record, SessionEvent};
use serde_json::Value;

use crate::bad_records::{answer, open_stream};
use crate::cluster::{Cluster, NODES, WITHIN};
use crate::wait::until;

/// Stands in the payload, and in no line.
const CONTENT: &str = "Content8fKq2";
const SETTINGS: [(&str, &str); 1] = [("DTM__TELEMETRY__LOG", "info,dtm_request=debug")];

/// What the nodes said of single requests so far.
struct Lines(Vec<Vec<Value>>);

impl Lines {
    fn read(cluster: &Cluster) -> Result<Self> {
        let mut nodes = Vec::new();
        for node in &cluster.nodes {
            let text = std::fs::read_to_string(&node.log)?;
            ensure!(!text.contains(CONTENT), "SEC-1: {} logs content", node.name);
            // The last line may be half written.
            let lines = text.lines().filter_map(|line| serde_json::from_str(line).ok());
            nodes.push(lines.filter(|line: &Value| line["target"] == "dtm_request").collect());
        }
        Ok(Self(nodes))
    }

    /// The lines with this message of one node that are as wanted.
    fn find(&self, at: usize, message: &str, wanted: impl Fn(&Value) -> bool) -> Vec<&Value> {
        let lines = self.0[at].iter();
        lines.filter(|line| line["message"] == message && wanted(line)).collect()
    }

    /// That one line is on every node, once; the index of its entry.
    fn applied(&self, id: &Value, outcome: &str) -> Result<Value> {
        let mut indexes = Vec::new();
        for at in 0..NODES {
            let found =
                self.find(at, "request committed and applied", |line| line["request_id"] == *id);
            let [line] = found[..] else { anyhow::bail!("n{}: {found:?}", at + 1) };
            ensure!(line["outcome"] == outcome && line["stream"] == "followed", "{line}");
            indexes.push(line["index"].clone());
        }
        ensure!(indexes.iter().all(|index| *index == indexes[0]), "{indexes:?}");
        Ok(indexes.swap_remove(0))
    }
}

// One batch through a node that does not lead: the door, the way to the leader, its bundle, the
// entry on each replica and the ack have one request id; so has the opening of the stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_batch_is_followed_from_the_door_to_the_ack() -> Result<()> {
    let cluster = Cluster::start_with(&SETTINGS).await?;
    let source = cluster.add_source("src-1", &["notes"]).await?;
    // No leader moves without a cause after this.
    cluster.spread().await?;
    let leader = cluster.leader(source.group).await?;
    let door = (leader + 1) % NODES;
    let mut session = open_stream(&cluster, &source, "followed", "notes", door).await?;
    let mut frame = FrameBuilder::new(1);
    let payload = format!("{{\"code\":\"A-1\",\"note\":\"{CONTENT}\"}}");
    frame.push(&Record { payload: payload.into(), ..Record::default() });
    session.send_frame(frame.finish().context("a record")?).await?;
    while !matches!(answer(&mut session).await?, SessionEvent::Ack(ack) if ack.acked_through == 1) {
    }

    until("the lines of every node", WITHIN, async || {
        let lines = Lines::read(&cluster)?;
        let proposed = lines.find(door, "batch proposed", |line| line["stream"] == "followed");
        let proposed = *proposed.first().context("the door's line")?;
        let id = &proposed["request_id"];
        ensure!(id.as_str().is_some_and(|id| id.len() == 36), "{proposed}");
        let told = ["source", "group", "session", "first", "last", "count"].map(|of| &proposed[of]);
        let number = Value::from;
        let session = number(session.opened().session);
        let one = number(1);
        let group = number(u64::from(source.group));
        ensure!(told == [&"src-1".into(), &group, &session, &one, &one, &one], "{proposed}");
        let same = |line: &Value| line["request_id"] == *id;
        let sent = lines.find(door, "request forwarded to the leader", same);
        ensure!(!sent.is_empty(), "the way to the leader");
        let bundled = lines.find(leader, "request proposed in a bundle", same);
        ensure!(bundled.iter().any(|line| line["operation"] == "append_batch"), "the bundle");
        let index = lines.applied(id, "stored")?;
        let acked = lines.find(door, "batch acknowledged", same);
        ensure!(acked.len() == 1 && acked[0]["index"] == index, "{acked:?} of entry {index}");

        let is_open =
            |line: &Value| line["operation"] == "open_session" && line["stream"] == "followed";
        let asked = lines.find(door, "request proposed", is_open);
        let id = &asked.first().context("the opening")?["request_id"];
        lines.applied(id, "opened")?;
        let answered = lines.find(door, "request answered", |line| line["request_id"] == *id);
        ensure!(answered.len() == 1 && answered[0]["session"] == session, "{answered:?}");
        Ok(())
    })
    .await?;
    cluster.passed();
    Ok(())
}
