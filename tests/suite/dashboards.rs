//! The alerts and the dashboard in `deploy/` ask for figures that there are.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The words of queries, the labels that the files use, and what a scrape adds by itself.
const OTHER_WORDS: [&str; 27] = [
    "and",
    "bucket",
    "by",
    "code",
    "count",
    "db_operation_name",
    "db_system_name",
    "delta",
    "exported_job",
    "histogram_quantile",
    "http_request_method",
    "http_response_status_code",
    "http_route",
    "increase",
    "job",
    "label_values",
    "le",
    "m",
    "h",
    "outcome",
    "rate",
    "sum",
    "topk",
    "up",
    "upstream",
    "interval",
    "rate_interval",
];

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The names in an expression: without what is in quotes, and numbers.
fn names(expression: &str) -> BTreeSet<String> {
    let bare: String = expression.split('"').step_by(2).collect();
    let words =
        bare.split(|c: char| !c.is_alphanumeric() && c != '_').map(|word| word.trim_start_matches("__"));
    words.filter(|word| word.starts_with(|c: char| c.is_ascii_lowercase())).map(str::to_owned).collect()
}

/// What the platform counts: the figures of `names.rs`, those of a process, and of the server as a whole.
fn counted() -> String {
    ["names.rs", "process.rs", "mod.rs"].map(|file| read(&format!("platform/src/metrics/{file}"))).concat()
}

fn check(file: &str, expressions: &[String]) {
    assert!(expressions.len() > 5, "{file}: {expressions:?}");
    let counted = counted();
    for expression in expressions {
        for name in names(expression).into_iter().filter(|name| !OTHER_WORDS.contains(&name.as_str())) {
            let family = ["_bucket", "_count", "_sum"].iter().find_map(|suffix| name.strip_suffix(suffix));
            let family = family.unwrap_or(&name);
            let exact = [format!("\"{family}\""), format!("# TYPE {family} ")];
            assert!(exact.iter().any(|text| counted.contains(text)), "{file}: {name} in {expression}");
        }
    }
}

/// The values of `expr` in the file of the alerts: in one line, or in the indented lines after `|`.
fn expressions(yaml: &str) -> Vec<String> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut lines = yaml.lines().peekable();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        let Some(value) = line.trim_start().strip_prefix("expr: ") else { continue };
        let mut text = value.trim_start_matches('|').to_owned();
        while let Some(more) = lines.next_if(|next| value == "|" && indent(next) > indent(line)) {
            text.push_str(more);
        }
        found.push(text);
    }
    found
}

#[test]
fn the_alerts_ask_for_figures_that_there_are() {
    check("alerts.yml", &expressions(&read("deploy/prometheus/alerts.yml")));
}

#[test]
fn the_dashboard_asks_for_figures_that_there_are() {
    let dashboard: serde_json::Value = serde_json::from_str(&read("deploy/grafana/dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let expressions: Vec<String> =
        targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect();
    check("dashboard.json", &expressions);
}
