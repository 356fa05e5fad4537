//! Generates the protobuf code that is committed: messages for `dtm-types`, messages and services
//! for `dtm-proto`. `protox` compiles, so no `protoc` is needed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use prost::Message;

use crate::versions;

/// Packages that stand in `dtm-types` (prost only, no tonic).
const FORMAT: &str = "dtm/format/v1/format.proto";
const COMMAND: &str = "dtm/command/v1/command.proto";
/// Packages with services, in `dtm-proto`.
const WIRE: [&str; 4] = [
    "dtm/ingest/v1/ingest.proto",
    "dtm/records/v1/records.proto",
    "dtm/admin/v1/admin.proto",
    "dtm/cluster/v1/cluster.proto",
];

/// Writes every generated file.
pub(crate) fn write() -> Result<()> {
    for (path, content) in generate()? {
        fs::create_dir_all(path.parent().context("generated file has a folder")?)?;
        if fs::read(&path).ok().as_deref() != Some(content.as_slice()) {
            fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
            println!("wrote {}", path.display());
        }
    }
    Ok(())
}

/// Fails when a committed file is not what the contracts yield.
pub(crate) fn check() -> Result<()> {
    let stale: Vec<String> = generate()?
        .into_iter()
        .filter(|(path, content)| fs::read(path).ok().as_deref() != Some(content.as_slice()))
        .map(|(path, _)| path.display().to_string())
        .collect();
    if !stale.is_empty() {
        bail!("generated code is stale (run `cargo xtask codegen`): {}", stale.join(", "));
    }
    Ok(())
}

fn generate() -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let root = Path::new("proto");
    let scratch = std::env::temp_dir().join(format!("dtm-codegen-{}", std::process::id()));
    let mut files = BTreeMap::new();

    let out = scratch.join("types");
    fs::create_dir_all(&out)?;
    let set = protox::compile([FORMAT], [root]).context("compile the stored formats")?;
    prost_build::Config::new()
        .bytes(["."])
        // No record brings one yet, and inline it would make each envelope larger in memory.
        .boxed(".dtm.format.v1.Envelope.signature")
        .out_dir(&out)
        .compile_fds(set)?;
    let set = protox::compile([COMMAND], [root]).context("compile the commands")?;
    prost_build::Config::new()
        .bytes(["."])
        .extern_path(".dtm.format.v1", "crate::format")
        .out_dir(&out)
        .compile_fds(set)?;
    collect(&out, Path::new("proto/types/src/generated"), &mut files)?;

    let out = scratch.join("wire");
    fs::create_dir_all(&out)?;
    let present: Vec<&str> = WIRE.into_iter().filter(|p| root.join(p).exists()).collect();
    let set = protox::compile(&present, [root]).context("compile the wire contracts")?;
    files.insert(PathBuf::from("proto/src/generated/descriptors.bin"), set.encode_to_vec());
    let table = versions::generate(root, &set)?;
    files.insert(PathBuf::from("proto/types/src/generated/versions.rs"), table);
    tonic_prost_build::configure()
        .bytes(".")
        // Few records bring one, and inline it would make each three times as large in memory.
        .boxed(".dtm.ingest.v1.Record.envelope")
        .extern_path(".dtm.format.v1", "::dtm_types::format")
        .extern_path(".dtm.command.v1", "::dtm_types::command")
        .out_dir(&out)
        .compile_fds(set)?;
    collect(&out, Path::new("proto/src/generated"), &mut files)?;

    fs::remove_dir_all(&scratch).ok();
    Ok(files)
}

fn collect(from: &Path, to: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let name =
            path.file_name().context("generated file has a name")?.to_string_lossy().to_string();
        let text = fs::read_to_string(&path)?;
        let empty = text.lines().all(|l| l.starts_with("//") || l.trim().is_empty());
        if name.ends_with(".rs") && !empty {
            files.insert(to.join(name), text.into_bytes());
        }
    }
    Ok(())
}
