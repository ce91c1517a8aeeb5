//! Scalars of YAML, as `yaml.v3` takes them once it knows the wanted type (its `resolve.go`, `decode.go`).

use crate::document::ValueKind;

/// What a scalar is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scalar {
    Null,
    Truth(bool),
    Int(i64),
    /// A number above that.
    LargeInt(u64),
    Float(f64),
    /// Anything else, and the text that it stands for.
    Text(String),
}

/// What a scalar is, or nothing if it is not what its tag says: then `yaml.v3` gives up.
pub(super) fn resolve(kind: &ValueKind) -> Option<Scalar> {
    match kind {
        ValueKind::Null => Some(Scalar::Null),
        ValueKind::Plain(text) => Some(untagged(text)),
        ValueKind::Text(text) => Some(Scalar::Text(text.clone())),
        ValueKind::Tagged(tag, text) => tagged(tag, text),
        _ => None,
    }
}

fn tagged(tag: &str, text: &str) -> Option<Scalar> {
    match (tag, untagged(text)) {
        ("!!null", found @ Scalar::Null)
        | ("!!bool", found @ Scalar::Truth(_))
        | ("!!int", found @ (Scalar::Int(_) | Scalar::LargeInt(_)))
        | ("!!float", found @ Scalar::Float(_)) => Some(found),
        ("!!float", Scalar::Int(number)) => Some(Scalar::Float(number as f64)),
        ("!!null" | "!!bool" | "!!int" | "!!float", _) => None,
        ("!!timestamp", _) => is_timestamp(text).then(|| Scalar::Text(text.to_owned())),
        ("!!binary", _) => Some(Scalar::Text(String::from_utf8_lossy(&base64(text)?).into_owned())),
        _ => Some(Scalar::Text(text.to_owned())),
    }
}

/// A scalar without quotes and without a tag.
fn untagged(text: &str) -> Scalar {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Scalar::Null,
        "true" | "True" | "TRUE" => Scalar::Truth(true),
        "false" | "False" | "FALSE" => Scalar::Truth(false),
        _ => number(text).unwrap_or_else(|| Scalar::Text(text.to_owned())),
    }
}

/// A text, which any scalar is but null: what is written, or what is encoded.
pub(super) fn yaml_text(kind: &ValueKind) -> Option<String> {
    match (resolve(kind)?, kind) {
        (Scalar::Null, _) => None,
        (Scalar::Text(text), _) => Some(text),
        (_, ValueKind::Plain(text) | ValueKind::Tagged(_, text)) => Some(text.clone()),
        _ => None,
    }
}

/// A whole number: decimal, `0x`, `0o`, `0b`, octal by a leading 0, underscores anywhere; and a number with a fraction,
/// which loses it.
pub(super) fn yaml_int(kind: &ValueKind) -> Option<i64> {
    match resolve(kind)? {
        Scalar::Int(number) => Some(number),
        Scalar::Float(float) => int_of_float(float),
        _ => None,
    }
}

/// The whole number that a text would be without its quotes.
pub(super) fn plain_int(text: &str) -> Option<i64> {
    yaml_int(&ValueKind::Plain(text.to_owned()))
}

/// As Go converts on the usual processors, where a number out of range becomes the lowest.
fn int_of_float(float: f64) -> Option<i64> {
    const END: f64 = i64::MAX as f64;
    match float {
        float if float.is_nan() || float > END => None,
        float if (-END..END).contains(&float) => Some(float as i64),
        _ => Some(i64::MIN),
    }
}

/// A number.
pub(super) fn yaml_float(kind: &ValueKind) -> Option<f64> {
    match resolve(kind)? {
        Scalar::Int(number) => Some(number as f64),
        Scalar::LargeInt(number) => Some(number as f64),
        Scalar::Float(float) => Some(float),
        _ => None,
    }
}

