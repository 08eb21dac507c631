//! Where `entry create` and `entry update` take entries from: flags, or a JSON file.

use steeple_cli::gojson::{self, Object};
use steeple_cli::{Context as _, Failure, Io};
use steeple_config::{Flag, FlagSet};
use steeple_proto::spire::api::types;
use steeple_spiffe::TrustDomain;

use crate::commands::args;

/// The flags both commands have.
pub struct Input {
    pub entry_id: Flag<String>,
    pub parent_id: Flag<String>,
    pub spiffe_id: Flag<String>,
    pub data: Flag<String>,
    pub selectors: Flag<Vec<String>>,
    pub federates_with: Flag<Vec<String>>,
    x509_svid_ttl: Flag<i64>,
    /// Older SPIRE's name of `-x509SVIDTTL`, still in many guides.
    ttl: Flag<i64>,
    jwt_svid_ttl: Flag<i64>,
    admin: Flag<bool>,
    store_svid: Flag<bool>,
    downstream: Flag<bool>,
    expiry: Flag<i64>,
    dns_names: Flag<Vec<String>>,
    hint: Flag<String>,
    pub disable_x509_svid_prefetch: Flag<bool>,
    pub jwt_svid_include_jti: Flag<bool>,
}

impl Input {
    pub fn new(flags: &mut FlagSet, entry_id_about: &str) -> Self {
        Self {
            entry_id: flags.string("entryID", "", entry_id_about),
            parent_id: flags.string(
                "parentID",
                "",
                "SPIFFE ID of the parent: an agent, a node alias or a workload",
            ),
            spiffe_id: flags.string("spiffeID", "", "SPIFFE ID the workload gets"),
            data: flags.string(
                "data",
                "",
                "JSON file with entries, - for stdin; the other flags are not used then",
            ),
            selectors: flags.strings("selector", "Selector as type:value; may be given again"),
            federates_with: flags
                .strings("federatesWith", "Trust domain to federate with; may be given again"),
            x509_svid_ttl: flags.int(
                "x509SVIDTTL",
                0,
                "Lifetime of X509-SVIDs in seconds (0: the server's default)",
            ),
            ttl: flags.int("ttl", 0, "Older name of -x509SVIDTTL"),
            jwt_svid_ttl: flags.int(
                "jwtSVIDTTL",
                0,
                "Lifetime of JWT-SVIDs in seconds (0: the server's default)",
            ),
            admin: flags.bool("admin", false, "The workload may use the server's API"),
            store_svid: flags.bool(
                "storeSVID",
                false,
                "Agents put the SVID into a store instead of serving it",
            ),
            downstream: flags.bool("downstream", false, "The workload is a downstream server"),
            expiry: flags.int("entryExpiry", 0, "When the entry goes, in seconds since 1970 (0: never)"),
            dns_names: flags.strings("dns", "DNS name for the SVID; may be given again"),
            hint: flags.string("hint", "", "Hint for a workload with several SVIDs"),
            disable_x509_svid_prefetch: flags.bool(
                "disableX509SVIDPrefetch",
                false,
                "Agents get the X509-SVID when it is asked for, not before",
            ),
            jwt_svid_include_jti: flags.bool(
                "jwtSVIDIncludeJTI",
                false,
                "JWT-SVIDs carry a unique jti; agents do not cache them",
            ),
        }
    }

    /// What can be wrong with TTLs. Says what to write instead of `-ttl`.
    pub fn check_ttls(&self, io: &mut Io) -> Result<(), Failure> {
        if self.ttl.is_set() {
            if self.x509_svid_ttl.is_set() {
                return Err(Failure::new("-ttl is the older name of -x509SVIDTTL; give one of them"));
            }
            io.eprint(
                "Warning: -ttl is deprecated, it sets -x509SVIDTTL; use -x509SVIDTTL and -jwtSVIDTTL\n",
            );
        }
        if self.x509_ttl() < 0 {
            return Err(Failure::new("a positive x509-SVID TTL is required"));
        }
        if self.jwt_svid_ttl.get() < 0 {
            return Err(Failure::new("a positive JWT-SVID TTL is required"));
        }
        Ok(())
    }

