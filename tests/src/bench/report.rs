//! Rows of figures, and their output: a Markdown table and SVG plots.
//!
//! Every row holds all samples of both sides. The report prints their median, and for the ratio (ours divided
//! by the rival's, neighbour by neighbour) the median and the whole range.

mod markdown;
mod plot;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;

use super::machine;

/// One comparison. Samples are costs: less is better.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Row {
    /// A short, unique name; `--row` matches it.
    pub name: String,
    /// The load and the settings of both sides.
    pub load: String,
    /// What a sample measures, such as `µs of server CPU per packet`.
    pub unit: String,
    /// Our samples, in order of time.
    pub ours: Vec<f64>,
    /// The rival's name and version.
    pub rival_name: String,
    /// The rival's samples, each taken right after ours of the same index; empty without a rival.
    pub rival: Vec<f64>,
    /// The goal in words, such as `at most 1/3`.
    pub goal: String,
    /// The largest ratio, ours divided by the rival's, that meets the goal.
    pub at_most: Option<f64>,
    /// The largest median of ours that meets the goal, in the row's unit.
    pub ours_at_most: Option<f64>,
    /// Further columns.
    pub extra: Vec<Extra>,
    /// What a reader must know to understand the row.
    pub notes: Vec<String>,
    /// Plots of this row: file names and SVG.
    #[serde(skip)]
    pub pictures: Vec<(String, String)>,
}

/// Another figure of a row, which is not judged.
#[derive(Clone, Debug, Serialize)]
pub struct Extra {
    /// The name of the figure, with its unit.
    pub name: String,
    /// Our value.
    pub ours: String,
    /// The rival's value; empty without a rival.
    pub rival: String,
}

/// A median and its range.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The smallest value.
    pub low: f64,
    /// The median.
    pub median: f64,
    /// The largest value.
    pub high: f64,
}

impl Spread {
    /// The spread of the samples; `None` without samples.
    pub fn of(samples: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut sorted: Vec<f64> = samples.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
            _ => sorted[middle],
        };
        Some(Spread { low, median, high })
    }
}

impl Row {
    /// The spread of our samples.
    pub fn ours(&self) -> Option<Spread> {
        Spread::of(self.ours.iter().copied())
    }

    /// The spread of the rival's samples.
    pub fn rival(&self) -> Option<Spread> {
        Spread::of(self.rival.iter().copied())
    }

    /// The spread of the ratios of neighbouring samples, ours divided by the rival's.
    pub fn ratio(&self) -> Option<Spread> {
        Spread::of(self.ours.iter().zip(&self.rival).map(|(ours, rival)| ours / rival))
    }

    /// Whether the goal is met; `None` without a goal or a figure.
    pub fn met(&self) -> Option<bool> {
        let ratio = match self.at_most {
            Some(most) => Some(self.ratio()?.median <= most),
            None => None,
        };
        let absolute = match self.ours_at_most {
            Some(most) => Some(self.ours()?.median <= most),
            None => None,
        };
        match (ratio, absolute) {
            (None, None) => None,
            (ratio, absolute) => Some(ratio.unwrap_or(true) && absolute.unwrap_or(true)),
        }
    }

    /// Adds a further column.
    pub fn add(&mut self, name: &str, ours: impl Into<String>, rival: impl Into<String>) {
        self.extra.push(Extra { name: name.to_owned(), ours: ours.into(), rival: rival.into() });
    }

    /// The row in one line, for the terminal.
    pub fn line(&self) -> String {
        let figure =
            |spread: Option<Spread>| spread.map_or_else(|| "-".to_owned(), |spread| number(spread.median));
        let ratio = self.ratio().map_or_else(String::new, |ratio| format!(", {}", ratio_text(ratio)));
        let verdict = match self.met() {
            Some(true) => " (goal met)",
            Some(false) => " (goal missed)",
            None => "",
        };
        let (ours, rival) = (figure(self.ours()), figure(self.rival()));
        format!("{}: {ours} against {rival} {}{ratio}{verdict}", self.name, self.unit)
    }
}

