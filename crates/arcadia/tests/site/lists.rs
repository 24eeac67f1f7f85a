//! Lists of a started site, asked for in ways that no client means well by; and tokens of pages, where they do not
//! belong.

use std::collections::BTreeSet;

use arcadia_client::Call;
use http::{HeaderName, HeaderValue};
use serde_json::{Value, json};

use crate::support::{ARM, ARM_SCOPE, GRAPH, GRAPH_SCOPE, Site, Wire};

const READER: &str = "acdd72a7-3385-48ef-bd42-f606fba81ae7";
const BLOB_CONTRIBUTOR: &str = "ba92f5b4-2d11-453d-a403-e96b0029c9fe";

/// Tokens that were never given: empty, no base64, too long, short, and one of the right form.
fn forged() -> Vec<String> {
    let mut all: Vec<String> = ["x", "%25%25", "..%2F..%2F", "AAAA", "%00", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]
        .map(str::to_owned)
        .to_vec();
    all.push("A".repeat(5000));
    all
}

/// The value of a field of a query.
fn field<'a>(url: &'a str, name: &str) -> &'a str {
    let (_, rest) = url.split_once(name).unwrap_or_else(|| panic!("{name} is not in {url}"));
    rest.split('&').next().unwrap().trim_start_matches('=')
}

/// Someone who asks for JSON.
struct Asker<'a> {
    wire: &'a Wire,
    token: String,
}

impl Asker<'_> {
    #[track_caller]
    fn refused(url: &str, found: (u16, Value), code: &str) {
        assert_eq!(found.0, 400, "{url:.300}: {}", found.1);
        assert_eq!(found.1["error"]["code"], code, "{url:.300}: {}", found.1);
        assert!(found.1["error"]["message"].as_str().is_some_and(|text| text.len() < 1000), "{}", found.1);
    }

    async fn get(&self, url: &str) -> (u16, Value) {
        let answer = self.wire.send("GET", url, Some(&self.token), None).await;
        let body = serde_json::from_slice(&answer.body);
        (answer.status.as_u16(), body.unwrap_or_else(|error| panic!("{url:.300}: {error}")))
    }

    async fn is_refused(&self, url: &str, code: &str) {
        Self::refused(url, self.get(url).await, code);
    }

    /// Every page to the end; what `id` gives of each item.
    async fn pages(&self, url: &str, link: &str) -> Vec<Vec<String>> {
        let (mut url, mut pages) = (url.to_owned(), Vec::new());
        while !url.is_empty() {
            let (status, page) = self.get(&url).await;
            assert_eq!(status, 200, "{url}: {page}");
            let items = page["value"].as_array().unwrap().iter();
            pages.push(items.map(|item| item["id"].as_str().unwrap().to_owned()).collect());
            assert!(pages.len() < 1000, "{url} has no end");
            url = page[link].as_str().unwrap_or_default().to_owned();
        }
        pages
    }
}

/// All pages together have what one page has, each once, and none has more than one.
fn one_by_one(pages: &[Vec<String>], whole: &[Vec<String>]) {
    assert!(pages.iter().all(|page| page.len() <= 1), "{pages:?}");
    let [whole] = whole else { panic!("it is more than one page: {whole:?}") };
    assert_eq!(&pages.concat(), whole);
    assert_eq!(whole.iter().collect::<BTreeSet<_>>().len(), whole.len());
}

fn hostile_filters() -> Vec<String> {
    let mut all: Vec<String> = [
        "%27",
        "(",
        ")",
        "name",
        "name%20eq",
        "name%20eq%20%27x",
        "name%20lt%20%27x%27",
        "%00",
        "%FF%FE",
        "eq",
    ]
    .map(str::to_owned)
    .to_vec();
    all.push("(".repeat(1500));
    all.push("not%20".repeat(400));
    all.push(format!("name%20eq%20%27{}%27", "a".repeat(5000)));
    all.push(format!("name%20eq%20%27a%27{}", "%20or%20name%20eq%20%27a%27".repeat(100)));
    all
}

