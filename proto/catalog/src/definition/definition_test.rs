use super::*;
use crate::{CompiledSchema, Error};
use dtm_types::text::Told;

const HEAD: &str = r#"id = "fish"
version = 1
owner = "Sở Thuỷ sản"
category = "B3"
title = { vi = "Cá", en = "Fish" }
key = ["code"]

[[field]]
name = "code"
type = "Code"
label = { vi = "Mã", en = "Code" }
"#;

fn problem(text: &str) -> (usize, String, String) {
    match Definition::parse(text, "fish.toml") {
        Err(Error::Definition { origin, line, key, problem }) => {
            assert_eq!(origin, "fish.toml");
            told_in_both(&problem);
            (line, key, problem.to_string())
        }
        other => panic!("must be refused: {other:?}"),
    }
}

/// Both languages have the text, and the Vietnamese one is no English one.
fn told_in_both(problem: &Told) {
    let (vi, en) = (problem.of(Lang::Vi), problem.of(Lang::En));
    assert_ne!(vi, en, "{problem:?}");
    for text in [vi, en] {
        assert!(!text.contains("definition."), "{text}");
    }
}

#[test]
fn a_priority_that_no_stream_could_have_is_not_published() {
    let urgent = HEAD.replace("key =", "priority = \"urgent\"\nkey =");
    let (line, key, problem) = problem(&urgent);
    assert_eq!((line, key.as_str()), (6, "priority"));
    assert_eq!(problem, "`urgent` is not allowed; allowed are `low`, `normal`, `high`");
    for (name, priority) in [("low", Priority::Low), ("high", Priority::High)] {
        let text = urgent.replace("urgent", name);
        assert_eq!(Definition::parse(&text, "fish.toml").expect("valid").priority, priority);
    }
}

#[test]
fn an_error_is_told_in_vietnamese_with_file_line_and_key() {
    let text = HEAD.replace("owner =", "owned =");
    let error = Definition::parse(&text, "fish.toml").expect_err("refused");
    let told = error.tell(Lang::Vi);
    assert!(told.starts_with("fish.toml:3: owned: không có khóa `owned`"), "{told}");
    let text = HEAD.replace("version = 1", "version = \"one\"");
    let error = Definition::parse(&text, "fish.toml").expect_err("refused");
    let told = error.tell(Lang::Vi);
    assert_eq!(told, "fish.toml:2: version: cần số nguyên từ 0 trở lên, nhưng là \"one\"");
}

#[test]
fn built_in_definitions_parse_and_compile_with_labels_in_both_languages() {
    for id in BUILT_IN_IDS {
        let definition = Definition::built_in(id).expect("built in");
        assert_eq!(definition.id, *id);
        assert!(CompiledSchema::compile(&definition).is_ok(), "{id}");
        let members = definition.types.values().flat_map(|t| &t.fields);
        for field in definition.fields.iter().chain(members) {
            assert!(!field.label.vi.is_empty() && !field.label.en.is_empty(), "{}", field.name);
        }
        assert!(definition.fields.iter().all(|f| f.item.is_some()), "{id}");
    }
    let count = |id| Definition::built_in(id).expect("built in").fields.len();
    assert_eq!(BUILT_IN_IDS.iter().map(|id| count(id)).collect::<Vec<_>>(), [16, 8, 8, 4]);
    assert!(Definition::built_in("unknown").is_none());
}

#[test]
fn an_operators_definition_is_read() {
    let definition = Definition::parse(HEAD, "fish.toml").expect("valid");
    assert_eq!(definition.title.of(Lang::En), "Fish");
    assert_eq!((definition.priority, definition.security), (Priority::Normal, Security::Internal));
    assert!(definition.fields[0].required && !definition.fields[0].nullable);
}

#[test]
fn owners_are_named_by_digits_or_by_the_code_of_their_agency() {
    let text = format!("{HEAD}\n[dossier_codes]\nowners = [\"G22.001.00\", \"07\"]\n");
    let definition = Definition::parse(&text, "fish.toml").expect("valid");
    assert_eq!(definition.dossier_codes.owners, ["22", "07"]);
}

