//! The picture of a chart, as SVG. Its text takes its colour from the page's style.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use plotters::prelude::*;

use super::numbers::{Numbers, PARTS_MAX, Step};

const SIZE: (u32, u32) = (960, 360);

/// The colours of lines. Each is seen on a light and on a dark page.
pub(super) const COLORS: [(u8, u8, u8); PARTS_MAX] = [
    (0x1f, 0x77, 0xcd),
    (0xc9, 0x6b, 0x00),
    (0x2a, 0x8f, 0x4a),
    (0x9a, 0x5b, 0xd6),
    (0xd1, 0x43, 0x4b),
    (0x0e, 0x8a, 0x8a),
];

/// Lines of the grid, and the ground of steps without a value.
const GRAY: RGBColor = RGBColor(0x80, 0x88, 0x90);

/// The ground of steps that are not final.
const AMBER: RGBColor = RGBColor(0xd4, 0x9b, 0x1f);

/// The start of a step, as short as its length allows.
pub(super) fn label(at: f64, zone: Tz, step_seconds: i64) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "whole seconds")]
    let at = DateTime::<Utc>::from_timestamp(at as i64, 0).unwrap_or_default().with_timezone(&zone);
    let form = match step_seconds {
        0..86_400 => "%m-%d %H:%M",
        86_400..2_400_000 => "%Y-%m-%d",
        _ => "%Y-%m",
    };
    at.format(form).to_string()
}

/// The picture. An error is the plotting library's.
pub(super) fn svg(numbers: &Numbers, zone: Tz) -> Result<String, String> {
    let mut svg = String::new();
    draw(numbers, zone, &mut svg).map_err(|error| error.to_string())?;
    Ok(svg)
}

fn draw(
    numbers: &Numbers,
    zone: Tz,
    svg: &mut String,
) -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
    #[expect(clippy::cast_precision_loss, reason = "a length of time")]
    let step = numbers.step_seconds as f64;
    let steps = || numbers.lines.iter().flat_map(|line| &line.steps);
    let fold = |of: fn(f64, f64) -> f64, from, value: fn(&Step) -> Option<f64>| {
        steps().filter_map(value).filter(|it| it.is_finite()).fold(from, of)
    };
    let first = fold(f64::min, f64::INFINITY, |it| Some(it.at));
    let last = fold(f64::max, f64::NEG_INFINITY, |it| Some(it.at));
    if first > last {
        return Ok(());
    }
    let low = fold(f64::min, 0.0, |it| it.value);
    let high = fold(f64::max, 0.0, |it| it.value);
    let high = if low < high { high + (high - low) * 0.05 } else { low + 1.0 };
    let ground = numbers.lines.first().map_or(&[][..], |line| &line.steps);
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    let mut chart = ChartBuilder::on(&root)
        .margin(8)
        .margin_top(14)
        .margin_right(48)
        .x_label_area_size(32)
        .y_label_area_size(80)
        .build_cartesian_2d(first - step / 2.0..last + step / 2.0, low..high)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRAY.mix(0.4))
        .axis_style(GRAY)
        .label_style(("sans-serif", 17))
        .x_labels(ground.len().clamp(1, 7))
        .x_label_formatter(&|at| label(*at, zone, numbers.step_seconds))
        .y_labels(6)
        .y_label_formatter(&|value| number(*value))
        .draw()?;
    for (color, is_in) in
        [(AMBER, Step::is_open as fn(&Step) -> bool), (GRAY, |it| it.value.is_none())]
    {
        let bands = ground.iter().filter(|it| is_in(it)).map(|it| {
            let corners = [(it.at - step / 2.0, low), (it.at + step / 2.0, high)];
            Rectangle::new(corners, color.mix(0.25).filled())
        });
        chart.draw_series(bands)?;
    }
    for (line, (red, green, blue)) in numbers.lines.iter().zip(COLORS) {
        let color = RGBColor(red, green, blue);
        for run in runs(&line.steps) {
            chart.draw_series(LineSeries::new(run.iter().copied(), color.stroke_width(2)))?;
        }
        let points =
            line.steps.iter().filter_map(|it| Some((it, it.value.filter(|it| it.is_finite())?)));
        chart.draw_series(points.map(|(step, value)| {
            let style = if step.is_complete { color.filled() } else { color.stroke_width(2) };
            Circle::new((step.at, value), 3, style)
        }))?;
    }
    root.present()
}

/// The points between gaps.
fn runs(steps: &[Step]) -> Vec<Vec<(f64, f64)>> {
    let parts = steps.split(|it| !it.value.is_some_and(f64::is_finite));
    let points = |part: &[Step]| part.iter().filter_map(|it| Some((it.at, it.value?))).collect();
    parts.filter(|part| !part.is_empty()).map(points).collect()
}

/// A number of the axis: `1.5 M`.
fn number(value: f64) -> String {
    let (scale, unit) = match value.abs() {
        0.0..1e4 => (1.0, ""),
        1e4..1e6 => (1e3, " k"),
        1e6..1e9 => (1e6, " M"),
        _ => (1e9, " G"),
    };
    let text = format!("{:.2}", value / scale);
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::super::numbers::Line;
    use super::*;

    fn step(day: u32, value: Option<f64>, is_complete: bool) -> Step {
        Step { at: f64::from(day) * 86_400.0, value, is_complete }
    }

    fn numbers(steps: Vec<Step>) -> Numbers {
        let line = Line { part: None, is_parted: false, steps };
        let measure = "events".to_owned();
        Numbers {
            measures: vec![measure.clone()],
            measure,
            by: None,
            step_seconds: 86_400,
            lines: vec![line],
        }
    }

    #[test]
    fn a_gap_is_a_gap_and_what_is_not_final_is_hollow() {
        let steps = vec![
            step(1, Some(3.0), true),
            step(2, None, false),
            step(3, Some(5.0), true),
            step(4, Some(0.0), true),
            step(5, Some(4.0), false),
        ];
        assert_eq!(runs(&steps).iter().map(Vec::len).collect::<Vec<_>>(), [1, 3]);
        let svg = svg(&numbers(steps), Tz::UTC).unwrap();
        let count = |part: &str| svg.matches(part).count();
        assert_eq!(count("<circle"), 4, "{svg}");
        assert_eq!(
            count("opacity=\"1\" fill=\"none\" stroke=\"#1F77CD\" stroke-width=\"2\"/>"),
            1,
            "{svg}"
        );
        assert!(svg.contains("1970-01-0") && !svg.contains("style="), "{svg}");
    }

    #[test]
    fn the_usual_chart_is_small() {
        let steps = (0..60).map(|day| step(day, Some(f64::from(day * 7919 % 1000)), day % 9 > 0));
        let svg = svg(&numbers(steps.collect()), Tz::UTC).unwrap();
        assert_eq!(svg.matches("<circle").count(), 60);
        assert!(svg.len() < 15_000, "{} bytes", svg.len());
    }

    #[test]
    fn any_numbers_are_drawn() {
        for steps in [
            vec![],
            vec![step(1, None, false)],
            vec![step(1, Some(0.0), true)],
            vec![step(1, Some(-1e18), true), step(2, Some(1e18), true)],
            vec![step(1, Some(f64::NAN), true), step(2, Some(f64::INFINITY), true)],
        ] {
            let svg = svg(&numbers(steps.clone()), Tz::UTC).unwrap();
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{steps:?}: {svg}");
        }
        assert_eq!([0.0, 950.0, 12_500.0, 3e6].map(number), ["0", "950", "12.5 k", "3 M"]);
    }
}
