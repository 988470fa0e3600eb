//! The level of a record, the threshold of a sink, and the thresholds of single loggers.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize, Serializer};
use tracing::level_filters::LevelFilter;

/// The level of a record, the most severe first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// A failure that somebody has to look at.
    Error,
    /// Something unexpected, such as a request that was refused.
    Warn,
    /// Normal operation.
    Info,
    /// Details for debugging.
    Debug,
    /// More details than debugging needs as a rule.
    Trace,
}

impl Level {
    /// The name in logfmt and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }

    /// The name in the human format, padded so that columns line up.
    pub(super) fn padded(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Warn => "WARN ",
            Self::Info => "INFO ",
            Self::Debug => "DEBUG",
            Self::Trace => "TRACE",
        }
    }
}

impl From<tracing::Level> for Level {
    fn from(level: tracing::Level) -> Self {
        match level {
            tracing::Level::ERROR => Self::Error,
            tracing::Level::WARN => Self::Warn,
            tracing::Level::INFO => Self::Info,
            tracing::Level::DEBUG => Self::Debug,
            tracing::Level::TRACE => Self::Trace,
        }
    }
}

/// The least severe level that passes; in the configuration `off error warn info debug trace`, in upper or lower case.
/// Python's names `CRITICAL` and `WARNING` are accepted too: configurations of the original have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Threshold(Option<Level>);

impl Threshold {
    /// Nothing passes.
    pub const OFF: Self = Self(None);
    /// Everything passes.
    pub const ALL: Self = Self(Some(Level::Trace));

    /// A threshold that allows `level` and all more severe levels.
    pub fn at(level: Level) -> Self {
        Self(Some(level))
    }

    /// True when a record of this level passes.
    pub fn allows(self, level: Level) -> bool {
        self.0 >= Some(level)
    }

    /// A number for it.
    pub(super) fn code(self) -> u8 {
        self.0.map_or(0, |level| level as u8 + 1)
    }

    /// The threshold of the number.
    pub(super) fn of_code(code: u8) -> Self {
        let all = [Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace];
        Self(all.into_iter().find(|level| *level as u8 + 1 == code))
    }

    /// The same threshold as a type of `tracing`.
    pub(super) fn to_level_filter(self) -> LevelFilter {
        match self.0 {
            None => LevelFilter::OFF,
            Some(Level::Error) => LevelFilter::ERROR,
            Some(Level::Warn) => LevelFilter::WARN,
            Some(Level::Info) => LevelFilter::INFO,
            Some(Level::Debug) => LevelFilter::DEBUG,
            Some(Level::Trace) => LevelFilter::TRACE,
        }
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.map_or("off", Level::name))
    }
}

impl Serialize for Threshold {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Threshold {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Ok(Self(match name.to_ascii_lowercase().as_str() {
            "off" => None,
            "error" | "critical" => Some(Level::Error),
            "warn" | "warning" => Some(Level::Warn),
            "info" => Some(Level::Info),
            "debug" => Some(Level::Debug),
            "trace" => Some(Level::Trace),
            _ => {
                return Err(de::Error::custom(format_args!(
                    "'{name}' is not a level, expected off, error, warn, info, debug or trace"
                )));
            }
        }))
    }
}

/// The threshold of one sink, and those of single loggers in it.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    default: Threshold,
    /// The longest name first, so that the first match is the most specific one.
    targets: Arc<[(String, Threshold)]>,
}

impl Filter {
    pub(super) fn new(default: Threshold, levels: &BTreeMap<String, Threshold>) -> Self {
        let mut targets: Vec<_> = levels.iter().map(|(name, level)| (name.clone(), *level)).collect();
        targets.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        Self { default, targets: targets.into() }
    }

    /// The threshold for one logger (a target of `tracing`). A sink that is off stays off for every logger.
    pub(super) fn threshold(&self, target: &str) -> Threshold {
        if self.default == Threshold::OFF {
            return Threshold::OFF;
        }
        self.targets.iter().find(|(name, _)| covers(name, target)).map_or(self.default, |(_, level)| *level)
    }

    /// The threshold that allows the most, of all loggers.
    pub(super) fn most_verbose(&self) -> Threshold {
        if self.default == Threshold::OFF {
            return Threshold::OFF;
        }
        self.targets.iter().map(|(_, level)| *level).fold(self.default, Ord::max)
    }
}

/// `server` covers `server`, `server.access` and `server::store`, and not `server_two`.
fn covers(name: &str, target: &str) -> bool {
    target.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', ':']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json, to_value};

    #[test]
    fn a_level_is_read_in_any_case_and_by_the_names_of_the_original() {
        for (name, level) in [
            ("off", Threshold::OFF),
            ("WARNING", Threshold::at(Level::Warn)),
            ("CRITICAL", Threshold::at(Level::Error)),
            ("Info", Threshold::at(Level::Info)),
            ("trace", Threshold::ALL),
        ] {
            assert_eq!(from_value::<Threshold>(json!(name)).unwrap(), level);
        }
        assert_eq!(to_value(Threshold::at(Level::Warn)).unwrap(), json!("warn"));
        let error = from_value::<Threshold>(json!("loud")).unwrap_err().to_string();
        assert_eq!(error, "'loud' is not a level, expected off, error, warn, info, debug or trace");
    }

    #[test]
    fn the_longest_name_that_covers_the_target_wins() {
        let levels = from_value(json!({"server": "warn", "server.access": "debug", "sqlx": "off"})).unwrap();
        let filter = Filter::new(Threshold::at(Level::Info), &levels);
        assert_eq!(filter.threshold("server.access"), Threshold::at(Level::Debug));
        assert_eq!(filter.threshold("server.access.slow"), Threshold::at(Level::Debug));
        assert_eq!(filter.threshold("server::store"), Threshold::at(Level::Warn));
        assert_eq!(filter.threshold("server_two"), Threshold::at(Level::Info));
        assert_eq!(filter.threshold("sqlx::query"), Threshold::OFF);
        assert_eq!(filter.most_verbose(), Threshold::at(Level::Debug));
    }

    #[test]
    fn a_sink_that_is_off_stays_off() {
        let filter = Filter::new(Threshold::OFF, &from_value(json!({"server": "trace"})).unwrap());
        assert!(!filter.threshold("server").allows(Level::Error));
        assert_eq!(filter.most_verbose(), Threshold::OFF);
    }
}
