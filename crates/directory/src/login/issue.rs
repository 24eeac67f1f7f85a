//! Tokens: their claims and the answer that carries them.

use std::sync::Arc;

use arcadia_kernel::{ArmId, Entropy, EntropyExt as _, Fault, RequestHead};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::directory::Directory;
use crate::login::client::{Client, Proof};
use crate::login::resource::{Resource, Wanted};
use crate::model::{DEFAULT_USER_ROLE, PrincipalType, ServicePrincipal, Tenant, User};

const LIFETIME_SECONDS: i64 = 3600;
const MANAGED_IDENTITY_LIFETIME_SECONDS: i64 = 24 * 60 * 60;
const ID_TOKEN_LIFETIME_SECONDS: i64 = 3600;
const CLAIMS_PARAMETER_BYTES_MAX: usize = 4096;

/// The form of the endpoint that was asked, which is also the form of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

/// Everything about a token but whom it is for.
pub(crate) struct Issue<'a> {
    pub directory: &'a Directory,
    pub tenant: Arc<Tenant>,
    pub version: Version,
    pub client: &'a Client,
    pub proof: Proof,
    pub wanted: &'a Wanted,
    pub resource: Resource,
    pub now: i64,
    /// The request's `claims` parameter.
    pub claims: Option<&'a str>,
    pub client_info: bool,
    pub head: &'a RequestHead,
}

/// A person's sign-in, as tokens tell of it.
pub(crate) struct SignIn {
    pub user: Arc<User>,
    pub signed_in_seconds: i64,
    pub nonce: Option<String>,
    pub refresh_token: Option<String>,
}

