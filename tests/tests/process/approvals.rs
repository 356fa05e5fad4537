//! What destroys takes two people, on a cluster that is marked production.

use anyhow::{Context, Result, ensure};
use dtm_client::admin::Admin;
use dtm_client::{Endpoint, TlsFiles};
use dtm_proto::admin::{GrantApprovalRequest, RequestApprovalRequest};
use dtm_types::ApprovalId;
use serde_json::Value;
use tonic::Code;

use crate::cluster::{Cluster, NODES, WITHIN};
use crate::wait::until;

/// Adds an operator and a context of that name.
pub(crate) async fn add_person(cluster: &Cluster, name: &str, role: &str) -> Result<()> {
    let out = cluster.path("people");
    std::fs::create_dir_all(&out)?;
    let path = |file: String| out.join(file).display().to_string();
    let folder = out.display().to_string();
    cluster.dtm(&["operator", "add", name, "--role", role, "--out", &folder]).await?;
    let address: Vec<_> = cluster.nodes.iter().map(|node| node.grpc.to_string()).collect();
    let ca = cluster.source_files().ca.display().to_string();
    let (certificate, key) = (path(format!("{name}.pem")), path(format!("{name}.key")));
    let address = address.join(",");
    let add = ["context", "add", name, "--address", &address, "--ca", &ca];
    let files = ["--certificate", &certificate, "--key", &key];
    cluster.dtm(&[&add[..], &files].concat()).await?;
    cluster.dtm(&["context", "use", "test"]).await.map(|_| ())
}

async fn json(cluster: &Cluster, arguments: &[&str]) -> Result<Value> {
    let said = cluster.dtm(&[&["-o", "json"], arguments].concat()).await?;
    Ok(serde_json::from_str(&said)?)
}

fn removal<'a>(node: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let remove = ["--yes", "--reason", "its disk fails", "cluster", "remove", node];
    [&remove[..], more].concat()
}

async fn is_removed(cluster: &Cluster, name: &str) -> Result<bool> {
    let status = cluster.status().await?;
    let mut rows = status.nodes.iter().filter_map(|node| node.node.as_ref());
    Ok(rows.find(|row| row.name == name).is_none_or(|row| row.removed))
}

// Three operators' certificates: what one asks for another grants, once and for this node only.
//
// holds: SEC-2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_production_is_removed_by_two_people() -> Result<()> {
    let mut cluster = Cluster::production().await?;
    add_person(&cluster, "binh", "operator").await?;
    add_person(&cluster, "chi", "approver").await?;

    for _ in 0..2 {
        cluster.dtm_fails(&removal("n3", &[]), "[approval-needed]").await?;
    }
    let list = json(&cluster, &["approval", "list"]).await?;
    let asked = list.as_array().context("a list")?;
    ensure!(asked.len() == 1, "a call that is repeated asks once: {list}");
    let id = asked[0]["id"].as_str().context("an id")?.to_owned();
    let object = asked[0]["object"].as_str().context("an object")?;
    ensure!(object.ends_with(" name=n3"), "{object}");
    ensure!(asked[0]["requested"]["name"] == "admin" && asked[0]["state"] == "open", "{list}");
    cluster.dtm_fails(&removal("n3", &[]), &format!("dtm approval grant {id}")).await?;

    let approved = ["--approval", &id];
    cluster.dtm_fails(&removal("n3", &approved), "not granted yet").await?;
    ensure!(cluster.dtm(&["approval", "grant", &id]).await.is_err(), "it did not ask");
    let grant = ["--yes", "approval", "grant", &id];
    cluster.dtm_fails(&grant, "another person does").await?;
    let by = |name: &'static str| ["--context", name];
    let chi = [&by("chi")[..], &["--reason", "seen on the console"], &grant].concat();
    cluster.dtm(&chi).await?;
    cluster.dtm_fails(&[&by("binh")[..], &grant].concat(), "granted already").await?;

    cluster.dtm_fails(&removal("n2", &approved), "something else").await?;
    let chi_removes = [&by("chi")[..], &removal("n3", &approved)].concat();
    cluster.dtm_fails(&chi_removes, "[permission-denied]").await?;
    cluster.dtm(&removal("n3", &approved)).await?;
    ensure!(is_removed(&cluster, "n3").await? && !is_removed(&cluster, "n2").await?, "not n3");

    let used = json(&cluster, &["approval", "show", &id]).await?;
    let names = ["requested", "decided", "used"].map(|what| used[what]["name"].clone());
    ensure!(names == ["admin", "chi", "admin"] && used["state"] == "used", "{used}");
    ensure!(used["decision_reason"] == "seen on the console", "{used}");
    let left = json(&cluster, &["approval", "list"]).await?;
    ensure!(left == serde_json::json!([]), "{left}");
    // While the groups still leave n3 behind, they could not do without n2 for another reason.
    until("the approval to be used up", WITHIN, async || {
        cluster.dtm_fails(&removal("n2", &approved), "holds once").await
    })
    .await?;
    cluster.nodes[NODES - 1].kill();
    cluster.passed();
    Ok(())
}

