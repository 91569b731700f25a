//! The figures as a picture: one bar each, on one scale, so that one look tells which reach what is wanted.
//!
//! A bar starts at the line of what is wanted and goes to the right when the figure is better, to the left when it is worse; the scale is
//! logarithmic, so that twice as good is as long as half as good. Colour says the same once more, in two that nobody confuses. The picture
//! has a background of its own, dark where the reader's colours are, because it cannot know that of the page.

use std::fmt::Write as _;

use super::report::{Bar, Figure, Report, rounded};

const WIDTH: f64 = 1080.0;
const HEADER: f64 = 118.0;
const ROW: f64 = 30.0;
const FOOTER: f64 = 44.0;
/// Right end of the numbers, start of the names, and how far those that belong to the row above are moved in.
const NUMBER: f64 = 44.0;
const NAME: f64 = 56.0;
const INDENT: f64 = 16.0;
/// Where what is wanted is, and how long a bar may become.
const WANTED: f64 = 625.0;
const HALF: f64 = 145.0;
/// Right end of the values and start of what is wanted.
const VALUE: f64 = 890.0;
const BAR_TEXT: f64 = 905.0;
/// So many times better or worse is the end of the scale; what is beyond has an arrow.
const FARTHEST: f64 = 4.0;
const TICKS: [(f64, &str); 5] = [(0.25, "¼"), (0.5, "½"), (1.0, "wanted"), (2.0, "2 ×"), (4.0, "4 ×")];
/// Blue and vermilion of Okabe and Ito, each a little lighter on dark ground. Both have a contrast of more than 3 to their background.
const STYLE: &str = "
    text { font: 13px system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif; fill: #1f2328; }
    .ground { fill: #ffffff; stroke: #d1d9e0; }
    .heading { font-size: 18px; font-weight: 600; }
    .muted { fill: #59636e; }
    .small { font-size: 11.5px; }
    .value { font-weight: 600; }
    .stripe { fill: #f6f8fa; }
    .grid { stroke: #d1d9e0; }
    .wanted { stroke: #1f2328; stroke-width: 2; }
    .met { fill: #0072b2; }
    .missed { fill: #d55e00; }
    @media (prefers-color-scheme: dark) {
        text { fill: #f0f6fc; }
        .ground { fill: #0d1117; stroke: #3d444d; }
        .muted { fill: #9198a1; }
        .stripe { fill: #151b23; }
        .grid { stroke: #3d444d; }
        .wanted { stroke: #f0f6fc; }
        .met { fill: #56b4e9; }
        .missed { fill: #ff8c42; }
    }";

/// The whole picture, as SVG. Rows without a bar are only in the table.
pub fn chart(report: &Report) -> String {
    let rows: Vec<&Figure> = report.figures.iter().filter(|figure| figure.bar != Bar::None).collect();
    let height = HEADER + ROW * rows.len() as f64 + FOOTER;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n\
         <title>Tandem: what is measured, against what is wanted</title>\n<style>{STYLE}\n</style>\n\
         <rect class=\"ground\" x=\".5\" y=\".5\" width=\"{}\" height=\"{}\" rx=\"8\"/>\n",
        WIDTH - 1.0,
        height - 1.0,
    );
    heading(&mut svg, report, &rows);
    for (row, _) in rows.iter().enumerate().filter(|(row, _)| row % 2 == 0) {
        let top = HEADER + ROW * row as f64;
        line(&mut svg, format_args!("<rect class=\"stripe\" x=\"12\" y=\"{top}\" width=\"{}\" height=\"{ROW}\"/>", WIDTH - 24.0));
    }
    scale(&mut svg, rows.len());
    let mut last = None;
    for (row, figure) in rows.into_iter().enumerate() {
        let number = (last.replace(figure.number) != Some(figure.number)).then_some(figure.number);
        draw(&mut svg, figure, number, HEADER + ROW * row as f64);
    }
    svg.push_str("</svg>\n");
    svg
}

fn heading(svg: &mut String, report: &Report, rows: &[&Figure]) {
    let met = rows.iter().filter(|figure| figure.met == Some(true)).count();
    let failed = if report.failed.is_empty() { String::new() } else { format!(", {} figures failed", report.failed.len()) };
    text(svg, 24.0, 34.0, "heading", "start", &format!("Tandem: {met} of {} bars are met{failed}", rows.len()));
    text(svg, 24.0, 56.0, "muted small", "start", &report.environment.summary());
    let quick = "Quick run: it shows that everything works; the values say little.";
    let explained = "Each bar: how many times better (right, blue) or worse (left, orange) than what is wanted, against the yardstick of the same run.";
    text(svg, 24.0, 74.0, "muted small", "start", if report.environment.quick { quick } else { explained });
    text(svg, VALUE, HEADER - 10.0, "muted small", "end", "measured");
    text(svg, BAR_TEXT, HEADER - 10.0, "muted small", "start", "wanted");
}

/// The lines across all rows, and what they mean.
fn scale(svg: &mut String, rows: usize) {
    let (top, bottom) = (HEADER - 4.0, HEADER + ROW * rows as f64 + 4.0);
    for (times, label) in TICKS {
        let (x, class) = (position(times), if times == 1.0 { "wanted" } else { "grid" });
        line(svg, format_args!("<line class=\"{class}\" x1=\"{x}\" x2=\"{x}\" y1=\"{top}\" y2=\"{bottom}\"/>"));
        text(svg, x, top - 6.0, "muted small", "middle", label);
    }
    text(svg, WANTED - 12.0, bottom + 18.0, "muted small", "end", "← worse");
    text(svg, WANTED + 12.0, bottom + 18.0, "muted small", "start", "better →");
}

fn draw(svg: &mut String, figure: &Figure, number: Option<u8>, top: f64) {
    let (base, middle) = (top + 20.0, top + ROW / 2.0);
    if let Some(number) = number {
        text(svg, NUMBER, base, "muted", "end", &number.to_string());
    }
    let indent = if figure.name.starts_with(' ') { INDENT } else { 0.0 };
    text(svg, NAME + indent, base, "", "start", figure.name.trim_start());
    let value = format!("{} {}", rounded(figure.value), figure.unit);
    text(svg, VALUE, base, "value", "end", &value);
    let sign = match figure.met {
        Some(true) => "✓",
        Some(false) => "✗",
        None => "?",
    };
    text(svg, BAR_TEXT, base, "", "start", &format!("{sign} {}", wanted(figure)));
    let Some(better) = times_better(figure) else { return };
    let end = position(better);
    let (x, width) = (end.min(WANTED), (end - WANTED).abs().max(1.0));
    let class = if figure.met == Some(true) { "met" } else { "missed" };
    line(svg, format_args!("<rect class=\"{class}\" x=\"{x:.1}\" y=\"{}\" width=\"{width:.1}\" height=\"14\"/>", middle - 7.0));
    // Beyond the scale.
    if !(1.0 / FARTHEST..=FARTHEST).contains(&better) {
        let tip = if better > 1.0 { end + 9.0 } else { end - 9.0 };
        let (upper, lower) = (middle - 7.0, middle + 7.0);
        line(svg, format_args!("<path class=\"{class}\" d=\"M{end:.1} {upper} L{tip:.1} {middle} L{end:.1} {lower} Z\"/>"));
    }
}

/// What would be just enough.
fn wanted(figure: &Figure) -> String {
    match (figure.bar, &figure.yardstick) {
        (Bar::AtMost(_), _) => format!("{} {}", figure.bar, figure.unit),
        (bar, Some(yardstick)) => format!("{bar} {}", rounded(yardstick.value)),
        (bar, None) => format!("{bar} (no yardstick)"),
    }
}

/// 1 is just what is wanted, 2 twice as good.
fn times_better(figure: &Figure) -> Option<f64> {
    let better = match figure.bar {
        Bar::AtLeastTimes(times) => figure.ratio? / times,
        Bar::AtMostTimes(times) => times / figure.ratio?,
        Bar::AtMost(most) => most / figure.value,
        Bar::None => return None,
    };
    // Nothing at all, where little is wanted, is as good as it gets.
    (!better.is_nan()).then_some(better)
}

fn position(times: f64) -> f64 {
    let share = times.clamp(1.0 / FARTHEST, FARTHEST).ln() / FARTHEST.ln();
    WANTED + HALF * share
}

fn text(svg: &mut String, x: f64, y: f64, class: &str, anchor: &str, content: &str) {
    let content = content.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    line(svg, format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\" text-anchor=\"{anchor}\">{content}</text>"));
}

fn line(svg: &mut String, content: std::fmt::Arguments<'_>) {
    // A string takes everything.
    let _ = writeln!(svg, "{content}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::Yardstick;

    fn figure(value: f64, yardstick: Option<f64>, bar: Bar) -> Figure {
        let yardstick = yardstick.map(|value| Yardstick { name: "pgbench".to_owned(), value });
        Figure::new(1, "a <figure> & more", value, "/s", yardstick, bar)
    }

    #[test]
    fn better_is_right_of_what_is_wanted_whichever_way_the_figure_counts() {
        for (value, yardstick, bar, better) in [
            (100.0, Some(100.0), Bar::AtLeastTimes(0.5), 2.0),
            (25.0, Some(100.0), Bar::AtLeastTimes(0.5), 0.5),
            (100.0, Some(100.0), Bar::AtMostTimes(2.0), 2.0),
            (10.0, None, Bar::AtMost(20.0), 2.0),
            (80.0, None, Bar::AtMost(20.0), 0.25),
        ] {
            let figure = figure(value, yardstick, bar);
            let times = times_better(&figure).unwrap();
            assert!((times - better).abs() < 1e-9, "{figure:?}");
            assert_eq!(position(times) > WANTED, figure.met == Some(true));
        }
        assert_eq!(times_better(&figure(1.0, None, Bar::AtLeastTimes(1.0))), None, "without a yardstick there is no bar");
        assert!((position(1000.0) - (WANTED + HALF)).abs() < 1e-9, "and nothing leaves the picture");
        assert!((position(times_better(&figure(0.0, None, Bar::AtMost(2.0))).unwrap()) - (WANTED + HALF)).abs() < 1e-9);
    }

    #[test]
    fn names_are_text_and_not_markup() {
        let figures = vec![figure(1.0, None, Bar::AtMost(2.0)), figure(1.0, None, Bar::None)];
        let svg = chart(&Report { figures, ..Report::default() });
        assert!(svg.contains("a &lt;figure&gt; &amp; more"), "{svg}");
        assert_eq!(svg.matches("class=\"met\"").count(), 1, "what has no bar is not drawn");
    }
}
