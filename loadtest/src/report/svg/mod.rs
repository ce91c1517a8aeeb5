//! Plots as SVG, without scripts or external files. Colours are classes, which the style sheet defines.

use std::fmt::{self, Write};

use crate::histogram::{LOST, Quantiles};
use crate::report::escape::HtmlEscaped;
use crate::report::unit::Unit;

mod axis;
mod ticks;

pub(crate) use axis::{Axis, Scale};
use ticks::AxisTicks;

/// A plot of lines or bars.
#[derive(Clone, Debug)]
pub(crate) struct Plot {
    /// The title above the plot.
    pub(crate) title: String,
    /// The horizontal axis.
    pub(crate) x: Axis,
    /// The vertical axis.
    pub(crate) y: Axis,
    /// The lines, each with a name and its points.
    pub(crate) lines: Vec<(String, Vec<(f64, f64)>)>,
    /// A value of `y` to draw a line at: the highest that is good.
    pub(crate) limit: Option<f64>,
}

/// Makes a plot of the percentiles of several distributions; `None` if all are empty.
pub(crate) fn of_quantiles(title: &str, of: &[(&str, Quantiles)]) -> Option<Plot> {
    let known: Vec<_> = of.iter().filter(|(_, quantiles)| quantiles.count > 0).collect();
    let lines = known.iter().map(|(name, quantiles)| {
        let Quantiles { p50, p90, p99, p999, max, .. } = quantiles;
        let values = [p50, p90, p99, p999, max].into_iter().enumerate().filter(|(_, nanos)| **nanos < LOST);
        ((*name).to_owned(), values.map(|(at, nanos)| (at as f64, *nanos as f64)).collect())
    });
    (!known.is_empty()).then(|| Plot {
        title: title.to_owned(),
        x: Axis::new(
            "quantile",
            Unit::Count,
            Scale::Labels(["50 %", "90 %", "99 %", "99.9 %", "longest"].map(str::to_owned).to_vec()),
        ),
        y: Axis::new("time", Unit::Time, Scale::Log),
        lines: lines.collect(),
        limit: None,
    })
}

/// The style sheet of plots, for light and dark pages.
pub(crate) const STYLE: &str = include_str!("svg.css");

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 72.0;
const RIGHT_EDGE: f64 = WIDTH - 24.0;
const TOP: f64 = 36.0;
const BOTTOM_EDGE: f64 = HEIGHT - 48.0;
/// The height of the title above a plot in a file.
const CAPTION: f64 = 32.0;
/// The share of a group's width that its bars take.
const BARS: f64 = 0.7;
/// The number of colours, which lines beyond it use again.
const COLOURS: usize = 4;

impl Plot {
    /// The plot as an `svg` element, for a page that includes [`STYLE`] and shows the title.
    pub(crate) fn svg(&self) -> String {
        let mut svg = String::new();
        self.write(&mut svg).expect("writing to a string does not fail");
        svg
    }

