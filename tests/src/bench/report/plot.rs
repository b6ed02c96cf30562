//! The report as plots: how many times less than the rival each row costs.

use std::path::Path;

use anyhow::Context as _;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{Row, Spread};

const WIDTH: u32 = 900;
const ROW_HEIGHT: u32 = 34;
const OURS: RGBColor = RGBColor(31, 119, 180);
const GOAL: RGBColor = RGBColor(214, 39, 40);

/// Draws the plots and returns the file names.
pub(super) fn draw(rows: &[Row], dir: &Path, name: &str) -> anyhow::Result<Vec<String>> {
    let compared: Vec<(&Row, Spread)> = rows.iter().filter_map(|row| Some((row, row.ratio()?))).collect();
    if compared.is_empty() {
        return Ok(Vec::new());
    }
    let file = format!("{name}-ratio.svg");
    ratios(&compared, &dir.join(&file))
        .map_err(|error| anyhow::anyhow!("{error}"))
        .context("drawing a plot")?;
    Ok(vec![file])
}

/// One bar per row: the rival's cost divided by ours (longer is better), with its range and the goal.
fn ratios(rows: &[(&Row, Spread)], path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let times = |ratio: f64| if ratio > 0.0 { 1.0 / ratio } else { 0.0 };
    let goals = rows.iter().filter_map(|(row, _)| row.at_most.map(times));
    let longest = rows.iter().map(|(_, ratio)| times(ratio.low)).chain(goals).fold(1.0, f64::max) * 1.1;
    let count = u32::try_from(rows.len())?;
    let area = SVGBackend::new(path, (WIDTH, 90 + count * ROW_HEIGHT)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption("rival's cost by ours (longer is better; line: range, red: goal)", ("sans-serif", 16))
        .margin(10)
        .x_label_area_size(30)
        .y_label_area_size(260)
        .build_cartesian_2d(0.0..longest, 0.0..f64::from(count))?;
    chart.configure_mesh().disable_y_mesh().y_labels(0).x_label_formatter(&|x| format!("{x}x")).draw()?;
    let label = TextStyle::from(("sans-serif", 13)).pos(Pos::new(HPos::Right, VPos::Center));
    for (index, (row, ratio)) in (0u32..).zip(rows) {
        let middle = f64::from(count - index) - 0.5;
        let bar = [(0.0, middle - 0.3), (times(ratio.median), middle + 0.3)];
        chart.draw_series([Rectangle::new(bar, OURS.filled())])?;
        let range = vec![(times(ratio.high), middle), (times(ratio.low), middle)];
        chart.draw_series([PathElement::new(range, BLACK.stroke_width(2))])?;
        if let Some(goal) = row.at_most.map(times) {
            let mark = vec![(goal, middle - 0.4), (goal, middle + 0.4)];
            chart.draw_series([PathElement::new(mark, GOAL.stroke_width(3))])?;
        }
        let (_, y) = chart.backend_coord(&(0.0, middle));
        area.draw(&Text::new(row.name.clone(), (262, y), label.clone()))?;
    }
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_names_its_rows() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let row = |name: &str, rival: &[f64]| Row {
            name: name.into(),
            ours: vec![1.0],
            rival: rival.to_vec(),
            at_most: Some(0.5),
            ..Row::default()
        };
        let rows = [row("alpha row", &[3.0]), row("without rival", &[])];
        assert_eq!(draw(&rows, dir.path(), "x")?, ["x-ratio.svg"]);
        let svg = std::fs::read_to_string(dir.path().join("x-ratio.svg"))?;
        assert!(svg.contains("alpha row") && !svg.contains("without rival"), "{svg}");
        assert!(draw(&rows[1..], dir.path(), "y")?.is_empty());
        Ok(())
    }
}
