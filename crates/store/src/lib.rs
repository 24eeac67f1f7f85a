//! Typed, sealed, durable rows, and the audit log that is written with them.
//!
//! [`Store`] is what services use: typed [`Table`]s of [`Record`]s under ordered [`Key`]s, changed by
//! conditional [`Batch`]es. It seals every value before a [`Backend`] sees it (AES-256-GCM; the additional data
//! is the row's whole key, so a value moved to another row does not open), and chains an audit record into every
//! commit.
//!
//! What the seal does not hide: keys (names of tables, resources and secrets), sizes (those of audit records after
//! packing), revisions and times of writing. A row that was put back to an earlier state, removed or added while nobody
//! had the store open is found when it is opened. What nothing here can tell: that the whole store was put back to an
//! earlier state.

mod attempts;
mod audit;
mod backend;
mod batch;
mod error;
mod key;
mod memory;
mod observe;
mod piece;
mod read_only;
mod recent;
mod record;
mod reseal;
mod room;
mod rows;
mod seal;
mod sqlite;
mod store;

pub use attempts::Attempts;
pub use audit::AuditCheck;
pub use backend::{
    Announce, AuditDraft, AuditRow, BATCH_BYTES_MAX, BATCH_ROWS_MAX, Backend, ChainHead, Health,
    KEY_BYTES_MAX, MARK_TAG_BYTES, PAGE_BYTES_MAX, PAGE_ROWS_MAX, RawBatch, RawPage, RawRow, Requirement,
    Reseal, Revision, RowChange, RowMark, Settled, VALUE_BYTES_MAX, Watch,
};
pub use batch::Batch;
pub use error::{CommitError, StoreError};
pub use key::{Key, KeyWriter, Table};
pub use memory::MemoryBackend;
pub use observe::Change;
pub use read_only::{KeyCount, StoreReader};
pub use recent::Recent;
pub use record::Record;
pub use reseal::{ResealPass, ResealStep};
pub use room::{RESERVE_BYTES, free_bytes};
pub use seal::SEALS_MAX;
pub use sqlite::{SqliteBackend, SqliteOptions};
pub use store::{ALL_ROWS_MAX, Row, Store};
