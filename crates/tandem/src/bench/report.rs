//! The figures, each beside its yardstick: a table for people, JSON for programs.

use std::{fmt, fs, io, path::Path};

use serde::Serialize;

use super::{chart::chart, environment::Environment};

/// Where the services of a run write their logs.
pub const LOGS: &str = "target/bench";

/// One measured figure.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// Its number in `docs/PERFORMANCE.md`; a figure with several bars has several rows.
    pub number: u8,
    /// What was measured.
    pub name: String,
    /// The measured value.
    pub value: f64,
    /// Of `value`.
    pub unit: &'static str,
    /// What it is measured against, from the same run on the same servers.
    pub yardstick: Option<Yardstick>,
    /// `value` in parts of the yardstick's.
    pub ratio: Option<f64>,
    /// What is wanted.
    pub bar: Bar,
    /// Whether it is reached; `null` when there was no yardstick.
    pub met: Option<bool>,
}

/// A figure that could not be measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failed {
    /// Its number.
    pub number: u8,
    /// Why.
    pub error: String,
}

/// A value that the machine gives without us.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Yardstick {
    /// What it is.
    pub name: String,
    /// In the figure's unit.
    pub value: f64,
}

/// What a figure has to reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bar {
    /// At least so many yardsticks.
    AtLeastTimes(f64),
    /// At most so many yardsticks.
    AtMostTimes(f64),
    /// At most this value.
    AtMost(f64),
    /// Measured for the record.
    None,
}

impl Bar {
    fn is_met(self, value: f64, ratio: Option<f64>) -> Option<bool> {
        match self {
            Self::AtLeastTimes(times) => ratio.map(|ratio| ratio >= times),
            Self::AtMostTimes(times) => ratio.map(|ratio| ratio <= times),
            Self::AtMost(most) => Some(value <= most),
            Self::None => None,
        }
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeastTimes(times) => write!(f, "≥ {times} ×"),
            Self::AtMostTimes(times) => write!(f, "≤ {times} ×"),
            Self::AtMost(most) => write!(f, "≤ {most}"),
            Self::None => f.write_str("–"),
        }
    }
}

impl Serialize for Bar {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Figure {
    /// A figure against a yardstick; without one its bar stays open.
    pub fn new(
        number: u8,
        name: impl Into<String>,
        value: f64,
        unit: &'static str,
        yardstick: Option<Yardstick>,
        bar: Bar,
    ) -> Self {
        let ratio = yardstick.as_ref().filter(|yardstick| yardstick.value > 0.0).map(|yardstick| value / yardstick.value);
        Self { number, name: name.into(), value, unit, ratio, yardstick, bar, met: bar.is_met(value, ratio) }
    }
}

/// All figures of a run, and its circumstances beside them.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    /// When, where and of what.
    #[serde(flatten)]
    pub environment: Environment,
    /// In the order of their numbers.
    pub figures: Vec<Figure>,
    /// Those that there should be, too.
    pub failed: Vec<Failed>,
}

impl Report {
    /// Writes `bench.json` and `bench.svg` into a folder, which is made when absent.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        let json = serde_json::to_string_pretty(self)?;
        fs::write(folder.join("bench.json"), json + "\n")?;
        fs::write(folder.join("bench.svg"), chart(self))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>2}  {:<62} {:>14}  {:>14}  {:>7}  {:<9}", "#", "figure", "value", "yardstick", "ratio", "bar")?;
        for figure in &self.figures {
            let value = format!("{} {}", rounded(figure.value), figure.unit);
            let yardstick = figure.yardstick.as_ref().map_or_else(String::new, |yardstick| rounded(yardstick.value));
            let ratio = figure.ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"));
            let met = match figure.met {
                Some(true) => "met",
                Some(false) => "MISSED",
                None => "",
            };
            let (number, name, bar) = (figure.number, &figure.name, figure.bar.to_string());
            writeln!(f, "{number:>2}  {name:<62} {value:>14}  {yardstick:>14}  {ratio:>7}  {bar:<9} {met}")?;
            if let Some(yardstick) = &figure.yardstick {
                writeln!(f, "      of: {}", yardstick.name)?;
            }
        }
        self.failed.iter().try_for_each(|Failed { number, error }| writeln!(f, "{number:>2}  THERE IS NO FIGURE: {error}"))?;
        if self.failed.is_empty() {
            Ok(())
        } else {
            writeln!(f, "\nWhy, may be in the services' logs: {LOGS}/orders.log and payments.log.")
        }
    }
}

