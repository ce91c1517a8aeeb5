//! Values, as a reader takes them that asks for a certain type.

use super::{Field, IsRead, MapDecoder, Reading, scalar};
use crate::MapFormat;
use crate::code::FindingCode;
use crate::document::ValueKind;
use crate::finding::Finding;

impl MapDecoder {
    pub(super) fn int(&mut self, field: &Field<'_>, place: &str, into: &mut i64) -> IsRead {
        let read = match &field.value.kind {
            ValueKind::Null => return IsRead::Yes,
            ValueKind::Number(text) => text.parse().ok(),
            kind if self.format == MapFormat::Headscale => scalar::yaml_int(kind),
            _ => None,
        };
        if let Some(number) = read {
            *into = number;
            if let ValueKind::Plain(text) = &field.value.kind {
                let name = self.format.spell(field.name);
                self.number_form(&name, text, number, place, field.line);
            }
            return IsRead::Yes;
        }
        self.wrong_type(field, place, "a whole number");
        let meant = match &field.value.kind {
            ValueKind::Number(text) | ValueKind::Text(text) => scalar::plain_int(text),
            _ => None,
        };
        self.meant(meant, into)
    }

    pub(super) fn float(&mut self, field: &Field<'_>, place: &str, into: &mut f64) -> IsRead {
        let read = match &field.value.kind {
            ValueKind::Null => return IsRead::Yes,
            // Go refuses what is beyond the largest float; parsing makes infinity of it.
            ValueKind::Number(text) => text.parse().ok().filter(|number: &f64| number.is_finite()),
            kind if self.format == MapFormat::Headscale => scalar::yaml_float(kind),
            _ => None,
        };
        if let Some(number) = read {
            *into = number;
            return IsRead::Yes;
        }
        self.wrong_type(field, place, "a number");
        let meant = match &field.value.kind {
            ValueKind::Text(text) => text.parse().ok(),
            _ => None,
        };
        self.meant(meant, into)
    }

    pub(super) fn truth(&mut self, field: &Field<'_>, place: &str, into: &mut bool) -> IsRead {
        let read = match &field.value.kind {
            ValueKind::Null => return IsRead::Yes,
            ValueKind::Bool(truth) => Some(*truth),
            kind if self.format == MapFormat::Headscale => scalar::yaml_truth(kind),
            _ => None,
        };
        if let Some(truth) = read {
            *into = truth;
            return IsRead::Yes;
        }
        self.wrong_type(field, place, "true or false");
        let meant = match &field.value.kind {
            ValueKind::Text(text) => scalar::yaml_truth(&ValueKind::Plain(text.clone())),
            _ => None,
        };
        self.meant(meant, into)
    }

    pub(super) fn text(&mut self, field: &Field<'_>, place: &str, into: &mut String) -> IsRead {
        let read = match &field.value.kind {
            ValueKind::Null => return IsRead::Yes,
            kind => scalar::yaml_text(kind),
        };
        if let Some(text) = read {
            *into = text;
            return IsRead::Yes;
        }
        self.wrong_type(field, place, "a text in quotes");
        let meant = match &field.value.kind {
            ValueKind::Number(text) => Some(text.clone()),
            _ => None,
        };
        self.meant(meant, into)
    }

    /// Takes what the author means. Without that nothing more is known of the member.
    fn meant<T>(&self, meant: Option<T>, into: &mut T) -> IsRead {
        match meant {
            Some(meant) if self.reading == Reading::AsMeant => {
                *into = meant;
                IsRead::Yes
            }
            _ => IsRead::No,
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

    /// Reports digits that look like one number and are another.
    pub(super) fn number_form(&mut self, what: &str, text: &str, number: i64, place: &str, line: u32) {
        let plain = text.replace('_', "");
        let why = match (plain.parse::<i64>(), plain.parse::<f64>()) {
            (Ok(decimal), _) if decimal != number => "digits behind a 0 are octal",
            (Err(_), Ok(float)) if float != number as f64 => "what does not fit into a whole number is lost",
            _ => return,
        };
        self.findings.push(
            Finding::warning(FindingCode::NumberForm, format!("{what} is {text}, which is {number}"))
                .at(place, line)
                .effect(format!("{why}: Headscale reads {number}"))
                .fix(format!("write {number}, or the number that is meant")),
        );
    }

    pub(super) fn refusal(&self) -> &'static str {
        match self.format {
            MapFormat::Headscale => "Headscale refuses the whole file and does not start",
            MapFormat::Json => "clients and derp.urls refuse the whole map",
            MapFormat::TailscalePolicy => "the whole map is refused",
        }
    }
}
