//! What an operator changes and sees by hand: agreements, refusals, a drained node, a lost one, a
//! lost majority.

use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::process::Command;

use crate::cluster::{Cluster, NODES, WITHIN, binary};
use crate::https::{browse, page};
use crate::wait::until;

/// How long the logs of the others are watched while a node is away.
const WATCHED: Duration = Duration::from_secs(6);
/// Lines that a node may write in that time: some a second, not thousands.
const LINES_MAX: usize = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agreement_is_changed_and_what_must_not_be_done_is_refused() -> Result<()> {
    let cluster = Cluster::beside().await?;
    cluster.add_source("src-1", &["dossier_sync"]).await?;
    let add = ["source", "add", "src-1", "--update"];
    cluster
        .dtm(&[&add[..], &["--dataset", "dossier_sync,payment", "--priority", "high"]].concat())
        .await?;
    let changed = source(&cluster).await?;
    ensure!(changed["title_vi"] == "Nguồn src-1" && changed["agency_code"] == "A01", "{changed}");
    ensure!(changed["version"] == 2 && changed["suspended"] == false, "{changed}");
    let agreements = changed["agreements"].as_array().context("agreements")?;
    ensure!(agreements.len() == 2 && agreements.iter().all(|a| a["priority"] == 3), "{changed}");
    ensure!(agreements[0]["security_status"] == 2, "what was not named stays: {changed}");
    cluster.dtm(&[&add[..], &["--suspend"]].concat()).await?;
    let suspended = source(&cluster).await?;
    ensure!(
        suspended["suspended"] == true && suspended["agreements"].as_array() == Some(agreements),
        "{suspended}"
    );
    cluster.dtm_fails(&["source", "add", "nobody", "--update", "--suspend"], "nobody").await?;

    let lost = cluster.path("none/key").display().to_string();
    cluster.dtm_fails(&["source", "key", "issue", "src-1", "--out", &lost], &lost).await?;
    let keys = source(&cluster).await?["keys"].as_array().map(Vec::len);
    ensure!(keys == Some(1), "a key was made that nobody has: {keys:?}");

    cluster.dtm_fails(&["--yes", "operator", "revoke", "admin"], "the last operator").await?;
    let out = cluster.path("new/people").display().to_string();
    let admin = ["operator", "add", "admin", "--role", "auditor", "--out", &out];
    cluster.dtm_fails(&admin, "[already-exists]").await?;
    cluster.dtm_fails(&[&admin[..], &["--update"]].concat(), "the last operator").await?;
    cluster.dtm(&["operator", "add", "lan", "--out", &out]).await?;
    cluster.dtm_fails(&["operator", "add", "lan", "--out", &out], "lan.key").await?;
    cluster
        .dtm_fails(&["cluster", "transfer", "--group", "99", "--to", "n2"], "no group 99")
        .await?;
    let entered = entries(&cluster)?;
    cluster.dtm(&["cluster", "transfer", "--group", "1", "--to", "n2"]).await?;
    let after = entries(&cluster)?;
    ensure!(after == entered + 1, "a transfer has one entry: {entered}, then {after}");
    cluster.dtm_fails(&["cluster", "drain", "n9"], "n9").await?;
    let missing = cluster.path("none/dtm.toml").display().to_string();
    let doctor = asked(&cluster, &["doctor", "--config", &missing]).await?;
    ensure!(
        doctor.status.code() == Some(78) && said(&doctor.stderr).contains(&missing),
        "{doctor:?}"
    );
    examined(&cluster).await?;
    let no_source = asked(&cluster, &["quarantine", "list"]).await?;
    ensure!(said(&no_source.stderr).contains("--source"), "{no_source:?}");

    a_name_is_one_nodes(&cluster).await?;
    cluster.dtm(&["cluster", "drain", "n3"]).await?;
    let drained = page(&cluster, 2, "/readyz").await;
    ensure!(format!("{drained:?}").contains("503"), "{drained:?}");
    cluster.dtm(&["cluster", "drain", "n3", "--resume"]).await?;
    until("n3 is ready again", WITHIN, async || page(&cluster, 2, "/readyz").await.map(drop))
        .await?;
    contexts_are_kept(&cluster).await?;
    cluster.passed();
    Ok(())
}

/// Entries of operators in meta's ledger, by what the nodes said when they had made them.
fn entries(cluster: &Cluster) -> Result<usize> {
    let mut count = 0;
    for node in &cluster.nodes {
        let log = std::fs::read_to_string(&node.log)?;
        let actions = log.lines().filter(|line| line.contains("\"administrative action\""));
        count += actions.filter(|line| line.contains("operator")).count();
    }
    Ok(count)
}

