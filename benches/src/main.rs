//! `dtm-bench`: the command line of the load generator and of the peer comparison.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};
use dtm_benches::runner::{Home, Series, series};
use dtm_benches::workload::{Plan, Workload};
use dtm_benches::{arms, ceilings, peers, report, targets, tree};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Kills of a full W7.
const KILLS: u32 = 30;
/// Measured seconds for each of them.
const KILL_EVERY_S: f64 = 10.0;

#[derive(Debug, Parser)]
#[command(name = "dtm-bench", about = "Load generator and peer comparison")]
struct Options {
    /// Folder on the disk that is measured.
    #[arg(long, global = true)]
    data: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one workload on the named arms and keep the results.
    Run(RunOptions),
    /// The short comparison (docs/adr/0007 says how long it takes).
    Short,
    /// One workload in full: 5 rounds, 10 s warm-up, 60 s measured; W7 one round of 30 kills, 10 s
    /// for each.
    Full {
        /// Which.
        workload: Workload,
        /// Bytes of a record.
        #[arg(long, default_value_t = 1024)]
        size: usize,
        /// Arms instead of the usual ones.
        #[arg(long, value_delimiter = ',')]
        arms: Vec<String>,
        /// Kills (W7).
        #[arg(long, default_value_t = KILLS)]
        kills: u32,
    },
    /// Measure what the machine itself can do, with both echoes.
    Ceilings,
    /// List the arms.
    Arms,
    /// A node of ours with parts left out.
    #[command(hide = true)]
    DtmNode {
        #[arg(long)]
        config: PathBuf,
        #[arg(long, value_delimiter = ',')]
        without: Vec<peers::dtm_node::Part>,
    },
    /// A node of the echo arms.
    #[command(hide = true)]
    EchoNode {
        #[arg(long)]
        listen: u16,
        #[arg(long, value_delimiter = ',')]
        others: Vec<u16>,
    },
}

#[derive(Debug, clap::Args)]
struct RunOptions {
    /// Which workload.
    #[arg(long)]
    workload: Workload,
    /// Bytes of a record.
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// Arms, separated by commas; see `dtm-bench arms`.
    #[arg(long, value_delimiter = ',', required = true)]
    arms: Vec<String>,
    /// Rounds.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Seconds measured.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Seconds before measuring; 3, or 10 from 8 KiB a record on, when it is not given.
    #[arg(long)]
    warm_up: Option<f64>,
    /// Sources instead of the workload's own number.
    #[arg(long)]
    sources: Option<u32>,
    /// Share of the arm's own maximum (W4, W7).
    #[arg(long, default_value_t = 0.5)]
    share: f64,
    /// Kills (W7).
    #[arg(long, default_value_t = 3)]
    kills: u32,
    /// Print the table only; keep no results.
    #[arg(long)]
    dry: bool,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(async {
        // Dropping the work ends the processes that it started.
        use tokio::signal::unix::{SignalKind, signal};
        let mut ended = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        tokio::select! {
            done = work(options) => done,
            _ = tokio::signal::ctrl_c() => bail!("stopped"),
            _ = ended.recv() => bail!("stopped"),
        }
    })
}

/// 10,000 connections are more than the usual limit.
fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // A lower limit shows itself when connections fail.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

async fn work(options: Options) -> anyhow::Result<()> {
    let data = options.data.unwrap_or_else(|| tree::benches().join(".peers/data"));
    match options.command {
        Command::Run(run) => {
            let dry = run.dry;
            let name = format!("{:?} {} B", run.workload, run.size);
            measure(&name, vec![plan_of(run)?], &data, dry).await
        }
        Command::Short => measure("short", short_plans(), &data, false).await,
        Command::Full { workload, size, arms, kills } => {
            let arms = if arms.is_empty() { usual_arms(workload) } else { arms };
            let mut plan = Plan::new(workload, size, &known(arms)?);
            (plan.rounds, plan.warm_up_s, plan.seconds, plan.kills) = (5, 10.0, 60.0, kills);
            if workload == Workload::W7 {
                // Time to elect and to come back between two kills; the kills are the sample.
                (plan.rounds, plan.seconds) = (1, KILL_EVERY_S * f64::from(kills.max(1)));
            }
            measure(&format!("full {workload:?} {size} B"), vec![plan], &data, false).await
        }
        Command::Ceilings => {
            measure("ceilings", vec![echo_plan(&["echo", "replicated-echo"])], &data, true).await
        }
        Command::Arms => {
            for (name, what) in arms::ARMS {
                println!("{name:<18} {what}");
            }
            Ok(())
        }
        Command::DtmNode { config, without } => {
            peers::dtm_node::serve(&config, &without).await.map_err(anyhow::Error::msg)
        }
        Command::EchoNode { listen, others } => Ok(peers::echo_node::serve(listen, &others).await?),
    }
}

