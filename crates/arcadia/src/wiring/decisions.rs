//! The one decision of a site.

use std::sync::Arc;

use arcadia_directory::Directory;
use arcadia_kernel::{Decider, Decision, DenyReason, Plane, Question};

/// Directory questions go to the directory, all others to roles and access policies; and to nobody before it is
/// clear that the caller still exists, is enabled and is of this tenant, and so does the application that has a
/// person's token.
pub struct SiteDecider {
    directory: Arc<Directory>,
    resources: Arc<dyn Decider>,
}

impl SiteDecider {
    pub fn new(directory: Arc<Directory>, resources: Arc<dyn Decider>) -> Self {
        Self { directory, resources }
    }
}

impl Decider for SiteDecider {
    fn decide(&self, question: &Question<'_>) -> Decision {
        if !self.directory.stands(question.caller) {
            return Decision::Denied(DenyReason::NoSuchPrincipal);
        }
        match question.plane {
            Plane::Directory => self.directory.decide(question),
            Plane::Control | Plane::Data => self.resources.decide(question),
            // Nothing that is decided is on no plane.
            Plane::None => Decision::Denied(DenyReason::NoAssignment),
        }
    }
}
