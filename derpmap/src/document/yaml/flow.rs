//! Sequences and mappings in flow: `[a, b]` and `{a: b}`.

use super::composer::{Composer, Properties, scalar_identity};
use super::token::TokenKind;
use crate::document::error::ReadError;
use crate::document::value::{DocumentValue, ObjectMember, ValueKind};

impl Composer {
    pub(super) fn flow_sequence(&mut self) -> Result<ValueKind, ReadError> {
        let mut values = Vec::new();
        loop {
            if self.skip(&TokenKind::FlowSequenceEnd)? {
                return Ok(ValueKind::List(values));
            }
            if !values.is_empty() {
                if !self.skip(&TokenKind::FlowEntry)? {
                    return Err(self.error("did not find expected ',' or ']'"));
                }
                if self.skip(&TokenKind::FlowSequenceEnd)? {
                    return Ok(ValueKind::List(values));
                }
            }
            let start = self.here()?;
            let value = match self.skip(&TokenKind::Key)? {
                true => self.collection(start, Properties::default(), Self::single_pair)?,
                false => self.node(false, false)?,
            };
            values.push(value);
        }
    }

    /// `[a: b]`, which is a list of a map.
    fn single_pair(&mut self) -> Result<ValueKind, ReadError> {
        let here = self.here()?;
        let (key, identity) = match self.peek()? {
            TokenKind::Value | TokenKind::FlowEntry | TokenKind::FlowSequenceEnd => {
                // `yaml.v3` passes over the token, too.
                self.next()?;
                (self.empty(here)?, scalar_identity(""))
            }
            _ => self.identified(false, false)?,
        };
        let value = self.flow_value(&TokenKind::FlowSequenceEnd)?;
        Ok(ValueKind::Map(vec![ObjectMember { key, value, identity }]))
    }

    pub(super) fn flow_mapping(&mut self) -> Result<ValueKind, ReadError> {
        let mut members = Vec::new();
        loop {
            if self.skip(&TokenKind::FlowMappingEnd)? {
                return Ok(ValueKind::Map(members));
            }
            if !members.is_empty() {
                if !self.skip(&TokenKind::FlowEntry)? {
                    return Err(self.error("did not find expected ',' or '}'"));
                }
                if self.skip(&TokenKind::FlowMappingEnd)? {
                    return Ok(ValueKind::Map(members));
                }
            }
            let has_key = self.skip(&TokenKind::Key)?;
            let here = self.here()?;
            let (key, identity) = match self.peek()? {
                TokenKind::Value | TokenKind::FlowEntry | TokenKind::FlowMappingEnd if has_key => {
                    (self.empty(here)?, scalar_identity(""))
                }
                _ => self.identified(false, false)?,
            };
            let value = match has_key {
                true => self.flow_value(&TokenKind::FlowMappingEnd)?,
                false => {
                    let here = self.here()?;
                    self.empty(here)?
                }
            };
            members.push(ObjectMember { key, value, identity });
        }
    }

    fn flow_value(&mut self, end: &TokenKind) -> Result<DocumentValue, ReadError> {
        let here = self.here()?;
        if !self.skip(&TokenKind::Value)?
            || matches!(self.peek()?, TokenKind::FlowEntry)
            || self.peek()? == end
        {
            return self.empty(here);
        }
        self.node(false, false)
    }
}
