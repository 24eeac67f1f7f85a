//! Lists, in pages.

#[cfg(test)]
mod fuzz;

use arcadia_crypto::{b64url, b64url_decode};
use arcadia_kernel::{At, Continuation, Fault, Permit, Reply, Request, RequestHead};
use serde::{Deserialize, Serialize};

use super::ReadMetadata;
use super::wire::{Bundle, Writer};
use crate::KeyVault;
use crate::faults::bad_parameter;
use crate::records::{DELETED_SECRETS, SECRETS, VERSIONS};

const PAGE_ITEMS_MAX: usize = 25;

/// What `$skiptoken` holds, as base64url of JSON.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SkipToken {
    next_marker: String,
    #[serde(default)]
    target_location: u8,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct List<'a> {
    value: Vec<Bundle<'a>>,
    next_link: Option<String>,
}

/// Where a page starts and how long it may be.
struct Ask {
    after: Option<Continuation>,
    limit: usize,
}

impl Ask {
    fn of(head: &RequestHead) -> Result<Self, Fault> {
        let limit = match head.query.first("maxresults") {
            None | Some("") => PAGE_ITEMS_MAX,
            Some(text) => {
                // No sign: a plus in the next page's address is a blank.
                let digits = Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
                let limit = digits.and_then(|text| text.parse::<usize>().ok());
                limit.filter(|limit| (1..=PAGE_ITEMS_MAX).contains(limit)).ok_or_else(|| {
                    bad_parameter("The parameter 'maxresults' must be a number from 1 to 25.")
                })?
            }
        };
        let after = head.query.first("$skiptoken").map(|token| read_token(token, head)).transpose()?;
        Ok(Self { after, limit })
    }
}

fn read_token(text: &str, head: &RequestHead) -> Result<Continuation, Fault> {
    let refused = || {
        bad_parameter("The parameter '$skiptoken' is not one that this service issued. List from the start.")
    };
    let json = b64url_decode(text.trim_end_matches('=')).ok_or_else(refused)?;
    let token: SkipToken = serde_json::from_slice(&json).map_err(|_| refused())?;
    Continuation::parse(&token.next_marker, head).map_err(|_| refused())
}

/// The list's own address with where to go on; `maxresults` and `api-version` as they were sent.
fn next_link(head: &RequestHead, next: &Continuation) -> Result<String, Fault> {
    let token = SkipToken { next_marker: next.token(head), target_location: 0 };
    let token = b64url(&serde_json::to_vec(&token).map_err(Fault::internal)?);
    let path: String = head.segments.iter().flat_map(|segment| ["/", segment.as_str()]).collect();
    let version = head.query.first("api-version").unwrap_or("").trim();
    let mut link = format!("{}{path}?api-version={version}&$skiptoken={token}", head.origin);
    if let Some(limit) = head.query.first("maxresults").filter(|limit| !limit.is_empty()) {
        link.push_str(&format!("&maxresults={limit}"));
    }
    Ok(link)
}

fn answer(head: &RequestHead, value: Vec<Bundle<'_>>, next: Option<&Continuation>) -> Result<Reply, Fault> {
    let next_link = next.map(|next| next_link(head, next)).transpose()?;
    Reply::ok(&List { value, next_link })
}

/// The newest version of every secret, without values.
pub(super) async fn secrets(
    at: At<KeyVault>,
    _permit: Permit<ReadMetadata>,
    request: Request,
) -> Result<Reply, Fault> {
    let ask = Ask::of(&request)?;
    let prefix = (at.target.vault.properties.instance,);
    let page = at.store.range(SECRETS, &prefix, ask.after.as_ref(), ask.limit).await?;
    let writer = Writer::new(&at, &at.target);
    let items = page.items.iter().map(|row| writer.item(&row.value)).collect();
    answer(&request, items, page.next.as_ref())
}

/// Every version of one secret, without values. Of an unknown secret there are none.
pub(super) async fn versions(
    at: At<KeyVault>,
    _permit: Permit<ReadMetadata>,
    request: Request,
) -> Result<Reply, Fault> {
    let ask = Ask::of(&request)?;
    let vault = &at.target.vault;
    let Some(secret) = at.secret(vault, request.param("name")).await? else {
        return answer(&request, Vec::new(), None);
    };
    let secret = secret.value;
    let prefix = (vault.properties.instance, secret.key);
    let page = at.store.range(VERSIONS, &prefix, ask.after.as_ref(), ask.limit).await?;
    let writer = Writer::new(&at, &at.target);
    let versions = page.items.iter().map(|row| &row.value);
    let items = versions.map(|v| writer.without_value(&secret, &v.version, &v.facts)).collect();
    answer(&request, items, page.next.as_ref())
}

pub(super) async fn deleted(
    at: At<KeyVault>,
    _permit: Permit<ReadMetadata>,
    request: Request,
) -> Result<Reply, Fault> {
    let ask = Ask::of(&request)?;
    let prefix = (at.target.vault.properties.instance,);
    let page = at.store.range(DELETED_SECRETS, &prefix, ask.after.as_ref(), ask.limit).await?;
    let writer = Writer::new(&at, &at.target);
    let items = page.items.iter().map(|row| writer.deleted_item(&row.value)).collect();
    answer(&request, items, page.next.as_ref())
}
