//! Lists of containers and of blobs, page by page, in the order of their names' bytes.

use std::fmt::Write as _;

use arcadia_kernel::{At, Continuation, Fault, Permit, Reply, Request, RequestHead, StatusCode};

use super::{ReadBlob, ReadContainer};
use crate::conditions::Conditions;
use crate::headers::{COPY_DONE, http_date};
use crate::records::{BLOBS, Blob, CONTAINERS, Container, Copied, Metadata};
use crate::xml::{DECLARATION, element, escape};
use crate::{Storage, faults};

const RESULTS_MAX: usize = 5000;
const ROWS_PER_READ: usize = 1000;
/// With a delimiter most rows that are read may be skipped, so less is read at once.
const ROWS_PER_SKIPPING_READ: usize = 64;
/// Reads that one request makes; a page may be short, and its marker says where to go on.
const READS_MAX: usize = 400;
/// A page ends once its text is this long, with one item at the least: metadata may be 8 KiB an item, and more once it
/// is escaped.
const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
const TEXT_BYTES_MAX: usize = 4096;
/// The key of the longest name, 1024 characters of three bytes, is a little longer in Base64 than [`TEXT_BYTES_MAX`].
const MARKER_BYTES_MAX: usize = 8192;
/// About what one line of a list has, and what stands around all of them.
const LINE_BYTES: usize = 768;
const HEAD_BYTES: usize = 1024;
/// What can be included, and is no more than nothing where nothing of it exists.
const INCLUDABLE: [&str; 12] = [
    "",
    "metadata",
    "snapshots",
    "versions",
    "deleted",
    "deletedwithversions",
    "copy",
    "tags",
    "immutabilitypolicy",
    "legalhold",
    "permissions",
    "system",
];

/// What a list request asks for.
struct Asked {
    prefix: String,
    /// The first name that is wanted, whether there is such a name or not.
    start_from: String,
    delimiter: Option<String>,
    marker: Option<Continuation>,
    marker_text: String,
    results_max: usize,
    results_text: String,
    with_metadata: bool,
    with_copies: bool,
}

impl Asked {
    fn of(head: &RequestHead) -> Result<Self, Fault> {
        Conditions::check_none(head)?;
        let bounded = |name: &str, bytes_max: usize| match head.query.first(name) {
            Some(value) if value.len() > bytes_max => Err(faults::invalid_query(name, value)),
            value => Ok(value.unwrap_or("").to_owned()),
        };
        let text = |name: &str| bounded(name, TEXT_BYTES_MAX);
        let marker_text = bounded("marker", MARKER_BYTES_MAX)?;
        let marker = match marker_text.as_str() {
            "" => None,
            marker => {
                let read = Continuation::parse(marker, head);
                Some(read.map_err(|_| faults::invalid_query("marker", marker))?)
            }
        };
        let results_text = text("maxresults")?;
        let results_max = match results_text.as_str() {
            "" => RESULTS_MAX,
            number => results("maxresults", number, RESULTS_MAX)?,
        };
        let include = text("include")?.to_ascii_lowercase();
        if let Some(unknown) = include.split(',').find(|name| !INCLUDABLE.contains(&name.trim())) {
            return Err(faults::invalid_query("include", unknown));
        }
        let includes = |wanted: &str| include.split(',').any(|name| name.trim() == wanted);
        Ok(Self {
            prefix: text("prefix")?,
            start_from: text("startFrom")?,
            delimiter: Some(text("delimiter")?).filter(|delimiter| !delimiter.is_empty()),
            marker,
            marker_text,
            results_max,
            results_text,
            with_metadata: includes("metadata"),
            with_copies: includes("copy"),
        })
    }

    /// Where the first read starts: whatever comes last of the marker, the prefix and the first name.
    fn start(&self) -> Option<Continuation> {
        first([&self.prefix, &self.start_from], self.marker.clone())
    }

