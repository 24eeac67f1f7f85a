//! The audit chain: each record's hash covers the one before it, so that none can be changed, removed or put
//! in between unseen.
//!
//! `hash(n) = SHA-256(hash(n-1) | n as 8 bytes big endian | record n as JSON)`, from `hash(0)` = 32 zero bytes.
//! Records that are committed together are sealed together ([`crate::piece`]). The head, sealed apart, says which
//! record is the last, so that cutting off the end shows as well; and what the rows are ([`crate::rows`]).

use std::any::Any;
use std::ops::ControlFlow;
use std::sync::Arc;

use arcadia_crypto::{KeyRing, Wiped, sha256};
use arcadia_kernel::AuditEvent;

use crate::backend::{AuditDraft, AuditRow, ChainHead, Settled};
use crate::piece::{Piece, RECORD_BYTES_MAX, Records};
use crate::rows::RowsSum;
use crate::seal::{Keys, Sealer, Sealing};
use crate::sqlite::LogEnd;
use crate::{Revision, RowMark, StoreError};

/// Room for what a record usually is, and to escape its longest text.
const RECORD_BYTES_USUAL: usize = 2048;
/// How many pieces of the log are read at once for a page of events.
const PAGE_STEP_PIECES: usize = 64;
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

    /// The head after `records`, or `None` when they are not what was written there.
    fn follow(&self, row: &AuditRow, records: &Records) -> Option<Self> {
        let end = records.each().fold(*self, |head, (_, record)| head.after(record));
        (end.sequence == row.sequence && end.hash == row.hash).then_some(end)
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
    /// The last record that is not settled.
    drafted: Option<Arc<Drafted>>,
}

/// A record that waits for the end of its transaction, and those before it.
struct Drafted {
    head: Head,
    record: Arc<Vec<u8>>,
    before: Option<Arc<Drafted>>,
}

impl Reached {
    fn from(sealer: &Arc<Sealer>, head: Option<&dyn ChainHead>) -> Result<Self, StoreError> {
        if let Some(reached) = head.and_then(|head| (head as &dyn Any).downcast_ref::<Self>()) {
            return Ok(Self { drafted: reached.drafted.clone(), ..reached.without_drafts() });
        }
        let kept = head.map(|head| Summit::open(sealer, &head.settled()?.head)).transpose()?;
        let (head, rows) = kept.map_or((Head::START, None), |summit| (summit.head, summit.rows));
        let rows = rows.or_else(|| sealer.found_rows()).ok_or_else(|| StoreError::Damaged {
            what: "the head of the audit log".to_owned(),
            detail: "it says nothing of the rows".to_owned(),
        })?;
        Ok(Self { head, rows, sealer: sealer.clone(), drafted: None })
    }

    fn without_drafts(&self) -> Self {
        let Self { head, rows, sealer, .. } = self;
        Self { head: *head, rows: rows.clone(), sealer: sealer.clone(), drafted: None }
    }

    fn add(&mut self, record: &Arc<Vec<u8>>) {
        self.head = self.head.after(record);
        let before = self.drafted.take();
        self.drafted = Some(Arc::new(Drafted { head: self.head, record: record.clone(), before }));
    }

    /// The drafted records in as few pieces as they fit into.
    fn sealed_records(&self, sealing: &mut Sealing<'_>) -> Result<Vec<AuditRow>, StoreError> {
        let mut drafted: Vec<_> =
            std::iter::successors(self.drafted.as_deref(), |record| record.before.as_deref()).collect();
        drafted.reverse();
        let mut bytes: usize = drafted.iter().map(|drafted| drafted.record.len() + 1).sum();
        let (mut rows, mut piece) = (Vec::new(), Piece::of(bytes));
        for (at, Drafted { head, record, .. }) in drafted.iter().enumerate() {
            piece.add(record);
            bytes -= record.len() + 1;
            if drafted.get(at + 1).is_none_or(|next| !piece.takes(&next.record)) {
                let full = std::mem::replace(&mut piece, Piece::of(bytes));
                let records = full.sealed(sealing, head.sequence)?;
                rows.push(AuditRow { sequence: head.sequence, hash: head.hash, records });
            }
        }
        Ok(rows)
    }

