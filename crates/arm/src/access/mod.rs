//! The access decision: who holds which role where, and what that allows.

mod condition;
mod explain;
mod index;
#[cfg(test)]
mod oracle;
mod pattern;
#[cfg(test)]
mod tests;

pub use condition::ConditionFault;
pub(crate) use condition::{
    Attributes, Condition, PRINCIPAL_ATTRIBUTE, PRINCIPAL_TYPE_ATTRIBUTE, ROLE_ATTRIBUTE, Source,
};
pub use explain::{Considered, Explanation, Verdict};
pub(crate) use index::Access;
