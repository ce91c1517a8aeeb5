//! A text as a tree of values, each with its line, before the values are interpreted.
//!
//! JSON and YAML become the same tree. What YAML leaves open (is `900` a number, is `yes` a truth?) stays open here:
//! [`crate::decode`] decides when it needs a number or a truth.

mod error;
mod json;
mod text;
mod value;
mod yaml;

pub use self::error::{MAX_BYTES, ReadError};
use self::text::line_at;
pub(crate) use self::text::{printable, shorten};
pub(crate) use self::value::{DocumentValue, ObjectMember, ValueKind};
use crate::MapFormat;

/// A text, and for whom it is.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) format: MapFormat,
    pub(crate) root: DocumentValue,
    /// The line of a second YAML document in the same file, which no reader takes.
    pub(crate) second: Option<u32>,
    /// The first place that is not JSON proper, if any: a comment, a trailing comma. Always `None` for YAML.
    pub(crate) not_strict: Option<(u32, String)>,
}

impl Document {
    /// Reads the bytes of a file called `name`, for `format` or, without one, for the reader that they look to be for.
    pub(crate) fn read(name: &str, bytes: &[u8], format: Option<MapFormat>) -> Result<Self, ReadError> {
        if bytes.len() > MAX_BYTES {
            return Err(ReadError::TooLarge);
        }
        let text = std::str::from_utf8(bytes)
            .map_err(|error| ReadError::NotText { line: line_at(bytes, error.valid_up_to()) })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        match format {
            Some(MapFormat::Headscale) => Self::yaml(text),
            Some(format) => Self::json(text, Some(format)),
            None if has_extension(name, &["yaml", "yml"]) => Self::yaml(text),
            None if json::looks_like(text) || has_extension(name, &["json", "hujson"]) => {
                Self::json(text, None)
            }
            None => Self::yaml(text),
        }
    }

    fn yaml(text: &str) -> Result<Self, ReadError> {
        let (root, second) = yaml::parse(text)?;
        Ok(Self { format: MapFormat::Headscale, root, second, not_strict: None })
    }

    fn json(text: &str, format: Option<MapFormat>) -> Result<Self, ReadError> {
        let root = json::parse(text)?;
        let format = format.unwrap_or_else(|| match root.member("derpMap") {
            Some(_) => MapFormat::TailscalePolicy,
            None => MapFormat::Json,
        });
        let not_strict = if format == MapFormat::Json { json::not_strict(text) } else { None };
        Ok(Self { format, root, second: None, not_strict })
    }
}

fn has_extension(name: &str, extensions: &[&str]) -> bool {
    name.rsplit_once('.')
        .is_some_and(|(_, extension)| extensions.iter().any(|known| extension.eq_ignore_ascii_case(known)))
}