#[tokio::test]
async fn lists_of_the_resource_manager() {
    let site = Site::start();
    let wire = site.client();
    for name in ["kvlists1", "kvlists2"] {
        wire.vault(name).await;
    }
    let vault = wire.vault("kvlists3").await;
    let subscription = format!("/subscriptions/{}", wire.subscription());
    let reader = wire.application("reader").await;
    for scope in [&subscription, &format!("{subscription}/resourceGroups/rg1"), &vault] {
        wire.assign(scope, READER, &reader.object_id).await;
        wire.assign(scope, crate::support::SECRETS_USER, &reader.object_id).await;
    }
    let owner = Asker { wire: &wire, token: wire.admin_token(ARM_SCOPE).await };
    let token = wire.token_of(&reader.app_id, &reader.secret, ARM_SCOPE).await;
    let other = Asker { wire: &wire, token };
    let assignments = "providers/Microsoft.Authorization/roleAssignments?api-version=2022-04-01";
    let lists = [
        format!("{ARM}{subscription}/resources?api-version=2021-04-01"),
        format!("{ARM}{subscription}/resourceGroups/rg1/resources?api-version=2021-04-01"),
        format!("{ARM}{subscription}/providers/Microsoft.KeyVault/vaults?api-version=2023-07-01"),
        format!("{ARM}{vault}/{assignments}"),
        format!("{ARM}{subscription}/{assignments}"),
        format!("{ARM}{subscription}/resourcegroups?api-version=2021-04-01"),
    ];
    for list in &lists {
        for top in ["0", "-1", "x", "1.5", "1e3", "%00", "99999999999999999999999"] {
            owner.is_refused(&format!("{list}&$top={top}"), "InvalidTopParameter").await;
        }
        for token in forged() {
            owner.is_refused(&format!("{list}&$skiptoken={token}"), "InvalidSkipToken").await;
        }
        for filter in hostile_filters() {
            owner.is_refused(&format!("{list}&$filter={filter}"), "InvalidFilterInQueryString").await;
        }
        let whole = owner.pages(&format!("{list}&$top=18446744073709551615"), "nextLink").await;
        one_by_one(&owner.pages(&format!("{list}&$top=1"), "nextLink").await, &whole);
    }
    for filter in ["principalId%20eq%20%27me%27", "assignedTo()", "assignedTo(%27x%27)", "atScope(1)"] {
        owner.is_refused(&format!("{}&$filter={filter}", lists[3]), "InvalidFilterInQueryString").await;
    }
    let at_scope = format!("{}&$filter=atScope()", lists[4]);
    let whole = owner.pages(&at_scope, "nextLink").await;
    one_by_one(&owner.pages(&format!("{at_scope}&$top=1"), "nextLink").await, &whole);
    // A token is for the list and the caller that it was given for.
    for list in &lists[..5] {
        let (_, first) = owner.get(&format!("{list}&$top=1")).await;
        let link = first["nextLink"].as_str().unwrap();
        let token = field(link, "%24skiptoken");
        assert_eq!(other.get(list).await.0, 200);
        other.is_refused(link, "InvalidSkipToken").await;
        for elsewhere in lists.iter().filter(|elsewhere| *elsewhere != list) {
            owner.is_refused(&format!("{elsewhere}&$skiptoken={token}"), "InvalidSkipToken").await;
        }
        let cut = &token[..token.len() - 1];
        let (status, page) = owner.get(&format!("{list}&$skiptoken={cut}")).await;
        assert!(status == 200 || page["error"]["code"] == "InvalidSkipToken", "{page}");
    }
}

