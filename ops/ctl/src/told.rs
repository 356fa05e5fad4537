//! What went wrong, in the user's language: answers of the cluster, the way to it, and inputs.

use std::collections::HashMap;

use dtm_client::agent::SkipReason;
use dtm_client::{Error, agent, publish, spool};
use dtm_types::ErrorCode;
use dtm_types::text::{Lang, Told, render};
use tonic_types::{ErrorInfo, StatusExt};

/// A refusal as a call gave it.
pub(crate) fn refusal(status: &tonic::Status, lang: Lang) -> String {
    let details = status.get_error_details();
    let Some((code, info)) = details.error_info().and_then(|info| Some((code_of(info)?, info)))
    else {
        // Made here, by the HTTP/2 client: another port of a node ends what has no node's certificate.
        if status.message() == "transport error" {
            return render(lang, "client.transport", &[]);
        }
        return format!("{:?}: {}", status.code(), status.message());
    };
    answer(code, &info.metadata, status.message(), lang)
}

/// What the code says, then what is behind it here, then the page.
fn answer(code: ErrorCode, told: &HashMap<String, String>, message: &str, lang: Lang) -> String {
    let value = |name: &str| told.get(name).map(String::as_str);
    let in_vi = match lang {
        Lang::Vi => value("detail_vi"),
        Lang::En => None,
    };
    let detail = in_vi.or(value("detail")).unwrap_or(message);
    let named = value("name").filter(|name| !name.is_empty());
    let name = named.or(value("limit")).unwrap_or(detail);
    let values = told.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let values: Vec<_> = std::iter::once(("name", name)).chain(values).collect();
    let words = render(lang, &format!("error.{code}"), &values);
    // A name that stands in the sentence is not said twice.
    let below = if detail.is_empty() || detail == name && words.contains(name) {
        String::new()
    } else {
        format!("\n  {detail}")
    };
    format!("{words} [{code}]{below}\n  docs/errors/{code}.md")
}

fn code_of(info: &ErrorInfo) -> Option<ErrorCode> {
    ErrorCode::from_name(&info.reason)
}

/// An error of the SDK.
pub(crate) fn of_client(error: &Error, lang: Lang) -> String {
    let told = match error {
        Error::Certificate { file, reason } => {
            Told::new("client.certificate").with("file", file).with("what", reason)
        }
        Error::OtherCluster { file, ca } => {
            Told::new("client.other_cluster").with("file", file).with("ca", ca)
        }
        Error::Credential => Told::new("client.credential"),
        Error::Address { address } => Told::new("client.address").with("address", address),
        Error::Connect { address, reason } => {
            Told::new("client.connect").with("address", address).with("what", reason)
        }
        Error::Rejected { address, code, grpc, message, values, .. } => {
            let what = match code {
                Some(code) => answer(*code, values, message, lang),
                None => format!("{grpc:?}: {message}"),
            };
            Told::new("client.answered").with("address", address).with("what", what)
        }
        Error::Superseded { stream } => Told::new("client.superseded").with("stream", stream),
        Error::TooLarge { limit, bytes, bytes_max } => Told::new("client.too_large")
            .with("limit", limit)
            .with("bytes", bytes)
            .with("max", bytes_max),
        Error::StreamAhead { stream, held, given } => Told::new("client.stream_ahead")
            .with("stream", stream)
            .with("held", held)
            .with("given", given),
        Error::Protocol { address, what } => {
            Told::new("client.protocol").with("address", address).with("what", what)
        }
        Error::OutcomeUnknown { address, waited } => Told::new("client.outcome_unknown")
            .with("address", address)
            .with("seconds", waited.as_secs()),
        Error::Closed => Told::new("client.closed"),
        Error::Spooled => Told::new("client.spooled"),
        Error::Spool(error) => Told::new("client.spool").with("what", error),
    };
    told.of(lang)
}

/// An error of what was to be published.
pub(crate) fn of_input(error: &publish::Error, lang: Lang) -> String {
    use publish::Error as Input;
    let told = match error {
        Input::StreamHolds { file, stream, held } => Told::new("publish.stream_holds")
            .with("name", file)
            .with("stream", stream)
            .with("count", held),
        Input::Interrupted { stream, other } => {
            Told::new("publish.interrupted").with("stream", stream).with("name", other)
        }
        Input::OtherContent { file, stream, sequence } => Told::new("publish.other_content")
            .with("name", file)
            .with("stream", stream)
            .with("sequence", sequence),
        Input::StreamLonger { file, held, sequence } => Told::new("publish.stream_longer")
            .with("name", file)
            .with("count", sequence)
            .with("held", held),
        Input::Moved { stream, .. } => Told::new("publish.moved").with("stream", stream),
        Input::Changed { file } => Told::new("publish.changed").with("name", file),
        Input::Utf16 { file } => Told::new("publish.utf16").with("name", file),
        Input::Separator { file, separator } => {
            let option = if *separator == '\t' { "tab".into() } else { format!("'{separator}'") };
            Told::new("publish.separator").with("name", file).with("separator", option)
        }
        Input::IdMember { file, member } => {
            Told::new("publish.id_member").with("name", file).with("member", member)
        }
        Input::Io { file, reason } => {
            Told::new("publish.io").with("name", file).with("what", reason)
        }
        Input::Definition { file } => Told::new("publish.definition").with("name", file),
        Input::Header { file, reason } => {
            Told::new("publish.header").with("name", file).with_told("what", reason.clone())
        }
        Input::Syntax { file, line, what } => Told::new("publish.syntax")
            .with("name", file)
            .with("line", line)
            .with_told("what", what.clone()),
        Input::History { path, reason } => {
            Told::new("publish.history").with("name", path).with("what", reason)
        }
        Input::Client(error) => return of_client(error, lang),
    };
    told.of(lang)
}

/// Why an agent ended.
pub(crate) fn of_agent(error: &agent::Error, lang: Lang) -> String {
    let told = match error {
        agent::Error::Client(error) => return of_client(error, lang),
        agent::Error::Input(error) => return of_input(error, lang),
        agent::Error::OtherOwner { spool, what, noted, given } => {
            let what = match *what {
                "cluster" => "agent.spool_cluster",
                "source" => "agent.spool_source",
                "dataset" => "agent.spool_dataset",
                "stream" => "agent.spool_stream",
                _ => "agent.spool_input",
            };
            let told = Told::new("agent.other_spool").with_told("what", Told::new(what));
            told.with("name", spool).with("held", noted).with("given", given)
        }
        agent::Error::Spool(spool::Error::Locked { path }) => {
            Told::new("agent.spool_in_use").with("name", path)
        }
        agent::Error::Spool(error) => Told::new("client.spool").with("what", error),
        agent::Error::Folder { folder, reason } => {
            Told::new("agent.folder").with("name", folder).with("what", reason)
        }
        agent::Error::Loss { stream, from, to } => {
            Told::new("agent.loss").with("stream", stream).with("from", from).with("to", to)
        }
        agent::Error::Reader => Told::new("agent.reader"),
    };
    told.of(lang)
}

/// Why the agent does not take a file.
pub(crate) fn of_skipped(reason: &SkipReason, lang: Lang) -> String {
    match reason {
        SkipReason::Input(error) => of_input(error, lang),
        SkipReason::Unreadable(what) => render(lang, "agent.unreadable", &[("what", what)]),
        SkipReason::Ending => render(lang, "agent.ending", &[]),
        SkipReason::WrittenOver => render(lang, "agent.written_over", &[]),
    }
}
