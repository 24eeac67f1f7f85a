//! `site.json`: what a site is called and where it listens, for the next start and for the command line.

use std::net::IpAddr;

use arcadia_store::{AuditCheck, StoreError, StoreReader};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::files::{read_json, write_json};
use super::{DataDir, SiteFault};
use crate::names::SiteNames;

/// 2 has `domain`, without which a site of its own names would be taken for one of Azure's.
const SCHEMA: u32 = 2;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SiteRecord {
    pub schema: u32,
    /// The version that made the site.
    pub made_by: String,
    pub created_at: Timestamp,
    pub tenant_id: Uuid,
    pub subscription_id: Uuid,
    /// The domain of user names.
    pub user_domain: String,
    /// The domain of the site's own names; absent when it has Azure's. Chosen at the first start, for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// The proxy's port at the last start; tried first at the next, so that shells keep working.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The address of databases at the last start; tried first at the next, for the same reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database_address: Option<IpAddr>,
}

impl SiteRecord {
    pub fn new(
        tenant_id: Uuid,
        subscription_id: Uuid,
        user_domain: String,
        domain: Option<String>,
        now: Timestamp,
    ) -> Self {
        Self {
            // Older versions may run what they understand.
            schema: if domain.is_some() { SCHEMA } else { 1 },
            made_by: crate::VERSION.to_owned(),
            created_at: now,
            tenant_id,
            subscription_id,
            user_domain,
            domain,
            port: None,
            database_address: None,
        }
    }

    pub fn load(data: &DataDir) -> Result<Option<Self>, SiteFault> {
        let path = data.record_file();
        let Some(record) = read_json::<Self>(&path)? else {
            // The authority is made after the record is written, so where it is, a record was lost. Nobody may take that for
            // a site that is still to be founded, under whatever names are asked for then.
            let is_lost = data.ca_file().exists() || data.ca_key_file().exists();
            return if is_lost { Err(SiteFault::RecordMissing(path)) } else { Ok(None) };
        };
        if record.schema > SCHEMA {
            return Err(SiteFault::Newer { path, schema: record.schema });
        }
        Ok(Some(record))
    }

    pub fn names(&self) -> SiteNames {
        SiteNames::of(self.domain.as_deref())
    }

    /// The record of a site that must exist.
    pub fn expect(data: &DataDir) -> Result<Self, SiteFault> {
        if let Some(record) = Self::load(data)? {
            return Ok(record);
        }
        let (path, option) = (data.path().to_owned(), data.option());
        Err(match data.ring_file().exists() || data.store_file().exists() {
            true => SiteFault::Unfinished { path, option },
            false => SiteFault::NoSite { path, option },
        })
    }

    pub fn save(&self, data: &DataDir) -> Result<(), SiteFault> {
        write_json(&data.record_file(), self)
    }
    /// Walks the audit log of this site. Its founding left records, so a log without any has lost them, and all that
    /// could have told so with them.
    pub fn verify_log(&self, store: &StoreReader) -> Result<AuditCheck, StoreError> {
        let check = store.audit_verify()?;
        let is_lost = check.records == 0;
        Ok(AuditCheck { first_broken: check.first_broken.or(is_lost.then_some(1)), ..check })
    }
}
