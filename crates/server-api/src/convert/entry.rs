use steeple_datastore::EntryMask;
use steeple_datastore::model::{AdditionalAttributes, Entry};
use steeple_proto::spire::api::types;
use steeple_spiffe::{TrustDomain, x509};

use super::{
    ConvertError, MAX_HINT_LEN, id_to_proto, member_id_from_proto, selectors_from_proto, selectors_to_proto,
    workload_id_from_proto,
};

pub fn entry_to_proto(entry: &Entry) -> types::Entry {
    entry_to_proto_masked(entry, None)
}

/// Builds only what the mask asks for; the ID is always there.
pub fn entry_to_proto_masked(entry: &Entry, mask: Option<&types::EntryMask>) -> types::Entry {
    let mask = mask.unwrap_or(&ALL);
    types::Entry {
        id: entry.id.clone(),
        spiffe_id: mask.spiffe_id.then(|| id_to_proto(&entry.spiffe_id)),
        parent_id: mask.parent_id.then(|| id_to_proto(&entry.parent_id)),
        selectors: if mask.selectors { selectors_to_proto(&entry.selectors) } else { Vec::new() },
        x509_svid_ttl: if mask.x509_svid_ttl { entry.x509_svid_ttl } else { 0 },
        federates_with: if mask.federates_with {
            entry.federates_with.iter().map(|td| td.name().to_owned()).collect()
        } else {
            Vec::new()
        },
        admin: mask.admin && entry.admin,
        downstream: mask.downstream && entry.downstream,
        expires_at: if mask.expires_at { entry.expires_at } else { 0 },
        dns_names: if mask.dns_names { entry.dns_names.clone() } else { Vec::new() },
        revision_number: if mask.revision_number { entry.revision_number } else { 0 },
        store_svid: mask.store_svid && entry.store_svid,
        jwt_svid_ttl: if mask.jwt_svid_ttl { entry.jwt_svid_ttl } else { 0 },
        hint: if mask.hint { entry.hint.clone() } else { String::new() },
        created_at: if mask.created_at { entry.created_at } else { 0 },
        additional_attributes: entry.additional.filter(|_| mask.additional_attributes).map(|a| {
            types::entry::AdditionalAttributes {
                disable_x509_svid_prefetch: a.disable_x509_svid_prefetch,
                jwt_svid_include_jti: a.jwt_svid_include_jti,
            }
        }),
    }
}

/// The same of an entry that nobody else holds: its texts are moved.
pub fn entry_into_proto_masked(mut entry: Entry, mask: Option<&types::EntryMask>) -> types::Entry {
    let (id, hint) = (std::mem::take(&mut entry.id), std::mem::take(&mut entry.hint));
    let (selectors, dns_names) = (std::mem::take(&mut entry.selectors), std::mem::take(&mut entry.dns_names));
    let mut out = entry_to_proto_masked(&entry, mask);
    out.id = id;
    let mask = mask.unwrap_or(&ALL);
    if mask.selectors {
        out.selectors =
            selectors.into_iter().map(|s| types::Selector { r#type: s.kind, value: s.value }).collect();
    }
    if mask.dns_names {
        out.dns_names = dns_names;
    }
    if mask.hint {
        out.hint = hint;
    }
    out
}

/// `mask` = `None` takes every field. With a mask, fields outside it are neither read nor checked: their
/// place is held by harmless values that the store ignores under the same mask.
pub fn entry_from_proto(
    td: &TrustDomain,
    entry: &types::Entry,
    mask: Option<&types::EntryMask>,
) -> Result<Entry, ConvertError> {
    let mask = mask.unwrap_or(&ALL);
    let parent_id = if mask.parent_id {
        member_id_from_proto(td, entry.parent_id.as_ref()).map_err(|e| ConvertError::ParentId(Box::new(e)))?
    } else {
        td.id()
    };
    let spiffe_id = if mask.spiffe_id {
        workload_id_from_proto(td, entry.spiffe_id.as_ref())
            .map_err(|e| ConvertError::EntryId(Box::new(e)))?
    } else {
        td.id()
    };
    let mut dns_names = Vec::new();
    if mask.dns_names {
        for name in &entry.dns_names {
            x509::validate_dns_name(name).map_err(|e| ConvertError::DnsName(e.to_string()))?;
            dns_names.push(name.clone());
        }
    }
    let mut federates_with = Vec::new();
    if mask.federates_with {
        for name in &entry.federates_with {
            federates_with.push(TrustDomain::new(name).map_err(ConvertError::FederatesWith)?);
        }
    }
    let mut selectors = Vec::new();
    if mask.selectors {
        if entry.selectors.is_empty() {
            return Err(ConvertError::NoSelectors);
        }
        selectors = selectors_from_proto(&entry.selectors)?;
    }
    if mask.hint && entry.hint.len() > MAX_HINT_LEN {
        return Err(ConvertError::Hint);
    }
    Ok(Entry {
        id: entry.id.clone(),
        spiffe_id,
        parent_id,
        selectors,
        x509_svid_ttl: if mask.x509_svid_ttl { entry.x509_svid_ttl } else { 0 },
        jwt_svid_ttl: if mask.jwt_svid_ttl { entry.jwt_svid_ttl } else { 0 },
        federates_with,
        admin: mask.admin && entry.admin,
        downstream: mask.downstream && entry.downstream,
        expires_at: if mask.expires_at { entry.expires_at } else { 0 },
        dns_names,
        // SPIRE stores the revision a creator gives only when it migrates; a created entry starts at 0.
        revision_number: if mask.revision_number { entry.revision_number } else { 0 },
        store_svid: mask.store_svid && entry.store_svid,
        hint: if mask.hint { entry.hint.clone() } else { String::new() },
        created_at: 0,
        additional: entry.additional_attributes.filter(|_| mask.additional_attributes).map(|a| {
            AdditionalAttributes {
                disable_x509_svid_prefetch: a.disable_x509_svid_prefetch,
                jwt_svid_include_jti: a.jwt_svid_include_jti,
            }
        }),
    })
}

/// `None` = every field.
pub fn entry_mask_from_proto(mask: Option<&types::EntryMask>) -> EntryMask {
    let mask = mask.unwrap_or(&ALL);
    EntryMask {
        spiffe_id: mask.spiffe_id,
        parent_id: mask.parent_id,
        selectors: mask.selectors,
        x509_svid_ttl: mask.x509_svid_ttl,
        jwt_svid_ttl: mask.jwt_svid_ttl,
        federates_with: mask.federates_with,
        admin: mask.admin,
        downstream: mask.downstream,
        expires_at: mask.expires_at,
        dns_names: mask.dns_names,
        store_svid: mask.store_svid,
        hint: mask.hint,
        additional: mask.additional_attributes,
    }
}

const ALL: types::EntryMask = types::EntryMask {
    spiffe_id: true,
    parent_id: true,
    selectors: true,
    x509_svid_ttl: true,
    federates_with: true,
    admin: true,
    downstream: true,
    expires_at: true,
    dns_names: true,
    revision_number: true,
    store_svid: true,
    jwt_svid_ttl: true,
    hint: true,
    created_at: true,
    additional_attributes: true,
};
