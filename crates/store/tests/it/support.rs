//! What the tests share: a key ring that can be opened again, stamps from a real gate, and records in the clear.

use std::path::Path;
use std::sync::Arc;

use arcadia_crypto::{KeyRing, RootKey, SystemEntropy, WrappedKey};
use arcadia_kernel::{
    AuditEvent, AuditStamp, Authenticator, Clock, Decider, Decision, DenyReason, FixedClock, Gate, Limits,
    Outcome, Question, Reason, TokenFault, VerifiedToken,
};
use arcadia_store::{
    AuditDraft, AuditRow, ChainHead, Record, Settled, SqliteBackend, SqliteOptions, Store, StoreError,
    StoreReader, Table,
};

pub const NOW: i64 = 1_790_000_000;
pub const PAGE_BYTES: u64 = 4096;
/// Of the write-ahead log.
pub const FRAME_BYTES: u64 = 24 + PAGE_BYTES;
pub const LOG_HEADER_BYTES: u64 = 32;

#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Note {
    pub text: String,
}

impl Record for Note {}

pub const NOTES: Table<str, Note> = Table::new("notes");

pub fn note(text: &str) -> Note {
    Note { text: text.to_owned() }
}

pub fn clock() -> Arc<dyn Clock> {
    Arc::new(FixedClock::at_epoch_seconds(NOW))
}

/// The key ring of a directory: made at first, the same from then on, as a site does it.
pub fn ring(directory: &Path) -> KeyRing {
    let root = RootKey::from_bytes(&[7; 32]);
    let file = directory.join("keys.json");
    if let Ok(stored) = std::fs::read(&file) {
        let wrapped: Vec<WrappedKey> = serde_json::from_slice(&stored).unwrap();
        return KeyRing::from_wrapped(&root, &wrapped).unwrap();
    }
    let ring = KeyRing::generate(&SystemEntropy).unwrap();
    let wrapped = ring.wrapped(&root, &SystemEntropy).unwrap();
    std::fs::write(file, serde_json::to_vec(&wrapped).unwrap()).unwrap();
    ring
}

pub fn try_open(directory: &Path) -> Result<Store, StoreError> {
    Store::open(&directory.join("site"), ring(directory), clock(), Arc::new(SystemEntropy))
}

pub fn open(directory: &Path) -> Store {
    try_open(directory).unwrap()
}

/// Writes a copy of the store in `directory` to `to`, as another process does it.
pub fn copy(directory: &Path, to: &Path) -> Result<(), StoreError> {
    let reader = StoreReader::open(&directory.join("site"), ring(directory), Arc::new(SystemEntropy))?;
    reader.copy(to)
}

pub fn sqlite(directory: &Path) -> SqliteBackend {
    SqliteBackend::open(&directory.join("site"), &SqliteOptions::default(), NOW).unwrap()
}

/// The end of the last whole frame of the log's present generation.
pub fn used(log: &Path) -> u64 {
    let bytes = std::fs::read(log).unwrap();
    let salts = &bytes[16..24];
    let frames = bytes[LOG_HEADER_BYTES as usize..].chunks_exact(FRAME_BYTES as usize);
    LOG_HEADER_BYTES + FRAME_BYTES * frames.take_while(|frame| &frame[8..16] == salts).count() as u64
}

pub fn in_memory() -> Store {
    Store::in_memory(clock(), Arc::new(SystemEntropy))
}

struct Nobody;

impl Authenticator for Nobody {
    fn verify(&self, _: &str, _: i64) -> Result<VerifiedToken, TokenFault> {
        Err(TokenFault::Malformed)
    }
}

impl Decider for Nobody {
    fn decide(&self, _: &Question<'_>) -> Decision {
        Decision::Denied(DenyReason::NoAssignment)
    }
}

pub fn stamp(store: &Store) -> AuditStamp {
    let gate = Gate {
        authenticator: Arc::new(Nobody),
        decider: Arc::new(Nobody),
        audit: store.audit_sink(),
        clock: clock(),
        entropy: Arc::new(SystemEntropy),
        limits: Limits::default(),
    };
    Arc::new(gate).as_system(Reason::Sweep).stamp().clone()
}

/// The record of a read that was refused.
pub fn refusal(store: &Store, operation: &str) -> AuditEvent {
    let mut event = stamp(store).record().event;
    event.operation = operation.to_owned().into();
    event.outcome = Outcome::Denied { reason: "no role assignment allows it".to_owned() };
    event
}

/// Records in the clear, and the number of the last as the head.
pub struct Plain {
    last: u64,
    drafted: Vec<AuditRow>,
}

impl ChainHead for Plain {
    fn settled(&self) -> Result<Settled, StoreError> {
        Ok(Settled {
            head: self.last.to_be_bytes().to_vec(),
            records: self.drafted.clone(),
            next: Arc::new(Self { last: self.last, drafted: Vec::new() }),
            held: None,
        })
    }
}

pub fn plain(head: Option<&dyn ChainHead>) -> Plain {
    let Some(head) = head else { return Plain { last: 0, drafted: Vec::new() } };
    let kept = head.settled().unwrap();
    Plain { last: u64::from_be_bytes(kept.head.try_into().unwrap()), drafted: kept.records }
}

pub fn draft(text: &str) -> AuditDraft {
    let text = text.as_bytes().to_vec();
    Box::new(move |head, _| {
        let mut head = plain(head);
        head.last += 1;
        head.drafted.push(AuditRow { sequence: head.last, hash: [1; 32], records: text.clone() });
        Ok(Arc::new(head))
    })
}
