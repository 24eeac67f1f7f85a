//! The audit chain: each record's hash covers the one before it, so that none can be changed, removed or put
//! in between unseen.
//!
//! `hash(n) = SHA-256(hash(n-1) | n as 8 bytes big endian | record n as JSON)`, from `hash(0)` = 32 zero bytes.
//! Records are sealed under their number. The head, sealed apart, says which record is the last, so that
//! cutting off the end shows as well; and what the rows are ([`crate::rows`]).

use std::any::Any;
use std::ops::ControlFlow;
use std::sync::Arc;

use arcadia_crypto::{KeyRing, Wiped, sha256};
use arcadia_kernel::AuditEvent;

use crate::backend::{AuditDraft, AuditEntry, AuditRow, ChainHead};
use crate::rows::RowsSum;
use crate::seal::{Keys, Sealer};
use crate::sqlite::LogEnd;
use crate::{Revision, RowMark, StoreError};

/// The longest record, in bytes of JSON.
const RECORD_BYTES_MAX: usize = 128 * 1024;
/// Room for what a record usually is.
const RECORD_BYTES_USUAL: usize = 1024;
const HEAD_AAD: &[u8] = b"\0audit head";
/// Sealed with each record, at a guess, by versions that did not count.
const SEALS_PER_RECORD: u64 = 8;

/// What a walk over the whole chain found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditCheck {
    /// How many records there are.
    pub records: u64,
    /// The number of the first record that is missing or not what was written; `None` when all is well.
    pub first_broken: Option<u64>,
}

/// The last record's number and hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub sequence: u64,
    pub hash: [u8; 32],
}

impl Head {
    /// Before the first record.
    pub const START: Self = Self { sequence: 0, hash: [0; 32] };

    fn after(&self, record: &[u8]) -> Self {
        let sequence = self.sequence + 1;
        let hash = sha256(&[&self.hash[..], &sequence.to_be_bytes(), record].concat());
        Self { sequence, hash }
    }

    /// The head after `row`, or `None` when `row` is not what was written there.
    pub fn follow(&self, sealer: &Sealer, row: &AuditRow) -> Option<Self> {
        let record = open_record(sealer, row).ok()?;
        let next = self.after(&record);
        (next.sequence == row.sequence && next.hash == row.hash).then_some(next)
    }
}

/// What is sealed as the head of the log.
pub(crate) struct Summit {
    pub head: Head,
    /// How many values the data key that this is sealed under has sealed.
    pub seals: u64,
    /// `None` in the head of a version that kept none.
    pub rows: Option<RowsSum>,
}

impl Summit {
    pub fn open(sealer: &Sealer, sealed: &[u8]) -> Result<Self, StoreError> {
        let what = || "the head of the audit log".to_owned();
        let plain = sealer.open(HEAD_AAD, sealed, what)?;
        let malformed = || StoreError::Damaged { what: what(), detail: "it has a wrong length".to_owned() };
        let (sequence, rest) = plain.split_first_chunk::<8>().ok_or_else(malformed)?;
        let (hash, rest) = rest.split_first_chunk::<32>().ok_or_else(malformed)?;
        let head = Head { sequence: u64::from_be_bytes(*sequence), hash: *hash };
        if rest.is_empty() {
            return Ok(Self { head, seals: head.sequence.saturating_mul(SEALS_PER_RECORD), rows: None });
        }
        let (seals, rest) = rest.split_first_chunk::<8>().ok_or_else(malformed)?;
        let rows = RowsSum::from_bytes(rest.try_into().map_err(|_| malformed())?);
        Ok(Self { head, seals: u64::from_be_bytes(*seals), rows: Some(rows) })
    }
}

/// Where the chain has come to, and what the rows are there.
struct Reached {
    head: Head,
    rows: RowsSum,
    sealer: Arc<Sealer>,
}

