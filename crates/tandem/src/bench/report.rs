//! The figures, each beside its yardstick: a table for people, JSON for programs.

use std::fmt;

use serde::Serialize;

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

/// All figures of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    /// In the order of their numbers.
    pub figures: Vec<Figure>,
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
        Ok(())
    }
}

/// Three digits are more than a machine repeats.
fn rounded(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn programs_read_number_name_value_unit_yardstick_ratio_bar_and_met() {
        let figure = Figure::new(2, "settled", 50.0, "orders/s", of(100.0), Bar::AtLeastTimes(0.5));
        let expected = serde_json::json!({
            "number": 2, "name": "settled", "value": 50.0, "unit": "orders/s", "yardstick": { "name": "pgbench", "value": 100.0 },
            "ratio": 0.5, "bar": "≥ 0.5 ×", "met": true,
        });
        assert_eq!(serde_json::to_value(&figure).unwrap(), expected);
    }
}
