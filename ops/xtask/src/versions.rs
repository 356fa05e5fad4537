//! Fields by version: `proto/versions.txt` names every field of what is replicated or stored under
//! the lowest version of a group that may hold it. A field that is not listed, or not as listed,
//! stops code generation; what is listed becomes the table by which a node refuses commands that a
//! group is not raised to (`proto/types/src/version_of.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};

/// Beside the contracts.
pub(crate) const LIST: &str = "versions.txt";
/// Packages of which everything is replicated or stored.
const STORED: [&str; 2] = ["dtm.command.v1", "dtm.format.v1"];
/// Stored by the cluster layer itself, with what they hold.
const STORED_BESIDE: [&str; 3] =
    [".dtm.cluster.v1.AppliedRow", ".dtm.cluster.v1.Membership", ".dtm.cluster.v1.MissingBundles"];
/// What a bundle holds: the table begins here.
const COMMAND: &str = ".dtm.command.v1.Command";

/// Messages and values of enums by full name.
struct Contracts {
    messages: BTreeMap<String, DescriptorProto>,
    values: BTreeSet<String>,
}

impl Contracts {
    fn of(set: &FileDescriptorSet) -> Result<Self> {
        let (mut messages, mut values) = (BTreeMap::new(), BTreeSet::new());
        for file in &set.file {
            let package = file.package();
            for message in &file.message_type {
                if !message.nested_type.is_empty() || !message.enum_type.is_empty() {
                    bail!("{package}.{} holds a type: such fields are not listed", message.name());
                }
                messages.insert(format!(".{package}.{}", message.name()), message.clone());
            }
            if STORED.contains(&package) {
                for kind in &file.enum_type {
                    let of = |value: &prost_types::EnumValueDescriptorProto| {
                        let (kind, number) = (kind.name(), value.number());
                        format!("{package}.{kind} {number} {}", value.name())
                    };
                    values.extend(kind.value.iter().map(of));
                }
            }
        }
        Ok(Self { messages, values })
    }

    fn message(&self, name: &str) -> Result<&DescriptorProto> {
        self.messages.get(name).with_context(|| format!("no message {name}"))
    }

    /// Who walks over a message relies on an end.
    fn refuse_loops(&self, name: &str, path: &mut Vec<String>) -> Result<()> {
        if path.iter().any(|above| above == name) {
            bail!("{name} holds itself: a command has no bound then");
        }
        path.push(name.to_owned());
        for field in &self.message(name)?.field {
            if field.r#type() == Type::Message {
                self.refuse_loops(field.type_name(), path)?;
            }
        }
        path.pop();
        Ok(())
    }

    /// One line for each field and value.
    fn lines(&self) -> Result<BTreeSet<String>> {
        let mut lines = self.values.clone();
        let is_stored = |name: &String| {
            let package = name.trim_start_matches('.').rsplit_once('.').map(|(package, _)| package);
            package.is_some_and(|package| STORED.contains(&package))
        };
        let mut wanted: Vec<String> =
            self.messages.keys().filter(|n| is_stored(n)).cloned().collect();
        wanted.extend(STORED_BESIDE.map(str::to_owned));
        let mut seen = BTreeSet::new();
        while let Some(name) = wanted.pop() {
            if !seen.insert(name.clone()) {
                continue;
            }
            let message = self.message(&name)?;
            for field in &message.field {
                lines.insert(line(&name, message, field));
                if field.r#type() == Type::Message {
                    wanted.push(field.type_name().to_owned());
                }
            }
        }
        Ok(lines)
    }
}

/// Whether a field is one of several of which a message holds one.
fn is_choice(field: &FieldDescriptorProto) -> bool {
    field.oneof_index.is_some() && !field.proto3_optional()
}

/// `MESSAGE NUMBER NAME TYPE`.
fn line(name: &str, message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let choice = field.oneof_index.filter(|_| is_choice(field));
    let choice = choice.and_then(|at| message.oneof_decl.get(usize::try_from(at).ok()?));
    let prefix = choice.map(|one| format!("{}.", one.name())).unwrap_or_default();
    let label = match field.label() {
        Label::Repeated => "repeated ",
        _ if field.proto3_optional() => "optional ",
        _ => "",
    };
    let kind = match field.r#type() {
        Type::Message | Type::Enum => field.type_name().trim_start_matches('.').to_owned(),
        plain => format!("{plain:?}").to_lowercase(),
    };
    let (name, number) = (name.trim_start_matches('.'), field.number());
    format!("{name} {number} {prefix}{} {label}{kind}", field.name())
}

