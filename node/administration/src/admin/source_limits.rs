//! What a source's own limits may be: no more than this node can take, no less than makes sense.
//! Every node holds a stream to what it can take itself (`dtm_actors::Bounds`), since nodes may be
//! set up differently.

use dtm_types::ErrorCode;
use dtm_types::command::SourceLimits;
use dtm_types::text::Told;
use tonic::Status;

use dtm_doors::status::told;
use dtm_setup::config::{Config, KEYS};

/// # Errors
/// A refusal that names the limit, its value and what is possible.
pub(crate) fn check(own: &SourceLimits, config: &Config) -> Result<(), Status> {
    for (name, value) in own.named() {
        let (least, most) = possible(name, config);
        if (least..=most).contains(&value) {
            continue;
        }
        let what = Told::new("refused.limit_range")
            .with("name", name)
            .with("value", value)
            .with("least", least)
            .with("most", most);
        return Err(told(ErrorCode::InvalidArgument, &what));
    }
    let or = |own: u64, of_node: u64| if own == 0 { of_node } else { own };
    let record = or(own.record_bytes_max, config.limits.record_bytes_max);
    let frame = or(own.frame_bytes_max, config.limits.frame_bytes_max);
    if frame <= record {
        let what = Told::new("refused.limit_frame").with("frame", frame).with("record", record);
        return Err(told(ErrorCode::InvalidArgument, &what));
    }
    Ok(())
}

/// Least and greatest value of a limit. Records and frames have the node's own as their greatest:
/// log entries, messages between nodes and those of clients are laid out for it.
fn possible(name: &str, config: &Config) -> (u64, u64) {
    let limits = &config.limits;
    let (key, most) = match name {
        "record_bytes_max" => (name, Some(limits.record_bytes_max)),
        "frame_bytes_max" => (name, Some(limits.frame_bytes_max)),
        "in_flight_bytes_max" => {
            ("stream_in_flight_bytes_max", Some(limits.node_in_flight_bytes_max))
        }
        _ => (name, None),
    };
    let key = KEYS.iter().find(|known| known.section == "limits" && known.name == key);
    let (least, greatest) = key.map(|key| key.range).expect("each limit has its setting");
    (least.max(1), most.unwrap_or(greatest))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use dtm_setup::config::parse;

    fn config(limits: &str) -> Config {
        let node = "[node]\nname = \"n1\"\nadvertise = [\"127.0.0.1\"]\n";
        let text = format!("{node}[limits]\n{limits}");
        parse(Path::new("dtm.toml"), &text, []).expect("it holds")
    }

    fn refused(name: &str, value: u64, config: &Config) -> Option<String> {
        let mut own = SourceLimits::default();
        assert!(own.set(name, value), "{name}");
        check(&own, config).err().map(|status| status.message().to_owned())
    }

    #[test]
    fn every_limit_has_a_range_and_none_need_be_set() {
        let config = config("");
        check(&SourceLimits::default(), &config).expect("nothing is set");
        for name in SourceLimits::NAMES {
            let (least, most) = possible(name, &config);
            assert!(least >= 1 && least < most, "{name}: {least} to {most}");
        }
    }

    #[test]
    fn what_this_node_cannot_take_is_refused_with_what_it_can() {
        let config = config("record_bytes_max = 100_000\nframe_bytes_max = 200_000\n");
        let cases = [
            ("record_bytes_max", 100_000, 100_001, "1024 to 100000"),
            ("frame_bytes_max", 200_000, 200_001, "2048 to 200000"),
            ("in_flight_bytes_max", 256 << 20, (256 << 20) + 1, "65536 to 268435456"),
            ("streams_open_max", 4_096, 4_097, "1 to 4096"),
            ("record_bytes_max", 1_024, 1_023, "1024 to 100000"),
        ];
        for (name, good, bad, possible) in cases {
            assert_eq!(refused(name, good, &config), None);
            let told = refused(name, bad, &config).expect("refused");
            let named = format!("{name} = {bad}");
            assert!(told.contains(&named) && told.contains(possible), "{told}");
        }
    }

    #[test]
    fn a_frame_carries_a_record() {
        let config = config("");
        let told = refused("frame_bytes_max", 1 << 20, &config).expect("records are larger");
        assert!(told.contains("1048576") && told.contains("8388608"), "{told}");
        let own = SourceLimits {
            record_bytes_max: 4_096,
            frame_bytes_max: 8_192,
            ..SourceLimits::default()
        };
        check(&own, &config).expect("both are set");
        check(&SourceLimits { frame_bytes_max: 4_096, ..own }, &config).expect_err("no more");
    }
}