#[test]
fn errors_name_file_line_and_key() {
    let field = |more: &str| {
        format!("{HEAD}\n[[field]]\nname = \"x\"\n{more}\nlabel = {{ vi = \"v\", en = \"e\" }}\n")
    };
    let cases = [
        (HEAD.replace("version = 1", "version = 0"), 2, "version"),
        (HEAD.replace("version = 1", "version = \"one\""), 2, ""),
        (HEAD.replace("\"B3\"", "\"X\""), 4, "category"),
        (HEAD.replace("owner =", "owned ="), 3, "owned"),
        (HEAD.replace("key = [\"code\"]", "key = [\"cod\"]"), 6, "key"),
        (HEAD.replace("type = \"Code\"", "type = \"Kode\""), 10, "code"),
        (HEAD.replace("name = \"code\"", "name = \"Code\""), 9, "Code"),
        (field("type = \"Enum(nothing)\""), 15, "x"),
        (field("type = \"[[Text]]\""), 15, "x"),
        (field("type = \"Text\"\nmin = 3"), 14, "x"),
        (field("type = \"Bool\"\nmax_length = 3"), 14, "x"),
        (field("type = \"Integer\"\nmask = \"pseudonym\""), 14, "x"),
        (field("type = \"Text\"\noptional = true\nnullable = true"), 14, "x"),
        (field("type = \"Text\"\ngrammar = \"dossier_code\""), 14, "x"),
        (field("type = \"Text\"\nmaximum = 1"), 16, "maximum"),
        (
            format!(
                "{HEAD}\n[[rule]]\nkind = \"not_before\"\nfield = \"code\"\nearlier = \"code\"\n"
            ),
            13,
            "field",
        ),
        (
            format!(
                "{HEAD}\n[[rule]]\nkind = \"state_change\"\nfield = \"code\"\nfrom = \"code\"\n"
            ),
            13,
            "field",
        ),
        (
            format!(
                "{HEAD}\n[[field]]\nname = \"code\"\ntype = \"Text\"\nlabel = {{ vi = \"v\", en = \"e\" }}\n"
            ),
            14,
            "code",
        ),
        (format!("{HEAD}\n[dossier_codes]\nowners = [\n\"G22\",\n\"2\"]\n"), 16, "owners"),
        (format!("{HEAD}\n["), 13, ""),
    ];
    for (text, line, key) in cases {
        let (found_line, found_key, problem) = problem(&text);
        assert_eq!(found_line, line, "{text}\n{found_key}: {problem}");
        assert!(found_key.contains(key), "{text}\n{found_key}: {problem}");
        assert!(!problem.is_empty());
    }
}

#[test]
fn the_page_shows_a_definition_that_takes_its_own_record() {
    const PAGE: &str = include_str!("../../../../docs/datasets.md");
    let block = |language: &str| {
        let (_, after) = PAGE.split_once(&format!("```{language}\n")).expect("a block");
        after.split("```").next().expect("its end")
    };
    let definition = Definition::parse(block("toml"), "bus_stop.toml").expect("it reads");
    let schema = CompiledSchema::compile(&definition).expect("it compiles");
    let outcome = schema.check(block("json").trim().as_bytes(), &mut crate::Scratch::default());
    assert!(!matches!(outcome, crate::Outcome::Refused(_)), "{outcome:?}");
    // The page names every type there is, and every key.
    let library = Definition::parse(HEAD, "fish.toml").expect("valid");
    let named = library.types.keys().chain(library.code_lists.keys()).map(String::as_str);
    let base = parse::BASE_TYPES.iter().map(|(name, _)| *name);
    for name in base.chain(named) {
        assert!(PAGE.contains(&format!("`{name}`")), "{name} is not on the page");
    }
}

