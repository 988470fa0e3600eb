//! The alerts and the dashboard in `deploy/` ask for figures that there are, by labels that these have. The list of figures is
//! kept true by a test of the platform, which reads it from `/metrics` (`platform/tests/suite/figures.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The words of the language of queries.
const LANGUAGE: [&str; 11] =
    ["and", "by", "delta", "histogram_quantile", "increase", "m", "h", "or", "rate", "sum", "topk"];

/// What Prometheus adds by itself to each figure, and the figure and the variables that it and Grafana know.
const ADDED: [&str; 5] = ["job", "le", "exported_job", "up", "rate_interval"];

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The figures with their labels.
fn figures() -> BTreeMap<String, BTreeSet<String>> {
    let list = read("platform/tests/figures.txt");
    let figures = list.lines().map(|line| {
        let (name, labels) = line.split_once(' ').unwrap_or((line, ""));
        (name.to_owned(), labels.split(',').map(str::to_owned).collect())
    });
    figures.collect()
}

/// The words in an expression: without what is in quotes, and numbers.
fn words(expression: &str) -> BTreeSet<String> {
    let bare: String = expression.split('"').step_by(2).collect();
    let words =
        bare.split(|c: char| !c.is_alphanumeric() && c != '_').map(|word| word.trim_start_matches("__"));
    words.filter(|word| word.starts_with(|c: char| c.is_ascii_lowercase())).map(str::to_owned).collect()
}

/// The words of an expression that are no figure, and no label of the figures in it.
fn unknown(expression: &str) -> Vec<String> {
    let figures = figures();
    let mut words = words(expression);
    let (mut labels, mut asked) = (BTreeSet::new(), 0);
    words.retain(|word| {
        let family = ["_bucket", "_count", "_sum"].iter().find_map(|end| word.strip_suffix(end));
        let Some(of) = figures.get(word).or_else(|| figures.get(family?)) else { return true };
        labels.extend(of.iter().cloned());
        asked += 1;
        false
    });
    let is_known = |word: &str| labels.contains(word) || LANGUAGE.contains(&word) || ADDED.contains(&word);
    words.retain(|word| !is_known(word));
    if asked == 0 && !expression.contains("up{") {
        words.insert(format!("no figure in {expression}"));
    }
    words.into_iter().collect()
}

fn check(file: &str, expressions: &[String]) {
    assert!(expressions.len() > 5, "{file}: {expressions:?}");
    for expression in expressions {
        assert_eq!(unknown(expression), [""; 0], "{file}: {expression}");
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

#[test]
fn a_figure_or_a_label_with_a_typing_error_is_found() {
    let right = "sum by (outcome) (rate(job_runs_total{job=\"server\", exported_job!=\"\"}[5m])) > 0";
    assert_eq!(unknown(right), [""; 0]);
    for (wrong, found) in [
        (right.replace("job_runs_total", "job_run_total"), "job_run_total"),
        (right.replace("outcome", "result"), "result"),
        // A label of another figure.
        (right.replace("outcome", "http_route"), "http_route"),
    ] {
        assert!(unknown(&wrong).contains(&found.to_owned()), "{wrong}: {:?}", unknown(&wrong));
    }
}

#[test]
fn the_documentation_names_every_figure() {
    let documented = read("docs/METRICS.md");
    for (name, labels) in figures() {
        assert!(documented.contains(&format!("`{name}`")), "{name}");
        for label in labels.iter().filter(|label| !label.is_empty()) {
            assert!(documented.contains(&format!("`{label}`")), "{name}: {label}");
        }
    }
}
