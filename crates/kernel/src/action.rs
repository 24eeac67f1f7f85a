//! An action is a type: its name, and whether it acts on a resource or on the data in it.

use std::borrow::Cow;

/// Which side of a role's permission block an action is matched against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Plane {
    /// `actions` / `notActions` of a role definition: the resource itself.
    Control,
    /// `dataActions` / `notDataActions` of a role definition: what the resource holds.
    Data,
    /// Directory roles and default directory permissions; never Azure RBAC.
    Directory,
    /// Not subject to a role: open, signed-in or system operations.
    None,
}

/// What an operation does, in the words of the provider's operation list.
pub trait Action: Send + Sync + 'static {
    const PLANE: Plane;
    /// For example `Microsoft.KeyVault/vaults/secrets/getSecret/action`.
    fn name() -> Cow<'static, str>;
}

/// Declares an action type: `action!(pub GetSecret, Data, "Microsoft.KeyVault/vaults/secrets/getSecret/action");`
#[macro_export]
macro_rules! action {
    ($(#[$doc:meta])* $vis:vis $type:ident, $plane:ident, $name:literal) => {
        $(#[$doc])*
        $vis struct $type;
        impl $crate::Action for $type {
            const PLANE: $crate::Plane = $crate::Plane::$plane;
            fn name() -> ::std::borrow::Cow<'static, str> {
                ::std::borrow::Cow::Borrowed($name)
            }
        }
    };
}

action!(
    /// Open to anyone: discovery documents, key sets, the token endpoint (which checks its own credentials).
    pub Open, None, "open"
);
action!(
    /// Any caller with a token for this service; the handler shows only what the caller owns or may read.
    pub SignedIn, None, "signedIn"
);
action!(
    /// Work the site does by itself, with a named reason.
    pub SystemWork, None, "system"
);
