//! Committed pages say what the code says.

use std::fs;
use std::path::{Path, PathBuf};

use dtm_types::ErrorCode;

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

fn page(name: &str) -> String {
    fs::read_to_string(docs().join(name)).unwrap_or_else(|e| panic!("docs/{name}: {e}"))
}

#[test]
fn every_error_code_has_its_page_in_both_languages() {
    let index = page("errors/README.md");
    for code in ErrorCode::ALL {
        let text = page(&format!("errors/{code}.md"));
        assert!(text.starts_with(&format!("# {code}\n")), "{code}");
        for part in ["**Ý nghĩa.**", "**Việc cần làm.**", "**Meaning.**", "**What to do.**"]
        {
            let (_, after) =
                text.split_once(part).unwrap_or_else(|| panic!("{code}: {part} is missing"));
            assert!(after.trim_start().len() > 20, "{code}: {part} says nothing");
        }
        let retry = if code.retryable() { "Có thể · Yes" } else { "Không · No" };
        let numbers = format!("({}) | {} | {retry} |", code.grpc_code(), code.http_status());
        assert!(text.contains(&numbers), "{code}: {numbers}");
        assert!(index.contains(&format!("[{code}]({code}.md)")), "{code} is not in the index");
    }
}

#[test]
fn no_page_is_about_a_code_that_is_gone() {
    for entry in fs::read_dir(docs().join("errors")).expect("a folder") {
        let name = entry.expect("a file").file_name().to_string_lossy().into_owned();
        let code = name.strip_suffix(".md").unwrap_or(&name);
        assert!(code == "README" || ErrorCode::from_name(code).is_some(), "docs/errors/{name}");
    }
}

#[test]
fn generated_pages_are_fresh() {
    for (name, text) in [
        ("config.md", dtm_node::config::markdown()),
        ("metrics.md", dtm_node::telemetry::markdown()),
    ] {
        assert_eq!(page(name).trim_end(), text.trim_end(), "docs/{name} is stale: run make fix");
    }
}
