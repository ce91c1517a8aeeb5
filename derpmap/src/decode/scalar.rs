//! Scalars without quotes, as `yaml.v3` takes them once it knows the wanted type (its `resolve.go`, `decode.go`).

/// A whole number: decimal, `0x`, `0o`, `0b`, octal by a leading 0, underscores anywhere; and a number with a fraction,
/// which loses it.
pub(super) fn yaml_int(text: &str) -> Option<i64> {
    whole(text).or_else(|| {
        let float = fraction(text)?;
        // As Go converts, once the bounds are known.
        ((i64::MIN as f64)..=(i64::MAX as f64)).contains(&float).then_some(float as i64)
    })
}

/// A number.
pub(super) fn yaml_float(text: &str) -> Option<f64> {
    // Beyond 2^53 the nearest float is as good as Go's.
    whole(text).map(|number| number as f64).or_else(|| fraction(text))
}

/// true and false, and the words of YAML 1.1.
pub(super) fn yaml_truth(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => yaml_word(text),
    }
}

/// The words of YAML 1.1, which count in quotes, too.
pub(super) fn yaml_word(text: &str) -> Option<bool> {
    match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

fn whole(text: &str) -> Option<i64> {
    if !text.starts_with(|c: char| c.is_ascii_digit() || c == '+' || c == '-') {
        return None;
    }
    let plain = text.replace('_', "");
    let (negative, digits) = match plain.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, plain.strip_prefix('+').unwrap_or(&plain)),
    };
    let lower = digits.to_ascii_lowercase();
    let (digits, radix) = match lower.as_bytes() {
        [b'0', b'x', ..] => (&lower[2..], 16),
        [b'0', b'o', ..] => (&lower[2..], 8),
        [b'0', b'b', ..] => (&lower[2..], 2),
        [b'0', _, ..] => (&lower[1..], 8),
        _ => (&*lower, 10),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let number = i128::from_str_radix(digits, radix).ok()?;
    i64::try_from(if negative { -number } else { number }).ok()
}

fn fraction(text: &str) -> Option<f64> {
    match text {
        ".nan" | ".NaN" | ".NAN" => Some(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => Some(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => Some(f64::NEG_INFINITY),
        _ => {
            let plain = text.replace('_', "");
            let number =
                plain.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E'));
            number.then(|| plain.parse().ok()).flatten()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_gos() {
        for (text, number) in [
            ("900", 900),
            ("+900", 900),
            ("-1", -1),
            ("9_00", 900),
            ("0x384", 900),
            ("0o1604", 900),
            ("01604", 900),
            ("0b11", 3),
            // Not octal, so a number with a fraction of nothing.
            ("0900", 900),
            ("900.7", 900),
            ("9e2", 900),
            ("0", 0),
        ] {
            assert_eq!(yaml_int(text), Some(number), "{text}");
        }
        for text in [
            "",
            "x",
            "900a",
            "--1",
            "+-1",
            ".nan",
            ".inf",
            "99999999999999999999",
            "0x",
            "2024-01-01",
            "infinity",
        ] {
            assert_eq!(yaml_int(text), None, "{text}");
        }
    }

    #[test]
    fn truths_are_gos() {
        for (text, truth) in [("true", true), ("FALSE", false), ("yes", true), ("Off", false), ("n", false)] {
            assert_eq!(yaml_truth(text), Some(truth), "{text}");
        }
        for text in ["tRue", "1", "", "yEs"] {
            assert_eq!(yaml_truth(text), None, "{text}");
        }
        assert_eq!(yaml_word("true"), None);
    }
}