impl Reached {
    fn from(sealer: &Arc<Sealer>, head: Option<&dyn ChainHead>) -> Result<Self, StoreError> {
        if let Some(reached) = head.and_then(|head| (head as &dyn Any).downcast_ref::<Self>()) {
            let Self { head, rows, sealer } = reached;
            return Ok(Self { head: *head, rows: rows.clone(), sealer: sealer.clone() });
        }
        let kept = head.map(|head| Summit::open(sealer, &head.sealed()?)).transpose()?;
        let (head, rows) = kept.map_or((Head::START, None), |summit| (summit.head, summit.rows));
        let rows = rows.or_else(|| sealer.found_rows()).ok_or_else(|| StoreError::Damaged {
            what: "the head of the audit log".to_owned(),
            detail: "it says nothing of the rows".to_owned(),
        })?;
        Ok(Self { head, rows, sealer: sealer.clone() })
    }
}

impl ChainHead for Reached {
    fn sealed(&self) -> Result<Vec<u8>, StoreError> {
        let keys = self.sealer.keys();
        let mut plain = Wiped::from(Vec::with_capacity(48 + RowsSum::BYTES));
        plain.extend_from_slice(&self.head.sequence.to_be_bytes());
        plain.extend_from_slice(&self.head.hash);
        plain.extend_from_slice(&(keys.seals() + 1).to_be_bytes());
        self.rows.append_to(&mut plain);
        self.sealer.seal_with(&keys, HEAD_AAD, &plain)
    }
}

