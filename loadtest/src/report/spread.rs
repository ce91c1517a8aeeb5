//! The lowest, median and highest value of several runs.

use crate::report::unit::Unit;

/// The lowest, median and highest of `values`; `None` if there are none.
pub(crate) fn spread(values: impl IntoIterator<Item = f64>) -> Option<[f64; 3]> {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let median = match values.len() {
        0 => return None,
        len if len % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    };
    Some([values[0], median, values[values.len() - 1]])
}

/// A median, with the lowest and the highest value if they differ. The unit is shown once if all three have the same.
pub(crate) fn show_spread(unit: Unit, [low, median, high]: [f64; 3]) -> String {
    let [shown_low, shown, shown_high] = [low, median, high].map(|value| unit.show(value));
    if low >= high {
        return shown;
    }
    let unit_of = |text: &str| text.split_once(' ').map(|(_, unit)| unit.to_owned());
    if unit_of(&shown_low) == unit_of(&shown) && unit_of(&shown) == unit_of(&shown_high) {
        let number = |text: &str| text.split(' ').next().unwrap_or_default().to_owned();
        return format!("{shown} ({} – {})", number(&shown_low), number(&shown_high));
    }
    format!("{shown} ({shown_low} – {shown_high})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_lowest_median_and_highest() {
        assert_eq!(spread([3.0, 1.0, 2000.0]), Some([1.0, 3.0, 2000.0]));
        assert_eq!(spread([3.0, 1.0]), Some([1.0, 2.0, 3.0]));
        assert_eq!(spread([]), None);
    }

    #[test]
    fn a_unit_that_all_three_values_have_is_shown_once() {
        assert_eq!(show_spread(Unit::Time, [2.9e3, 3e3, 3.1e3]), "3.00 µs (2.90 – 3.10)");
        assert_eq!(show_spread(Unit::Time, [2.9e5, 3e6, 3.1e6]), "3.00 ms (290.00 µs – 3.10 ms)");
        assert_eq!(show_spread(Unit::PacketsPerSecond, [1e5, 1e5, 1e5]), "100,000 packets/s");
        assert_eq!(show_spread(Unit::Count, [0.0, 999.0, 1_234_567.0]), "999 (0 – 1,234,567)");
    }
}
