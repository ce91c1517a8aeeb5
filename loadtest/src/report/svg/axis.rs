//! The axes of a plot.

use crate::report::unit::Unit;

/// An axis: its name, its unit, and its scale.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    /// The name beside the axis.
    pub(crate) name: String,
    /// The unit of the values at its ticks.
    pub(crate) unit: Unit,
    /// The positions of values along the axis.
    pub(crate) scale: Scale,
}

/// The positions of values along an axis.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Scale {
    /// Linear, from zero.
    Linear,
    /// Logarithmic; values of zero or less are at the lowest tick.
    Log,
    /// The values 0, 1, 2, … with a label each.
    Labels(Vec<String>),
    /// The values 0, 1, 2, … with a label each, and bars instead of lines.
    Groups(Vec<String>),
}

impl Axis {
    pub(crate) fn new(name: impl Into<String>, unit: Unit, scale: Scale) -> Self {
        Self { name: name.into(), unit, scale }
    }
}