/// A number with three significant digits.
pub fn number(value: f64) -> String {
    let digits = match value.abs() {
        v if v == 0.0 || v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

/// A ratio in readable form: `1/3.1 (1/3.6 to 1/2.8)`.
pub fn ratio_text(ratio: Spread) -> String {
    let one = |value: f64| if value < 1.0 { format!("1/{:.2}", 1.0 / value) } else { format!("{value:.2}") };
    format!("{} ({} to {})", one(ratio.median), one(ratio.low), one(ratio.high))
}

/// A finished run: command, date, machine and rows.
#[derive(Clone, Debug)]
pub struct Report {
    /// The command that repeats the run.
    pub command: String,
    /// Date of the run, if the caller gave it; else empty.
    pub date: String,
    /// Facts about the run, in addition to those about the machine: name and value.
    pub facts: Vec<(&'static str, String)>,
    /// The rows, in order.
    pub rows: Vec<Row>,
}

impl Report {
    /// Writes `NAME.md`, `NAME.json` with every sample, and the plots `NAME-*.svg`; returns the page's path.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(&self, dir: &Path, name: &str) -> anyhow::Result<PathBuf> {
        make_dir(dir)?;
        let mut plots = plot::draw(&self.rows, dir, name)?;
        for (picture, svg) in self.rows.iter().flat_map(|row| &row.pictures) {
            let file = format!("{name}-{picture}");
            fs::write(dir.join(&file), svg)?;
            plots.push(file);
        }
        fs::write(dir.join(format!("{name}.json")), serde_json::to_vec_pretty(&self.rows)?)?;
        self.write_page(dir, name, &plots)
    }

    /// Writes the files that are kept in the repository: the page `NAME.md` and one plot, without raw data;
    /// returns the page's path.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write_to_docs(&self, dir: &Path, name: &str) -> anyhow::Result<PathBuf> {
        make_dir(dir)?;
        let plots = plot::draw(&self.rows, dir, name)?;
        self.write_page(dir, name, &plots)
    }

    fn write_page(&self, dir: &Path, name: &str, plots: &[String]) -> anyhow::Result<PathBuf> {
        let mut facts = machine::facts();
        facts.extend(self.facts.iter().cloned());
        let path = dir.join(format!("{name}.md"));
        fs::write(&path, markdown::page(self, &facts, plots))?;
        Ok(path)
    }
}

fn make_dir(dir: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ours: &[f64], rival: &[f64]) -> Row {
        Row { ours: ours.to_vec(), rival: rival.to_vec(), at_most: Some(0.5), ..Row::default() }
    }

    #[test]
    fn a_spread_is_the_range_around_the_middle() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { low: 1.0, median: 2.0, high: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0]).map(|spread| spread.median), Some(2.5));
    }

    #[test]
    fn a_ratio_compares_neighbours_not_medians() {
        let ratio = row(&[1.0, 10.0, 3.0], &[4.0, 20.0, 3.0]).ratio().expect("there are samples");
        assert_eq!((ratio.low, ratio.median, ratio.high), (0.25, 0.5, 1.0));
    }

    #[test]
    fn a_goal_is_met_only_if_every_part_of_it_is() {
        assert_eq!(row(&[1.0], &[2.0]).met(), Some(true));
        assert_eq!(row(&[1.1], &[2.0]).met(), Some(false));
        assert_eq!(Row { ours_at_most: Some(0.9), ..row(&[1.0], &[2.0]) }.met(), Some(false));
        assert_eq!(row(&[], &[]).met(), None);
        assert_eq!(Row { at_most: None, ..row(&[1.0], &[2.0]) }.met(), None);
    }

    #[test]
    fn the_repository_keeps_one_page_and_one_plot() -> anyhow::Result<()> {
        let one = Row {
            name: "one".into(),
            pictures: vec![("more.svg".into(), String::new())],
            ..row(&[1.0], &[2.0])
        };
        let report =
            Report { command: String::new(), date: String::new(), facts: Vec::new(), rows: vec![one] };
        let files = |write: fn(&Report, &Path, &str) -> anyhow::Result<PathBuf>| {
            let dir = tempfile::tempdir()?;
            write(&report, dir.path(), "x")?;
            let entries = fs::read_dir(dir.path())?.map(|entry| Ok(entry?.file_name().into_string()));
            let mut names = entries.collect::<anyhow::Result<Vec<_>>>()?;
            names.sort();
            anyhow::Ok(names.into_iter().flatten().collect::<Vec<_>>())
        };
        assert_eq!(files(Report::write_to_docs)?, ["x-ratio.svg", "x.md"]);
        assert_eq!(files(Report::write)?, ["x-more.svg", "x-ratio.svg", "x.json", "x.md"]);
        Ok(())
    }

    #[test]
    fn figures_are_printed_with_what_counts() {
        assert_eq!(["176", "24.4", "1.90", "0.210"], [176.2, 24.41, 1.9, 0.21].map(number)[..]);
        assert_eq!(ratio_text(Spread { low: 0.25, median: 0.5, high: 1.5 }), "1/2.00 (1/4.00 to 1.50)");
    }
}
