//! `dtm context add|use|remove|list`.

use serde_json::json;

use crate::args::{ContextCommand, Globals};
use crate::contexts::{Context, Contexts, path};
use crate::{Failure, Printer, Remote};

pub(crate) fn run(command: &ContextCommand, globals: &Globals) -> Result<(), Failure> {
    let printer = Printer::new(globals);
    let file = path();
    let mut contexts = Contexts::load(&file)?;
    match command {
        ContextCommand::Add(args) => {
            let context = Context {
                address: args.address.clone(),
                ca: args.ca.clone(),
                certificate: args.certificate.clone(),
                key: args.key.clone(),
                source_key_file: args.source_key_file.clone(),
                source: args.source.clone(),
            };
            contexts.add(&args.name, context)?;
            Remote::reached_by(contexts.pick(Some(&args.name))?)?;
            contexts.save(&file)?;
            printer.done(
                "cli.context_added",
                &[("name", &args.name)],
                &json!({ "added": args.name }),
            );
        }
        ContextCommand::Use { name } => {
            contexts.pick(Some(name))?;
            contexts.current = Some(name.clone());
            contexts.save(&file)?;
            printer.done("cli.context_used", &[("name", name)], &json!({ "current": name }));
        }
        ContextCommand::Remove { name } => {
            contexts.remove(name)?;
            contexts.save(&file)?;
            printer.done("cli.context_removed", &[("name", name)], &json!({ "removed": name }));
            match &contexts.current {
                Some(current) => printer.say("cli.context_used", &[("name", current)]),
                None => printer.say("cli.context_none", &[]),
            }
        }
        ContextCommand::List => {
            let is_current = |name: &String| contexts.current.as_ref() == Some(name);
            let rows = contexts.contexts.iter().map(|(name, context)| {
                let mark = if is_current(name) { "*" } else { "" };
                vec![
                    mark.to_owned(),
                    name.clone(),
                    context.address.join(","),
                    context.source.clone().unwrap_or_default(),
                ]
            });
            let document: Vec<_> = contexts
                .contexts
                .iter()
                .map(|(name, c)| json!({ "name": name, "current": is_current(name), "address": c.address, "source": c.source }))
                .collect();
            printer.table(
                &["current", "name", "address", "source"],
                rows.collect(),
                &json!(document),
            );
        }
    }
    Ok(())
}
