//! graph
use arcadia_kernel::Op;
pub struct Graph;