#[tokio::test]
async fn lists_of_the_directory() {
    const GROUPS: usize = 105;
    let site = Site::start();
    let wire = site.client();
    let admin = Asker { wire: &wire, token: wire.admin_token(GRAPH_SCOPE).await };
    for at in 0..GROUPS {
        let body = json!({
            "displayName": format!("g{at}"), "mailNickname": format!("g{at}"), "mailEnabled": false,
            "securityEnabled": true,
        });
        wire.must("POST", &format!("{GRAPH}/v1.0/groups"), &admin.token, Some(body)).await;
    }
    for name in ["one", "two"] {
        wire.application(name).await;
    }
    let lists =
        ["groups", "users", "applications", "servicePrincipals"].map(|set| format!("{GRAPH}/v1.0/{set}"));
    for list in &lists {
        for top in ["0", "-1", "x", "1.5", "1000", "%00", "99999999999999999999999"] {
            admin.is_refused(&format!("{list}?$top={top}"), "Request_BadRequest").await;
        }
        for token in forged() {
            admin.is_refused(&format!("{list}?$skiptoken={token}"), "Request_BadRequest").await;
        }
        for filter in hostile_filters() {
            admin.is_refused(&format!("{list}?$filter={filter}"), "Request_UnsupportedQuery").await;
        }
    }
    let sizes = |pages: Vec<Vec<String>>| pages.iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(sizes(admin.pages(&lists[0], "@odata.nextLink").await), [100, GROUPS - 100]);
    assert_eq!(sizes(admin.pages(&format!("{}?$top=999", lists[0]), "@odata.nextLink").await), [GROUPS]);
    for list in &lists[2..] {
        let whole = admin.pages(list, "@odata.nextLink").await;
        one_by_one(&admin.pages(&format!("{list}?$top=1"), "@odata.nextLink").await, &whole);
    }
    let (_, first) = admin.get(&format!("{}?$top=1", lists[0])).await;
    let link = first["@odata.nextLink"].as_str().unwrap();
    let token = field(link, "$skiptoken");
    for elsewhere in &lists[1..] {
        admin.is_refused(&format!("{elsewhere}?$skiptoken={token}"), "Request_BadRequest").await;
    }
    let guest = wire.application("guest").await;
    let guest = Asker { wire: &wire, token: wire.token_of(&guest.app_id, &guest.secret, GRAPH_SCOPE).await };
    assert_ne!(guest.get(link).await.0, 200);
}

/// Someone who asks for XML.
struct Member<'a> {
    wire: &'a Wire,
    token: String,
}

const ACCOUNT: &str = "https://stlists.blob.core.windows.net";

impl Member<'_> {
    async fn send(&self, call: Call) -> (u16, String) {
        let call = call
            .bearer(&self.token)
            .unwrap()
            .header(HeaderName::from_static("x-ms-version"), HeaderValue::from_static("2021-12-02"))
            .header(HeaderName::from_static("x-ms-blob-type"), HeaderValue::from_static("BlockBlob"));
        let answer = self.wire.client.send(call).await.unwrap();
        (answer.status.as_u16(), String::from_utf8(answer.body.to_vec()).unwrap())
    }

    async fn put(&self, path: &str) {
        let (status, text) = self.send(Call::put(format!("{ACCOUNT}{path}")).body("text/plain", "x")).await;
        assert_eq!(status, 201, "{path}: {text}");
    }

    /// A list, which is XML whatever was asked for.
    async fn list(&self, query: &str) -> (u16, String) {
        let (status, text) = self.send(Call::get(format!("{ACCOUNT}{query}"))).await;
        let has_form = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..);
        assert!(
            text.starts_with("\u{feff}<?xml ") && text.chars().all(has_form),
            "{query:.300}: {text:.300}"
        );
        (status, text)
    }

    async fn is_refused(&self, query: &str, code: &str, name: &str) {
        let (status, text) = self.list(query).await;
        assert_eq!(status, 400, "{query:.300}: {text}");
        assert!(text.contains(&format!("<Error><Code>{code}</Code>")), "{query:.300}: {text}");
        assert!(text.contains(&format!("<QueryParameterName>{name}</QueryParameterName>")), "{text}");
    }
}

fn all<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let (begin, end) = (format!("<{name}>"), format!("</{name}>"));
    text.split(&begin).skip(1).filter_map(|rest| rest.split(&end).next()).collect()
}