    /// The plot as an SVG file, with style sheet and title.
    pub(crate) fn file(&self) -> String {
        let (title, plot, height) = (HtmlEscaped(&self.title), self.svg(), HEIGHT + CAPTION);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 -{CAPTION} {WIDTH} {height}\" \
             width=\"{WIDTH}\" height=\"{height}\">\n<style>\n{STYLE}</style>\n\
             <rect class=\"paper\" y=\"-{CAPTION}\" width=\"{WIDTH}\" height=\"{height}\"/>\n\
             <text class=\"title\" x=\"16\" y=\"-10\">{title}</text>\n{plot}</svg>\n"
        )
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        let points = || self.lines.iter().flat_map(|(_, points)| points);
        let x = AxisTicks::new(&self.x, &points().map(|point| point.0).collect::<Vec<_>>());
        let y = AxisTicks::new(&self.y, &points().map(|point| point.1).chain(self.limit).collect::<Vec<_>>());
        let title = HtmlEscaped(&self.title);
        writeln!(
            out,
            r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img"><title>{title}</title>"#
        )?;
        self.write_frame(&x, &y, out)?;
        for (index, (_, points)) in self.lines.iter().enumerate() {
            let colour = index % COLOURS;
            match &self.x.scale {
                Scale::Groups(groups) => {
                    let width = BARS * (RIGHT_EDGE - LEFT) / (groups.len() * self.lines.len()).max(1) as f64;
                    for &(group, value) in points {
                        let offset = index as f64 - self.lines.len() as f64 / 2.0;
                        let (left, top) = (across(&x, group) + offset * width, up(&y, value));
                        let (height, value) = (BOTTOM_EDGE - top, self.y.unit.show(value));
                        let value = HtmlEscaped(&value);
                        writeln!(
                            out,
                            r#"<rect class="dot c{colour}" x="{left:.1}" y="{top:.1}" width="{:.1}" height="{height:.1}"><title>{value}</title></rect>"#,
                            width - 1.0
                        )?;
                    }
                }
                _ => self.write_line(colour, &x, &y, points, out)?,
            }
        }
        writeln!(out, "</svg>")
    }

    fn write_frame(&self, x: &AxisTicks<'_>, y: &AxisTicks<'_>, out: &mut String) -> fmt::Result {
        for &tick in &y.ticks {
            let (at, label) = (up(y, tick), y.label(tick));
            writeln!(out, r#"<path class="grid" d="M{LEFT} {at:.1}H{RIGHT_EDGE}"/>"#)?;
            let (at, label) = (at + 4.0, HtmlEscaped(&label));
            writeln!(out, r#"<text class="tick end" x="{}" y="{at:.1}">{label}</text>"#, LEFT - 8.0)?;
        }
        for &tick in &x.ticks {
            let (at, label) = (across(x, tick), x.label(tick));
            if !matches!(self.x.scale, Scale::Groups(_)) {
                writeln!(out, r#"<path class="grid" d="M{at:.1} {TOP}V{BOTTOM_EDGE}"/>"#)?;
            }
            let label = HtmlEscaped(&label);
            let below = BOTTOM_EDGE + 18.0;
            writeln!(out, r#"<text class="tick mid" x="{at:.1}" y="{below}">{label}</text>"#)?;
        }
        let name = HtmlEscaped(&self.x.name);
        let middle = f64::midpoint(LEFT, RIGHT_EDGE);
        writeln!(out, r#"<text class="name mid" x="{middle}" y="{}">{name}</text>"#, HEIGHT - 8.0)?;
        let name = HtmlEscaped(&self.y.name);
        writeln!(out, r#"<text class="name" x="16" y="{}">{name}</text>"#, TOP - 16.0)?;
        if let Some(limit) = self.limit {
            writeln!(out, r#"<path class="limit" d="M{LEFT} {:.1}H{RIGHT_EDGE}"/>"#, up(y, limit))?;
        }
        // The legend is aligned with the right edge of the plot.
        let width = |name: &str| 30.0 + 7.0 * name.chars().count() as f64;
        let mut at = RIGHT_EDGE - self.lines.iter().map(|(name, _)| width(name)).sum::<f64>();
        for (index, (name, _)) in self.lines.iter().enumerate() {
            let (colour, centre, name_at) = (index % COLOURS, TOP - 20.0, TOP - 16.0);
            writeln!(out, r#"<circle class="dot c{colour}" cx="{:.1}" cy="{centre}" r="4"/>"#, at + 8.0)?;
            let text = HtmlEscaped(name);
            writeln!(out, r#"<text class="name" x="{:.1}" y="{name_at}">{text}</text>"#, at + 16.0)?;
            at += width(name);
        }
        Ok(())
    }

    fn write_line(
        &self,
        colour: usize,
        x: &AxisTicks<'_>,
        y: &AxisTicks<'_>,
        points: &[(f64, f64)],
        out: &mut String,
    ) -> fmt::Result {
        let places: Vec<_> = points.iter().map(|point| (across(x, point.0), up(y, point.1))).collect();
        let line: Vec<_> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        writeln!(out, r#"<polyline class="line c{colour}" points="{}"/>"#, line.join(" "))?;
        for ((x, y), point) in places.iter().zip(points) {
            let value = self.y.unit.show(point.1);
            let value = HtmlEscaped(&value);
            writeln!(
                out,
                r#"<circle class="dot c{colour}" cx="{x:.1}" cy="{y:.1}" r="3.5"><title>{value}</title></circle>"#
            )?;
        }
        Ok(())
    }
}

fn across(x: &AxisTicks<'_>, value: f64) -> f64 {
    LEFT + x.position(value) * (RIGHT_EDGE - LEFT)
}

fn up(y: &AxisTicks<'_>, value: f64) -> f64 {
    BOTTOM_EDGE - y.position(value) * (BOTTOM_EDGE - TOP)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(scale: Scale, points: Vec<(f64, f64)>) -> Plot {
        Plot {
            title: "a < b & \"c\"".to_owned(),
            x: Axis::new("<rate>", Unit::PacketsPerSecond, Scale::Linear),
            y: Axis::new("p99", Unit::Time, scale),
            lines: vec![("it's </svg>".to_owned(), points)],
            limit: Some(5e6),
        }
    }

    #[test]
    fn text_is_escaped() {
        let svg = plot(Scale::Log, vec![(1.0, 1e6)]).svg();
        assert!(
            svg.contains("a &lt; b &amp; &quot;c&quot;") && svg.contains("it&#39;s &lt;/svg&gt;"),
            "{svg}"
        );
        assert_eq!(svg.matches("</svg>").count(), 1);
        assert!(!svg.contains("<rate>"));
    }

    #[test]
    fn groups_have_a_bar_for_each_line() {
        let groups = Scale::Groups(vec!["bulk".to_owned(), "sparse".to_owned()]);
        let line = |name: &str, high| (name.to_owned(), vec![(0.0, high), (1.0, 1.0)]);
        let plot = Plot {
            title: "cost".to_owned(),
            x: Axis::new("load", Unit::Count, groups),
            y: Axis::new("µs", Unit::Time, Scale::Linear),
            lines: vec![line("ours", 2.0), line("theirs", 4.0)],
            limit: None,
        };
        let file = plot.file();
        assert_eq!(file.matches("<rect class=\"dot").count(), 4);
        // The bar of "ours" is half as high as that of "theirs", and beside it.
        assert!(file.contains(r#"y="154.0" width="108.2" height="118.0""#), "{file}");
        assert!(file.contains(r#"y="36.0" width="108.2" height="236.0""#), "{file}");
        assert!(
            file.contains(">sparse</text>") && file.contains(r#"<text class="title" x="16" y="-10">cost<"#)
        );
    }

    #[test]
    fn a_plot_with_few_or_no_points_is_drawn() {
        for scale in
            [Scale::Linear, Scale::Log, Scale::Labels(vec!["only".to_owned()]), Scale::Groups(Vec::new())]
        {
            for points in [vec![], vec![(0.0, 0.0)], vec![(1.0, 7.0), (1.0, 7.0)]] {
                let svg = Plot { limit: None, ..plot(scale.clone(), points) }.svg();
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            }
        }
        assert!(of_quantiles("none", &[("nothing", Quantiles::default())]).is_none());
    }
}