/// true and false, and the words of YAML 1.1, which count in quotes, too.
pub(super) fn yaml_truth(kind: &ValueKind) -> Option<bool> {
    match resolve(kind)? {
        Scalar::Truth(truth) => Some(truth),
        Scalar::Text(word) => match &*word {
            "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
            "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

fn number(text: &str) -> Option<Scalar> {
    match text.bytes().next()? {
        b'.' => fraction(text),
        b'0'..=b'9' | b'+' | b'-' => {
            let plain = text.replace('_', "");
            whole(&plain).or_else(|| fraction(&plain)).or_else(|| whole_with_sign_inside(&plain))
        }
        _ => None,
    }
}

/// As Go's `strconv.ParseInt` and `ParseUint` with base 0.
fn whole(plain: &str) -> Option<Scalar> {
    let (sign, digits) = match plain.as_bytes().first()? {
        b'-' | b'+' => plain.split_at(1),
        _ => ("", plain),
    };
    let (digits, radix) = match digits.as_bytes() {
        [b'0', b'x' | b'X', _, ..] => (&digits[2..], 16),
        [b'0', b'o' | b'O', _, ..] => (&digits[2..], 8),
        [b'0', b'b' | b'B', _, ..] => (&digits[2..], 2),
        [b'0', _, ..] => (&digits[1..], 8),
        _ => (digits, 10),
    };
    if !digits.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    let number = i128::from_str_radix(digits, radix).ok()?;
    signed(if sign == "-" { -number } else { number }, sign.is_empty())
}

fn signed(number: i128, may_be_large: bool) -> Option<Scalar> {
    match (i64::try_from(number), u64::try_from(number)) {
        (Ok(number), _) => Some(Scalar::Int(number)),
        (Err(_), Ok(number)) if may_be_large => Some(Scalar::LargeInt(number)),
        _ => None,
    }
}

/// `0b-1` and `0o-7`, which `yaml.v3` takes.
fn whole_with_sign_inside(plain: &str) -> Option<Scalar> {
    let (digits, radix) = match plain.strip_prefix("0b") {
        Some(digits) => (digits, 2),
        None => (plain.strip_prefix("0o")?, 8),
    };
    signed(i128::from_str_radix(digits, radix).ok()?, !digits.starts_with(['+', '-']))
}

fn fraction(text: &str) -> Option<Scalar> {
    let float = match text {
        ".nan" | ".NaN" | ".NAN" => f64::NAN,
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => f64::INFINITY,
        "-.inf" | "-.Inf" | "-.INF" => f64::NEG_INFINITY,
        _ => {
            let is_decimal =
                text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E'));
            // What is beyond the largest float is a text.
            is_decimal.then(|| text.parse().ok()).flatten().filter(|float: &f64| float.is_finite())?
        }
    };
    Some(Scalar::Float(float))
}

/// A date, or a date and a time, by their form.
fn is_timestamp(text: &str) -> bool {
    let (date, time) = match text.find(['T', 't', ' ']) {
        Some(end) => (&text[..end], Some(&text[end + 1..])),
        None => (text, None),
    };
    let digits = |part: &str, lengths: std::ops::RangeInclusive<usize>| {
        lengths.contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit())
    };
    let parts: Vec<_> = date.split('-').collect();
    let is_date = matches!(parts[..], [year, month, day]
        if digits(year, 4..=4) && digits(month, 1..=2) && digits(day, 1..=2));
    is_date && time.is_none_or(|time| time.split(':').count() >= 3)
}

/// Base64 with padding, as Go reads it: line ends do not count.
fn base64(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|b| !matches!(b, b'\r' | b'\n')).collect();
    if !digits.len().is_multiple_of(4) {
        return None;
    }
    let padding = digits.iter().rev().take_while(|b| **b == b'=').count();
    if padding > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3);
    for group in digits[..digits.len() - padding].chunks(4) {
        let mut bits = 0_u32;
        for digit in group {
            let value = match digit {
                b'A'..=b'Z' => digit - b'A',
                b'a'..=b'z' => digit - b'a' + 26,
                b'0'..=b'9' => digit - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(value);
        }
        bits <<= 6 * (4 - group.len());
        bytes.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn truth(text: &str) -> Option<bool> {
        yaml_truth(&ValueKind::Plain(text.to_owned()))
    }

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
            ("0b-11", -3),
            ("-0b11", -3),
            // Not octal, so a number with a fraction of nothing.
            ("0900", 900),
            ("900.7", 900),
            ("9e2", 900),
            ("0", 0),
            ("-0", 0),
            ("-99999999999999999999", i64::MIN),
            ("-.inf", i64::MIN),
        ] {
            assert_eq!(plain_int(text), Some(number), "{text}");
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
            "0x-1",
            "-0b-1",
            "2024-01-01",
            "infinity",
            "1e999",
        ] {
            assert_eq!(plain_int(text), None, "{text}");
        }
    }

    #[test]
    fn truths_are_gos() {
        for (text, expected) in
            [("true", true), ("FALSE", false), ("yes", true), ("Off", false), ("n", false)]
        {
            assert_eq!(truth(text), Some(expected), "{text}");
        }
        for text in ["tRue", "1", "", "yEs"] {
            assert_eq!(truth(text), None, "{text}");
        }
        assert_eq!(yaml_truth(&ValueKind::Text("true".to_owned())), None, "in quotes it is a text");
        assert_eq!(yaml_truth(&ValueKind::Text("yes".to_owned())), Some(true), "and a word all the same");
    }

    #[test]
    fn tags_are_obeyed() {
        let tagged = |tag: &str, text: &str| resolve(&ValueKind::Tagged(tag.to_owned(), text.to_owned()));
        assert_eq!(tagged("!!int", "5"), Some(Scalar::Int(5)));
        assert_eq!(tagged("!!int", "5.0"), None);
        assert_eq!(tagged("!!float", "5"), Some(Scalar::Float(5.0)));
        assert_eq!(tagged("!!bool", "yes"), None);
        assert_eq!(tagged("!!null", ""), Some(Scalar::Null));
        assert_eq!(tagged("!mine", "5"), Some(Scalar::Text("5".to_owned())));
        for (text, decoded) in [("Zm9vYg==", "foob"), ("Zm9v", "foo"), ("Zm8=", "fo"), ("", "")] {
            assert_eq!(tagged("!!binary", text), Some(Scalar::Text(decoded.to_owned())), "{text}");
        }
        assert_eq!(tagged("!!binary", "Zm9"), None);
        assert!(tagged("!!timestamp", "2024-1-2").is_some() && tagged("!!timestamp", "x").is_none());
    }
}
