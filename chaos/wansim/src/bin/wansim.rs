//! `wansim`: network and processes by hand. Commands come from the standard input, so a script works too.

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use dtm_wansim::nemesis::{Starved, TurnedClock, Victim};
use dtm_wansim::{NodeId, Plan, Ppm, Running, Settings, SitePlan, Wan};

const HELP: &str = "\
nodes                         every node and its address
run a1 COMMAND …              runs it on that node and waits
start a1 COMMAND …            runs it in the background; prints a number
kill NUMBER                   kills what was started
pause NUMBER 5s               holds it still for so long
starve NUMBER 10% | feed NUMBER   this share of a core | all that there is
clock NUMBER -3600s           turns its clock (with --clocks)
set a b KEY=VALUE …           one direction: delay=20ms jitter=3ms loss=0.5% duplicate=1%
                              reorder=1% reorder-by=5ms rate=125000 (bytes/s) rate=none queue=262144
both a b KEY=VALUE …          both directions
cut a b | cutoff b | heal     one direction | a whole site | everything as it was
block a1 a2 | unblock a1 a2   a2 no longer hears a1
part a1,a2 a4,a5              two groups that do not hear each other
counts                        what each direction really did
wait 5s
quit";

/// Sites in network namespaces, joined by a router that loses, delays and cuts.
#[derive(Parser)]
#[command(after_help = HELP)]
struct Arguments {
    /// Name and number of nodes of a site; several times.
    #[arg(long = "site", value_name = "NAME:NODES", default_values = ["a:3", "b:3"])]
    sites: Vec<String>,
    /// Decides every fault.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Bytes of a packet.
    #[arg(long, default_value_t = 1_500)]
    mtu: u32,
    /// Of each direction between two sites.
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
    /// Of each direction between two sites.
    #[arg(long, default_value_t = 0.0)]
    loss_percent: f64,
    /// What is started lives by a clock of its own, which can be turned.
    #[arg(long)]
    clocks: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let sites = arguments.sites.iter().map(|site| parse_site(site)).collect::<Result<_>>()?;
    let between_sites = Settings::wan(
        Duration::from_millis(arguments.delay_ms),
        Ppm::percent(arguments.loss_percent),
    );
    let plan = Plan { seed: arguments.seed, sites, between_sites, mtu: arguments.mtu };
    let folder = std::env::temp_dir().join(format!("wansim-{}", std::process::id()));
    let clocks = arguments.clocks.then_some(folder);
    if let Some(folder) = &clocks {
        std::fs::create_dir(folder)?;
    }
    let mut shell = Shell { wan: Wan::build(plan)?, started: HashMap::new(), next: 1, clocks };
    shell.nodes();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        if words == ["quit"] {
            break;
        }
        if let Err(error) = shell.obey(&words) {
            println!("{error:#}");
        }
        std::io::stdout().flush()?;
    }
    if let Some(folder) = &shell.clocks {
        std::fs::remove_dir_all(folder)?;
    }
    Ok(())
}

/// What `start` started.
struct Started {
    // Fed before it is killed.
    starved: Option<Starved>,
    running: Running,
    clock: Option<TurnedClock>,
}

struct Shell {
    wan: Wan,
    started: HashMap<u32, Started>,
    next: u32,
    /// Where the files of clocks are.
    clocks: Option<PathBuf>,
}

impl Shell {
    fn obey(&mut self, words: &[&str]) -> Result<()> {
        let wan = &self.wan;
        match words {
            [] => {}
            ["help"] => println!("{HELP}"),
            ["nodes"] => self.nodes(),
            ["counts"] => self.counts()?,
            ["heal"] => wan.heal()?,
            ["cut", from, to] => wan.cut(wan.site(from)?, wan.site(to)?)?,
            ["cutoff", site] => wan.cut_off(wan.site(site)?)?,
            ["block", from, to] => wan.block(wan.node(from)?, wan.node(to)?)?,
            ["unblock", from, to] => wan.unblock(wan.node(from)?, wan.node(to)?)?,
            ["part", some, others] => wan.part(&self.group(some)?, &self.group(others)?)?,
            ["wait", time] => std::thread::sleep(duration(time)?),
            ["set", from, to, settings @ ..] => {
                let changed = apply(wan.settings(wan.site(from)?, wan.site(to)?)?, settings)?;
                wan.change(wan.site(from)?, wan.site(to)?, |settings| *settings = changed)?;
            }
            ["both", one, other, settings @ ..] => {
                let (one, other) = (wan.site(one)?, wan.site(other)?);
                for (from, to) in [(one, other), (other, one)] {
                    let changed = apply(wan.settings(from, to)?, settings)?;
                    wan.change(from, to, |settings| *settings = changed)?;
                }
            }
            ["run", node, program, arguments @ ..] => {
                let mut command = Command::new(program);
                let mut running = wan.spawn(wan.node(node)?, command.args(arguments))?;
                println!("{}", running.child().wait()?);
            }
            ["start", node, program, arguments @ ..] => self.start(node, program, arguments)?,
            ["kill", number] => drop(self.started.remove(&self.number(number)?)),
            ["pause", number, time] => self.victim(number)?.pause_for(duration(time)?)?,
            ["starve", number, share] => {
                let starved = Starved::new(&self.victim(number)?, percent(share)?)?;
                println!("{:?}", starved.means());
                self.one(number)?.starved = Some(starved);
            }
            ["feed", number] => {
                let starved = self.one(number)?.starved.take().context("it is not starved")?;
                println!("it wanted more {} times", starved.times());
            }
            ["clock", number, by] => {
                let (sign, time) = by.strip_prefix('-').map_or((1, *by), |time| (-1, time));
                let by_ms = sign * i64::try_from(duration(time)?.as_millis())?;
                let victim = self.victim(number)?;
                let clock = self.one(number)?.clock.as_ref().context("started without --clocks")?;
                clock.set(by_ms)?;
                clock.check(&victim, by_ms)?;
            }
            [command, ..] => bail!("no command {command}, or not so; `help` lists all"),
        }
        Ok(())
    }

