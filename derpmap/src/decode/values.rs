//! Values, as a reader takes them that asks for a certain type.

use super::{Field, MapDecoder, Reading, scalar};
use crate::MapFormat;
use crate::code::FindingCode;
use crate::document::{DocumentValue, ValueKind};
use crate::finding::Finding;

impl MapDecoder {
    pub(super) fn int(&mut self, field: &Field<'_>, place: &str, into: &mut i64) {
        let read = match &field.value.kind {
            ValueKind::Null => return,
            ValueKind::Number(text) => text.parse().ok(),
            ValueKind::Plain(text) => scalar::yaml_int(text),
            _ => None,
        };
        match read {
            Some(number) => *into = number,
            None => {
                self.wrong_type(field, place, "a whole number");
                if let (Some(meant), Reading::AsMeant) = (meant(field.value), self.reading) {
                    *into = meant;
                }
            }
        }
    }

    pub(super) fn float(&mut self, field: &Field<'_>, place: &str, into: &mut f64) {
        let read = match &field.value.kind {
            ValueKind::Null => return,
            // Go refuses what is beyond the largest float; parsing makes infinity of it.
            ValueKind::Number(text) => text.parse().ok().filter(|number: &f64| number.is_finite()),
            ValueKind::Plain(text) => scalar::yaml_float(text),
            _ => None,
        };
        match read {
            Some(number) => *into = number,
            None => self.wrong_type(field, place, "a number"),
        }
    }

    pub(super) fn truth(&mut self, field: &Field<'_>, place: &str, into: &mut bool) {
        let read = match &field.value.kind {
            ValueKind::Null => return,
            ValueKind::Bool(truth) => Some(*truth),
            ValueKind::Plain(text) => scalar::yaml_truth(text),
            // The one place where yaml.v3 looks into quotes.
            ValueKind::Text(text) if self.format == MapFormat::Headscale => scalar::yaml_word(text),
            _ => None,
        };
        match read {
            Some(truth) => *into = truth,
            None => self.wrong_type(field, place, "true or false"),
        }
    }

    pub(super) fn text(&mut self, field: &Field<'_>, place: &str, into: &mut String) {
        match &field.value.kind {
            ValueKind::Null => {}
            ValueKind::Text(text) | ValueKind::Plain(text) => into.clone_from(text),
            _ => {
                self.wrong_type(field, place, "a text in quotes");
                if self.reading == Reading::AsMeant {
                    *into = field.value.describe();
                }
            }
        }
    }

    pub(super) fn wrong_type(&mut self, field: &Field<'_>, place: &str, wanted: &str) {
        let quoted = matches!(&field.value.kind, ValueKind::Text(text) if text.parse::<f64>().is_ok());
        let code = if quoted && wanted.contains("number") {
            FindingCode::QuotedNumber
        } else {
            FindingCode::WrongType
        };
        let fix = match code {
            FindingCode::QuotedNumber => "write it without quotes".to_owned(),
            _ => format!("write {wanted}"),
        };
        let message =
            format!("{} is {}, not {wanted}", self.format.spell(field.name), field.value.describe());
        self.findings
            .push(Finding::error(code, message).at(place, field.line).effect(self.refusal()).fix(fix));
    }

    pub(super) fn refusal(&self) -> &'static str {
        match self.format {
            MapFormat::Headscale => "Headscale refuses the whole file and does not start",
            MapFormat::Json => "clients and derp.urls refuse the whole map",
            MapFormat::TailscalePolicy => "the whole map is refused",
        }
    }
}

/// The whole number that is behind quotes or has a fraction of nothing.
fn meant(value: &DocumentValue) -> Option<i64> {
    match &value.kind {
        ValueKind::Number(text) | ValueKind::Text(text) | ValueKind::Plain(text) => scalar::yaml_int(text),
        _ => None,
    }
}
