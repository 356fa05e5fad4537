//! Commands that the binary carries out itself: those of one node and its files.

mod backups;

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use dtm_ctl::args::{
    BackupCommand, ClusterCommand, Command, ConfigCommand, ConfigFile, DocsPage, DoctorArgs,
    GenerateCommand, Globals, InitArgs, JoinArgs, NodeArgs,
};
use dtm_ctl::contexts::{self, Context, Contexts};
use dtm_ctl::{Exit, Failure, Printer, Remote};
use dtm_doors::{keyring, telemetry};
use dtm_proto::admin::{ClusterStatusRequest, ClusterStatusResponse};
use dtm_types::text::Told;
use futures::future::BoxFuture;
use serde_json::json;

use crate::config::Loaded;
use crate::doctor::{self, Verdict};
use crate::pki::{self, InitOptions};
use crate::{config, join, precheck, restore};

/// How long `dtm doctor` waits for the cluster.
const STATUS_WITHIN: Duration = Duration::from_secs(10);

/// Why a local command failed, with its exit code.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration does not hold.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// As the remote commands fail.
    #[error(transparent)]
    Failure(#[from] Failure),
    /// Certificates and files.
    #[error(transparent)]
    Pki(#[from] pki::Error),
    /// Joining.
    #[error(transparent)]
    Join(#[from] join::Error),
    /// Restoring a backup.
    #[error(transparent)]
    Restore(#[from] restore::Error),
}

impl Error {
    /// The process's exit code.
    pub fn exit(&self) -> u8 {
        match self {
            Self::Config(_) => config::EXIT_CONFIG,
            Self::Failure(failure) => failure.exit() as u8,
            Self::Pki(_) | Self::Join(_) | Self::Restore(_) => Exit::Failed as u8,
        }
    }

    /// What to tell the user.
    pub fn tell(&self, globals: &Globals) -> String {
        match self {
            Self::Failure(failure) => failure.tell(globals.lang),
            Self::Config(error) => error.tell(globals.lang),
            Self::Join(join::Error::Refused(status)) => {
                Failure::Refused(status.clone()).tell(globals.lang)
            }
            Self::Pki(error) | Self::Restore(restore::Error::Pki(error)) => {
                in_words(error.told(), error, globals)
            }
            Self::Restore(error) => match error.told() {
                Some(told) => told.of(globals.lang),
                None => dtm_types::chain(error),
            },
            Self::Join(error) => in_words(error.told(), error, globals),
        }
    }
}

/// What is met often has a text; rarer faults are told in English, as logs are.
fn in_words(told: Option<Told>, error: &dyn std::error::Error, globals: &Globals) -> String {
    told.map_or_else(|| error.to_string(), |told| told.of(globals.lang))
}

/// Carries out a command of the node's own; `false` where it is not one of them.
///
/// # Errors
/// [`Error`].
pub fn run<'a>(
    command: &'a Command,
    globals: &'a Globals,
    now_us: i64,
) -> BoxFuture<'a, Result<bool, Error>> {
    Box::pin(async move {
        let printer = Printer::new(globals);
        match command {
            Command::Config(command) => return configuration(command, &printer, now_us),
            Command::Doctor(file) => examine(file, globals, now_us).await?,
            Command::Cluster(ClusterCommand::Init(args)) => init(args, &printer, now_us)?,
            Command::Cluster(ClusterCommand::Join(args)) => join_cluster(args, &printer).await?,
            Command::Backup(BackupCommand::Restore(args)) => {
                backups::restore(args, globals, now_us).await?;
            }
            Command::Backup(BackupCommand::Export(args)) => backups::export(args, globals).await?,
            Command::Generate(GenerateCommand::Grafana) => {
                printer.raw(&dtm_ctl::generate::grafana(globals.lang));
            }
            Command::Generate(GenerateCommand::PrometheusRules) => {
                printer.raw(dtm_ctl::generate::prometheus_rules(globals.lang).trim_end());
            }
            _ => return Ok(false),
        }
        Ok(true)
    })
}

/// What is about this node's files; `false` for what the cluster is asked.
fn configuration(
    command: &ConfigCommand,
    printer: &Printer<'_>,
    now_us: i64,
) -> Result<bool, Error> {
    match command {
        ConfigCommand::Check(ConfigFile { config: path }) => {
            let Loaded { config, refused, .. } = config::load(path)?;
            let mut problems = precheck::problems(path, &config, now_us);
            problems.extend(refused.into_iter().flat_map(|refused| refused.0));
            if !problems.is_empty() {
                return Err(config::Error(problems).into());
            }
            let name = path.display().to_string();
            printer.done(
                "cli.config_fine",
                &[("name", &name)],
                &json!({ "config": name, "holds": true }),
            );
        }
        ConfigCommand::Show { file, cluster: false } => show(&config::load(&file.config)?, printer),
        ConfigCommand::Docs { page } => printer.raw(
            match page {
                DocsPage::Config => config::markdown(),
                DocsPage::Metrics => telemetry::markdown(),
            }
            .trim_end(),
        ),
        ConfigCommand::Show { cluster: true, .. }
        | ConfigCommand::Set { .. }
        | ConfigCommand::History { .. }
        | ConfigCommand::Rollback { .. } => return Ok(false),
    }
    Ok(true)
}

/// As a file that gives the same; secrets are files, so nothing is left out. Behind each value where
/// it comes from.
fn show(loaded: &Loaded, printer: &Printer<'_>) {
    let version = loaded.settings.version.to_string();
    let (mut document, mut origins) = (serde_json::Map::new(), serde_json::Map::new());
    let (mut text, mut current) = (String::new(), "");
    for ((section, key, shown, value), origin) in
        loaded.config.rows().into_iter().zip(&loaded.origins)
    {
        if section != current {
            text.push_str(&format!("{}[{section}]\n", if current.is_empty() { "" } else { "\n" }));
            current = section;
        }
        let from = printer.text(&format!("cli.origin.{}", origin.name()), &[("version", &version)]);
        text.push_str(&format!("{key} = {shown} # {from}\n"));
        document.insert(format!("{section}.{key}"), value);
        origins.insert(format!("{section}.{key}"), origin.name().into());
    }
    document.insert("origin".to_owned(), origins.into());
    document.insert("settings_version".to_owned(), loaded.settings.version.into());
    if printer.is_json() { printer.json(&document.into()) } else { printer.raw(text.trim_end()) }
}

/// A file that is named has to be there; without one the machine alone can be looked at.
async fn examine(args: &DoctorArgs, globals: &Globals, now_us: i64) -> Result<(), Error> {
    let printer = &Printer::new(globals);
    let usual = Path::new("dtm.toml");
    let config = match &args.config {
        Some(path) => Some(config::load(path)?.config),
        None if usual.exists() => Some(config::load(usual)?.config),
        None => None,
    };
    let mut findings = doctor::examine(config.as_ref(), now_us);
    let lang = globals.lang;
    let asking = async {
        match context_for(config.as_ref(), globals)? {
            Some(globals) => cluster_status(&globals).await,
            None => Err(Failure::usage("cli.no_context", &[])),
        }
    };
    let asked = tokio::time::timeout(STATUS_WITHIN, asking).await;
    let late = |_| Err(Failure::Unreachable { tried: Vec::new() });
    findings.extend(doctor::nodes(asked.unwrap_or_else(late), lang, now_us));
    let rows = findings.iter().map(|finding| {
        let verdict = match finding.verdict {
            Verdict::Ok => "doctor.verdict.ok",
            Verdict::Warning => "doctor.verdict.warning",
            Verdict::Bad => "doctor.verdict.bad",
        };
        vec![
            printer.text(&format!("doctor.{}", finding.check), &[]),
            printer.text(verdict, &[]),
            finding.found.of(lang),
            finding.remedy.text(lang),
        ]
    });
    let document = findings.iter().map(|finding| {
        json!({ "check": finding.check, "verdict": finding.verdict, "found": finding.found.of(lang),
                "remedy": finding.remedy.text(lang) })
    });
    let document: Vec<_> = document.collect();
    printer.table(&["check", "state", "found", "remedy"], rows.collect(), &json!(document));
    if findings.iter().any(|finding| finding.verdict == Verdict::Bad) {
        return Err(Failure::Verdict { key: "cli.doctor_bad", exit: Exit::Unhealthy }.into());
    }
    Ok(())
}

/// Options under which the cluster of a configuration is asked: the context that was named, else
/// one that trusts the same root, the current one first. `None` where no context is of that cluster.
fn context_for(
    config: Option<&config::Config>,
    globals: &Globals,
) -> Result<Option<Globals>, Failure> {
    let (Some(config), None) = (config, &globals.context) else {
        return Ok(Some(globals.clone()));
    };
    let root = std::fs::read(&config.tls.ca).unwrap_or_default();
    let all = Contexts::load(&contexts::path())?;
    let current = all.current.iter().filter_map(|name| all.contexts.get_key_value(name));
    let mut known = current.chain(&all.contexts);
    let is_same = |context: &Context| {
        std::fs::read(&context.ca).is_ok_and(|ca| ca.trim_ascii() == root.trim_ascii())
    };
    let found = known.find(|(_, context)| is_same(context));
    Ok(found.map(|(name, _)| Globals { context: Some(name.clone()), ..globals.clone() }))
}

/// The cluster's status, by the context.
async fn cluster_status(globals: &Globals) -> Result<ClusterStatusResponse, Failure> {
    let remote = Remote::connect(globals).await?;
    let asked = remote.request(ClusterStatusRequest {});
    Ok(remote.admin().cluster_status(asked).await?.into_inner())
}

fn options(
    node: &NodeArgs,
    node_name: &str,
    cluster_name: &str,
    operator: &str,
    groups: u32,
) -> InitOptions {
    InitOptions {
        folder: node.folder.clone(),
        cluster_name: cluster_name.to_owned(),
        node_name: node_name.to_owned(),
        site: node.site.clone(),
        zone: node.zone.clone(),
        advertise: node.advertise.clone(),
        listen: [node.https, node.grpc, node.peers],
        operator: operator.to_owned(),
        ingest_groups: groups,
        production: false,
    }
}

fn init(args: &InitArgs, printer: &Printer<'_>, now_us: i64) -> Result<(), Error> {
    let name = args.node.node.as_deref().unwrap_or(FIRST_NODE);
    let options = InitOptions {
        production: args.production,
        ..options(&args.node, name, &args.name, &args.operator, args.groups)
    };
    let made = pki::cluster_init(&options, now_us, &|data, master, issuing| {
        keyring::create(data, master, issuing, now_us)
            .map_err(|e| pki::Error::Keyring(e.to_string()))
    })?;
    let [ca, certificate, key] = &made.operator_files;
    let host = args.node.advertise.first().map(String::as_str).unwrap_or_default();
    let context = Context {
        address: vec![config::host_and_port(host, args.node.grpc.port())],
        ca: ca.clone(),
        certificate: Some(certificate.clone()),
        key: Some(key.clone()),
        ..Context::default()
    };
    let context = if args.no_context { None } else { Some(add_context(&args.name, context)?) };
    let text = |path: &Path| path.display().to_string();
    let config = text(&made.config);
    let document = json!({
        "cluster_id": made.cluster.to_string(), "node_id": made.node.to_string(), "config": config,
        "ca": text(ca), "operator_certificate": text(certificate), "operator_key": text(key),
        "root_folder": text(&made.root_folder), "master_key": text(&made.master_key),
        "context": context,
    });
    printer.done("cli.cluster_made", &[("name", &args.name), ("config", &config)], &document);
    if let Some(context) = &context {
        if *context != args.name {
            printer.say("cli.context_kept", &[("name", &args.name), ("fresh", context)]);
        }
        printer.say("cli.context_used", &[("name", context)]);
    }
    printer.say("cli.keep_root", &[("name", &text(&made.root_folder))]);
    printer.say("cli.keep_master", &[("name", &text(&made.master_key))]);
    printer.say("cli.next_serve", &[("config", &config)]);
    Ok(())
}

/// The context of a new cluster becomes the current one; its name. Another cluster's stays.
fn add_context(name: &str, context: Context) -> Result<String, Error> {
    let file = contexts::path();
    let mut all = Contexts::load(&file)?;
    let name = all.add_beside(name, context)?;
    all.save(&file)?;
    Ok(name)
}

/// Name of a cluster's first node where nothing is said.
const FIRST_NODE: &str = "n1";
/// A token has 134 bytes; more is not read.
const TOKEN_BYTES_MAX: u64 = 1_024;

async fn join_cluster(args: &JoinArgs, printer: &Printer<'_>) -> Result<(), Error> {
    let name = args.node.node.as_deref();
    let name = name.ok_or_else(|| Failure::usage("cli.node_name_needed", &[]))?;
    let mut token = zeroize::Zeroizing::new(String::new());
    let failed = Failure::file(&args.token_file);
    let read = if args.token_file == Path::new("-") {
        std::io::stdin().take(TOKEN_BYTES_MAX).read_to_string(&mut token)
    } else {
        let file = std::fs::File::open(&args.token_file);
        file.and_then(|file| file.take(TOKEN_BYTES_MAX).read_to_string(&mut token))
    };
    read.map_err(failed)?;
    let config = join::join(&options(&args.node, name, "", "", 0), &args.address, &token).await?;
    let config = config.display().to_string();
    let document = json!({ "node": name, "config": config });
    printer.done("cli.node_joined", &[("name", name), ("config", &config)], &document);
    printer.say(
        "cli.keep_master",
        &[("name", &args.node.folder.join("keys/master.key").display().to_string())],
    );
    printer.say("cli.next_serve", &[("config", &config)]);
    Ok(())
}