    fn start(&mut self, node: &str, program: &str, arguments: &[&str]) -> Result<()> {
        let clock = self
            .clocks
            .as_ref()
            .map(|folder| TurnedClock::new(&folder.join(self.next.to_string())));
        let clock = clock.transpose()?;
        let mut command = Command::new(program);
        command.args(arguments);
        if let Some(clock) = &clock {
            clock.prepare(&mut command);
        }
        let running = self.wan.spawn(self.wan.node(node)?, &mut command)?;
        println!("{} is process {}", self.next, running.pid());
        self.started.insert(self.next, Started { starved: None, running, clock });
        self.next += 1;
        Ok(())
    }

    fn number(&self, word: &str) -> Result<u32> {
        let number = word.parse().context("a number that `start` printed")?;
        ensure!(self.started.contains_key(&number), "nothing was started as {number}");
        Ok(number)
    }

    fn one(&mut self, word: &str) -> Result<&mut Started> {
        let number = self.number(word)?;
        self.started.get_mut(&number).context("it was there a line ago")
    }

    fn victim(&self, word: &str) -> Result<Victim> {
        let started = &self.started[&self.number(word)?];
        Ok(Victim::of(started.running.pid())?)
    }

    fn nodes(&self) {
        for node in self.wan.nodes() {
            let site = &self.wan.plan().sites[node.site.0].name;
            println!("{site}{} {}", node.index + 1, self.wan.address(node));
        }
    }

    fn counts(&self) -> Result<()> {
        let sites = &self.wan.plan().sites;
        for from in sites {
            for to in sites.iter().filter(|to| to.name != from.name) {
                let counts =
                    self.wan.counts(self.wan.site(&from.name)?, self.wan.site(&to.name)?)?;
                println!("{} to {}: {counts:?}", from.name, to.name);
            }
        }
        Ok(())
    }

    fn group(&self, names: &str) -> Result<Vec<NodeId>> {
        names.split(',').map(|name| Ok(self.wan.node(name)?)).collect()
    }
}

fn parse_site(text: &str) -> Result<SitePlan> {
    let (name, nodes) = text.split_once(':').context("a site is NAME:NODES")?;
    Ok(SitePlan::new(name, nodes.parse().context("NODES is a number")?))
}

fn apply(mut settings: Settings, words: &[&str]) -> Result<Settings> {
    for word in words {
        let (key, value) = word.split_once('=').context("a setting is KEY=VALUE")?;
        match key {
            "delay" => settings.delay = duration(value)?,
            "jitter" => settings.jitter = duration(value)?,
            "reorder-by" => settings.reorder_by = duration(value)?,
            "loss" => settings.loss = percent(value)?,
            "duplicate" => settings.duplicate = percent(value)?,
            "reorder" => settings.reorder = percent(value)?,
            "rate" if value == "none" => settings.bytes_per_second = None,
            "rate" => settings.bytes_per_second = Some(value.parse().context("bytes a second")?),
            "queue" => settings.queue_bytes_max = value.parse().context("bytes")?,
            _ => bail!("no setting {key}; `help` lists all"),
        }
    }
    Ok(settings)
}

fn percent(text: &str) -> Result<Ppm> {
    let number = text.strip_suffix('%').context("a share ends in %")?;
    Ok(Ppm::percent(number.parse().context("a share is a number")?))
}

fn duration(text: &str) -> Result<Duration> {
    let (number, unit) =
        text.split_at(text.find(|c: char| c.is_alphabetic()).unwrap_or(text.len()));
    let number: u64 = number.parse().context("a time is a whole number with ms or s")?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        _ => bail!("a time ends in ms or s"),
    }
}
