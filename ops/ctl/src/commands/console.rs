//! `dtm console open`.

use dtm_proto::admin::ConsoleLinkRequest;
use serde_json::json;

use super::text::time;
use crate::args::{ConsoleCommand, Globals};
use crate::{Failure, Printer, Remote};

pub(crate) async fn run(command: &ConsoleCommand, globals: &Globals) -> Result<(), Failure> {
    let ConsoleCommand::Open = command;
    let printer = Printer::new(globals);
    let remote = Remote::connect(globals).await?;
    let message = ConsoleLinkRequest { context: remote.why() };
    let link = remote.admin().console_link(remote.request(message)).await?.into_inner();
    if printer.is_json() {
        printer.json(&json!({ "url": link.url, "expires": time(link.expires_us) }));
    } else {
        eprintln!("{}", printer.text("cli.link_until", &[("time", &time(link.expires_us))]));
        printer.raw(&link.url);
    }
    Ok(())
}