    /// Whether a page with so many items is at its end.
    fn is_full(&self, count: usize, out: &str) -> bool {
        count == self.results_max || (count > 0 && out.len() >= PAGE_BYTES_MAX)
    }

    /// What the list says of the request.
    fn echo(&self, out: &mut String) {
        for (name, text) in [
            ("Prefix", self.prefix.as_str()),
            ("Marker", &self.marker_text),
            ("MaxResults", &self.results_text),
            ("Delimiter", self.delimiter.as_deref().unwrap_or("")),
        ] {
            if !text.is_empty() {
                element(out, name, text);
            }
        }
    }
}

/// How many items a page may have: what is asked for by the name of a query parameter, and `max` at the most.
pub(crate) fn results(name: &str, text: &str, max: usize) -> Result<usize, Fault> {
    match text.parse::<i64>().map(usize::try_from) {
        Ok(Ok(number)) if number > 0 => Ok(number.min(max)),
        Ok(_) => Err(faults::query_out_of_range(name, text, 1, max)),
        Err(_) => Err(faults::invalid_query(name, text)),
    }
}

/// Where a read starts: whatever comes last of the marker and the texts that are not empty.
pub(crate) fn first<const N: usize>(texts: [&str; N], marker: Option<Continuation>) -> Option<Continuation> {
    let named = texts.into_iter().filter(|text| !text.is_empty()).map(at);
    named.chain(marker).max_by(|one, other| one.0.cmp(&other.0))
}

/// The last component of a key that starts with `text`, as the store writes it: a read after this starts with the
/// first name that is `text` or comes after it.
fn at(text: &str) -> Continuation {
    let mut key = Vec::with_capacity(text.len());
    for byte in text.bytes() {
        key.push(byte);
        if byte == 0 {
            key.push(0xFF);
        }
    }
    Continuation(key)
}

/// A read after this starts behind every name that begins with `text`: no text has this byte.
fn behind(text: &str) -> Continuation {
    let mut key = at(text);
    key.0.push(0xFF);
    key
}

/// A read after this starts behind the name itself.
fn after(name: &str) -> Continuation {
    let mut key = at(name);
    key.0.extend_from_slice(&[0, 1]);
    key
}

/// The beginning of an answer, with room for so many bytes.
fn begin(head: &RequestHead, container: Option<&str>, room_bytes: usize) -> String {
    let endpoint = escape(&format!("{}/", head.origin));
    let container = container.map_or(String::new(), |name| format!(" ContainerName=\"{}\"", escape(name)));
    let mut out = String::with_capacity(room_bytes);
    let _ =
        write!(out, "\u{feff}{DECLARATION}<EnumerationResults ServiceEndpoint=\"{endpoint}\"{container}>");
    out
}

fn answer(mut out: String) -> Reply {
    out.push_str("</EnumerationResults>");
    Reply::bytes(StatusCode::OK, "application/xml", out)
}

fn next_marker(out: &mut String, head: &RequestHead, next: Option<&Continuation>) {
    element(out, "NextMarker", &next.map_or(String::new(), |next| next.token(head)));
}

fn write_metadata(out: &mut String, metadata: &Metadata) {
    out.push_str("<Metadata>");
    for (name, value) in metadata {
        element(out, name, value);
    }
    out.push_str("</Metadata>");
}

pub(super) async fn containers(
    at: At<Storage>,
    _: Permit<ReadContainer>,
    request: Request,
) -> Result<Reply, Fault> {
    let asked = Asked::of(&request)?;
    let mut out = begin(&request, None, HEAD_BYTES + asked.results_max.min(ROWS_PER_READ) * LINE_BYTES);
    asked.echo(&mut out);
    out.push_str("<Containers>");
    let account = at.target.account.instance();
    let next = at.page_of_containers(account, &asked.prefix, asked.start(), asked.results_max, |container| {
        write_container(&mut out, container, asked.with_metadata);
        out.len() < PAGE_BYTES_MAX
    });
    let next = next.await?;
    out.push_str("</Containers>");
    next_marker(&mut out, &request, next.as_ref());
    Ok(answer(out))
}

