//! Plots as SVG, without scripts and without anything from elsewhere. Colours are classes, for the page to choose.

use std::fmt::{self, Write};

use crate::histogram::Quantiles;
use crate::report::{Escaped, Unit};

/// One value over another.
#[derive(Clone, Debug)]
pub struct Plot {
    /// What it shows.
    pub title: String,
    /// To the right.
    pub x: Axis,
    /// Upwards.
    pub y: Axis,
    /// The lines, each with a name.
    pub lines: Vec<(String, Vec<(f64, f64)>)>,
    /// A value of `y` that must not be exceeded.
    pub limit: Option<f64>,
}

/// What an axis shows, and how.
#[derive(Clone, Debug)]
pub struct Axis {
    /// What it is of.
    pub name: String,
    /// Its unit.
    pub unit: Unit,
    /// How values are spread.
    pub scale: Scale,
}

/// How values are spread along an axis.
#[derive(Clone, Debug, PartialEq)]
pub enum Scale {
    /// Evenly, from zero.
    Linear,
    /// By their logarithm; values of zero or less stand at the lowest tick.
    Log,
    /// The values 0, 1, 2, … with a label each.
    Labels(Vec<&'static str>),
}

impl Axis {
    pub(crate) fn new(name: impl Into<String>, unit: Unit, scale: Scale) -> Self {
        Self { name: name.into(), unit, scale }
    }
}

/// The quantiles of some distributions side by side; `None` where there is nothing to show.
pub(crate) fn of_quantiles(title: &str, of: &[(&str, Quantiles)]) -> Option<Plot> {
    let known: Vec<_> = of.iter().filter(|(_, quantiles)| quantiles.count > 0).collect();
    let lines = known.iter().map(|(name, quantiles)| {
        let Quantiles { p50, p90, p99, p999, max, .. } = quantiles;
        let values = [p50, p90, p99, p999, max].into_iter().enumerate();
        ((*name).to_owned(), values.map(|(at, nanos)| (at as f64, *nanos as f64)).collect())
    });
    (!known.is_empty()).then(|| Plot {
        title: title.to_owned(),
        x: Axis::new(
            "quantile",
            Unit::Count,
            Scale::Labels(vec!["50 %", "90 %", "99 %", "99.9 %", "longest"]),
        ),
        y: Axis::new("time", Unit::Time, Scale::Log),
        lines: lines.collect(),
        limit: None,
    })
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 110.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 36.0;
const BOTTOM: f64 = 48.0;
/// Lines of different colour; more start anew.
const COLOURS: usize = 4;

/// An axis whose ends and ticks are known.
struct Ruler<'a> {
    axis: &'a Axis,
    low: f64,
    high: f64,
    ticks: Vec<f64>,
}

impl<'a> Ruler<'a> {
    fn new(axis: &'a Axis, values: &[f64]) -> Self {
        let high = values.iter().copied().fold(0.0, f64::max);
        let (low, high, ticks) = match &axis.scale {
            Scale::Labels(labels) => {
                let last = labels.len().max(2) as f64 - 1.0;
                (0.0, last, (0..labels.len()).map(|at| at as f64).collect())
            }
            Scale::Linear => {
                let step = nice_step(high / 5.0);
                let count = (high / step).ceil().max(1.0) as u32;
                (0.0, f64::from(count) * step, (0..=count).map(|at| f64::from(at) * step).collect())
            }
            Scale::Log => {
                let least = values.iter().copied().filter(|value| *value > 0.0).fold(f64::INFINITY, f64::min);
                let (least, high) = if high > 0.0 { (least, high) } else { (1.0, 10.0) };
                let first = least.log10().floor() as i32;
                let last = (high.log10().ceil() as i32).max(first + 1);
                let ticks = (first..=last).map(|exponent| 10_f64.powi(exponent)).collect();
                (10_f64.powi(first), 10_f64.powi(last), ticks)
            }
        };
        Self { axis, low, high, ticks }
    }

    /// Where a value stands, 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let place = match self.axis.scale {
            Scale::Linear | Scale::Labels(_) => (value - self.low) / (self.high - self.low),
            Scale::Log => (value.max(self.low) / self.low).log10() / (self.high / self.low).log10(),
        };
        place.clamp(0.0, 1.0)
    }

    fn label(&self, tick: f64) -> String {
        match &self.axis.scale {
            Scale::Labels(labels) => labels.get(tick as usize).copied().unwrap_or_default().to_owned(),
            Scale::Linear | Scale::Log => self.axis.unit.show_short(tick),
        }
    }
}

