//! What is stored: tables, keys and records. Bytes are elsewhere; see [`crate::bytes`].

use std::collections::BTreeMap;

use arcadia_kernel::ArmId;
use arcadia_store::{Record, Table};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::bytes::Piece;

/// Who holds an account name. Names are unique in the whole site and free again once the account is deleted. Every
/// change of an account's containers, and of what is in them, requires this row unchanged.
pub(crate) const NAMES: Table<str, NameClaim> = Table::new("storage/names");
/// Account keys by account instance.
pub(crate) const KEYS: Table<Uuid, AccountKeys> = Table::new("storage/keys");
/// Containers by account instance and name. Every change of a container's blobs requires its row unchanged.
pub(crate) const CONTAINERS: Table<(Uuid, String), Container> = Table::new("storage/containers");
/// Blobs by container instance and name, which counts case.
pub(crate) const BLOBS: Table<(Uuid, String), Blob> = Table::new("storage/blobs");
/// The blocks of blobs that have more than one piece, by content and number of the part.
pub(crate) const CONTENTS: Table<(Uuid, u64), ContentPart> = Table::new("storage/contents");
/// Blobs that blocks were put for and that were not committed since, by container instance and name.
pub(crate) const DRAFTS: Table<(Uuid, String), Draft> = Table::new("storage/drafts");
/// Uncommitted blocks by draft and block id.
pub(crate) const BLOCKS: Table<(Uuid, String), Block> = Table::new("storage/blocks");
/// What the sweep removes, by the second from which it may.
pub(crate) const GARBAGE: Table<(u64, Uuid), Garbage> = Table::new("storage/garbage");

/// Blocks in one row of [`CONTENTS`], and freed pieces in one row of [`GARBAGE`].
pub(crate) const ITEMS_PER_PART: usize = 1000;
/// How long freed bytes stay for answers that are still being sent.
pub(crate) const GRACE_SECONDS: i64 = 60 * 60;
/// How long uncommitted blocks are kept after the last one was put.
pub(crate) const DRAFT_SECONDS: i64 = 7 * 24 * 60 * 60;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NameClaim {
    pub account_id: ArmId,
    /// Made anew for each account, so that one that takes over a name never sees what the former one held.
    pub instance: Uuid,
}

/// Not `Debug`: keys must not reach a log.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct AccountKeys {
    pub instance: Uuid,
    pub keys: [AccountKey; 2],
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct AccountKey {
    /// `key1` or `key2`.
    pub name: String,
    /// Base64, 64 bytes.
    pub value: String,
    pub created: jiff::Timestamp,
}

pub(crate) type Metadata = BTreeMap<String, String>;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Container {
    pub name: String,
    /// Made anew for each container, as an account's is.
    pub instance: Uuid,
    /// Without quotes.
    pub etag: String,
    /// Seconds since 1970, as all times here.
    pub modified: i64,
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
}

/// Not `Debug`, as nothing that holds a piece is.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Blob {
    pub name: String,
    /// Without quotes.
    pub etag: String,
    pub created: i64,
    pub modified: i64,
    pub length: u64,
    pub headers: ContentHeaders,
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// When the tier was last chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier_changed: Option<i64>,
    /// What the blob was copied from, until something else is put in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copied: Option<Copied>,
    pub content: Content,
}

/// The copy that made a blob. It was done when it was answered, and had all of the blob's bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Copied {
    pub id: Uuid,
    /// A URL without a query.
    pub source: String,
    pub at: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ContentHeaders {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_language: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_disposition: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<String>,
    /// Base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_md5: Option<String>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Content {
    Empty,
    One(Piece),
    /// In [`CONTENTS`].
    Listed {
        id: Uuid,
        blocks: usize,
    },
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct ContentPart {
    pub number: u64,
    pub blocks: Vec<Block>,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Block {
    /// As it was given, Base64.
    pub id: String,
    pub piece: Piece,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Draft {
    pub container: Uuid,
    pub name: String,
    pub id: Uuid,
    /// All block ids of a blob have the same length.
    pub block_id_chars: usize,
    /// When a block was last put.
    pub touched: i64,
    pub blocks: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Garbage {
    pub at: u64,
    pub id: Uuid,
    pub what: Refuse,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Refuse {
    /// Bytes that nothing refers to any more.
    Pieces(Vec<Uuid>),
    /// The parts of a content, and with `free` their pieces.
    Content { id: Uuid, free: bool },
    /// The blocks of a draft, and with `free` their pieces.
    Draft { id: Uuid, free: bool },
    /// Everything in a container.
    Container(Uuid),
    /// Everything in an account.
    Account(Uuid),
}

impl Garbage {
    pub fn new(id: Uuid, at: i64, what: Refuse) -> Self {
        Self { at: at.max(0).unsigned_abs(), id, what }
    }

    pub fn key(&self) -> (u64, Uuid) {
        (self.at, self.id)
    }
}

impl Record for NameClaim {}
impl Record for AccountKeys {}
impl Record for Container {}
impl Record for Blob {}
impl Record for ContentPart {}
impl Record for Block {}
impl Record for Draft {}
impl Record for Garbage {}
