//! `credentials.json`: the first user and the first service principal, made at the first start.

use arcadia_crypto::Zeroizing;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::files::{read_json, write_json};
use super::{DataDir, SiteFault, SiteRecord};

/// Both are Owner of the first subscription and Global Administrator of the tenant, and hold no data role. Kept in a
/// file that only its owner reads; the directory itself has hashes only.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Credentials {
    pub tenant_id: Uuid,
    pub subscription_id: Uuid,
    pub client_id: Uuid,
    #[serde(with = "hidden")]
    pub client_secret: Zeroizing<String>,
    /// The user principal name.
    pub user: String,
    #[serde(with = "hidden")]
    pub password: Zeroizing<String>,
}

impl Credentials {
    pub fn load(data: &DataDir) -> Result<Option<Self>, SiteFault> {
        read_json(&data.credentials_file())
    }

    pub fn expect(data: &DataDir) -> Result<Self, SiteFault> {
        if let Some(known) = Self::load(data)? {
            return Ok(known);
        }
        SiteRecord::expect(data)?;
        Err(SiteFault::CredentialsMissing(data.credentials_file()))
    }

    pub fn save(&self, data: &DataDir) -> Result<(), SiteFault> {
        write_json(&data.credentials_file(), self)
    }
}

/// Text that is wiped when dropped.
mod hidden {
    use arcadia_crypto::Zeroizing;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &Zeroizing<String>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(value)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Zeroizing<String>, D::Error> {
        String::deserialize(from).map(Zeroizing::new)
    }
}
