//! The sum of the pages of several processes.

use std::collections::HashMap;
use std::fmt::Write as _;

/// The newest page of each process, and the counts of those that have ended: a counter never falls because a worker was
/// replaced.
#[derive(Default)]
pub struct Totals {
    live: HashMap<u32, Families>,
    ended: Families,
}

impl Totals {
    /// Takes the newest page of a process.
    pub fn update(&mut self, process: u32, page: &str) {
        self.live.insert(process, Families::read(page));
    }

    /// A process has ended: what it has counted stays, and what it had then (gauges) is over.
    pub fn end(&mut self, process: u32) {
        if let Some(page) = self.live.remove(&process) {
            self.ended.add(&page, |kind| kind != "gauge");
        }
    }

    /// The sum, as text.
    pub fn page(&self) -> String {
        let mut sum = self.ended.clone();
        for page in self.live.values() {
            sum.add(page, |_| true);
        }
        sum.write()
    }
}

/// A page in the text format of Prometheus
/// (<https://prometheus.io/docs/instrumenting/exposition_formats/>), as far as our own exporter writes it.
#[derive(Clone, Default)]
struct Families {
    /// In the order in which they came, with their places.
    all: Vec<Family>,
    places: HashMap<String, usize>,
}

#[derive(Clone)]
struct Family {
    name: String,
    help: String,
    kind: String,
    /// The name with the labels, and the value.
    samples: Vec<(String, f64)>,
    places: HashMap<String, usize>,
}

impl Families {
    fn read(page: &str) -> Self {
        let (mut families, mut help) = (Self::default(), HashMap::new());
        for line in page.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                if let Some((name, text)) = rest.split_once(' ') {
                    help.insert(name.to_owned(), text.to_owned());
                }
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                if let Some((name, kind)) = rest.split_once(' ') {
                    families.family(name, kind, help.get(name).map_or("", String::as_str));
                }
            } else if let Some((sample, value)) = line.rsplit_once(' ')
                && let Ok(value) = value.parse()
                && let Some(family) = families.all.last_mut()
            {
                family.add(sample, value);
            }
        }
        families
    }

    /// The family of this name, new or not.
    fn family(&mut self, name: &str, kind: &str, help: &str) -> &mut Family {
        let place = *self.places.entry(name.to_owned()).or_insert(self.all.len());
        if place == self.all.len() {
            let (name, kind, help) = (name.to_owned(), kind.to_owned(), help.to_owned());
            self.all.push(Family { name, help, kind, samples: Vec::new(), places: HashMap::new() });
        }
        &mut self.all[place]
    }

    fn add(&mut self, other: &Self, takes: impl Fn(&str) -> bool) {
        for family in other.all.iter().filter(|family| takes(&family.kind)) {
            let sum = self.family(&family.name, &family.kind, &family.help);
            for (sample, value) in &family.samples {
                sum.add(sample, *value);
            }
        }
    }

    fn write(&self) -> String {
        let mut text = String::new();
        for Family { name, help, kind, samples, .. } in &self.all {
            // Writing to a string does not fail.
            if !help.is_empty() {
                let _ = writeln!(text, "# HELP {name} {help}");
            }
            let _ = writeln!(text, "# TYPE {name} {kind}");
            for (sample, value) in samples {
                let _ = writeln!(text, "{sample} {value}");
            }
            text.push('\n');
        }
        text
    }
}

impl Family {
    fn add(&mut self, sample: &str, value: f64) {
        if let Some(place) = self.places.get(sample) {
            self.samples[*place].1 += value;
        } else {
            self.places.insert(sample.to_owned(), self.samples.len());
            self.samples.push((sample.to_owned(), value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "# HELP a Requests.\n# TYPE a counter\na{path=\"/x y\",le=\"2 3\"} 2\na{path=\"/z\"} 1\n\n\
                       # TYPE open gauge\nopen 5\n# TYPE t histogram\nt_bucket{le=\"0.5\"} 1\n\
                       t_bucket{le=\"+Inf\"} 2\nt_sum 1.5\nt_count 2\n";

    #[test]
    fn figures_of_several_processes_are_added() {
        let mut totals = Totals::default();
        totals.update(1, ONE);
        totals.update(2, ONE);
        // The newest page counts.
        totals.update(2, &ONE.replace("open 5", "open 1"));
        let page = totals.page();
        for line in [
            "# HELP a Requests.",
            "# TYPE t histogram",
            "a{path=\"/x y\",le=\"2 3\"} 4",
            "open 6",
            "t_bucket{le=\"0.5\"} 2",
            "t_sum 3",
        ] {
            assert!(page.lines().any(|other| other == line), "{line}: {page}");
        }
        assert_eq!(page.matches("# TYPE a ").count(), 1);
    }

    #[test]
    fn what_an_ended_process_has_counted_stays_and_what_it_had_is_over() {
        let mut totals = Totals::default();
        totals.update(1, ONE);
        totals.update(2, ONE);
        totals.end(1);
        totals.end(3);
        let page = totals.page();
        assert!(page.contains("a{path=\"/z\"} 2\n") && page.contains("t_count 4\n"), "{page}");
        assert!(page.contains("open 5\n"), "{page}");
    }
}