impl Issue<'_> {
    /// The answer for an application in its own name.
    pub(crate) fn for_principal(&self, principal: &ServicePrincipal) -> Result<Value, Fault> {
        self.resource.check_assignment()?;
        let is_machine = principal.kind == PrincipalType::ManagedIdentity;
        let lifetime = if is_machine { MANAGED_IDENTITY_LIFETIME_SECONDS } else { LIFETIME_SECONDS };
        let mut claims = self.common_claims(lifetime);
        claims.insert("idtyp".into(), "app".into());
        claims.insert("oid".into(), principal.id.to_string().into());
        claims.insert("sub".into(), principal.id.to_string().into());
        if self.resource.token_version == 1 {
            claims.insert("idp".into(), self.directory.issuer_v1(self.tenant.id).into());
        }
        if let Some(resource_id) = principal.resource_id.as_ref().filter(|_| is_machine) {
            claims.insert("xms_mirid".into(), machine_resource(resource_id).into());
            claims.insert("xms_az_rid".into(), machine_resource(resource_id).into());
        }
        let token = self.directory.signer()?.sign(&claims).map_err(Fault::internal)?;
        Ok(Value::Object(self.answer(token, lifetime)))
    }

    /// The answer for a person through the client.
    pub(crate) fn for_user(&self, sign_in: &SignIn) -> Result<Value, Fault> {
        let delegated = self.wanted.delegated(&self.resource, self.client)?;
        let signer = self.directory.signer()?;
        let mut claims = self.common_claims(LIFETIME_SECONDS);
        self.add_user_claims(&mut claims, &sign_in.user, &delegated);
        let token = signer.sign(&claims).map_err(Fault::internal)?;
        let mut answer = self.answer(token, LIFETIME_SECONDS);
        let scope = match self.version {
            Version::V1 => delegated,
            Version::V2 => self.wanted.answered(&delegated),
        };
        answer.insert("scope".into(), scope.into());
        if let Some(refresh_token) = &sign_in.refresh_token {
            answer.insert("refresh_token".into(), refresh_token.as_str().into());
            if self.client.is_family() {
                answer.insert("foci".into(), "1".into());
            }
        }
        if self.wanted.openid {
            let id_token = signer.sign(&self.id_claims(sign_in)).map_err(Fault::internal)?;
            answer.insert("id_token".into(), id_token.into());
        }
        if self.client_info {
            let info = json!({ "uid": sign_in.user.id, "utid": self.tenant.id }).to_string();
            answer.insert("client_info".into(), arcadia_crypto::b64url(info.as_bytes()).into());
        }
        Ok(Value::Object(answer))
    }

    fn common_claims(&self, lifetime: i64) -> Map<String, Value> {
        let entropy = &*self.directory.entropy;
        let tenant = self.tenant.id;
        let issuer = match self.resource.token_version {
            2 => self.directory.issuer_v2(tenant),
            _ => self.directory.issuer_v1(tenant),
        };
        let (party, proof, version) = match self.resource.token_version {
            2 => ("azp", "azpacr", "2.0"),
            _ => ("appid", "appidacr", "1.0"),
        };
        let mut claims = Map::new();
        let mut add = |name: &str, value: Value| claims.insert(name.to_owned(), value);
        add("aud", self.resource.audience.as_str().into());
        add("iss", issuer.into());
        add("iat", self.now.into());
        add("nbf", self.now.into());
        add("exp", (self.now + lifetime).into());
        add("aio", arcadia_crypto::b64(&random_bytes::<36>(entropy)).into());
        add(party, self.client.app_id.to_string().into());
        add(proof, self.proof.claim().into());
        add("rh", format!("1.A{}.", entropy.token(33)).into());
        add("tid", tenant.to_string().into());
        add("uti", entropy.token(16).into());
        add("ver", version.into());
        add("xms_tcdt", self.tenant.created_seconds.into());
        if self.claims.is_some_and(claims_continuous_evaluation) {
            add("xms_cc", json!(["CP1"]));
        }
        claims
    }

    fn add_user_claims(&self, claims: &mut Map<String, Value>, user: &User, delegated: &str) {
        let mut add = |name: &str, value: Value| claims.insert(name.to_owned(), value);
        add("idtyp", "user".into());
        add("oid", user.id.to_string().into());
        add("sub", pairwise(user.id, self.client.app_id).into());
        add("name", user.display_name.as_str().into());
        add("scp", delegated.into());
        if let Some(remote) = self.head.remote {
            add("ipaddr", remote.to_string().into());
        }
        if self.resource.token_version == 2 {
            add("preferred_username", user.upn.as_str().into());
            return;
        }
        add("acr", "1".into());
        add("amr", json!(["pwd"]));
        add("upn", user.upn.as_str().into());
        add("unique_name", user.upn.as_str().into());
        for (claim, property) in [("given_name", "givenName"), ("family_name", "surname")] {
            if let Some(Value::String(text)) = user.profile.get(property) {
                add(claim, text.as_str().into());
            }
        }
        let snapshot = self.directory.snapshot();
        let mut roles: Vec<Uuid> = snapshot.roles_of(user.id).collect();
        for group in snapshot.transitive_groups_of(user.id) {
            roles.extend(snapshot.roles_of(group));
        }
        roles.push(DEFAULT_USER_ROLE);
        roles.sort();
        roles.dedup();
        add("wids", json!(roles));
    }

    fn id_claims(&self, sign_in: &SignIn) -> Map<String, Value> {
        let user = &sign_in.user;
        let tenant = self.tenant.id;
        let mut claims = Map::new();
        let mut add = |name: &str, value: Value| claims.insert(name.to_owned(), value);
        add("aud", self.client.app_id.to_string().into());
        add("iat", self.now.into());
        add("nbf", self.now.into());
        add("exp", (self.now + ID_TOKEN_LIFETIME_SECONDS).into());
        add("auth_time", sign_in.signed_in_seconds.into());
        add("name", user.display_name.as_str().into());
        add("oid", user.id.to_string().into());
        add("sub", pairwise(user.id, self.client.app_id).into());
        add("tid", tenant.to_string().into());
        add("uti", self.directory.entropy.token(16).into());
        add("preferred_username", user.upn.as_str().into());
        if let Some(nonce) = &sign_in.nonce {
            add("nonce", nonce.as_str().into());
        }
        match self.version {
            Version::V2 => {
                add("iss", self.directory.issuer_v2(tenant).into());
                add("ver", "2.0".into());
            }
            Version::V1 => {
                add("iss", self.directory.issuer_v1(tenant).into());
                add("ver", "1.0".into());
                add("upn", user.upn.as_str().into());
                add("unique_name", user.upn.as_str().into());
            }
        }
        claims
    }

    /// Version 1.0 answers write numbers as text and repeat the resource.
    fn answer(&self, access_token: String, lifetime: i64) -> Map<String, Value> {
        let mut answer = Map::new();
        answer.insert("token_type".into(), "Bearer".into());
        let expires_in = lifetime - 1;
        match self.version {
            Version::V2 => {
                answer.insert("expires_in".into(), expires_in.into());
                answer.insert("ext_expires_in".into(), expires_in.into());
            }
            Version::V1 => {
                answer.insert("expires_in".into(), expires_in.to_string().into());
                answer.insert("ext_expires_in".into(), expires_in.to_string().into());
                answer.insert("expires_on".into(), (self.now + lifetime).to_string().into());
                answer.insert("not_before".into(), self.now.to_string().into());
                answer.insert("resource".into(), self.wanted.resource.as_str().into());
            }
        }
        answer.insert("access_token".into(), access_token.into());
        answer
    }
}