fn write_container(out: &mut String, container: &Container, with_metadata: bool) {
    out.push_str("<Container>");
    element(out, "Name", &container.name);
    let _ = write!(
        out,
        "<Properties><Last-Modified>{}</Last-Modified><Etag>\"{}\"</Etag><LeaseStatus>unlocked</LeaseStatus>\
         <LeaseState>available</LeaseState><DefaultEncryptionScope>$account-encryption-key</DefaultEncryptionScope>\
         <DenyEncryptionScopeOverride>false</DenyEncryptionScopeOverride>\
         <HasImmutabilityPolicy>false</HasImmutabilityPolicy><HasLegalHold>false</HasLegalHold>\
         <ImmutableStorageWithVersioningEnabled>false</ImmutableStorageWithVersioningEnabled></Properties>",
        http_date(container.modified),
        container.etag,
    );
    if with_metadata {
        write_metadata(out, &container.metadata);
    }
    out.push_str("</Container>");
}

/// A list of blobs while it is written.
struct Lines<'a> {
    out: String,
    count: usize,
    asked: &'a Asked,
    account_tier: &'a str,
    /// The date that was written last: neighbours often have the same.
    date: (i64, String),
}

impl Lines<'_> {
    fn prefix(&mut self, prefix: &str) {
        self.count += 1;
        self.out.push_str("<BlobPrefix>");
        element(&mut self.out, "Name", prefix);
        self.out.push_str("</BlobPrefix>");
    }

    fn date(&mut self, name: &str, seconds: i64) {
        if self.date.0 != seconds || self.date.1.is_empty() {
            self.date = (seconds, http_date(seconds));
        }
        element(&mut self.out, name, &self.date.1);
    }

    fn copied(&mut self, copied: &Copied, length: u64) {
        let out = &mut self.out;
        let _ = write!(out, "<CopyId>{}</CopyId>", copied.id);
        element(out, "CopySource", &copied.source);
        element(out, "CopyStatus", COPY_DONE);
        let _ = write!(out, "<CopyProgress>{length}/{length}</CopyProgress>");
        self.date("CopyCompletionTime", copied.at);
    }

    fn blob(&mut self, blob: &Blob) {
        self.count += 1;
        let headers = &blob.headers;
        self.out.push_str("<Blob>");
        element(&mut self.out, "Name", &blob.name);
        self.out.push_str("<Properties>");
        self.date("Creation-Time", blob.created);
        self.date("Last-Modified", blob.modified);
        let out = &mut self.out;
        element(out, "Etag", &blob.etag);
        let _ = write!(out, "<Content-Length>{}</Content-Length>", blob.length);
        let content_type = headers.content_type.as_deref().unwrap_or("application/octet-stream");
        for (name, value) in [
            ("Content-Type", Some(content_type)),
            ("Content-Encoding", headers.content_encoding.as_deref()),
            ("Content-Language", headers.content_language.as_deref()),
            ("Content-CRC64", None),
            ("Content-MD5", headers.content_md5.as_deref()),
            ("Cache-Control", headers.cache_control.as_deref()),
            ("Content-Disposition", headers.content_disposition.as_deref()),
        ] {
            element(out, name, value.unwrap_or_default());
        }
        out.push_str("<BlobType>BlockBlob</BlobType>");
        element(out, "AccessTier", blob.tier.as_deref().unwrap_or(self.account_tier));
        if blob.tier.is_none() {
            out.push_str("<AccessTierInferred>true</AccessTierInferred>");
        }
        if let Some(changed) = blob.tier_changed {
            self.date("AccessTierChangeTime", changed);
        }
        self.out.push_str("<LeaseStatus>unlocked</LeaseStatus><LeaseState>available</LeaseState>");
        if self.asked.with_copies
            && let Some(copied) = &blob.copied
        {
            self.copied(copied, blob.length);
        }
        let out = &mut self.out;
        out.push_str("<ServerEncrypted>true</ServerEncrypted></Properties>");
        if self.asked.with_metadata {
            write_metadata(out, &blob.metadata);
        }
        out.push_str("<OrMetadata /></Blob>");
    }
}

