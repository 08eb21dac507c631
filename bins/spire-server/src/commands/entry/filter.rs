//! The filter flags of `entry show` and `entry count`.

use steeple_cli::{Context as _, Failure};
use steeple_config::{Flag, FlagSet, go_quote};
use steeple_proto::spire::api::server::entry::v1 as api;
use steeple_proto::spire::api::types;

use crate::commands::args::{self, Match};

pub struct Filter {
    pub parent_id: Flag<String>,
    pub spiffe_id: Flag<String>,
    pub selectors: Flag<Vec<String>>,
    downstream: Flag<bool>,
    federates_with: Flag<Vec<String>>,
    match_federates_with: Flag<String>,
    match_selectors: Flag<String>,
    hint: Flag<String>,
}

impl Filter {
    pub fn new(flags: &mut FlagSet) -> Self {
        Self {
            parent_id: flags.string("parentID", "", "Only entries with this parent ID"),
            spiffe_id: flags.string("spiffeID", "", "Only entries with this SPIFFE ID"),
            selectors: flags.strings(
                "selector",
                "Only entries that match these selectors, as type:value; may be given again",
            ),
            downstream: flags.bool("downstream", false, "Only entries of downstream servers"),
            federates_with: flags.strings(
                "federatesWith",
                "Only entries that federate with these trust domains; may be given again",
            ),
            match_federates_with: flags.string("matchFederatesWithOn", Match::DEFAULT, Match::ABOUT),
            match_selectors: flags.string("matchSelectorsOn", Match::DEFAULT, Match::ABOUT),
            hint: flags.string("hint", "", "Only entries with this hint"),
        }
    }

    pub fn for_list(&self) -> Result<api::list_entries_request::Filter, Failure> {
        let selectors = self.selectors.get();
        let by_selectors = if selectors.is_empty() {
            None
        } else {
            let match_on = parse_match(&self.match_selectors.get())?;
            let selectors = args::selectors(&selectors).context("error parsing selectors")?;
            Some(types::SelectorMatch { selectors, r#match: match_on as i32 })
        };
        let trust_domains = self.federates_with.get();
        let by_federates_with = if trust_domains.is_empty() {
            None
        } else {
            let match_on = parse_match(&self.match_federates_with.get())?;
            Some(types::FederatesWithMatch { trust_domains, r#match: match_on as i32 })
        };
        Ok(api::list_entries_request::Filter {
            by_parent_id: args::filter_id("parent ID", &self.parent_id.get())?,
            by_spiffe_id: args::filter_id("SPIFFE ID", &self.spiffe_id.get())?,
            by_selectors,
            by_federates_with,
            by_hint: Some(self.hint.get()).filter(|hint| !hint.is_empty()),
            // SPIRE sends it always; its server takes `false` for "no matter".
            by_downstream: Some(self.downstream.get()),
        })
    }

    pub fn for_count(&self) -> Result<api::count_entries_request::Filter, Failure> {
        let api::list_entries_request::Filter {
            by_spiffe_id,
            by_parent_id,
            by_selectors,
            by_federates_with,
            by_hint,
            by_downstream,
        } = self.for_list()?;
        Ok(api::count_entries_request::Filter {
            by_spiffe_id,
            by_parent_id,
            by_selectors,
            by_federates_with,
            by_hint,
            by_downstream,
        })
    }
}

fn parse_match(text: &str) -> Result<Match, Failure> {
    Match::parse(text).ok_or_else(|| Failure::new(format!("match behavior {} unknown", go_quote(text))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(args: &[&str]) -> Result<api::list_entries_request::Filter, Failure> {
        let mut flags = FlagSet::new("entry show");
        let filter = Filter::new(&mut flags);
        flags.parse(args).unwrap();
        filter.for_list()
    }

    #[test]
    fn nothing_given_filters_nothing() {
        let filter = filter(&[]).unwrap();
        let expected = api::list_entries_request::Filter { by_downstream: Some(false), ..Default::default() };
        assert_eq!(filter, expected);
    }

    #[test]
    fn everything_given() {
        let filter = filter(&[
            "-parentID=spiffe://td/p",
            "-selector",
            "a:b",
            "-matchSelectorsOn",
            "any",
            "-federatesWith",
            "x",
            "-hint",
            "h",
            "-downstream",
        ])
        .unwrap();
        assert_eq!(filter.by_parent_id.unwrap().path, "/p");
        assert_eq!(
            filter.by_selectors.unwrap().r#match,
            types::selector_match::MatchBehavior::MatchAny as i32
        );
        let federates = filter.by_federates_with.unwrap();
        assert_eq!(federates.r#match, types::federates_with_match::MatchBehavior::MatchSuperset as i32);
        assert_eq!((filter.by_hint.as_deref(), filter.by_downstream), (Some("h"), Some(true)));
    }

    #[test]
    fn bad_ones() {
        let error = |args: &[&str]| filter(args).unwrap_err().to_string();
        assert_eq!(
            error(&["-selector", "a:b", "-matchSelectorsOn", "nope"]),
            "match behavior \"nope\" unknown"
        );
        assert_eq!(
            error(&["-selector", "a"]),
            "error parsing selectors: selector \"a\" must be formatted as type:value"
        );
    }
}