/// The list as it is committed: each line with its version.
fn read(text: &str) -> Result<(BTreeMap<String, u8>, u8)> {
    let (mut listed, mut version) = (BTreeMap::new(), 0);
    for line in
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        if let Some(next) = line.strip_prefix("version ") {
            let next: u8 = next.parse().with_context(|| format!("{LIST}: {line}"))?;
            if next != version + 1 {
                bail!("{LIST}: version {next} follows version {version}");
            }
            version = next;
        } else if version == 0 || listed.insert(line.to_owned(), version).is_some() {
            bail!("{LIST}: {line}: before the first version, or listed twice");
        }
    }
    Ok((listed, version))
}

/// Holds the list against the contracts.
fn compare(listed: &BTreeMap<String, u8>, described: &BTreeSet<String>) -> Result<()> {
    let gone: Vec<&String> = listed.keys().filter(|line| !described.contains(*line)).collect();
    if !gone.is_empty() {
        bail!("fields are never changed, renumbered or removed once they are listed: {gone:#?}");
    }
    let fresh: Vec<&String> = described.iter().filter(|line| !listed.contains_key(*line)).collect();
    if !fresh.is_empty() {
        bail!(
            "fields of what is replicated or stored are in no version. Nodes of the release before \
             would drop or ignore them, so each begins a new version: raise VERSION_MAX in \
             proto/types/src/bundle.rs and list them under it in proto/{LIST}: {fresh:#?}"
        );
    }
    Ok(())
}

/// The table of `dtm-types`; fails where the list is not whole.
pub(crate) fn generate(root: &Path, set: &FileDescriptorSet) -> Result<Vec<u8>> {
    let contracts = Contracts::of(set)?;
    let text = fs::read_to_string(root.join(LIST)).with_context(|| format!("read {LIST}"))?;
    let (listed, newest) = read(&text)?;
    compare(&listed, &contracts.lines()?)?;
    contracts.refuse_loops(COMMAND, &mut Vec::new())?;
    let mut names = vec![COMMAND.to_owned()];
    let mut rows = String::new();
    let mut at = 0;
    while at < names.len() {
        let name = names[at].clone();
        let message = contracts.message(&name)?;
        writeln!(rows, "    // {}", name.trim_start_matches('.'))?;
        rows.push_str("    &[\n");
        for field in &message.field {
            let version = listed[&line(&name, message, field)];
            let mut within = 0;
            if field.r#type() == Type::Message {
                let child = field.type_name();
                within = names.iter().position(|known| known == child).unwrap_or_else(|| {
                    names.push(child.to_owned());
                    names.len() - 1
                });
            }
            let (tag, choice) = (field.number(), is_choice(field));
            writeln!(rows, "        ({tag}, {version}, {within}, {choice}),")?;
        }
        rows.push_str("    ],\n");
        at += 1;
    }
    let table = format!(
        "// @generated by `dtm-xtask codegen` from proto/{LIST}.\n\n\
         /// The highest version that fields are listed under.\n\
         pub(crate) const NEWEST: u8 = {newest};\n\n\
         /// What a command may hold, itself first. Of each field: number, version, message inside (0: \
         none), one of several.\n\
         pub(crate) static MESSAGES: &[&[(u32, u8, usize, bool)]] = &[\n{rows}];\n"
    );
    Ok(table.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(of: &[&str]) -> BTreeSet<String> {
        of.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn a_field_that_is_not_listed_or_no_longer_there_is_told() {
        let (listed, newest) =
            read("# why\nversion 1\na.B 1 x bytes\nversion 2\na.B 2 y bytes\n").expect("a list");
        assert_eq!((newest, listed["a.B 1 x bytes"], listed["a.B 2 y bytes"]), (2, 1, 2));
        compare(&listed, &lines(&["a.B 1 x bytes", "a.B 2 y bytes"])).expect("whole");
        let fresh = lines(&["a.B 1 x bytes", "a.B 2 y bytes", "a.B 3 z bytes"]);
        let told = compare(&listed, &fresh).expect_err("not listed").to_string();
        assert!(told.contains("VERSION_MAX") && told.contains("a.B 3 z bytes"), "{told}");
        for changed in ["a.B 2 y string", "a.B 3 y bytes", "a.B 2 z bytes"] {
            let told = compare(&listed, &lines(&["a.B 1 x bytes", changed]));
            assert!(told.expect_err("changed").to_string().contains("a.B 2 y bytes"));
        }
        for broken in ["a.B 1 x bytes", "version 2", "version 1\nx\nx", "version one"] {
            assert!(read(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn the_committed_list_is_whole() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
        let set =
            protox::compile(["dtm/admin/v1/admin.proto", "dtm/cluster/v1/cluster.proto"], [&root])
                .expect("the contracts compile");
        generate(&root, &set).expect("every field is listed");
    }
}
