//! The ticks of an axis, and the positions of values along it.

use super::axis::{Axis, Scale};
use crate::report::unit::Unit;

/// The unit that an axis of bytes shows.
const MIB: f64 = 1024.0 * 1024.0;

/// An axis with its ends and ticks.
pub(super) struct AxisTicks<'a> {
    axis: &'a Axis,
    low: f64,
    high: f64,
    pub(super) ticks: Vec<f64>,
}

impl<'a> AxisTicks<'a> {
    pub(super) fn new(axis: &'a Axis, values: &[f64]) -> Self {
        let high = values.iter().copied().fold(0.0, f64::max);
        let (low, high, ticks) = match &axis.scale {
            Scale::Labels(labels) => {
                let last = labels.len().max(2) as f64 - 1.0;
                (0.0, last, (0..labels.len()).map(|at| at as f64).collect())
            }
            Scale::Groups(labels) => {
                (-0.5, labels.len().max(1) as f64 - 0.5, (0..labels.len()).map(|at| at as f64).collect())
            }
            Scale::Linear => {
                let whole = if axis.unit == Unit::Bytes { MIB } else { 1.0 };
                let step = nice_step(high / 5.0 / whole) * whole;
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

    /// The position of a value, 0 to 1.
    pub(super) fn position(&self, value: f64) -> f64 {
        let position = match self.axis.scale {
            Scale::Linear | Scale::Labels(_) | Scale::Groups(_) => {
                (value - self.low) / (self.high - self.low)
            }
            Scale::Log => (value.max(self.low) / self.low).log10() / (self.high / self.low).log10(),
        };
        position.clamp(0.0, 1.0)
    }

    pub(super) fn label(&self, tick: f64) -> String {
        match &self.axis.scale {
            Scale::Labels(labels) | Scale::Groups(labels) => {
                labels.get(tick as usize).cloned().unwrap_or_default()
            }
            Scale::Linear | Scale::Log => self.axis.unit.show_short(tick),
        }
    }
}

/// The smallest of 1, 2 and 5 times powers of ten that is at least `least`.
fn nice_step(least: f64) -> f64 {
    if least <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(least.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    steps.into_iter().find(|step| *step >= least).unwrap_or(steps[3])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_positioned_between_the_ticks() {
        let axis = Axis::new("", Unit::Time, Scale::Log);
        let ticks = AxisTicks::new(&axis, &[2e5, 3e7, 0.0]);
        assert_eq!((ticks.low.round(), ticks.high.round()), (1e5, 1e8));
        assert_eq!(ticks.ticks.len(), 4);
        let position = |value| (ticks.position(value) * 1000.0).round();
        assert_eq!([0.0, 1e5, 1e6, 1e8, 1e9].map(position), [0.0, 0.0, 333.0, 1000.0, 1000.0]);

        let axis = Axis::new("", Unit::Percent, Scale::Linear);
        let ticks = AxisTicks::new(&axis, &[0.0, 23.0]);
        assert_eq!(ticks.ticks, [0.0, 5.0, 10.0, 15.0, 20.0, 25.0]);
        assert!((ticks.position(10.0) - 0.4).abs() < 1e-9);

        let axis = Axis::new("", Unit::Bytes, Scale::Linear);
        assert_eq!(AxisTicks::new(&axis, &[90.0 * MIB]).ticks[1], 20.0 * MIB);
    }
}