#[test]
fn errors_are_in_words_of_the_page() {
    let cases = [
        (HEAD.replace("owner = \"Sở Thuỷ sản\"\n", ""), "owner", "compulsory"),
        (HEAD.replace("label = { vi = \"Mã\", en = \"Code\" }\n", ""), "label", "compulsory"),
        (HEAD.replace("{ vi = \"Cá\", en = \"Fish\" }", "\"Fish\""), "title", "both languages"),
        (HEAD.replace("version = 1", "version = \"1\""), "version", "whole number"),
        (HEAD.replace("[\"code\"]", "\"code\""), "key", "a list"),
        (format!("{HEAD}max_length = true\n"), "max_length", "whole number"),
        (format!("{HEAD}min = 1.5\n"), "min", "a decimal or date as text"),
        (format!("{HEAD}mask = \"blur\"\n"), "mask", "`pseudonym`"),
        (format!("{HEAD}mask = 3\n"), "mask", ""),
        (HEAD.replace("\"Code\"\nlabel", "\"Txt\"\nlabel"), "code", "Text, Bool, Date"),
        (HEAD.replace("\"Code\"\nlabel", "\"Txt\"\nlabel"), "code", "AgencyRef"),
        (HEAD.replace("\"Code\"\nlabel", "\"Enum(x)\"\nlabel"), "code", "dossier_state"),
    ];
    for (text, key, words) in cases {
        let (_, found_key, problem) = problem(&text);
        assert_eq!(found_key, key, "{problem}\n{text}");
        assert!(problem.contains(words), "{words}: {problem}");
        for theirs in ["struct", "u32", "u8", "enum ", "sequence", "variant of", "i64"] {
            assert!(!problem.contains(theirs), "{theirs}: {problem}");
        }
    }
}

#[test]
fn types_that_hold_themselves_are_refused() {
    let recursive = format!(
        "{HEAD}\n[[type]]\nname = \"Node\"\nlabel = {{ vi = \"v\", en = \"e\" }}\n[[type.field]]\nname = \"child\"\ntype = \"Node\"\nlabel = {{ vi = \"v\", en = \"e\" }}\n"
    );
    assert!(problem(&recursive).2.contains("deeper"));
}

#[test]
fn types_that_expand_too_far_are_refused() {
    let mut text = String::new();
    for level in 0..10 {
        let inner = if level == 0 { "Text".to_owned() } else { format!("T{}", level - 1) };
        text += &format!("[[type]]\nname = \"T{level}\"\nlabel = {{ vi = \"v\", en = \"e\" }}\n");
        for member in 0..8 {
            text += &format!(
                "[[type.field]]\nname = \"m{member}\"\ntype = \"{inner}\"\nlabel = {{ vi = \"v\", en = \"e\" }}\n"
            );
        }
    }
    let text = format!(
        "{HEAD}\n[[field]]\nname = \"x\"\ntype = \"T9\"\nlabel = {{ vi = \"v\", en = \"e\" }}\n{text}"
    );
    let definition = Definition::parse(&text, "fish.toml").expect("each type alone is fine");
    assert!(matches!(CompiledSchema::compile(&definition), Err(Error::TooLarge { .. })));
}

#[test]
fn the_json_schema_describes_the_same_fields_in_both_languages() {
    for id in BUILT_IN_IDS {
        let definition = Definition::built_in(id).expect("built in");
        let schema = definition.json_schema();
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert_eq!(schema["additionalProperties"], false);
        let properties = schema["properties"].as_object().expect("properties");
        assert_eq!(properties.len(), definition.fields.len());
        for field in &definition.fields {
            let property = &properties[&field.name];
            assert_eq!(property["title"], field.label.vi.as_str());
            assert_eq!(property["x-label-en"], field.label.en.as_str());
            assert_eq!(property["x-personal"] == true, field.personal, "{}", field.name);
        }
    }
    let schema = Definition::built_in("dossier_progress").expect("built in").json_schema();
    assert_eq!(schema["properties"]["processor"]["$ref"], "#/$defs/OfficerRef");
    let states = schema["$defs"]["code_dossier_state"]["oneOf"].as_array().expect("a list");
    assert_eq!(states.len(), 10);
    assert_eq!(states[3]["title"], "Đang xử lý");
}

#[test]
fn fields_are_found_by_path() {
    let definition = Definition::built_in("dossier_sync").expect("built in");
    assert!(definition.field("submitter.contact.phone").is_some_and(|f| f.personal));
    assert!(definition.field("fee_info.amount").is_some());
    assert!(definition.field("submitter.nothing").is_none());
    assert!(definition.field("dossier_code.x").is_none());
}
