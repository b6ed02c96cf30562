//! The report as a Markdown page: facts, one table for all rows, then further figures of each row.

use std::fmt::Write as _;

use super::{Report, Row, Spread, number, ratio_text};

/// The page; `plots` are the names of files in the same directory.
pub(super) fn page(report: &Report, facts: &[(&'static str, String)], plots: &[String]) -> String {
    let mut page = String::from("# Benchmark\n\n");
    if !report.date.is_empty() {
        line(&mut page, format_args!("{}\n", report.date));
    }
    line(&mut page, format_args!("Printed by `{}`.\n", report.command));
    for (name, value) in facts {
        line(&mut page, format_args!("* {name}: {value}"));
    }
    page.push_str(
        "\nLess is better in every row. The ratio is ours by the rival's: the median over pairs of \
         alternating samples, and the whole range.\n\n\
         | row | unit | ours | rival | ratio | goal | |\n|---|---|---|---|---|---|---|\n",
    );
    for row in &report.rows {
        line(&mut page, format_args!("{}", table_line(row)));
    }
    for plot in plots {
        line(&mut page, format_args!("\n![{plot}]({plot})"));
    }
    for row in &report.rows {
        section(&mut page, row);
    }
    page
}

fn table_line(row: &Row) -> String {
    let figure = |spread: Option<Spread>| spread.map_or(String::new(), |spread| number(spread.median));
    let verdict = match row.met() {
        Some(true) => "met",
        Some(false) => "**missed**",
        None => "",
    };
    let cells = [
        row.name.clone(),
        row.unit.clone(),
        figure(row.ours()),
        figure(row.rival()),
        row.ratio().map_or(String::new(), ratio_text),
        row.goal.clone(),
        verdict.to_owned(),
    ];
    format!("| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | "))
}

fn section(page: &mut String, row: &Row) {
    line(page, format_args!("\n## {}\n\n{}", row.name, row.load));
    let range = |spread: Spread| {
        format!("{} ({} to {})", number(spread.median), number(spread.low), number(spread.high))
    };
    let rival = match row.rival_name.as_str() {
        "" => "rival",
        name => name,
    };
    line(page, format_args!("\n| | ours | {rival} |\n|---|---|---|"));
    let [ours, theirs] = [row.ours(), row.rival()].map(|spread| spread.map_or(String::new(), range));
    line(page, format_args!("| {} | {ours} | {theirs} |", row.unit));
    for extra in &row.extra {
        line(page, format_args!("| {} | {} | {} |", extra.name, extra.ours, extra.rival));
    }
    line(page, format_args!("\nSamples: {} of ours, {} of the rival's.", row.ours.len(), row.rival.len()));
    for note in &row.notes {
        line(page, format_args!("\n{note}"));
    }
}

fn line(page: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(page, "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_shows_every_row_in_the_table_and_in_a_section() {
        let row = Row {
            name: "tls".into(),
            unit: "µs".into(),
            ours: vec![1.0, 2.0, 3.0],
            rival: vec![4.0, 4.0, 4.0],
            goal: "at most 1/3".into(),
            at_most: Some(1.0 / 3.0),
            ..Row::default()
        };
        let report = Report {
            command: "cargo xtask bench".into(),
            date: String::new(),
            facts: Vec::new(),
            rows: vec![row],
        };
        let page = page(&report, &[("cores", "2".into())], &["x.svg".into()]);
        let table = "| tls | µs | 2.00 | 4.00 | 1/2.00 (1/4.00 to 1/1.33) | at most 1/3 | **missed** |";
        assert!(page.contains(table), "{page}");
        for part in ["* cores: 2", "## tls", "| µs | 2.00 (1.00 to 3.00) | 4.00 (4.00 to 4.00) |", "(x.svg)"]
        {
            assert!(page.contains(part), "{part} in {page}");
        }
    }
}
