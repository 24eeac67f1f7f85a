//! What every kind of resource has in common: its rows, and what they do.

pub(crate) mod body;
mod read;
mod remove;
mod write;

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use arcadia_kernel::{
    Action, ArmId, AuditStamp, Caller, Entropy, Fault, Method, Op, Permit, RequestHead, op, signed_in,
};
use jiff::Timestamp;

use crate::Arm;
use crate::error;
use crate::kind::{Delete, Read, ResourceKind, Write};

pub(crate) use read::{base_view, get_if_there};
pub(crate) use remove::plan_removal;

/// A permit without its action: who, when, with what record.
pub(crate) struct Work<'a> {
    pub(crate) caller: &'a Caller,
    pub(crate) stamp: &'a AuditStamp,
    pub(crate) now: Timestamp,
    pub(crate) entropy: &'a dyn Entropy,
}

impl<'a> Work<'a> {
    pub(crate) fn of<A: Action>(permit: &'a Permit<A>) -> Self {
        Self { caller: permit.caller(), stamp: permit.stamp(), now: permit.now(), entropy: permit.entropy() }
    }
}

/// The rows that a kind has without saying so.
pub(crate) fn rows<K: ResourceKind>() -> Vec<Op<Arm>> {
    let paths = Paths::of(K::TYPE);
    let name = |what: &str| format!("{} {what}", K::TYPE);
    let mut rows = vec![
        op(name("get"), Method::GET, paths.one, |at, _: Permit<Read<K>>, request| async move {
            read::get(&at, K::TYPE, &request).await
        }),
        op(name("checkExistence"), Method::HEAD, paths.one, |at, _: Permit<Read<K>>, request| async move {
            read::exists(&at, K::TYPE, &request).await
        }),
        op(name("put"), Method::PUT, paths.one, |at, permit: Permit<Write<K>>, request| async move {
            write::put(&at, K::TYPE, &Work::of(&permit), request).await
        }),
        op(name("patch"), Method::PATCH, paths.one, |at, permit: Permit<Write<K>>, request| async move {
            write::patch(&at, K::TYPE, &Work::of(&permit), request).await
        }),
        op(name("delete"), Method::DELETE, paths.one, |at, permit: Permit<Delete<K>>, request| {
            remove::to_its_end(async move { remove::delete(&at, K::TYPE, &Work::of(&permit), request).await })
        }),
        op(name("list"), Method::GET, paths.beside, |at, _: Permit<Read<K>>, request| async move {
            read::list(&at, K::TYPE, &request, |_| true).await
        }),
    ];
    if let Some(everywhere) = paths.everywhere {
        rows.push(signed_in(
            name("listBySubscription"),
            Method::GET,
            everywhere,
            "lists the resources that the caller may read, wherever its role was assigned",
            |at, permit, request| async move {
                let action = Read::<K>::name();
                let may = |id: &ArmId| permit.may(&action, Read::<K>::PLANE, id);
                read::list(&at, K::TYPE, &request, may).await
            },
        ));
    }
    rows
}

/// The paths of a kind, for operation tables.
struct Paths {
    one: &'static str,
    /// The list beside one: in its group, or in its parent.
    beside: &'static str,
    /// The list in a subscription; only for kinds that are not nested.
    everywhere: Option<&'static str>,
}

impl Paths {
    fn of(type_name: &str) -> Self {
        let (namespace, types) = type_name.split_once('/').unwrap_or((type_name, ""));
        let types: Vec<&str> = types.split('/').collect();
        let mut beside = format!(
            "/subscriptions/{{subscriptionId}}/resourceGroups/{{resourceGroupName}}/providers/{namespace}"
        );
        for (at, name) in types.iter().enumerate() {
            if at > 0 {
                beside.push_str(&format!("/{{name{at}}}"));
            }
            beside.push_str(&format!("/{name}"));
        }
        let everywhere = (types.len() == 1)
            .then(|| kept(format!("/subscriptions/{{subscriptionId}}/providers/{type_name}")));
        Self { one: kept(format!("{beside}/{{name{}}}", types.len())), beside: kept(beside), everywhere }
    }
}

/// Operation tables hold literals; those of kinds are built once per kind and kept as long as the program.
pub(crate) fn kept(text: String) -> &'static str {
    static KEPT: OnceLock<Mutex<BTreeMap<String, &'static str>>> = OnceLock::new();
    let mut kept = KEPT.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    kept.entry(text.clone()).or_insert_with(|| Box::leak(text.into_boxed_str()))
}

/// The identifier that a row's path names, with type and literal segments as the kind writes them and names as
/// the client does.
fn requested_id(type_name: &str, head: &RequestHead) -> Result<ArmId, Fault> {
    let (namespace, types) = type_name.split_once('/').unwrap_or((type_name, ""));
    let mut segments = vec![
        "subscriptions",
        head.param("subscriptionId"),
        "resourceGroups",
        head.param("resourceGroupName"),
        "providers",
        namespace,
    ];
    let names: Vec<String> = (1..=types.split('/').count()).map(|at| format!("name{at}")).collect();
    for (name, parameter) in types.split('/').zip(&names) {
        segments.push(name);
        segments.push(head.param(parameter));
    }
    ArmId::from_segments(segments.into_iter().filter(|segment| !segment.is_empty()))
        .map_err(|_| error::invalid_content("The resource identifier is not well formed."))
}
