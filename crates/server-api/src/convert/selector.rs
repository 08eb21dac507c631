use std::fmt::Write;

use steeple_datastore::Match;
use steeple_datastore::model::Selector;
use steeple_proto::spire::api::types;

use super::ConvertError;

/// In the order given.
pub fn selectors_from_proto(selectors: &[types::Selector]) -> Result<Vec<Selector>, ConvertError> {
    selectors
        .iter()
        .map(|s| {
            if s.r#type.is_empty() {
                return Err(ConvertError::SelectorType);
            }
            if s.r#type.contains(':') {
                return Err(ConvertError::SelectorTypeColon);
            }
            if s.value.is_empty() {
                return Err(ConvertError::SelectorValue);
            }
            Ok(Selector::new(s.r#type.as_str(), s.value.as_str()))
        })
        .collect()
}

pub fn selectors_to_proto(selectors: &[Selector]) -> Vec<types::Selector> {
    selectors.iter().map(|s| types::Selector { r#type: s.kind.clone(), value: s.value.clone() }).collect()
}

/// `type:value,type:value` as SPIRE's audit log has it.
pub fn selectors_text(selectors: &[types::Selector]) -> String {
    let mut text = String::new();
    for (i, s) in selectors.iter().enumerate() {
        let _ = write!(text, "{}{}:{}", if i == 0 { "" } else { "," }, s.r#type, s.value);
    }
    text
}

/// The numbers of selector and federates-with matches are the same. `None` = a number nobody defined.
pub fn match_from_proto(behavior: i32) -> Option<Match> {
    use types::selector_match::MatchBehavior;
    Some(match MatchBehavior::try_from(behavior).ok()? {
        MatchBehavior::MatchExact => Match::Exact,
        MatchBehavior::MatchSubset => Match::Subset,
        MatchBehavior::MatchSuperset => Match::Superset,
        MatchBehavior::MatchAny => Match::Any,
    })
}