/// A node that would join under the name of another one; then under none.
async fn a_name_is_one_nodes(cluster: &Cluster) -> Result<()> {
    let file = cluster.path("name.token");
    std::fs::write(&file, cluster.dtm(&["cluster", "token"]).await?)?;
    let folder = cluster.path("second-n2").display().to_string();
    let (at, file) = (cluster.nodes[0].grpc.to_string(), file.display().to_string());
    let join = ["cluster", "join", "--folder", &folder, "--address", &at, "--token-file", &file];
    let told = asked(cluster, &join).await?;
    ensure!(told.status.code() == Some(2) && said(&told.stderr).contains("--node"), "{told:?}");
    cluster.dtm_fails(&[&join[..], &["--node", "n2"]].concat(), "already-exists").await?;
    let told = asked(cluster, &[&join[..], &["--node", "n2"]].concat()).await?;
    let (_, status) = status(cluster).await?;
    let nodes = status["nodes"].as_array().context("nodes")?;
    let id = nodes.iter().find(|node| node["name"] == "n2").context("n2")?["id"].clone();
    let text = said(&told.stderr);
    ensure!(text.contains(id.as_str().context("an id")?), "{id} is not named: {text}");
    ensure!(!cluster.path("second-n2").exists(), "something was written");
    Ok(())
}

/// A second cluster of the same name.
async fn contexts_are_kept(cluster: &Cluster) -> Result<()> {
    let list = async || -> Result<Vec<(String, bool)>> {
        let listed = cluster.dtm(&["-o", "json", "context", "list"]).await?;
        let listed: Vec<Value> = serde_json::from_str(&listed)?;
        let one =
            |c: &Value| (c["name"].as_str().unwrap_or_default().to_owned(), c["current"] == true);
        Ok(listed.iter().map(one).collect())
    };
    let before = list().await?;
    let [(name, true)] = &before[..] else { anyhow::bail!("{before:?}") };
    let folder = cluster.path("second").display().to_string();
    let made = cluster.dtm(&["cluster", "init", "--folder", &folder, "--name", name]).await?;
    let second = format!("{name}-2");
    ensure!(made.contains("is kept") && made.contains(&second), "{made}");
    ensure!(
        list().await? == [(name.clone(), false), (second.clone(), true)],
        "{:?}",
        list().await?
    );
    cluster.dtm(&["context", "use", name]).await?;
    cluster.dtm(&["context", "remove", &second]).await?;
    ensure!(list().await? == before, "{:?}", list().await?);
    cluster.healthy().await?;
    cluster.dtm_fails(&["context", "remove", &second], &second).await
}

// fault: F1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_node_and_a_lost_majority_are_seen() -> Result<()> {
    let mut cluster = Cluster::beside().await?;
    // From here on the operator's context knows every node.
    cluster.healthy().await?;
    cluster.nodes[0].kill();
    until("the others lead", WITHIN, async || {
        let (code, status) = status(&cluster).await?;
        ensure!(code == Some(10) && status["meta_current"] == true, "{code:?} {status}");
        let groups = status["groups"].as_array().context("groups")?;
        for group in groups {
            let replicas = group["replicas"].as_array().context("replicas")?;
            let lost = replicas.iter().filter(|replica| replica["health"] == "unreachable").count();
            ensure!((replicas.len(), lost) == (NODES, 1), "{group}");
            ensure!(group["leader"] != "-" && group["leader"] != "", "{group}");
        }
        Ok(())
    })
    .await?;
    let table = asked(&cluster, &["cluster", "status"]).await?;
    ensure!(said(&table.stdout).contains("2/3"), "{table:?}");

    let before = lines(&cluster, 2)?;
    tokio::time::sleep(WATCHED).await;
    let written = &lines(&cluster, 2)?[before.len()..];
    ensure!(written.len() <= LINES_MAX, "{} lines: {:?}", written.len(), &written[..10]);
    ensure!(
        before.iter().filter(|line| line.contains("a node is gone")).count() == 1,
        "{before:?}"
    );

    cluster.nodes[1].kill();
    let alone = asked(&cluster, &["cluster", "status"]).await?;
    let text = said(&alone.stdout);
    ensure!(alone.status.code() == Some(10) && text.contains("Not confirmed"), "{alone:?}");
    ensure!(text.contains("1/3") && !text.contains("2/3"), "{text}");
    let (_, shown) = status(&cluster).await?;
    ensure!(shown["meta_current"] == false, "{shown}");
    // What needs a majority says how many answer, and nothing of nodes and addresses.
    let refused = asked(&cluster, &["--yes", "cluster", "drain", "n3"]).await?;
    let text = said(&refused.stderr);
    ensure!(refused.status.code() == Some(1), "{refused:?}");
    ensure!(text.contains("1 of 3 replicas answer") && !text.contains("Peer"), "{text}");
    let link = cluster.dtm(&["console", "open"]).await?;
    let (_, path) = link.trim().split_once("/?").context("a link")?;
    through_the_link(&cluster, &format!("/?{path}")).await?;
    let told = lines(&cluster, 2)?;
    let told = told.iter().filter(|line| line.contains("controller rounds end early"));
    ensure!(told.count() <= 1, "what fails each second is told once");

    for at in [0, 1] {
        cluster.start_node(at)?;
    }
    cluster.settled(NODES).await?;
    ensure!(lines(&cluster, 2)?.iter().any(|line| line.contains("a node is back")), "not told");
    cluster.passed();
    Ok(())
}