    /// The entry the flags describe, but for its parent.
    pub fn entry(&self) -> Result<types::Entry, Failure> {
        Ok(types::Entry {
            id: self.entry_id.get(),
            spiffe_id: Some(args::spiffe_id(&self.spiffe_id.get())?),
            x509_svid_ttl: args::ttl("X509 SVID TTL", self.x509_ttl())?,
            jwt_svid_ttl: args::ttl("JWT SVID TTL", self.jwt_svid_ttl.get())?,
            selectors: args::selectors(&self.selectors.get())?,
            federates_with: self.federates_with.get(),
            admin: self.admin.get(),
            store_svid: self.store_svid.get(),
            downstream: self.downstream.get(),
            expires_at: self.expiry.get(),
            dns_names: self.dns_names.get(),
            hint: self.hint.get(),
            ..Default::default()
        })
    }

    fn x509_ttl(&self) -> i64 {
        self.ttl.get_if_set().unwrap_or_else(|| self.x509_svid_ttl.get())
    }
}

/// Entries of a JSON file: `{"entries": [{"spiffe_id": …, "parent_id": …, "selectors": [{"type", "value"}], …}]}`, read
/// as Go reads `spire.common.RegistrationEntries`.
pub fn parse(data: &[u8]) -> Result<Vec<types::Entry>, Failure> {
    let value = gojson::parse(data)?;
    let file = Object::top(&value, "common.RegistrationEntries")?;
    let read =
        file.objects("entries", "common.RegistrationEntry", |entry| entry.map(Raw::read).transpose())?;
    let count = read.len();
    let entry = |(i, raw): (usize, Option<Raw>)| {
        let entry = raw.ok_or_else(|| Failure::new("missing registration entry")).and_then(Raw::entry);
        // SPIRE does not say which of many.
        entry.map_err(|why| {
            if count > 1 { Failure::new(format!("{why} (entry {} of {count})", i + 1)) } else { why }
        })
    };
    read.into_iter().enumerate().map(entry).collect()
}

/// An entry as it stands in the file. The file's types are checked before any entry's IDs.
struct Raw {
    spiffe_id: String,
    parent_id: String,
    federates_with: Vec<String>,
    rest: types::Entry,
}

impl Raw {
    fn read(object: Object<'_>) -> Result<Self, Failure> {
        let selectors = object.objects("selectors", "common.Selector", |selector| {
            let Some(selector) = selector else { return Ok(types::Selector::default()) };
            Ok(types::Selector { r#type: selector.string("type")?, value: selector.string("value")? })
        })?;
        let attributes = "common.RegistrationEntry_AdditionalAttributes";
        let additional_attributes = object.object("additional_attributes", attributes, |attributes| {
            Ok(types::entry::AdditionalAttributes {
                disable_x509_svid_prefetch: attributes.bool("disable_x509_svid_prefetch")?,
                jwt_svid_include_jti: attributes.bool("jwt_svid_include_jti")?,
            })
        })?;
        Ok(Self {
            spiffe_id: object.string("spiffe_id")?,
            parent_id: object.string("parent_id")?,
            federates_with: object.strings("federates_with")?,
            rest: types::Entry {
                id: object.string("entry_id")?,
                selectors,
                x509_svid_ttl: object.int32("x509_svid_ttl")?,
                jwt_svid_ttl: object.int32("jwt_svid_ttl")?,
                admin: object.bool("admin")?,
                downstream: object.bool("downstream")?,
                expires_at: object.int64("entryExpiry")?,
                dns_names: object.strings("dns_names")?,
                revision_number: object.int64("revision_number")?,
                store_svid: object.bool("store_svid")?,
                hint: object.string("hint")?,
                created_at: object.int64("created_at")?,
                additional_attributes,
                ..Default::default()
            },
        })
    }

    fn entry(self) -> Result<types::Entry, Failure> {
        let federates_with = self.federates_with.iter().map(|name| {
            let trust_domain = TrustDomain::new(name).context("invalid federated trust domain")?;
            Ok(trust_domain.name().to_owned())
        });
        Ok(types::Entry {
            spiffe_id: Some(args::spiffe_id(&self.spiffe_id).context("invalid SPIFFE ID")?),
            parent_id: Some(args::spiffe_id(&self.parent_id).context("invalid parent ID")?),
            federates_with: federates_with.collect::<Result<_, Failure>>()?,
            ..self.rest
        })
    }
}

#[cfg(test)]
mod tests;
