//! The resource manager's part: the resource group and the machine in it.

use arcadia_client::{Answer, Call, Client, ClientFault, Endpoints, StatusCode};
use arcadia_crypto::Zeroizing;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Failure, OnboardFault};

const GROUP_VERSION: &str = "2021-04-01";
const SUBSCRIPTION_VERSION: &str = "2022-12-01";
const MACHINE_VERSION: &str = "2024-07-10";
const SUBSCRIPTION_PAGES_MAX: usize = 50;
/// What a path segment may hold as it is.
const SEGMENT: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'(').remove(b')').remove(b'~');

/// The resource manager, as whoever signed in.
pub(super) struct Arm<'a> {
    pub(super) client: &'a Client,
    pub(super) endpoints: &'a Endpoints,
    pub(super) token: &'a Zeroizing<String>,
}

/// Where a machine's resource is.
pub(super) struct Place<'a> {
    pub(super) subscription_id: Uuid,
    pub(super) resource_group: &'a str,
    pub(super) name: &'a str,
}

impl Place<'_> {
    fn group_path(&self) -> String {
        let group = utf8_percent_encode(self.resource_group, SEGMENT);
        format!("/subscriptions/{}/resourceGroups/{group}", self.subscription_id)
    }

    fn machine_path(&self) -> String {
        let name = utf8_percent_encode(self.name, SEGMENT);
        format!("{}/providers/Microsoft.HybridCompute/machines/{name}", self.group_path())
    }

    /// The resource's identifier, as it is written without encoding.
    pub(super) fn resource_id(&self) -> String {
        format!(
            "/subscriptions/{}/resourceGroups/{}/providers/Microsoft.HybridCompute/machines/{}",
            self.subscription_id, self.resource_group, self.name
        )
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SubscriptionPage {
    value: Vec<Subscription>,
    next_link: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Subscription {
    subscription_id: Uuid,
    display_name: String,
}

impl Arm<'_> {
    fn url(&self, path: &str, version: &str) -> String {
        format!("{}{path}?api-version={version}", self.endpoints.management.trim_end_matches('/'))
    }

    async fn send(&self, call: Call) -> Result<Answer, ClientFault> {
        self.client.send(call.bearer(self.token)?).await
    }

    /// The subscription of that id or, when it is none, of that name.
    pub(super) async fn subscription(&self, id_or_name: &str) -> Result<Uuid, OnboardFault> {
        if let Ok(id) = id_or_name.parse() {
            return Ok(id);
        }
        let refused = |fault: ClientFault| {
            OnboardFault::site(Failure::SubscriptionLookup, "cannot look the subscription up", &fault)
        };
        let management = self.endpoints.management.trim_end_matches('/').to_owned();
        let mut url = self.url("/subscriptions", SUBSCRIPTION_VERSION);
        let mut found = Vec::new();
        for _ in 0..SUBSCRIPTION_PAGES_MAX {
            let answer = self.send(Call::get(url)).await.and_then(Answer::accepted).map_err(refused)?;
            let page: SubscriptionPage = answer.json().map_err(refused)?;
            let same = |one: &Subscription| one.display_name.eq_ignore_ascii_case(id_or_name);
            found.extend(page.value.into_iter().filter(same).map(|one| one.subscription_id));
            match page.next_link {
                // The token goes to the resource manager and nowhere else.
                Some(next) if next.starts_with(&format!("{management}/")) => url = next,
                _ => break,
            }
        }
        let wrong = |text: String| OnboardFault::new(Failure::SubscriptionLookup, text);
        match found.as_slice() {
            [id] => Ok(*id),
            [] => Err(wrong(format!("no subscription named '{id_or_name}' is visible; give its id"))),
            _ => Err(wrong(format!("several subscriptions are named '{id_or_name}'; give the id of one"))),
        }
    }

    /// Makes the resource group where there is none. Who may not look at groups may still be allowed machines.
    /// Tells whether it was made.
    pub(super) async fn ensure_group(&self, place: &Place<'_>, location: &str) -> Result<bool, OnboardFault> {
        let refused = |fault: ClientFault| {
            OnboardFault::site(Failure::CreateFailed, "cannot make the resource group", &fault)
        };
        let url = self.url(&place.group_path(), GROUP_VERSION);
        let found = self.send(Call::get(url.clone())).await.map_err(refused)?;
        if found.status != StatusCode::NOT_FOUND {
            return match found.accepted() {
                Err(fault)
                    if fault.refusal().is_some_and(|refusal| refusal.status != StatusCode::FORBIDDEN) =>
                {
                    Err(region_or(refused(fault), location))
                }
                _ => Ok(false),
            };
        }
        let call = Call::put(url).json(&json!({ "location": location })).map_err(refused)?;
        let made = self.send(call).await.and_then(Answer::accepted);
        made.map(|_| true).map_err(|fault| region_or(refused(fault), location))
    }

    /// The machine's resource; `None` when there is none.
    pub(super) async fn machine(&self, place: &Place<'_>) -> Result<Option<Value>, ClientFault> {
        let answer = self.send(Call::get(self.url(&place.machine_path(), MACHINE_VERSION))).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        answer.accepted()?.json().map(Some)
    }

    pub(super) async fn put_machine(&self, place: &Place<'_>, body: &Value) -> Result<Answer, OnboardFault> {
        let refused = |fault: ClientFault| {
            let conflict = fault.refusal().is_some_and(|refusal| refusal.status == StatusCode::CONFLICT);
            let failure = if conflict { Failure::AlreadyExists } else { Failure::CreateFailed };
            OnboardFault::site(failure, "cannot create the machine's resource", &fault)
        };
        let call = Call::put(self.url(&place.machine_path(), MACHINE_VERSION)).json(body).map_err(refused)?;
        let location = body["location"].as_str().unwrap_or("");
        let answer = self.send(call).await.and_then(Answer::accepted);
        answer.map_err(|fault| region_or(refused(fault), location))
    }

    /// Tells whether it was there.
    pub(super) async fn delete_machine(&self, place: &Place<'_>) -> Result<bool, ClientFault> {
        let answer = self.send(Call::delete(self.url(&place.machine_path(), MACHINE_VERSION))).await?;
        match answer.status {
            StatusCode::NOT_FOUND | StatusCode::NO_CONTENT => Ok(false),
            _ => answer.accepted().map(|_| true),
        }
    }
}

/// A location that the site does not have is the commonest mistake, and has a number of its own.
fn region_or(fault: OnboardFault, location: &str) -> OnboardFault {
    if fault.message.contains("LocationNotAvailable") || fault.message.contains("InvalidLocation") {
        OnboardFault::new(
            Failure::UnknownRegion,
            format!("'{location}' is not a location of this site: {}", fault.message),
        )
    } else {
        fault
    }
}