    fn sealed_head(&self, sealing: &mut Sealing<'_>) -> Result<Vec<u8>, StoreError> {
        let mut plain = Wiped::from(Vec::with_capacity(48 + RowsSum::BYTES));
        plain.extend_from_slice(&self.head.sequence.to_be_bytes());
        plain.extend_from_slice(&self.head.hash);
        plain.extend_from_slice(&(sealing.keys().seals() + 1).to_be_bytes());
        self.rows.append_to(&mut plain);
        sealing.seal(HEAD_AAD, &plain)
    }
}

impl ChainHead for Reached {
    fn settled(&self) -> Result<Settled, StoreError> {
        // As a rule one piece, and the head.
        let mut sealing = self.sealer.sealing(2);
        let records = self.sealed_records(&mut sealing)?;
        let head = self.sealed_head(&mut sealing)?;
        let held = Some(sealing.keys().clone() as _);
        Ok(Settled { head, records, next: Arc::new(self.without_drafts()), held })
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
    match (rows(head.as_deref())?, head) {
        (Some(written), _) if is_known => written.expect(&found),
        // The first record was written meanwhile.
        (Some(_), _) => Ok(()),
        (None, None) if found.count() > 0 => Err(headless()),
        (None, _) => {
            sealer.set_found_rows(found);
            Ok(())
        }
    }
}

/// Every change has its record, and every record a head after it: rows or records without one were not left so by a site.
fn headless() -> StoreError {
    StoreError::Damaged { what: "the audit log".to_owned(), detail: "its head is missing".to_owned() }
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
        if self.end == Some(Head::START) && !rows.is_empty() {
            // Without a head there is no record yet.
            self.first_broken.get_or_insert(1);
        }
        for row in rows {
            self.seen = row.sequence;
            let records = Records::open(sealer, row);
            // What does not open is one record at least.
            self.records += records.as_ref().map_or(1, |records| records.each().count() as u64);
            if self.first_broken.is_some() {
                continue;
            }
            match records.ok().and_then(|records| self.head.follow(row, &records)) {
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
        // The rows, of which there must be none then, are looked at before anything is answered.
        (None, None) if end.revision == Revision(0) => Ok(Some(0)),
        (None, _) => Err(headless()),
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
    sonic_rs::to_writer(&mut record, event)
        .map_err(|error| StoreError::record("audit", "written as JSON", error))?;
    if record.len() > RECORD_BYTES_MAX {
        let found = record.len();
        return Err(StoreError::TooLarge { what: "an audit record's bytes", found, max: RECORD_BYTES_MAX });
    }
    let record = Arc::new(record);
    Ok(Box::new(move |head, changes| {
        let _ = &keys;
        let mut reached = Reached::from(&sealer, head)?;
        reached.add(&record);
        reached.rows.apply(changes);
        Ok(Arc::new(reached))
    }))
}

/// Brings what the head says of the rows up to date, without a record.
pub(crate) fn resealing(sealer: Arc<Sealer>) -> AuditDraft {
    Box::new(move |head, changes| {
        let mut reached = Reached::from(&sealer, head)?;
        reached.rows.apply(changes);
        Ok(Arc::new(reached))
    })
}

/// Records under their new seal; `None` when they are under the current key already.
pub(crate) fn resealed(sealer: &Sealer, row: &AuditRow) -> Result<Option<Vec<u8>>, StoreError> {
    if KeyRing::key_id_of(&row.records) == Some(sealer.keys().current_key_id()) {
        return Ok(None);
    }
    let records = Records::open(sealer, row)?;
    records.sealed_again(sealer, row.sequence).map(Some)
}

/// A page of events with their numbers, collected from one piece of the log after the other.
pub(crate) struct EventPage {
    pub events: Vec<(u64, AuditEvent)>,
    /// What the next piece is to be after.
    pub after: u64,
    limit: usize,
}

impl EventPage {
    pub fn after(after: u64, limit: usize) -> Self {
        Self { events: Vec::new(), after, limit }
    }

    /// How many pieces to read next; `None` when the page is full.
    pub fn pieces(&self) -> Option<usize> {
        let missing = self.limit.saturating_sub(self.events.len());
        (missing > 0).then_some(missing.min(PAGE_STEP_PIECES))
    }

    /// Returns whether there may be more.
    pub fn take(&mut self, sealer: &Sealer, rows: &[AuditRow]) -> Result<bool, StoreError> {
        for row in rows {
            let after = self.after;
            for (number, record) in Records::open(sealer, row)?.each().filter(|(number, _)| *number > after) {
                if self.events.len() == self.limit {
                    return Ok(false);
                }
                let event = serde_json::from_slice(record);
                self.events
                    .push((number, event.map_err(|error| StoreError::record("audit", "read", error))?));
                self.after = number;
            }
        }
        Ok(!rows.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use arcadia_crypto::SystemEntropy;
    use arcadia_kernel::FixedClock;
    use rusqlite::Connection;

    use super::*;
    use crate::backend::RawBatch;
    use crate::{Store, StoreReader};

    fn event(name: &str) -> AuditEvent {
        let nil = "00000000-0000-0000-0000-000000000000";
        serde_json::from_value(serde_json::json!({
            "time": "2026-01-01T00:00:00Z", "requestId": nil, "service": "site", "operation": "sweep", "action": "a",
            "scope": "/", "callerKind": "system", "callerObjectId": nil, "callerAppId": nil, "callerName": name,
            "result": "committed",
        }))
        .unwrap()
    }

    fn open(directory: &Path, ring: &KeyRing) -> Result<Store, StoreError> {
        let clock = Arc::new(FixedClock::at_epoch_seconds(1));
        Store::open(directory, ring.clone(), clock, Arc::new(SystemEntropy))
    }

    fn reader(directory: &Path, ring: &KeyRing) -> StoreReader {
        StoreReader::open_unchecked(directory, ring.clone(), Arc::new(SystemEntropy)).unwrap()
    }

    /// Records of these callers, in one transaction.
    async fn commit(store: &Store, names: &[&str]) {
        let sealer = store.sealer();
        let draft = |name: &&str| draft(sealer.clone(), sealer.keys(), &event(name)).unwrap();
        let audit = names.iter().map(draft).collect();
        store.backend().commit(RawBatch { audit, ..RawBatch::default() }).await.unwrap();
    }

    async fn names(store: &Store, after: u64, limit: usize) -> Vec<(u64, String)> {
        let page = store.audit_page(after, limit).await.unwrap();
        page.into_iter().map(|(number, event)| (number, event.caller_name)).collect()
    }

    fn sequences(directory: &Path) -> Vec<u64> {
        let file = Connection::open(directory.join(crate::sqlite::DATABASE)).unwrap();
        let mut query = file.prepare("SELECT sequence FROM audit ORDER BY sequence").unwrap();
        let found = query.query_map([], |row| row.get(0)).unwrap();
        found.map(Result::unwrap).collect()
    }

    const WHOLE: fn(u64) -> AuditCheck = |records| AuditCheck { records, first_broken: None };

    #[tokio::test]
    async fn records_of_one_transaction_are_sealed_together_and_read_one_by_one() {
        let directory = tempfile::tempdir().unwrap();
        let ring = KeyRing::generate(&SystemEntropy).unwrap();
        let store = open(directory.path(), &ring).unwrap();
        let before = store.seals();
        commit(&store, &["a"]).await;
        commit(&store, &["b", "c\n\"c\u{2028}", "d", "e"]).await;
        commit(&store, &["f"]).await;
        assert_eq!(store.seals() - before, 3 + 3, "each transaction's records, and its head");
        assert_eq!(sequences(directory.path()), [1, 5, 6]);
        let all: Vec<_> = (1..).zip(["a", "b", "c\n\"c\u{2028}", "d", "e", "f"].map(str::to_owned)).collect();
        for after in 0..=6 {
            for limit in 1..=7 {
                let expected: Vec<_> = all.iter().skip(after).take(limit).cloned().collect();
                assert_eq!(names(&store, after as u64, limit).await, expected, "{limit} after {after}");
            }
        }
        assert_eq!(store.audit_verify().await.unwrap(), WHOLE(6));
        assert_eq!(store.health().await.unwrap().audit_records, 6);
        let reader = reader(directory.path(), &ring);
        assert_eq!(
            reader.audit_page(2, 3).unwrap().iter().map(|(number, _)| *number).sum::<u64>(),
            3 + 4 + 5
        );
        assert_eq!((reader.audit_verify().unwrap(), reader.last_record().unwrap()), (WHOLE(6), 6));
        let counts = StoreReader::key_counts(directory.path()).unwrap();
        assert_eq!(counts[&1].records, 6, "records, not pieces");
        drop((reader, store));
        let store = open(directory.path(), &ring).unwrap();
        commit(&store, &["g", "h"]).await;
        assert_eq!(store.audit_verify().await.unwrap(), WHOLE(8));
    }

    #[tokio::test]
    async fn many_records_are_sealed_in_several_pieces() {
        let directory = tempfile::tempdir().unwrap();
        let ring = KeyRing::generate(&SystemEntropy).unwrap();
        let store = open(directory.path(), &ring).unwrap();
        let rest = serde_json::to_vec(&event("")).unwrap().len();
        let (long, longest) = ("x".repeat(50 * 1024), "x".repeat(RECORD_BYTES_MAX - rest));
        commit(&store, &[&long, &long, &long, &longest, "a", "b"]).await;
        assert_eq!(sequences(directory.path()), [2, 3, 4, 6]);
        for row in store.backend().audit(0, 9).await.unwrap() {
            assert!(row.records.len() <= RECORD_BYTES_MAX + arcadia_crypto::SEAL_OVERHEAD_BYTES);
        }
        assert_eq!(store.audit_verify().await.unwrap(), WHOLE(6));
        assert_eq!(names(&store, 4, 9).await, [(5, "a".to_owned()), (6, "b".to_owned())]);
    }

    #[tokio::test]
    async fn what_becomes_of_records_that_were_sealed_together_is_found_out() {
        let cases = [
            ("DELETE FROM audit WHERE sequence = 5", 3, 2),
            ("UPDATE audit SET hash = zeroblob(32) WHERE sequence = 5", 7, 2),
            (
                "UPDATE audit SET record = CAST(substr(record, 1, length(record) - 1) || x'00' AS BLOB) WHERE sequence = 5",
                4,
                2,
            ),
            ("UPDATE audit SET sequence = 4 WHERE sequence = 5", 4, 2),
            (
                "UPDATE audit SET record = (SELECT record FROM audit WHERE sequence = 1) WHERE sequence = 5",
                4,
                2,
            ),
            ("INSERT INTO audit SELECT 3, hash, record FROM audit WHERE sequence = 5", 8, 2),
            ("DELETE FROM audit WHERE sequence >= 5", 1, 2),
        ];
        for (sql, records, first_broken) in cases {
            let directory = tempfile::tempdir().unwrap();
            let ring = KeyRing::generate(&SystemEntropy).unwrap();
            let store = open(directory.path(), &ring).unwrap();
            for names in [&["a"][..], &["b", "c", "d", "e"], &["f", "g"]] {
                commit(&store, names).await;
            }
            drop(store);
            let file = Connection::open(directory.path().join(crate::sqlite::DATABASE)).unwrap();
            file.execute_batch(sql).unwrap();
            let expected = AuditCheck { records, first_broken: Some(first_broken) };
            assert_eq!(reader(directory.path(), &ring).audit_verify().unwrap(), expected, "{sql}");
        }
    }

    /// Stores of before there was more than one record in a row are read, and refused by who wrote them once they are
    /// written to.
    #[tokio::test]
    async fn a_store_of_single_records_is_read_and_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let ring = KeyRing::generate(&SystemEntropy).unwrap();
        let store = open(directory.path(), &ring).unwrap();
        for name in ["a", "b", "c"] {
            commit(&store, &[name]).await;
        }
        let alone = store.backend().audit(1, 1).await.unwrap().remove(0);
        let plain = ring.open(b"\0audit \0\0\0\0\0\0\0\x02", &alone.records).unwrap();
        assert_eq!(*plain, serde_json::to_vec(&event("b")).unwrap(), "as it was then");
        drop(store);
        let file = || Connection::open(directory.path().join(crate::sqlite::DATABASE)).unwrap();
        let version = || file().query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0)).unwrap();
        file().execute_batch("PRAGMA user_version = 1").unwrap();
        assert_eq!(reader(directory.path(), &ring).audit_verify().unwrap(), WHOLE(3));
        let store = open(directory.path(), &ring).unwrap();
        assert_eq!(names(&store, 2, 9).await, [(3, "c".to_owned())]);
        assert_eq!(version(), 1, "looking changes nothing");
        commit(&store, &["d", "e"]).await;
        assert_eq!(version(), 3);
        assert_eq!(store.audit_verify().await.unwrap(), WHOLE(5));
    }
}
