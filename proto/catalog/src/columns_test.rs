use super::*;
use crate::{Accepted, CompiledSchema, Outcome, Scratch};

fn table() -> Definition {
    let field = |name: &str, spec: &str, more: &str| {
        format!(
            "[[field]]\nname = \"{name}\"\ntype = \"{spec}\"\nlabel = {{ vi = \"v\", en = \"e\" }}\n{more}\n"
        )
    };
    let head = "id = \"t\"\nversion = 1\nowner = \"o\"\ncategory = \"B3\"\ntitle = { vi = \"v\", en = \"e\" }\n";
    let text = [
        head.to_owned(),
        field("code", "Code", ""),
        field("count", "Integer", ""),
        field("open", "Bool", "optional = true"),
        field("price", "Decimal", "nullable = true"),
        field("agency", "AgencyRef", ""),
        field("fees", "[FeeItem]", ""),
        field("tags", "[Text]", "optional = true"),
        field("extra", "Object", "optional = true"),
    ]
    .join("\n");
    Definition::parse(&text, "t.toml").expect("valid")
}

const HEADERS: &[&str] = &[
    "\u{feff}code",
    "fees[0].fee_code",
    "count",
    "open",
    "price",
    "agency.agency_name",
    "agency.agency_code",
    "fees[0].amount",
    "fees[0].paid",
    "tags[0]",
    "tags[1]",
    "extra",
];

fn canonical(cells: &[&str]) -> String {
    let table = table();
    let columns = Columns::bind(&table, HEADERS).expect("fits");
    let json = columns.row(cells.iter().copied()).expect("fits");
    let schema = CompiledSchema::compile(&table).expect("fits");
    match schema.check(&json, &mut Scratch::default()) {
        Outcome::Accepted { form: Accepted::Rewritten(bytes), .. } => {
            String::from_utf8(bytes).expect("text")
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn types_decide_what_a_cell_becomes() {
    let full = [
        "0012",
        "L1",
        "12",
        "TRUE",
        "12.50",
        "Sở \"A\"",
        "H57",
        "50000",
        "0",
        "0012",
        "",
        r#"{"b":1,"a":"x"}"#,
    ];
    assert_eq!(
        canonical(&full),
        r#"{"agency":{"agency_code":"H57","agency_name":"Sở \"A\""},"code":"0012","count":12,"extra":{"a":"x","b":1},"fees":[{"amount":50000,"fee_code":"L1","paid":false}],"open":true,"price":"12.5","tags":["0012"]}"#
    );
    let sparse = ["A", "", "-3", "", "", "n", "H57", "", "", "", "", ""];
    assert_eq!(
        canonical(&sparse),
        r#"{"agency":{"agency_code":"H57","agency_name":"n"},"code":"A","count":-3,"fees":[],"price":null}"#
    );
}

#[test]
fn cells_of_the_wrong_type_are_named() {
    let columns = Columns::bind(&table(), HEADERS).expect("fits");
    let mut cells = ["A", "", "012", "", "", "n", "H57", "", "", "", "", ""];
    let error = columns.row(cells.iter().copied()).expect_err("leading zero");
    assert_eq!((error.column, error.header.as_str(), error.found.as_str()), (3, "count", "012"));
    cells[2] = "12";
    cells[3] = "maybe";
    assert_eq!(columns.row(cells.iter().copied()).expect_err("bool").column, 4);
    cells[3] = "";
    cells[11] = "[1]";
    assert_eq!(columns.row(cells.iter().copied()).expect_err("object").column, 12);
    assert!(columns.row(["A"].into_iter()).is_err());
    // As text, the wrong ones are found wrong and the right ones are not.
    cells[2] = "012";
    cells[7] = "5";
    let told = String::from_utf8(columns.row_as_told(cells.iter().copied())).expect("text");
    for part in [r#""count":"012""#, r#""amount":5"#, r#""extra":"[1]""#] {
        assert!(told.contains(part), "{told}");
    }
}

#[test]
fn headers_that_do_not_fit_are_named() {
    let problem =
        |headers: &[&str]| Columns::bind(&table(), headers).expect_err("does not fit").to_string();
    assert!(problem(&["nothing"]).starts_with("column 1 (nothing): no such field"));
    assert!(problem(&["code", "code"]).contains("two columns"));
    assert!(problem(&["tags[1]", "code", "count", "agency", "fees"]).contains("[0] has no column"));
    assert!(problem(&["code.x"]).contains("has no parts"));
    assert!(problem(&["code"]).contains("count"));
    assert!(problem(&["tags[x]"]).contains("index"));
    assert!(problem(&["tags[4000]"]).contains("below"));
}
