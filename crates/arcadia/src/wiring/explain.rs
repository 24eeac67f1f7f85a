//! `POST {scope}/providers/Arcadia.Access/explain`: why somebody may or may not do something.
//!
//! Arcadia's own operation; Azure has none like it. Whoever may read the role assignments of a scope may ask about
//! itself, and who may read the directory about everybody.

use std::collections::HashSet;
use std::sync::Arc;

use arcadia_arm::{Arm, Explanation};
use arcadia_directory::{Directory, PrincipalFacts};
use arcadia_kernel::{
    ArmId, At, Caller, Decider, Decision, DenyReason, Fault, Json, Method, Op, Permit, Plane, Question,
    Reply, action, op,
};
use arcadia_keyvault::ALLOWED_BY_POLICY;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

const BODY_BYTES_MAX: usize = 16 * 1024;
const ACTION_CHARACTERS_MAX: usize = 256;

action!(
    /// What is needed to list role assignments, which tells the same in another form.
    pub ReadAssignments, Control, "Microsoft.Authorization/roleAssignments/read"
);

/// What is needed to be told of somebody else: an answer has names and groups, also of who has no assignment here.
const READ_DIRECTORY: &str = "microsoft.directory/directoryObjects/standard/read";
/// What a person's client for Graph may: all that the person may.
pub(super) const AS_USER: &str = "Directory.AccessAsUser.All";

/// Who is asked for an explanation.
pub struct Explainer {
    pub arm: Arc<Arm>,
    pub directory: Arc<Directory>,
    /// The site's whole decision, of which roles are a part.
    pub decider: Arc<dyn Decider>,
    /// Data actions of this site's services, folded: what is asked about a name is found without being told.
    pub data_actions: HashSet<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Asked {
    /// Object id, application id or user principal name.
    principal: String,
    action: String,
    /// Whether `action` is a data action; known actions need not say it.
    data_action: Option<bool>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    principal_name: String,
    /// Whether access policies decided, beside which no role counts: then no assignment is told.
    by_access_policies: bool,
    #[serde(flatten)]
    explanation: Explanation,
}

pub fn explain_ops(explainer: Arc<Explainer>) -> Vec<Op<Arm>> {
    let row = move |path| {
        let explainer = explainer.clone();
        op(
            "AccessExplain",
            Method::POST,
            path,
            move |_: At<Arm>, permit: Permit<ReadAssignments>, asked: Json<Asked>| {
                let explainer = explainer.clone();
                async move { explainer.answer(permit.caller(), permit.scope(), asked.value) }
            },
        )
        .body_bytes_max(BODY_BYTES_MAX)
    };
    vec![row("/{scope*}/providers/Arcadia.Access/explain")]
}

impl Explainer {
    fn answer(&self, asking: &Caller, scope: &ArmId, asked: Asked) -> Result<Reply, Fault> {
        if asked.action.is_empty() || asked.action.len() > ACTION_CHARACTERS_MAX || asked.action.contains('*')
        {
            let message = "The property 'action' must be one action without wildcards.";
            return Err(Fault::bad_request("InvalidAction", message));
        }
        let principal = self.principal(&asked.principal);
        let is_own = principal.as_ref().is_some_and(|principal| principal.object_id == asking.object_id);
        // Before it is told whether there is such a principal.
        if !is_own && !self.reads_directory(asking) {
            let message = "Ask about yourself, or with an identity that may read the directory: the answer has the \
                           principal's name and groups.";
            return Err(
                Fault::forbidden("AuthorizationFailed", message).denied("no directory role allows it")
            );
        }
        let principal = principal.ok_or_else(|| {
            let message = "The principal does not exist; name an object id, an application id or a user.";
            Fault::not_found("PrincipalNotFound", message)
        })?;
        let is_data =
            asked.data_action.unwrap_or_else(|| self.data_actions.contains(&asked.action.to_lowercase()));
        let plane = if is_data { Plane::Data } else { Plane::Control };
        let caller = self.caller(&principal);
        let question = Question { caller: &caller, action: &asked.action, plane, scope };
        let mut explanation = self.arm.explain(&question);
        // Roles are not the whole decision: vaults may have access policies instead, principals may be disabled.
        let decision = self.decider.decide(&question);
        let by_access_policies = match &decision {
            Decision::Allowed { by } => by.starts_with(ALLOWED_BY_POLICY),
            Decision::Denied(reason) => *reason == DenyReason::NoAccessPolicy,
        };
        (explanation.allowed, explanation.because) = match decision {
            Decision::Allowed { by } => (true, by.as_ref().to_owned()),
            Decision::Denied(reason) => (false, reason.to_string()),
        };
        if by_access_policies {
            explanation.considered.clear();
        }
        Reply::ok(&Answer { principal_name: caller.name, by_access_policies, explanation })
    }

    /// Whether Graph would tell. A token for Resource Manager does not say what a person's token for Graph would.
    fn reads_directory(&self, asking: &Caller) -> bool {
        let caller = Caller { delegated_scopes: Some(AS_USER.to_owned()), ..asking.clone() };
        let root = ArmId::root();
        let question =
            Question { caller: &caller, action: READ_DIRECTORY, plane: Plane::Directory, scope: &root };
        matches!(self.decider.decide(&question), Decision::Allowed { .. })
    }

    fn principal(&self, text: &str) -> Option<PrincipalFacts> {
        match Uuid::try_parse(text) {
            Ok(id) => self.directory.principal(id).or_else(|| self.directory.service_principal_of(id)),
            Err(_) => self.directory.user_named(text),
        }
    }

    /// The principal as a token would describe it.
    fn caller(&self, principal: &PrincipalFacts) -> Caller {
        let app_id = principal.app_id.unwrap_or_default();
        Caller {
            kind: principal.kind,
            tenant_id: self.directory.tenant().map(|tenant| tenant.id).unwrap_or_default(),
            object_id: principal.object_id,
            app_id,
            name: principal.upn.clone().unwrap_or_else(|| principal.display_name.clone()),
            resource_id: principal.resource_id.as_ref().map(ToString::to_string),
            issuer: self.directory.issuers().into_iter().next().unwrap_or_default(),
            delegated_scopes: None,
        }
    }
}