/// Three digits are more than a machine repeats.
pub(super) fn rounded(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::environment::Hardware;

    fn of(value: f64) -> Option<Yardstick> {
        Some(Yardstick { name: "pgbench".to_owned(), value })
    }

    #[test]
    fn a_bar_is_met_by_the_ratio_to_the_yardstick_of_the_same_run() {
        let met = |bar, value, yardstick| Figure::new(1, "f", value, "/s", yardstick, bar).met;
        assert_eq!(met(Bar::AtLeastTimes(1.0), 100.0, of(100.0)), Some(true));
        assert_eq!(met(Bar::AtLeastTimes(1.0), 99.0, of(100.0)), Some(false));
        assert_eq!(met(Bar::AtMostTimes(3.0), 301.0, of(100.0)), Some(false));
        assert_eq!(met(Bar::AtMost(20.0), 19.0, None), Some(true));
        assert_eq!(met(Bar::AtLeastTimes(1.0), 100.0, None), None, "without pgbench nothing is claimed");
    }

    #[test]
    fn both_files_are_written_and_well_formed() {
        let folder = tempfile::tempdir().unwrap();
        let hardware = Hardware { cores: Some(2), ..Hardware::default() };
        let environment = Environment { when: "2026-02-02T02:40:00.007Z".to_owned(), hardware, ..Environment::default() };
        let figures = vec![
            Figure::new(1, "created <durably>", 50.0, "orders/s", of(100.0), Bar::AtLeastTimes(0.5)),
            Figure::new(1, "  its 99th percentile", 50.0, "ms", None, Bar::AtMost(20.0)),
            Figure::new(11, "for the record", 5.0, "ms", None, Bar::None),
        ];
        let target = folder.path().join("target/bench");
        let failed = vec![Failed { number: 2, error: "of 2 accepted orders 1 lost".to_owned() }];
        Report { environment, figures, failed }.write(&target).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&fs::read(target.join("bench.json")).unwrap()).unwrap();
        assert_eq!(json["when"], "2026-02-02T02:40:00.007Z");
        assert_eq!(json["hardware"]["cores"], 2);
        let met: Vec<_> = json["figures"].as_array().unwrap().iter().map(|figure| figure["met"].as_bool()).collect();
        assert_eq!(met, [Some(true), Some(false), None]);
        assert_eq!(json["failed"][0]["number"], 2);
        let svg = fs::read_to_string(target.join("bench.svg")).unwrap();
        assert_is_xml(&svg);
        assert!(svg.contains("1 of 2 bars are met"), "{svg}");
    }

    /// Every element that is opened is closed, in its order, and nothing else has an angle bracket.
    fn assert_is_xml(text: &str) {
        let mut open = Vec::new();
        for part in text.split('<').skip(1) {
            let (tag, content) = part.split_once('>').unwrap();
            assert!(!content.contains('>'), "{part}");
            if let Some(closed) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(closed));
            } else if !tag.ends_with('/') {
                open.push(tag.split(' ').next().unwrap());
            }
        }
        assert!(open.is_empty(), "{open:?}");
    }

    #[test]
    fn programs_read_number_name_value_unit_yardstick_ratio_bar_and_met() {
        let figure = Figure::new(2, "settled", 50.0, "orders/s", of(100.0), Bar::AtLeastTimes(0.5));
        let expected = serde_json::json!({
            "number": 2, "name": "settled", "value": 50.0, "unit": "orders/s", "yardstick": { "name": "pgbench", "value": 100.0 },
            "ratio": 0.5, "bar": "≥ 0.5 ×", "met": true,
        });
        assert_eq!(serde_json::to_value(&figure).unwrap(), expected);
    }
}