// An approval is denied, or ends with its time; a cluster that is not marked asks for none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_approval_that_is_denied_or_late_is_none() -> Result<()> {
    let mut cluster = Cluster::beside().await?;
    add_person(&cluster, "binh", "operator").await?;
    let admin = cluster.admin()?;
    let ask = async |valid_seconds| {
        let request = RequestApprovalRequest {
            context: Some(Admin::context("a drill")),
            kind: "remove-node".to_owned(),
            object: "node=1 name=n1".to_owned(),
            valid_seconds,
        };
        let call = admin.call(|mut client| {
            let request = request.clone();
            async move { client.request_approval(request).await }
        });
        anyhow::Ok(ApprovalId::from_slice(&call.await?.id).context("an id")?)
    };
    let (late, denied) = (ask(1).await?.to_string(), ask(0).await?.to_string());
    let list = json(&cluster, &["approval", "list"]).await?;
    ensure!(list.to_string().contains(&denied), "{list}");
    until("the end of its time", WITHIN, async || {
        let shown = json(&cluster, &["approval", "show", &late]).await?;
        ensure!(shown["state"] == "expired", "{shown}");
        Ok(())
    })
    .await?;
    let binh = ["--context", "binh", "--yes", "approval"];
    let by_binh = |verb: &'static str, id: &str| {
        [&binh[..], &[verb, id]].concat().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    cluster.dtm_fails(&by_binh("grant", &late), "past its time").await?;
    cluster.dtm(&by_binh("deny", &denied)).await?;
    cluster.dtm_fails(&by_binh("grant", &denied), "was denied").await?;
    let list = json(&cluster, &["approval", "list", "--all"]).await?;
    ensure!(list.as_array().is_some_and(|all| all.len() == 2), "{list}");

    // Another digest than what was shown is not granted.
    let open = ask(0).await?;
    let request = GrantApprovalRequest {
        context: Some(Admin::context("")),
        id: open.0.to_vec().into(),
        object_digest: vec![1; 32].into(),
    };
    let people = cluster.path("people");
    let files = TlsFiles {
        certificate: Some(people.join("binh.pem")),
        key: Some(people.join("binh.key")),
        ..cluster.source_files()
    };
    let binh = Admin::new(Endpoint::new([cluster.nodes[0].grpc.to_string()], &files)?);
    let refused = binh.call(|mut client| {
        let request = request.clone();
        async move { client.grant_approval(request).await }
    });
    let refused = refused.await.expect_err("granted unseen");
    let dtm_client::Error::Rejected { grpc: Code::FailedPrecondition, .. } = refused else {
        anyhow::bail!("{refused}")
    };

    cluster.dtm(&removal("n3", &[])).await?;
    cluster.nodes[NODES - 1].kill();
    cluster.passed();
    Ok(())
}
