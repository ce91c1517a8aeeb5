//! What a text has beyond JSON proper, and which reader refuses it.

use crate::MapFormat;
use crate::code::FindingCode;
use crate::document::{JsonFault, JsonFaultKind};
use crate::finding::Finding;

const POLICY_HAS_THEM: &str =
    "take them out, or put the map into the derpMap member of the policy file, which may have them";

pub(super) fn finding(format: MapFormat, fault: JsonFault) -> Option<Finding> {
    let is_policy = format == MapFormat::TailscalePolicy;
    let (what, fix) = match fault.kind {
        JsonFaultKind::Comment | JsonFaultKind::TrailingComma if is_policy => return None,
        // They are comments, and that is said.
        JsonFaultKind::OpenComment | JsonFaultKind::CommentText if !is_policy => return None,
        JsonFaultKind::StringText => return Some(string_text(fault.line)),
        JsonFaultKind::Comment => ("a comment", POLICY_HAS_THEM),
        JsonFaultKind::TrailingComma => ("a comma in front of the end", POLICY_HAS_THEM),
        JsonFaultKind::ByteOrderMark => {
            ("a byte order mark in front", "save the file as UTF-8 without a byte order mark")
        }
        JsonFaultKind::ControlCharacter => {
            ("a control character in a text", "take it out, or write an escape such as \\n or \\t")
        }
        JsonFaultKind::OpenComment => {
            ("a comment on a last line without an end", "end the last line, or take the comment out")
        }
        JsonFaultKind::CommentText => ("a comment that is not UTF-8", "save the file as UTF-8"),
    };
    let (name, effect) = match format {
        MapFormat::TailscalePolicy => ("HuJSON", "the whole policy file is refused"),
        MapFormat::Json | MapFormat::Headscale => ("JSON", "clients and derp.urls refuse the whole map"),
    };
    Some(
        Finding::error(FindingCode::NotStrictJson, format!("not {name} proper: {what}"))
            .at("", fault.line)
            .effect(effect)
            .fix(fix),
    )
}

fn string_text(line: u32) -> Finding {
    Finding::warning(FindingCode::NotUtf8, "a text is not UTF-8")
        .at("", line)
        .effect("readers put U+FFFD, a replacement character, for each byte that they cannot read")
        .fix("save the file as UTF-8")
}