/// What the rows are, walked as of one moment, against what the head of that moment says. Ends early with
/// [`StoreError::Closed`].
pub(crate) fn check_rows(
    sealer: &Sealer,
    sealed_head: Option<&[u8]>,
    goes_on: impl Fn() -> bool,
    marks: impl FnOnce(&mut dyn FnMut(&[u8], RowMark) -> ControlFlow<()>) -> Result<Option<Vec<u8>>, StoreError>,
) -> Result<(), StoreError> {
    let rows = |sealed: Option<&[u8]>| match sealed {
        Some(sealed) => Summit::open(sealer, sealed).map(|summit| summit.rows),
        None => Ok(None),
    };
    // The key of the sum is the same from the first head on.
    let known = rows(sealed_head)?;
    let is_known = known.is_some();
    let mut found = known.map_or_else(|| RowsSum::new(sealer.entropy()), |rows| rows.empty());
    let head = marks(&mut |key, mark| {
        found.add(key, mark);
        if goes_on() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    match rows(head.as_deref())? {
        Some(written) if is_known => written.expect(&found),
        // The first record was written meanwhile.
        Some(_) => Ok(()),
        None => {
            sealer.set_found_rows(found);
            Ok(())
        }
    }
}

/// A walk over the chain, page by page.
pub(crate) struct Walk {
    /// `None` when the head does not open: it says nothing about the records, so the one after the last is missing.
    end: Option<Head>,
    head: Head,
    /// The number of the last record that was handed in.
    pub seen: u64,
    records: u64,
    first_broken: Option<u64>,
    met_end: bool,
}

impl Walk {
    /// Up to the head as it is now; records that come meanwhile are walked as well.
    pub fn to(sealer: &Sealer, sealed_head: Option<&[u8]>) -> Self {
        let end = match sealed_head {
            Some(sealed) => Summit::open(sealer, sealed).ok().map(|summit| summit.head),
            None => Some(Head::START),
        };
        let met_end = end == Some(Head::START);
        Self { end, head: Head::START, seen: 0, records: 0, first_broken: None, met_end }
    }

    pub fn take(&mut self, sealer: &Sealer, rows: &[AuditRow]) {
        self.records += rows.len() as u64;
        for row in rows {
            self.seen = row.sequence;
            if self.first_broken.is_some() {
                continue;
            }
            match self.head.follow(sealer, row) {
                Some(next) => self.head = next,
                None => self.first_broken = Some(self.head.sequence + 1),
            }
            self.met_end |= self.end == Some(self.head);
        }
    }

    pub fn finish(self) -> AuditCheck {
        let cut = (!self.met_end).then_some(self.head.sequence + 1);
        AuditCheck { records: self.records, first_broken: self.first_broken.or(cut) }
    }
}

/// Every change has an audit record, so the head of the log tells whether the ring is the right one; and the last
/// record is the one that the head names. Returns how many rows there are to be, where it says so.
pub(crate) fn check_end(sealer: &Sealer, end: &LogEnd) -> Result<Option<u64>, StoreError> {
    let damaged = |detail: &str| {
        Err(StoreError::Damaged { what: "the audit log".to_owned(), detail: detail.to_owned() })
    };
    match (&end.head, &end.last) {
        (Some(head), last) => {
            let key_id = KeyRing::key_id_of(head).unwrap_or_default();
            let Summit { head, seals, rows } =
                Summit::open(sealer, head).map_err(|_| StoreError::WrongKey)?;
            sealer.count_from(key_id, seals);
            match last {
                Some(last) if (last.sequence, last.hash) == (head.sequence, head.hash) => {
                    Ok(rows.map(|rows| rows.count()))
                }
                _ => damaged("it does not end with the record that its head names"),
            }
        }
        (None, None) if end.revision == Revision(0) => Ok(None),
        (None, _) => damaged("its head is missing"),
    }
}

/// The record of `event`, to be chained where the order of commits is known.
/// Holds on to `keys`, under which the rows of its batch are sealed, for as long as the batch is under way.
pub(crate) fn draft(
    sealer: Arc<Sealer>,
    keys: Arc<Keys>,
    event: &AuditEvent,
) -> Result<AuditDraft, StoreError> {
    let mut record = Vec::with_capacity(RECORD_BYTES_USUAL);
    serde_json::to_writer(&mut record, event)
        .map_err(|error| StoreError::record("audit", "written as JSON", error))?;
    if record.len() > RECORD_BYTES_MAX {
        let found = record.len();
        return Err(StoreError::TooLarge { what: "an audit record's bytes", found, max: RECORD_BYTES_MAX });
    }
    Ok(Box::new(move |head, changes| {
        let _ = &keys;
        let mut reached = Reached::from(&sealer, head)?;
        let next = reached.head.after(&record);
        let sealed = sealer.seal(&record_aad(next.sequence), &record)?;
        reached.head = next;
        reached.rows.apply(changes);
        let row = AuditRow { sequence: next.sequence, hash: next.hash, record: sealed };
        Ok(AuditEntry { row: Some(row), head: Arc::new(reached) })
    }))
}

/// Brings what the head says of the rows up to date, without a record.
pub(crate) fn resealing(sealer: Arc<Sealer>) -> AuditDraft {
    Box::new(move |head, changes| {
        let mut reached = Reached::from(&sealer, head)?;
        reached.rows.apply(changes);
        Ok(AuditEntry { row: None, head: Arc::new(reached) })
    })
}

/// A record under its new seal; `None` when it is under the current key already.
pub(crate) fn resealed(sealer: &Sealer, row: &AuditRow) -> Result<Option<Vec<u8>>, StoreError> {
    if KeyRing::key_id_of(&row.record) == Some(sealer.keys().current_key_id()) {
        return Ok(None);
    }
    let record = open_record(sealer, row)?;
    sealer.seal(&record_aad(row.sequence), &record).map(Some)
}

/// The event of a row.
pub(crate) fn event(sealer: &Sealer, row: &AuditRow) -> Result<AuditEvent, StoreError> {
    let record = open_record(sealer, row)?;
    serde_json::from_slice(&record).map_err(|error| StoreError::record("audit", "read", error))
}

fn open_record(sealer: &Sealer, row: &AuditRow) -> Result<Wiped, StoreError> {
    sealer.open(&record_aad(row.sequence), &row.record, || format!("audit record {}", row.sequence))
}

fn record_aad(sequence: u64) -> Vec<u8> {
    [b"\0audit ".as_slice(), &sequence.to_be_bytes()].concat()
}
