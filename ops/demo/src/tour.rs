//! How to look around in the cluster that stays up: the README's tour with the right paths.

use anyhow::{Context, Result};

use crate::cluster::Cluster;
use crate::say::Say;

/// A data set of one's own and a table for it; one row is wrong on purpose.
const DEFINITION: &str = include_str!("../tour/public_works.toml");
const TABLE: &str = include_str!("../tour/public_works.csv");

/// Contexts of the demo: its operator, and one of its sources.
const OPERATOR_CONTEXT: &str = "demo";
const SOURCE: &str = "ha-noi";

/// Adds the contexts to the demo's own file and lays the tour's files beside it.
///
/// # Errors
/// What the commands or the operating system said.
pub(crate) async fn prepare(cluster: &Cluster) -> Result<()> {
    let folder = cluster.path("tour");
    std::fs::create_dir_all(&folder).context("tour")?;
    std::fs::write(folder.join("public_works.toml"), DEFINITION).context("tour")?;
    std::fs::write(folder.join("public_works.csv"), TABLE).context("tour")?;
    let shown = |path: &std::path::Path| path.display().to_string();
    let files = cluster.operator_files();
    let (addresses, ca) = (cluster.addresses().join(","), shown(&files.ca));
    let certificate = files.certificate.as_deref().map(shown).unwrap_or_default();
    let key = files.key.as_deref().map(shown).unwrap_or_default();
    let operator = [
        "context",
        "add",
        OPERATOR_CONTEXT,
        "--address",
        &addresses,
        "--ca",
        &ca,
        "--certificate",
        &certificate,
        "--key",
        &key,
    ];
    cluster.dtm(&operator).await?;
    let source_key = shown(&cluster.path("keys").join(format!("{SOURCE}.key")));
    let source = [
        "context",
        "add",
        SOURCE,
        "--address",
        &addresses,
        "--ca",
        &ca,
        "--source-key-file",
        &source_key,
        "--source",
        SOURCE,
    ];
    cluster.dtm(&source).await?;
    cluster.dtm(&["context", "use", OPERATOR_CONTEXT]).await?;
    Ok(())
}

/// A link to the live page.
///
/// # Errors
/// What the command said.
pub(crate) async fn page_link(cluster: &Cluster) -> Result<String> {
    Ok(cluster.dtm(&["console", "open"]).await?.trim().to_owned())
}

/// The page that says how to look around.
pub(crate) fn lines(cluster: &Cluster, say: Say) -> Vec<String> {
    let shown = |path: std::path::PathBuf| quoted(&path.display().to_string());
    let tour = cluster.path("tour");
    let definition = shown(tour.join("public_works.toml"));
    let table = shown(tour.join("public_works.csv"));
    let (key, ca) = (shown(tour.join("tour.key")), shown(cluster.operator_files().ca));
    let reach = format!("--ca {ca} --address {}", cluster.addresses().join(","));
    let steps = [
        (
            "setup",
            vec![
                format!("export DTM_CONTEXTS={}", shown(cluster.contexts())),
                format!("alias dtm={}", quoted(&cluster.binary().display().to_string())),
            ],
        ),
        ("status", vec!["dtm cluster status".to_owned()]),
        (
            "own_dataset",
            vec![
                format!("dtm dataset publish {definition}"),
                "dtm source add tour --title 'Sở Xây dựng' --dataset public_works".to_owned(),
                format!("dtm source key issue tour --out {key}"),
                format!("dtm context add tour --source tour --source-key-file {key} {reach}"),
            ],
        ),
        ("publish", vec![format!("dtm --context tour publish --dataset public_works {table}")]),
        ("read", vec!["dtm --context tour records read --dataset public_works".to_owned()]),
        (
            "quarantine",
            vec![
                "dtm --context tour quarantine list".to_owned(),
                "dtm --context tour quarantine show ID".to_owned(),
            ],
        ),
        ("tail", vec![format!("dtm --context {SOURCE} records tail --source {SOURCE}")]),
        ("page", vec!["dtm console open".to_owned()]),
    ];
    let mut lines = vec![String::new(), say.text("tour.head", &[]), String::new()];
    for (key, commands) in steps {
        lines.push(format!("  # {}", say.text(&format!("tour.{key}"), &[])));
        lines.extend(commands.into_iter().map(|command| format!("  {command}")));
    }
    lines
}

/// For a shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:,=".contains(c);
    if text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use dtm_catalog::{Columns, CompiledSchema, Definition, Outcome, Rule, Scratch};

    use super::*;

    #[test]
    fn one_row_of_the_tour_is_refused_and_the_others_are_kept() {
        let definition = Definition::parse(DEFINITION, "public_works.toml").expect("it reads");
        let schema = CompiledSchema::compile(&definition).expect("it compiles");
        let mut table = csv::Reader::from_reader(TABLE.as_bytes());
        let header = table.headers().expect("a header").clone();
        let columns =
            Columns::bind(&definition, &header.iter().collect::<Vec<_>>()).expect("it fits");
        let mut refused = Vec::new();
        let mut rows = 0;
        for row in table.records() {
            let row = row.expect("it reads");
            rows += 1;
            let json = columns.row(row.iter()).expect("every cell has its type");
            if let Outcome::Refused(refusal) = schema.check(&json, &mut Scratch::default()) {
                refused.push((row[0].to_owned(), refusal.violations[0].rule));
            }
        }
        assert_eq!(rows, 20);
        assert_eq!(refused, [("CT-0011".to_owned(), Rule::Date)]);
    }

    #[test]
    fn paths_with_blanks_are_quoted() {
        assert_eq!(quoted("/a/b.c"), "/a/b.c");
        assert_eq!(quoted("/a b/c'd"), r"'/a b/c'\''d'");
    }
}