fn plan_of(run: RunOptions) -> anyhow::Result<Plan> {
    let mut plan = Plan::new(run.workload, run.size, &known(run.arms)?);
    plan.rounds = run.rounds.max(1);
    plan.seconds = run.seconds.clamp(0.5, 3600.0);
    plan.warm_up_s = run.warm_up.unwrap_or(plan.warm_up_s).clamp(0.0, 600.0);
    plan.sources = run.sources.unwrap_or(plan.sources).clamp(1, 100_000);
    plan.share = run.share.clamp(0.01, 3.0);
    plan.kills = run.kills;
    Ok(plan)
}

fn known(names: Vec<String>) -> anyhow::Result<Vec<String>> {
    for name in &names {
        if arms::make(name).is_none() {
            bail!("no arm is called {name:?}; `dtm-bench arms` lists them");
        }
    }
    Ok(names)
}

fn names(arms: &[&str]) -> Vec<String> {
    arms.iter().map(|arm| (*arm).to_owned()).filter(|arm| arms::make(arm).is_some()).collect()
}

fn usual_arms(workload: Workload) -> Vec<String> {
    match workload {
        Workload::W1 => names(&["ours", "nats-always", "etcd"]),
        Workload::W3 => names(&[
            "ours",
            "nats-always",
            "nats-always/streams=6",
            "nats-default",
            "etcd",
            "etcd/txn=16",
            "rabbitmq",
            "replicated-echo",
            "echo",
        ]),
        Workload::W6 => names(&[
            "ours",
            "ours-off",
            "ours-unvalidated",
            "ours-plain",
            "ours-unsealed",
            "ours-undigested",
        ]),
        Workload::W2 | Workload::W4 | Workload::W5 | Workload::W7 => names(&["ours"]),
    }
}

/// W3 on arms that store nothing: one round says what the wire allows.
fn echo_plan(arms: &[&str]) -> Plan {
    let mut plan = Plan::new(Workload::W3, 1024, &names(arms));
    (plan.rounds, plan.warm_up_s, plan.seconds) = (1, 2.0, 5.0);
    plan
}

fn short_plans() -> Vec<Plan> {
    let mut plans = Vec::new();
    let six = ["ours", "nats-always", "nats-default", "etcd/txn=16", "rabbitmq", "replicated-echo"];
    let mut most = Plan::new(Workload::W3, 1024, &names(&six));
    most.warm_up_s = 2.0;
    plans.push(most);
    plans.push(echo_plan(&["echo"]));
    let mut one = Plan::new(Workload::W1, 1024, &usual_arms(Workload::W1));
    (one.rounds, one.warm_up_s, one.seconds) = (1, 1.0, 4.0);
    plans.push(one);
    let mut open = Plan::new(Workload::W4, 1024, &names(&["ours"]));
    open.rounds = 1;
    plans.push(open);
    let mut crowd = Plan::new(Workload::W5, 1024, &names(&["ours"]));
    (crowd.rounds, crowd.sources, crowd.warm_up_s, crowd.seconds) = (1, 2000, 0.0, 15.0);
    plans.push(crowd);
    let mut switched =
        Plan::new(Workload::W6, 1024, &names(&["ours", "ours-off", "ours-unvalidated"]));
    (switched.rounds, switched.warm_up_s, switched.seconds) = (1, 2.0, 8.0);
    plans.push(switched);
    let mut kills = Plan::new(Workload::W7, 1024, &names(&["ours"]));
    (kills.rounds, kills.seconds, kills.kills) = (1, 30.0, 3);
    plans.push(kills);
    plans.retain(|plan| !plan.arms.is_empty());
    plans
}

async fn measure(name: &str, plans: Vec<Plan>, data: &PathBuf, dry: bool) -> anyhow::Result<()> {
    std::fs::create_dir_all(data).with_context(|| format!("create {}", data.display()))?;
    let ceilings = ceilings::measure(Home::new(data, "ceilings")?.path())?;
    let mut all: Vec<Series> = Vec::new();
    for mut plan in plans {
        all.iter().for_each(|done| done.tell(&mut plan));
        all.push(series(plan, data).await?);
    }
    let taken = report::Taken::now(name, &all, &ceilings);
    println!("{}", taken.markdown());
    if dry {
        println!("Not kept.");
    } else {
        taken.write()?;
    }
    // Only now: what went wrong is in the results.
    let objections = targets::objections(&all, &taken.found);
    if objections.is_empty() {
        return Ok(());
    }
    bail!("the comparison fails:\n  {}", objections.join("\n  "))
}
