//! Plots the sweep of the threshold: bytes copied against bytes held.

use plotters::prelude::*;

use super::{Measured, Policy};

const SIZE: (u32, u32) = (720, 420);
const COPIED: RGBColor = RGBColor(31, 119, 180);
const HELD: RGBColor = RGBColor(214, 39, 40);

/// An SVG with both curves over the threshold, in KiB.
pub(super) fn sweep(measured: &[Measured]) -> anyhow::Result<String> {
    let mut svg = String::new();
    draw(measured, &mut svg).map_err(|error| anyhow::anyhow!("drawing the sweep: {error}"))?;
    Ok(svg)
}

fn draw(measured: &[Measured], svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let points = |figure: fn(&Measured) -> f64| {
        let mut points: Vec<(f64, f64)> = measured
            .iter()
            .filter_map(|one| match one.policy {
                Policy::From(usize::MAX) => Some((64.0, figure(one))),
                Policy::From(bytes) => Some((bytes as f64 / 1024.0, figure(one))),
                _ => None,
            })
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points
    };
    let (copied, held) = (points(Measured::copied_share), points(|one| one.outcome.worst_ratio));
    let top = copied.iter().chain(&held).map(|point| point.1).fold(2.5, f64::max);
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption("share payloads from ... KiB (64: always copy)", ("sans-serif", 16))
        .margin(10)
        .x_label_area_size(30)
        .y_label_area_size(45)
        .build_cartesian_2d(0.0..64.0, (0.05..top).log_scale())?;
    chart.configure_mesh().draw()?;
    for (points, color, label) in [
        (copied, COPIED, "bytes copied a byte of payload"),
        (held, HELD, "bytes held a byte queued, worst"),
        (vec![(0.0, 2.0), (64.0, 2.0)], BLACK, "the limit: twice what is queued"),
    ] {
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)))?
            .label(label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
    area.present()?;
    Ok(())
}
