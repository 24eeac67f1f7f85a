//! Values that get another seal, and the marks by which rows are told from what they were before.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use rusqlite::{Connection, Row};

use super::schema;
use crate::backend::{PAGE_BYTES_MAX, RawPage, RawRow, Reseal, Revision, RowMark};

/// Writes values under their new seal. Revisions stay as they are.
pub(super) fn write(connection: &Connection, values: &[Reseal]) -> rusqlite::Result<()> {
    if values.is_empty() {
        return Ok(());
    }
    let mut row = connection.prepare_cached("UPDATE rows SET value = ?3 WHERE key = ?1 AND revision = ?2")?;
    let mut records = connection.prepare_cached("UPDATE audit SET record = ?2 WHERE sequence = ?1")?;
    for value in values {
        match value {
            Reseal::Row(raw) => row.execute((&raw.key, raw.revision.0, &raw.value))?,
            Reseal::Records(sequence, sealed) => records.execute((sequence, sealed))?,
        };
    }
    Ok(())
}

/// The mark of a row, from its revision and the end of its value.
pub(super) fn row_mark(row: &Row<'_>, at: usize) -> rusqlite::Result<RowMark> {
    let tag = row.get_ref(at + 1)?.as_blob()?;
    Ok(RowMark::of(Revision(row.get(at)?), tag))
}

/// Every row's key and mark, and the head of the audit log of the same moment.
pub(super) fn marks(
    connection: &Connection,
    visit: &mut dyn FnMut(&[u8], RowMark) -> ControlFlow<()>,
) -> rusqlite::Result<ControlFlow<(), Option<Vec<u8>>>> {
    let moment = connection.unchecked_transaction()?;
    let mut query = moment.prepare("SELECT key, revision, substr(value, -16) FROM rows ORDER BY key")?;
    let mut found = query.query([])?;
    while let Some(row) = found.next()? {
        if visit(row.get_ref(0)?.as_blob()?, row_mark(row, 1)?).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    schema::head(&moment).map(ControlFlow::Continue)
}

/// A page of rows of all tables.
pub(super) fn walk(connection: &Connection, after: Option<&[u8]>, limit: usize) -> rusqlite::Result<RawPage> {
    // No key is empty, so all are above the empty one.
    let sql = "SELECT key, revision, value FROM rows WHERE key > ?1 ORDER BY key";
    let mut query = connection.prepare_cached(sql)?;
    let mut found = query.query([after.unwrap_or_default()])?;
    let (mut page, mut bytes) = (RawPage::default(), 0);
    while let Some(row) = found.next()? {
        if page.rows.len() == limit || bytes >= PAGE_BYTES_MAX {
            page.more = true;
            break;
        }
        let row = RawRow { key: row.get(0)?, revision: Revision(row.get(1)?), value: row.get(2)? };
        bytes += row.key.len() + row.value.len();
        page.rows.push(row);
    }
    Ok(page)
}

/// How many rows and records have each data key's number in their header.
pub(super) fn counts(connection: &Connection) -> rusqlite::Result<BTreeMap<u32, (u64, u64)>> {
    let moment = connection.unchecked_transaction()?;
    let mut counts: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    for (rows, sql) in [
        (true, "SELECT substr(value, 2, 4), count(*) FROM rows GROUP BY 1"),
        // A row has the records after those of the row before it.
        (
            false,
            "SELECT id, sum(records) FROM (
                 SELECT substr(record, 2, 4) AS id, sequence - lag(sequence, 1, 0) OVER (ORDER BY sequence) AS records
                 FROM audit
             ) GROUP BY 1",
        ),
    ] {
        let mut query = moment.prepare(sql)?;
        let mut found = query.query([])?;
        while let Some(row) = found.next()? {
            let id: [u8; 4] = row.get_ref(0)?.as_blob()?.try_into().unwrap_or_default();
            let count = counts.entry(u32::from_be_bytes(id)).or_default();
            *(if rows { &mut count.0 } else { &mut count.1 }) += row.get::<_, u64>(1)?;
        }
    }
    Ok(counts)
}
