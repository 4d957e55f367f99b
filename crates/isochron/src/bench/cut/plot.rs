//! The group's pause over the number of guests, as an SVG: one picture per load and
//! state of the page cache.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::report::Measured;

const WIDTH: u32 = 720;
const HEIGHT: u32 = 420;

/// A line: what it is called, and the group's pause in milliseconds by guests.
type Lines = BTreeMap<String, Vec<(f64, f64)>>;

/// Draws to a file.
pub fn draw(measured: &[Measured], file: &Path) -> Result<()> {
    let mut pictures: BTreeMap<(&str, &str), Lines> = BTreeMap::new();
    for m in measured {
        let Some(group) = m.group_us() else { continue };
        let lines = pictures.entry((m.load, m.page_cache)).or_default();
        let line = lines.entry(format!("{}, {}", m.how, m.kind)).or_default();
        line.push((f64::from(m.members), group as f64 / 1e3));
    }
    let count = u32::try_from(pictures.len())?.max(1);
    let root = SVGBackend::new(file, (WIDTH, HEIGHT * count)).into_drawing_area();
    let failed = |error: &dyn std::fmt::Display| anyhow!("{}: {error}", file.display());
    root.fill(&WHITE).map_err(|error| failed(&error))?;
    let areas = root.split_evenly((usize::try_from(count)?, 1));
    for (area, ((load, cache), lines)) in areas.iter().zip(&pictures) {
        let title = format!("Group pause ({load}, page cache {cache})");
        picture(area, &title, lines).map_err(|error| failed(&error))?;
    }
    root.present().map_err(|error| failed(&error))
}

fn picture(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    title: &str,
    lines: &Lines,
) -> Result<()> {
    let points = || lines.values().flatten();
    let most = |of: fn(&(f64, f64)) -> f64| points().map(of).fold(1.0, f64::max);
    let least = points().map(|p| p.1).fold(f64::MAX, f64::min).max(0.01);
    let guests = 0.0..most(|p| p.0) + 1.0;
    let pause = (least / 2.0..most(|p| p.1) * 2.0).log_scale();
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(guests, pause)?;
    chart
        .configure_mesh()
        .x_desc("guests")
        .y_desc("ms, first STOP to last RESUME (logarithmic)")
        .draw()?;
    for (index, (name, line)) in lines.iter().enumerate() {
        let color = Palette99::pick(index).to_rgba();
        let style = color.stroke_width(2);
        chart
            .draw_series(LineSeries::new(line.iter().copied(), style).point_size(3))?
            .label(name)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 16, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}
