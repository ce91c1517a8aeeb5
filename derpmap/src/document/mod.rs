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
pub(crate) use self::json::{JsonFault, JsonFaultKind};
pub(crate) use self::text::{printable, shorten};
pub(crate) use self::value::{DocumentValue, ObjectMember, ValueKind};
use crate::MapFormat;

/// A text, and for whom it is.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) format: MapFormat,
    pub(crate) root: DocumentValue,
    /// The line of what stands behind the first YAML document, such as a second one, which the reader does not take.
    pub(crate) rest: Option<u32>,
    /// What is not JSON proper. None for YAML.
    pub(crate) faults: Vec<JsonFault>,
}

impl Document {
    /// Reads the bytes of a file called `name`, for `format` or, without one, for the reader that they look to be for.
    pub(crate) fn read(name: &str, bytes: &[u8], format: Option<MapFormat>) -> Result<Self, ReadError> {
        if bytes.len() > MAX_BYTES {
            return Err(ReadError::TooLarge);
        }
        match format {
            Some(MapFormat::Headscale) => Self::yaml(bytes),
            Some(format) => Self::json(bytes, Some(format)),
            None if has_extension(name, &["yaml", "yml"]) => Self::yaml(bytes),
            None if json::looks_like(bytes) || has_extension(name, &["json", "jsonc", "hujson"]) => {
                Self::json(bytes, None)
            }
            None if bytes.trim_ascii().is_empty() => Err(ReadError::Empty),
            None => Self::yaml(bytes),
        }
    }

    fn yaml(bytes: &[u8]) -> Result<Self, ReadError> {
        let document = yaml::parse(bytes)?;
        // Nothing is to Headscale what `null` is: a map without regions.
        let root = document.root.unwrap_or(DocumentValue::new(1, ValueKind::Null));
        Ok(Self { format: MapFormat::Headscale, root, rest: document.rest, faults: Vec::new() })
    }

    fn json(bytes: &[u8], format: Option<MapFormat>) -> Result<Self, ReadError> {
        let text = json::parse(bytes, format != Some(MapFormat::Json))?;
        let format = format.unwrap_or_else(|| match text.root.member("derpMap") {
            Some(_) => MapFormat::TailscalePolicy,
            None => MapFormat::Json,
        });
        Ok(Self { format, root: text.root, rest: None, faults: text.faults })
    }
}

fn has_extension(name: &str, extensions: &[&str]) -> bool {
    name.rsplit_once('.')
        .is_some_and(|(_, extension)| extensions.iter().any(|known| extension.eq_ignore_ascii_case(known)))
}