async fn account<'a>(wire: &'a Wire) -> (Member<'a>, Member<'a>) {
    let arm = wire.admin_token(ARM_SCOPE).await;
    let group = format!("/subscriptions/{}/resourceGroups/rg1", wire.subscription());
    let body = json!({ "location": "uksouth" });
    wire.must("PUT", &format!("{ARM}{group}?api-version=2024-11-01"), &arm, Some(body)).await;
    let account = format!("{group}/providers/Microsoft.Storage/storageAccounts/stlists");
    let body = json!({ "location": "uksouth", "kind": "StorageV2", "sku": { "name": "Standard_LRS" } });
    wire.must("PUT", &format!("{ARM}{account}?api-version=2023-05-01"), &arm, Some(body)).await;
    let mut members = Vec::new();
    for name in ["first", "second"] {
        let member = wire.application(name).await;
        wire.assign(&account, BLOB_CONTRIBUTOR, &member.object_id).await;
        let scope = "https://storage.azure.com/.default";
        members.push(Member { wire, token: wire.token_of(&member.app_id, &member.secret, scope).await });
    }
    let second = members.pop().unwrap();
    (members.pop().unwrap(), second)
}

#[tokio::test]
async fn lists_of_blobs() {
    let site = Site::start();
    let wire = site.client();
    let (member, other) = account(&wire).await;
    for container in ["cc1", "cc2"] {
        member.put(&format!("/{container}?restype=container")).await;
        for blob in ["a", "b%2Fc", "b%2Fd", "e", "f"] {
            member.put(&format!("/{container}/{blob}")).await;
        }
    }
    let lists = ["/cc1?restype=container&comp=list", "/cc2?restype=container&comp=list", "/?comp=list"];
    for list in lists {
        for number in ["0", "-1", "-9223372036854775808"] {
            let query = format!("{list}&maxresults={number}");
            member.is_refused(&query, "OutOfRangeQueryParameterValue", "maxresults").await;
        }
        for number in ["x", "1.5", "1e3", "%00", "99999999999999999999999", "%EF%BC%95"] {
            let query = format!("{list}&maxresults={number}");
            member.is_refused(&query, "InvalidQueryParameterValue", "maxresults").await;
        }
        for number in ["5001", "2147483647", "9223372036854775807"] {
            let (status, text) = member.list(&format!("{list}&maxresults={number}")).await;
            assert!(status == 200 && text.contains("<NextMarker />"), "{text}");
        }
        for marker in forged() {
            member
                .is_refused(&format!("{list}&marker={marker}"), "InvalidQueryParameterValue", "marker")
                .await;
        }
        for include in ["other", "metadata,other", "%00", ",,x", "<b>", &"metadata,".repeat(500)] {
            let include = include.replace('<', "%3C").replace('>', "%3E");
            let query = format!("{list}&include={include}");
            member.is_refused(&query, "InvalidQueryParameterValue", "include").await;
        }
        let long = "a".repeat(5000);
        for name in ["prefix", "delimiter"] {
            member.is_refused(&format!("{list}&{name}={long}"), "InvalidQueryParameterValue", name).await;
            for odd in [
                &"%2F".repeat(1000),
                "%00%01%1F",
                "%EF%BF%BE%EF%BF%BF",
                "%3C/Prefix%3E%26",
                "%F0%9F%A6%8C",
                "%FF",
            ] {
                let (status, text) = member.list(&format!("{list}&{name}={odd}")).await;
                assert_eq!(status, 200, "{name}={odd:.300}: {text}");
            }
        }
    }
    // A marker is for the list and the caller that it was given for.
    let (_, first) = member.list(&format!("{}&maxresults=2", lists[0])).await;
    assert_eq!(all(&first, "Name"), ["a", "b/c"]);
    let marker = all(&first, "NextMarker")[0].to_owned();
    let (_, rest) = member.list(&format!("{}&marker={marker}", lists[0])).await;
    assert_eq!(all(&rest, "Name")[..2], ["b/d", "e"]);
    for list in &lists[1..] {
        member.is_refused(&format!("{list}&marker={marker}"), "InvalidQueryParameterValue", "marker").await;
    }
    assert_eq!(other.list(lists[0]).await.0, 200);
    other.is_refused(&format!("{}&marker={marker}", lists[0]), "InvalidQueryParameterValue", "marker").await;
}
