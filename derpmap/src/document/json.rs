//! JSON with what HuJSON adds, comments and trailing commas: Tailscale's policy file has both.

use std::borrow::Cow;

use jsonc_parser::common::{Range, Ranged};
use jsonc_parser::errors::ParseErrorKind;
use jsonc_parser::{CollectOptions, ParseOptions, ast};
use serde::de::IgnoredAny;

use super::error::{MAX_DEPTH, MAX_VALUES, ReadError};
use super::text::number;
use super::value::{DocumentValue, ObjectMember, ValueKind};

/// The member of a policy file that holds the map.
const POLICY_MEMBER: &str = "\"derpMap\"";

/// Whether the text begins like a map in JSON: an object, or the member of a policy file on its own.
pub(super) fn looks_like(text: &str) -> bool {
    let start = after_comments(text);
    start.starts_with('{') || is_member(start)
}

/// What `derpmap --format tailscale-policy` prints: no object, but a member to be pasted into one.
fn is_member(start: &str) -> bool {
    start.get(..POLICY_MEMBER.len()).is_some_and(|start| start.eq_ignore_ascii_case(POLICY_MEMBER))
}

fn after_comments(text: &str) -> &str {
    let mut rest = text.trim_start();
    loop {
        let end = if rest.starts_with("//") {
            rest.find('\n')
        } else if rest.starts_with("/*") {
            rest.find("*/").map(|end| end + 2)
        } else {
            return rest;
        };
        rest = end.map_or("", |end| rest[end..].trim_start());
    }
}

pub(super) fn parse(text: &str) -> Result<DocumentValue, ReadError> {
    let start = after_comments(text);
    if start.is_empty() {
        return Err(ReadError::Empty);
    }
    // The braces add no line.
    let text = if is_member(start) { Cow::Owned(format!("{{{text}\n}}")) } else { Cow::Borrowed(text) };
    let options = ParseOptions {
        allow_comments: true,
        allow_trailing_commas: true,
        allow_loose_object_property_names: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    };
    let parsed =
        jsonc_parser::parse_to_ast(&text, &CollectOptions::default(), &options).map_err(|error| {
            let line = number(error.line_display());
            match error.kind() {
                ParseErrorKind::NestingDepthExceeded => ReadError::TooDeep { line },
                kind => {
                    ReadError::Syntax { line, language: "JSON", reason: super::printable(kind.to_string()) }
                }
            }
        })?;
    let mut lines = JsonLines { ends: text.match_indices('\n').map(|(end, _)| end).collect(), values: 0 };
    lines.value(parsed.value.ok_or(ReadError::Empty)?, MAX_DEPTH)
}

/// Returns where and why the text is not JSON proper, which is all that Go's `encoding/json` takes.
pub(super) fn not_strict(text: &str) -> Option<(u32, String)> {
    let error = serde_json::from_str::<IgnoredAny>(text).err()?;
    let at = text.split('\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
    let is_comment = at.as_bytes().get(error.column().saturating_sub(1)) == Some(&b'/');
    let reason = error.to_string();
    let reason = match reason.rsplit_once(" at line ") {
        _ if is_comment => "a comment",
        Some((reason, _)) => reason,
        None => &reason,
    };
    Some((number(error.line()), reason.to_owned()))
}

struct JsonLines {
    /// The positions of the line ends.
    ends: Vec<usize>,
    values: usize,
}

impl JsonLines {
    fn line(&self, range: Range) -> u32 {
        number(self.ends.partition_point(|end| *end < range.start) + 1)
    }

    fn value(&mut self, value: ast::Value<'_>, depth: usize) -> Result<DocumentValue, ReadError> {
        let line = self.line(value.range());
        let depth = depth.checked_sub(1).ok_or(ReadError::TooDeep { line })?;
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(ReadError::TooMany { line });
        }
        let kind = match value {
            ast::Value::NullKeyword(_) => ValueKind::Null,
            ast::Value::BooleanLit(literal) => ValueKind::Bool(literal.value),
            ast::Value::NumberLit(literal) => ValueKind::Number(literal.value.to_owned()),
            ast::Value::StringLit(literal) => ValueKind::Text(literal.value.into_owned()),
            ast::Value::Array(array) => ValueKind::List(
                array
                    .elements
                    .into_iter()
                    .map(|element| self.value(element, depth))
                    .collect::<Result<_, _>>()?,
            ),
            ast::Value::Object(object) => ValueKind::Map(
                object
                    .properties
                    .into_iter()
                    .map(|property| {
                        let line = self.line(property.range);
                        let key = DocumentValue { line, kind: ValueKind::Text(property.name.into_string()) };
                        Ok(ObjectMember { key, value: self.value(property.value, depth)? })
                    })
                    .collect::<Result<_, _>>()?,
            ),
        };
        Ok(DocumentValue { line, kind })
    }
}
