//! `site.json`: what a site is called and where it listens, for the next start and for the command line.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::files::{read_json, write_json};
use super::{DataDir, SiteFault};

const SCHEMA: u32 = 1;

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
    /// The proxy's port at the last start; tried first at the next, so that shells keep working.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

impl SiteRecord {
    pub fn new(tenant_id: Uuid, subscription_id: Uuid, user_domain: String, now: Timestamp) -> Self {
        Self {
            schema: SCHEMA,
            made_by: crate::VERSION.to_owned(),
            created_at: now,
            tenant_id,
            subscription_id,
            user_domain,
            port: None,
        }
    }

    pub fn load(data: &DataDir) -> Result<Option<Self>, SiteFault> {
        let path = data.record_file();
        let Some(record) = read_json::<Self>(&path)? else { return Ok(None) };
        if record.schema > SCHEMA {
            return Err(SiteFault::Newer { path, schema: record.schema });
        }
        Ok(Some(record))
    }

    /// The record of a site that must exist.
    pub fn expect(data: &DataDir) -> Result<Self, SiteFault> {
        Self::load(data)?.ok_or_else(|| SiteFault::NoSite(data.path().to_owned()))
    }

    pub fn save(&self, data: &DataDir) -> Result<(), SiteFault> {
        write_json(&data.record_file(), self)
    }
}
