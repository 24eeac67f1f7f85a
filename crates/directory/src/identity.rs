//! Managed identities: service principals that belong to a resource, made and removed in its own commit.

use arcadia_crypto::{RsaPublicKey, b64};
use arcadia_kernel::{ArmId, Entropy, EntropyExt as _, Fault};
use arcadia_store::Batch;
use serde_json::Map;
use uuid::Uuid;

use crate::directory::Directory;
use crate::model::{
    Credentials, KeyCredential, KeyForm, MEMBERS, OWNERS, PRINCIPAL_APP_IDS, PRINCIPALS, PrincipalType,
    ROLES, Reference, ServicePrincipal,
};

/// A machine's key is replaced when the machine is connected anew, not by the calendar.
const KEY_LIFETIME_SECONDS: i64 = 10 * 365 * 24 * 60 * 60;

pub struct ManagedIdentitySpec {
    pub display_name: String,
    /// The resource it belongs to; tokens name it in `xms_mirid`.
    pub resource_id: ArmId,
    /// The key it proves itself by.
    pub public_key: RsaPublicKey,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManagedIdentity {
    pub object_id: Uuid,
    /// Its client id.
    pub app_id: Uuid,
}

impl Directory {
    /// Adds a new managed identity to `batch`. It exists once the batch is committed.
    pub fn plan_managed_identity(
        &self,
        batch: &mut Batch,
        spec: ManagedIdentitySpec,
        entropy: &dyn Entropy,
    ) -> Result<ManagedIdentity, Fault> {
        let now = self.clock.epoch_seconds();
        let identity = ManagedIdentity { object_id: entropy.uuid(), app_id: entropy.uuid() };
        let principal = ServicePrincipal {
            id: identity.object_id,
            app_id: identity.app_id,
            display_name: spec.display_name,
            kind: PrincipalType::ManagedIdentity,
            enabled: true,
            resource_id: Some(spec.resource_id),
            created_seconds: now,
            document: Map::new(),
            credentials: Credentials {
                passwords: Vec::new(),
                keys: vec![raw_key(&spec.public_key, now, entropy)],
            },
        };
        batch.require_absent(PRINCIPALS, &principal.id);
        batch.put(PRINCIPALS, &principal.id, &principal)?;
        batch.require_absent(PRINCIPAL_APP_IDS, &principal.app_id);
        batch.put(PRINCIPAL_APP_IDS, &principal.app_id, &Reference { id: principal.id })?;
        Ok(identity)
    }

    /// Removes a managed identity with its memberships. Nothing is added when it is gone already. 400 when nobody
    /// would be left who administers the directory.
    pub async fn plan_delete_identity(&self, batch: &mut Batch, object_id: Uuid) -> Result<(), Fault> {
        let Some(row) = self.store.get(PRINCIPALS, &object_id).await? else { return Ok(()) };
        if row.value.kind != PrincipalType::ManagedIdentity {
            let message = format!("The service principal '{object_id}' is not a managed identity.");
            return Err(Fault::conflict("Conflict", message));
        }
        self.store.observers_told().await?;
        batch.require_revision(PRINCIPALS, &object_id, row.revision);
        self.keep_administrator(batch, object_id).await?;
        self.plan_remove_principal(batch, &row.value);
        Ok(())
    }

    /// The service principal and every row that speaks of it.
    pub(crate) fn plan_remove_principal(&self, batch: &mut Batch, principal: &ServicePrincipal) {
        batch.delete(PRINCIPALS, &principal.id);
        batch.delete(PRINCIPAL_APP_IDS, &principal.app_id);
        self.plan_remove_links(batch, principal.id);
    }

    /// Memberships, ownerships and directory roles of an object, from either side.
    pub(crate) fn plan_remove_links(&self, batch: &mut Batch, id: Uuid) {
        let snapshot = self.snapshot();
        for group in snapshot.direct_groups_of(id) {
            batch.delete(MEMBERS, &(group, id));
        }
        for member in snapshot.members_of(id) {
            batch.delete(MEMBERS, &(id, member));
        }
        for owner in snapshot.owners_of(id) {
            batch.delete(OWNERS, &(id, owner));
        }
        for object in snapshot.owned_by(id) {
            batch.delete(OWNERS, &(object, id));
        }
        for role in snapshot.roles_of(id) {
            batch.delete(ROLES, &(role, id));
        }
    }
}

fn raw_key(key: &RsaPublicKey, now: i64, entropy: &dyn Entropy) -> KeyCredential {
    KeyCredential {
        key_id: entropy.uuid(),
        display_name: None,
        form: KeyForm::Raw,
        der: b64(&key.to_spki_der()),
        custom_key_identifier: None,
        start_seconds: now,
        end_seconds: now + KEY_LIFETIME_SECONDS,
    }
}