/// 1, 2 or 5 times a power of ten, at least `least`.
fn nice_step(least: f64) -> f64 {
    if least <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(least.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    steps.into_iter().find(|step| *step >= least).unwrap_or(steps[3])
}

impl Plot {
    /// The plot as an `svg` element.
    pub(crate) fn svg(&self) -> String {
        let mut svg = String::new();
        self.write(&mut svg).expect("a string takes whatever is written to it");
        svg
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        let points = || self.lines.iter().flat_map(|(_, points)| points);
        let x = Ruler::new(&self.x, &points().map(|point| point.0).collect::<Vec<_>>());
        let y = Ruler::new(&self.y, &points().map(|point| point.1).chain(self.limit).collect::<Vec<_>>());
        let across = |value| LEFT + x.place(value) * (WIDTH - LEFT - RIGHT);
        let up = |value| HEIGHT - BOTTOM - y.place(value) * (HEIGHT - TOP - BOTTOM);
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        let title = Escaped(&self.title);
        writeln!(out, r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><title>{title}</title>"#)?;
        for &tick in &y.ticks {
            let (at, label) = (up(tick), y.label(tick));
            writeln!(out, r#"<path class="grid" d="M{LEFT} {at:.1}H{right}"/>"#)?;
            let (at, label) = (at + 4.0, Escaped(&label));
            writeln!(out, r#"<text class="tick end" x="{}" y="{at:.1}">{label}</text>"#, LEFT - 8.0)?;
        }
        for &tick in &x.ticks {
            let (at, label) = (across(tick), x.label(tick));
            writeln!(out, r#"<path class="grid" d="M{at:.1} {TOP}V{bottom}"/>"#)?;
            let label = Escaped(&label);
            writeln!(out, r#"<text class="tick mid" x="{at:.1}" y="{}">{label}</text>"#, bottom + 18.0)?;
        }
        let name = Escaped(&self.x.name);
        let middle = f64::midpoint(LEFT, right);
        writeln!(out, r#"<text class="name mid" x="{middle}" y="{}">{name}</text>"#, HEIGHT - 8.0)?;
        let name = Escaped(&self.y.name);
        writeln!(out, r#"<text class="name end" x="{}" y="{}">{name}</text>"#, LEFT - 8.0, TOP - 16.0)?;
        if let Some(limit) = self.limit {
            writeln!(out, r#"<path class="limit" d="M{LEFT} {:.1}H{right}"/>"#, up(limit))?;
        }
        let mut legend = LEFT;
        for (index, (name, points)) in self.lines.iter().enumerate() {
            let colour = index % COLOURS;
            let places: Vec<_> = points.iter().map(|point| (across(point.0), up(point.1))).collect();
            let line: Vec<_> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            writeln!(out, r#"<polyline class="line c{colour}" points="{}"/>"#, line.join(" "))?;
            for ((x, y), point) in places.iter().zip(points) {
                let value = self.y.unit.show(point.1);
                let value = Escaped(&value);
                writeln!(
                    out,
                    r#"<circle class="dot c{colour}" cx="{x:.1}" cy="{y:.1}" r="3.5"><title>{value}</title></circle>"#
                )?;
            }
            let (centre, name_at) = (TOP - 20.0, TOP - 16.0);
            writeln!(out, r#"<circle class="dot c{colour}" cx="{}" cy="{centre}" r="3.5"/>"#, legend + 8.0)?;
            let text = Escaped(name);
            writeln!(out, r#"<text class="name" x="{}" y="{name_at}">{text}</text>"#, legend + 16.0)?;
            legend += 36.0 + 7.0 * name.chars().count() as f64;
        }
        writeln!(out, "</svg>")
    }
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
    fn text_cannot_leave_its_place() {
        let svg = plot(Scale::Log, vec![(1.0, 1e6)]).svg();
        assert!(
            svg.contains("a &lt; b &amp; &quot;c&quot;") && svg.contains("it&#39;s &lt;/svg&gt;"),
            "{svg}"
        );
        assert_eq!(svg.matches("</svg>").count(), 1);
        assert!(!svg.contains("<rate>"));
    }

    #[test]
    fn values_stand_where_they_belong() {
        let axis = Axis::new("", Unit::Time, Scale::Log);
        let ruler = Ruler::new(&axis, &[2e5, 3e7, 0.0]);
        assert_eq!((ruler.low.round(), ruler.high.round()), (1e5, 1e8));
        assert_eq!(ruler.ticks.len(), 4);
        let place = |value| (ruler.place(value) * 1000.0).round();
        assert_eq!([0.0, 1e5, 1e6, 1e8, 1e9].map(place), [0.0, 0.0, 333.0, 1000.0, 1000.0]);

        let axis = Axis::new("", Unit::Percent, Scale::Linear);
        let ruler = Ruler::new(&axis, &[0.0, 23.0]);
        assert_eq!(ruler.ticks, [0.0, 5.0, 10.0, 15.0, 20.0, 25.0]);
        assert!((ruler.place(10.0) - 0.4).abs() < 1e-9);
    }

    #[test]
    fn a_plot_of_little_or_nothing_is_drawn() {
        for scale in [Scale::Linear, Scale::Log, Scale::Labels(vec!["only"]), Scale::Labels(Vec::new())] {
            for points in [vec![], vec![(0.0, 0.0)], vec![(1.0, 7.0), (1.0, 7.0)]] {
                let svg = Plot { limit: None, ..plot(scale.clone(), points) }.svg();
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            }
        }
        assert!(of_quantiles("none", &[("nothing", Quantiles::default())]).is_none());
    }
}
