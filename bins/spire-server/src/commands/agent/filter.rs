//! The filter flags of `agent list` and `agent count`.

use steeple_cli::{Context as _, Failure};
use steeple_config::{Flag, FlagSet, go_quote};
use steeple_proto::spire::api::server::agent::v1 as api;
use steeple_proto::spire::api::types;

use super::time;
use crate::commands::args::{self, Match};

pub struct Filter {
    selectors: Flag<Vec<String>>,
    attestation_type: Flag<String>,
    can_reattest: Flag<Option<bool>>,
    banned: Flag<Option<bool>>,
    expires_before: Flag<String>,
    match_selectors: Flag<String>,
}

impl Filter {
    pub fn new(flags: &mut FlagSet) -> Self {
        Self {
            selectors: flags.strings(
                "selector",
                "Only agents that match these selectors, as type:value; may be given again",
            ),
            attestation_type: flags.string(
                "attestationType",
                "",
                "Only agents attested this way, as join_token",
            ),
            can_reattest: flags
                .tri_bool("canReattest", "true: only agents that can reattest; false: only others"),
            banned: flags.tri_bool("banned", "true: only banned agents; false: only others"),
            expires_before: flags.string(
                "expiresBefore",
                "",
                "Only agents whose SVID ends before this time, as \"2006-01-02 15:04:05 -0700 -07\"",
            ),
            match_selectors: flags.string("matchSelectorsOn", Match::DEFAULT, Match::ABOUT),
        }
    }

    pub fn for_list(&self) -> Result<api::list_agents_request::Filter, Failure> {
        let selectors = self.selectors.get();
        let by_selector_match = if selectors.is_empty() {
            None
        } else {
            let match_on = Match::parse(&self.match_selectors.get())
                .ok_or_else(|| Failure::new("unsupported match behavior"))?;
            let selectors = selectors.iter().map(|text| {
                args::selector(text).context(format!("error parsing selector {}", go_quote(text)))
            });
            let selectors = selectors.collect::<Result<_, _>>()?;
            Some(types::SelectorMatch { selectors, r#match: match_on as i32 })
        };
        let by_expires_before = self.expires_before.get();
        if !by_expires_before.is_empty() {
            time::check(&by_expires_before)
                .map_err(|why| Failure::new(format!("date is not valid: {why}")))?;
        }
        Ok(api::list_agents_request::Filter {
            by_attestation_type: self.attestation_type.get(),
            by_selector_match,
            by_banned: self.banned.get(),
            by_can_reattest: self.can_reattest.get(),
            by_expires_before,
        })
    }

    pub fn for_count(&self) -> Result<api::count_agents_request::Filter, Failure> {
        let api::list_agents_request::Filter {
            by_attestation_type,
            by_selector_match,
            by_banned,
            by_can_reattest,
            by_expires_before,
        } = self.for_list()?;
        Ok(api::count_agents_request::Filter {
            by_attestation_type,
            by_selector_match,
            by_banned,
            by_can_reattest,
            by_expires_before,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(args: &[&str]) -> Result<api::list_agents_request::Filter, Failure> {
        let mut flags = FlagSet::new("agent list");
        let filter = Filter::new(&mut flags);
        flags.parse(args).unwrap();
        filter.for_list()
    }

    #[test]
    fn three_states() {
        assert_eq!(filter(&[]).unwrap(), api::list_agents_request::Filter::default());
        assert_eq!(filter(&["-banned", "true", "-canReattest", "false"]).unwrap().by_banned, Some(true));
        assert_eq!(filter(&["-banned", "maybe"]).unwrap().by_banned, None);
    }

    #[test]
    fn times() {
        let failure = filter(&["-expiresBefore", "x"]).unwrap_err().to_string();
        assert!(failure.starts_with("date is not valid: parsing time \"x\" as "), "{failure}");
        assert!(filter(&["-expiresBefore", "2026-11-23 16:00:00 +0100 +01"]).is_ok());
    }

    #[test]
    fn bad_ones() {
        let error = |args: &[&str]| filter(args).unwrap_err().to_string();
        assert_eq!(error(&["-selector", "a:b", "-matchSelectorsOn", "nope"]), "unsupported match behavior");
        assert_eq!(
            error(&["-selector", "a"]),
            "error parsing selector \"a\": selector \"a\" must be formatted as type:value"
        );
    }
}
