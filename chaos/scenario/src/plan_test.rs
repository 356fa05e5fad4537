//! What cluster a drill may ask for.

use dtm_types::text::Lang;

use super::*;
use crate::Drill;

fn of(cluster: &str) -> Result<ClusterPlan, Error> {
    let head = "name = \"x\"\ntitle = { vi = \"a\", en = \"b\" }\n[targets]\nrto = \"1s\"\n";
    let step = "[[step]]\ndo = \"rolling-restart\"\n";
    Drill::parse(&format!("{head}{cluster}\n{step}")).map(|drill| drill.cluster)
}

#[test]
fn three_nodes_of_one_site_where_nothing_is_said() {
    let plan = of("").unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((plan.nodes(), plan.told().as_str()), (3, "single 3"));
    assert_eq!((plan.site("main"), plan.third()), (Some(0), None));
}

#[test]
fn sites_layout_and_lines_are_read() {
    let plan =
        of("[cluster]\nlayout = \"standby\"\nsites = [\"ha-noi:3\", \"da-nang:2\", \"hcm:1\"]\n\
                   delay = \"20ms\"\nloss_percent = 0.5");
    let plan = plan.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((plan.nodes(), plan.told().as_str()), (6, "standby 3 + 2 + 1"));
    assert_eq!((plan.site("hcm"), plan.third()), (Some(2), Some(2)));
    assert_eq!((plan.link.delay_ms, plan.link.loss_ppm), (20, 5_000));
    let two = of("[cluster]\nlayout = \"standby\"\nsites = [\"a:3\", \"b:1\"]");
    assert_eq!(two.unwrap_or_else(|error| panic!("{error}")).third(), None);
}

#[test]
fn what_cannot_be_is_refused_with_its_place() {
    let wrong = [
        ("layout = \"ring\"", 6, "cluster.layout", "single, stretched, standby"),
        ("sites = [\"a\"]", 6, "cluster.sites", "ha-noi:3"),
        ("sites = [\"A:3\"]", 6, "cluster.sites", "small letters"),
        ("sites = [\"a:0\", \"b:3\"]", 6, "cluster.sites", "ha-noi:3"),
        ("sites = [\"a:2\"]", 5, "cluster.sites", "3 to 12"),
        ("sites = [\"a:8\", \"b:8\"]", 5, "cluster.sites", "3 to 12"),
        ("sites = [\"a:3\", \"a:3\"]", 5, "cluster.sites", "twice"),
        ("layout = \"stretched\"\nsites = [\"a:3\", \"b:3\"]", 5, "cluster.sites", "three"),
        ("layout = \"standby\"", 5, "cluster.sites", "standby"),
        ("layout = \"standby\"\nsites = [\"a:2\", \"b:3\"]", 5, "cluster.sites", "primary"),
        ("delay = \"20ms\"", 5, "cluster.delay", "one site"),
        ("nodes = 3", 6, "cluster.nodes", "layout, sites"),
    ];
    for (cluster, line, key, words) in wrong {
        let error = of(&format!("[cluster]\n{cluster}")).expect_err(cluster);
        let told = error.told(Lang::En);
        assert_eq!((error.line, error.key.as_str()), (line, key), "{told}");
        assert!(told.contains(words), "{told} lacks {words}");
        assert_ne!(error.told(Lang::Vi), told);
    }
}
