//! What the benchmark is doing, for the person who waits.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// One line that says what is measured and for how long, or, without a terminal, a line per step.
#[derive(Debug, Clone)]
pub struct Progress {
    bar: ProgressBar,
    figure: String,
}

impl Progress {
    /// For one figure.
    pub fn new(figure: impl Into<String>) -> Self {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} {msg} {elapsed}") {
            bar.set_style(style);
        }
        let figure = figure.into();
        bar.set_prefix(figure.clone());
        bar.enable_steady_tick(Duration::from_millis(120));
        Self { bar, figure }
    }

    /// What happens now, and how long it takes.
    pub fn step(&self, what: impl AsRef<str>, takes: Duration) {
        let text =
            format!("{}{}", what.as_ref(), if takes.is_zero() { String::new() } else { format!(" ({} s)", takes.as_secs()) });
        if self.bar.is_hidden() {
            tracing::info!("{}: {text}", self.figure);
        }
        self.bar.set_message(text);
        self.bar.reset_elapsed();
    }

    /// Nothing more happens.
    pub fn done(&self) {
        self.bar.finish_and_clear();
    }
}
