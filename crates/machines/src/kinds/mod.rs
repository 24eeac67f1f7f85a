//! One file a resource kind.

pub mod machine;