fn random_bytes<const N: usize>(entropy: &dyn Entropy) -> [u8; N] {
    let mut bytes = [0; N];
    entropy.fill(&mut bytes);
    bytes
}

/// An identifier of the person that differs from application to application.
pub(crate) fn pairwise(user: Uuid, client: Uuid) -> String {
    arcadia_crypto::b64url(&arcadia_crypto::hmac_sha256(user.as_bytes(), client.as_bytes()))
}

/// A resource identifier as machine tokens write it: with `resourcegroups` in lower case.
fn machine_resource(id: &ArmId) -> String {
    let lowered = id.segments().map(|segment| {
        if segment.eq_ignore_ascii_case("resourceGroups") { "resourcegroups" } else { segment }
    });
    lowered.flat_map(|segment| ["/", segment]).collect()
}

/// Whether the client says, in its `claims` parameter, that it understands claims challenges (`CP1`).
fn claims_continuous_evaluation(parameter: &str) -> bool {
    if parameter.len() > CLAIMS_PARAMETER_BYTES_MAX {
        return false;
    }
    let Ok(value) = serde_json::from_str::<Value>(parameter) else { return false };
    let values = value.pointer("/access_token/xms_cc/values").and_then(Value::as_array);
    values.is_some_and(|values| values.iter().any(|value| value.as_str() == Some("CP1")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_resource_group_segment_is_lowered() {
        let id = ArmId::parse(
            "/subscriptions/S/resourceGroups/RG/providers/Microsoft.HybridCompute/machines/Ubuntu-01",
        );
        assert_eq!(
            machine_resource(&id.unwrap()),
            "/subscriptions/S/resourcegroups/RG/providers/Microsoft.HybridCompute/machines/Ubuntu-01"
        );
    }

    #[test]
    fn cp1_is_recognized_and_junk_is_not() {
        assert!(claims_continuous_evaluation(r#"{"access_token":{"xms_cc":{"values":["CP1"]}}}"#));
        for junk in ["", "{", "[]", r#"{"access_token":{"xms_cc":{"values":"CP1"}}}"#, &"[".repeat(4000)] {
            assert!(!claims_continuous_evaluation(junk));
        }
    }

    #[test]
    fn subjects_differ_by_application() {
        let [a, b, c] = [1, 2, 3].map(Uuid::from_u128);
        assert_ne!(pairwise(a, b), pairwise(a, c));
        assert_eq!(pairwise(a, b), pairwise(a, b));
    }
}
