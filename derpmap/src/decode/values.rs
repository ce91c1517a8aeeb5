//! What a value is to a reader that asks for a certain type.

use super::{Decoder, Field, Reading, scalar};
use crate::{
    Format,
    code::Code,
    document::{Kind, Value},
    finding::Finding,
};

impl Decoder {
    pub(super) fn int(&mut self, field: &Field<'_>, place: &str, into: &mut i64) {
        let read = match &field.value.kind {
            Kind::Null => return,
            Kind::Number(text) => text.parse().ok(),
            Kind::Plain(text) => scalar::yaml_int(text),
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
            Kind::Null => return,
            // Go refuses what is beyond the largest float; parsing makes infinity of it.
            Kind::Number(text) => text.parse().ok().filter(|number: &f64| number.is_finite()),
            Kind::Plain(text) => scalar::yaml_float(text),
            _ => None,
        };
        match read {
            Some(number) => *into = number,
            None => self.wrong_type(field, place, "a number"),
        }
    }

    pub(super) fn truth(&mut self, field: &Field<'_>, place: &str, into: &mut bool) {
        let read = match &field.value.kind {
            Kind::Null => return,
            Kind::Bool(truth) => Some(*truth),
            Kind::Plain(text) => scalar::yaml_truth(text),
            // The one place where yaml.v3 looks into quotes.
            Kind::Text(text) if self.format == Format::Headscale => scalar::yaml_word(text),
            _ => None,
        };
        match read {
            Some(truth) => *into = truth,
            None => self.wrong_type(field, place, "true or false"),
        }
    }

    pub(super) fn text(&mut self, field: &Field<'_>, place: &str, into: &mut String) {
        match &field.value.kind {
            Kind::Null => {}
            Kind::Text(text) | Kind::Plain(text) => into.clone_from(text),
            _ => {
                self.wrong_type(field, place, "a text in quotes");
                if self.reading == Reading::AsMeant {
                    *into = field.value.describe();
                }
            }
        }
    }

    pub(super) fn wrong_type(&mut self, field: &Field<'_>, place: &str, wanted: &str) {
        let quoted = matches!(&field.value.kind, Kind::Text(text) if text.parse::<f64>().is_ok());
        let code = if quoted && wanted.contains("number") { Code::QuotedNumber } else { Code::WrongType };
        let fix = match code {
            Code::QuotedNumber => "write it without quotes".to_owned(),
            _ => format!("write {wanted}"),
        };
        let message =
            format!("{} is {}, not {wanted}", self.format.spell(field.name), field.value.describe());
        self.findings
            .push(Finding::error(code, message).at(place, field.line).effect(self.refusal()).fix(fix));
    }

    pub(super) fn refusal(&self) -> &'static str {
        match self.format {
            Format::Headscale => "Headscale refuses the whole file and does not start",
            Format::Json => "clients and derp.urls refuse the whole map",
            Format::TailscalePolicy => "the whole map is refused",
        }
    }
}

/// The whole number that is behind quotes or has a fraction of nothing.
fn meant(value: &Value) -> Option<i64> {
    match &value.kind {
        Kind::Number(text) | Kind::Text(text) | Kind::Plain(text) => scalar::yaml_int(text),
        _ => None,
    }
}