pub(super) async fn blobs(at: At<Storage>, _: Permit<ReadBlob>, request: Request) -> Result<Reply, Fault> {
    let asked = Asked::of(&request)?;
    let name = request.param("container");
    let container = at.container(&at.target.account, name).await?.value;
    let mut out = begin(&request, Some(name), HEAD_BYTES + asked.results_max.min(ROWS_PER_READ) * LINE_BYTES);
    asked.echo(&mut out);
    out.push_str("<Blobs>");
    let account_tier = &at.target.account.properties.access_tier;
    let mut lines = Lines { out, count: 0, asked: &asked, account_tier, date: (0, String::new()) };
    let next = at.page(container.instance, &mut lines).await?;
    let mut out = lines.out;
    out.push_str("</Blobs>");
    next_marker(&mut out, &request, next.as_ref());
    Ok(answer(out))
}

impl Storage {
    /// Gives `take` a page of containers, each until it says that there is room for no more. Gives where the next page
    /// begins.
    pub(crate) async fn page_of_containers(
        &self,
        account: uuid::Uuid,
        prefix: &str,
        mut start: Option<Continuation>,
        results_max: usize,
        mut take: impl FnMut(&Container) -> bool + Send,
    ) -> Result<Option<Continuation>, Fault> {
        let (mut count, mut has_room) = (0, true);
        loop {
            let limit = ROWS_PER_READ.min(results_max - count);
            let page = self.store.range(CONTAINERS, &(account,), start.as_ref(), limit).await?;
            for row in page.items {
                let container = row.value;
                if !container.name.starts_with(prefix) {
                    return Ok(None);
                }
                if !has_room {
                    return Ok(start);
                }
                start = Some(after(&container.name));
                has_room = take(&container);
                count += 1;
            }
            if page.next.is_none() {
                return Ok(None);
            }
            if !has_room || count == results_max {
                return Ok(start);
            }
        }
    }

    /// Writes a page of blobs. Gives where the next one begins.
    async fn page(
        &self,
        container: uuid::Uuid,
        lines: &mut Lines<'_>,
    ) -> Result<Option<Continuation>, Fault> {
        let asked = lines.asked;
        let mut start = asked.start();
        for _ in 0..READS_MAX {
            let wanted = asked.results_max - lines.count;
            let limit =
                if asked.delimiter.is_some() { ROWS_PER_SKIPPING_READ } else { ROWS_PER_READ.min(wanted) };
            let page = self.store.range(BLOBS, &(container,), start.as_ref(), limit).await?;
            let mut skipped: Option<String> = None;
            for row in page.items {
                let blob = row.value;
                let Some(rest) = blob.name.strip_prefix(&asked.prefix) else { return Ok(None) };
                if skipped.as_ref().is_some_and(|prefix| blob.name.starts_with(prefix)) {
                    continue;
                }
                if asked.is_full(lines.count, &lines.out) {
                    return Ok(start);
                }
                let cut = asked.delimiter.as_ref().and_then(|d| rest.find(d.as_str()).map(|at| at + d.len()));
                match cut {
                    Some(cut) => {
                        let prefix = blob.name[..asked.prefix.len() + cut].to_owned();
                        start = Some(behind(&prefix));
                        lines.prefix(&prefix);
                        skipped = Some(prefix);
                    }
                    None => {
                        start = Some(after(&blob.name));
                        skipped = None;
                        lines.blob(&blob);
                    }
                }
            }
            if page.next.is_none() {
                return Ok(None);
            }
            if asked.is_full(lines.count, &lines.out) && asked.delimiter.is_none() {
                return Ok(start);
            }
        }
        Ok(start)
    }
}