/// A link is exchanged once for a session, which stays when the link is used up.
async fn through_the_link(cluster: &Cluster, link: &str) -> Result<()> {
    let entered = browse(cluster, 2, link, "").await?;
    ensure!(entered.starts_with("HTTP/1.1 303"), "{entered}");
    let head = |name: &str| {
        let mut lines = entered.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    };
    ensure!(head("location") == Some("/"), "the secret leaves the address: {entered}");
    let (cookie, marks) = head("set-cookie").and_then(|c| c.split_once(';')).context("a cookie")?;
    for mark in ["Secure", "HttpOnly", "SameSite=Strict", "Path=/"] {
        ensure!(marks.contains(mark), "{mark}: {marks}");
    }
    let live = browse(cluster, 2, "/", cookie).await?;
    ensure!(live.starts_with("HTTP/1.1 200") && live.contains("n1"), "{live}");
    let again = browse(cluster, 2, link, "").await?;
    ensure!(again.starts_with("HTTP/1.1 401") && again.contains("dtm console open"), "{again}");
    Ok(())
}

async fn source(cluster: &Cluster) -> Result<Value> {
    Ok(serde_json::from_str(&cluster.dtm(&["-o", "json", "source", "show", "src-1"]).await?)?)
}

async fn status(cluster: &Cluster) -> Result<(Option<i32>, Value)> {
    let output = asked(cluster, &["-o", "json", "cluster", "status"]).await?;
    let document = serde_json::from_slice(&output.stdout);
    Ok((output.status.code(), document.with_context(|| said(&output.stderr))?))
}

/// Runs a command as the operator, however it ends.
/// `dtm doctor` beside a node that runs: machine, files, and every node of the cluster.
async fn examined(cluster: &Cluster) -> Result<()> {
    let config = cluster.nodes[0].folder.join("dtm.toml").display().to_string();
    let doctor = asked(cluster, &["-o", "json", "doctor", "--config", &config]).await?;
    let findings: Vec<Value> = serde_json::from_slice(&doctor.stdout).context("findings")?;
    let of = |check: &str| findings.iter().filter(|f| f["check"] == check).collect::<Vec<_>>();
    for check in ["version", "clock", "clock_discipline", "open_files", "disk_sync", "certificate"]
    {
        ensure!(of(check).len() == 1, "{check}: {findings:?}");
    }
    ensure!(of("clock")[0]["verdict"] == "ok", "{findings:?}");
    let nodes = of("nodes");
    let own = of("version")[0]["found"].as_str().context("a version")?.to_owned();
    let is_known = |n: &&Value| n["found"].as_str().is_some_and(|text| text.contains(&own));
    ensure!(nodes.len() == NODES && nodes.iter().all(is_known), "{nodes:?}");
    ensure!(nodes.iter().all(|n| n["verdict"] == "ok"), "{nodes:?}");
    Ok(())
}

async fn asked(cluster: &Cluster, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(binary()?);
    command
        .args(arguments)
        .env("DTM_CONTEXTS", cluster.path("contexts.toml"))
        .env("DTM_LANG", "en")
        .env_remove("DTM_CONTEXT")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    Ok(tokio::time::timeout(WITHIN, command.output()).await??)
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn lines(cluster: &Cluster, at: usize) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(&cluster.nodes[at].log)?;
    Ok(text.lines().map(str::to_owned).collect())
}
