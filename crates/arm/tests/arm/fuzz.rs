//! Fuzz targets for whole requests to the resource manager, and for the bodies of roles.

use std::cell::RefCell;

use arcadia_kernel::Method;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use uuid::Uuid;

use crate::support::*;

/// Requests of one input; more are left out.
const REQUESTS_MAX: usize = 8;
/// Inputs that one site gets; then there is a new one, so that what fuzzing piles up stays bounded.
const INPUTS_MAX: usize = 200;

struct Running {
    runtime: Runtime,
    site: Site,
    inputs: usize,
}

/// A site, and a resource group of it that nobody has used.
fn with_group<T>(run: impl AsyncFnOnce(&Site, &str) -> T) -> T {
    thread_local!(static SITE: RefCell<Option<Running>> = const { RefCell::new(None) });
    SITE.with_borrow_mut(|running| {
        let running = match running {
            Some(running) if running.inputs < INPUTS_MAX => running,
            other => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let site = runtime.block_on(Site::new());
                other.insert(Running { runtime, site, inputs: 0 })
            }
        };
        running.inputs += 1;
        let name = format!("g{}", running.inputs);
        running.runtime.block_on(async {
            let group = running.site.group(&name).await;
            run(&running.site, &group).await
        })
    })
}

arcadia_fuzz::target!(arm_requests, 256 copies, |data: &[u8]| requests_keep_their_promises(data));

/// Requests with empty lines between them: method and target in the first line, then the body; `~` in a target is a
/// resource group that exists. Each is sent by nobody and by a stranger, who change nothing, and by an owner, who is
/// never told of a fault of the service.
fn requests_keep_their_promises(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    with_group(async |site, group| {
        for request in text.split("\n\n").take(REQUESTS_MAX) {
            let request = request.replace('~', group);
            let send = async |who: Option<Uuid>| Some(site.send(asked(&request, who)?).await);
            let (Some(unknown), Some(stranger), Some(answer)) =
                (send(None).await, send(Some(STRANGER)).await, send(Some(OWNER)).await)
            else {
                continue;
            };
            let is_change = ["PUT ", "PATCH ", "DELETE "].iter().any(|method| request.starts_with(method));
            assert!(stranger.status >= 400 || !is_change, "{request}: {} for a stranger", stranger.status);
            checked(&request, &unknown);
            checked(&request, &stranger);
            checked(&request, &answer);
            if request.starts_with("PUT ") && matches!(answer.status, 200 | 201) {
                let (line, _) = request.split_once('\n').unwrap_or((&request, ""));
                let read = asked(&line.replacen("PUT", "GET", 1), Some(OWNER)).unwrap();
                let read = site.send(read).await.is(200);
                for name in ["id", "name", "type"] {
                    assert_eq!(read.body[name], answer.body[name], "{request}");
                }
            }
        }
    });
}

fn asked(request: &str, who: Option<Uuid>) -> Option<http::Request<String>> {
    let (line, body) = request.split_once('\n').unwrap_or((request, ""));
    let (method, target) = line.split_once(' ')?;
    let target = target.trim();
    // What is no target of HTTP never comes as far as a service.
    target.parse::<http::Uri>().ok().filter(|_| target.starts_with('/'))?;
    let mut builder =
        http::Request::builder().method(Method::from_bytes(method.as_bytes()).ok()?).uri(target);
    if let Some(who) = who {
        builder = builder.header("authorization", format!("Bearer {who}"));
    }
    builder.body(body.to_owned()).ok()
}

fn checked(request: &str, answer: &Answer) {
    assert!(answer.status < 500, "{request}: {} {}", answer.status, answer.body);
    if answer.status >= 400 && !answer.body.is_null() {
        assert!(!answer.code().is_empty() && !answer.message().is_empty(), "{request}: {}", answer.body);
    }
}

arcadia_fuzz::target!(role_bodies, 512 copies, |data: &[u8]| roles_are_what_was_asked_for(data));

/// The body of a role definition and that of an assignment, a line each; `~` is the group, `@` the role.
fn roles_are_what_was_asked_for(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    with_group(async |site, group| {
        let id = Uuid::from_u128(group.bytes().fold(0, |id, byte| id << 8 | u128::from(byte)));
        let definition = format!("{group}/providers/Microsoft.Authorization/roleDefinitions/{id}");
        let text = text.replace('~', group).replace('@', &definition);
        let (role, assignment) = text.split_once('\n').unwrap_or((&text, ""));
        let version = "?api-version=2022-04-01";
        let put = async |path: &str, body: &str| {
            let answer =
                site.send(asked(&format!("PUT {path}{version}\n{body}"), Some(OWNER)).unwrap()).await;
            checked(body, &answer);
            answer
        };
        let made = put(&definition, role).await;
        // It is found where it is assignable, which need not be where it was put.
        let assignable = made.body["properties"]["assignableScopes"][0].as_str().unwrap_or_default();
        let found = format!(
            "{}/providers/Microsoft.Authorization/roleDefinitions/{id}{version}",
            encoded(assignable)
        );
        if made.status == 201 {
            let asked: Value = serde_json::from_str(role).unwrap();
            role_is(&made.body, &asked);
            assert_eq!(site.get(OWNER, &found).await.is(200).body, made.body);
        }
        let path = format!("{group}/providers/Microsoft.Authorization/roleAssignments/{id}");
        let assigned = put(&path, assignment).await;
        if assigned.status == 201 {
            let asked: Value = serde_json::from_str(assignment).unwrap();
            let (asked, shown) = (&asked["properties"], &assigned.body["properties"]);
            let guid =
                |value: &Value| Uuid::try_parse(value.as_str().unwrap().rsplit('/').next().unwrap()).unwrap();
            for name in ["principalId", "roleDefinitionId"] {
                assert_eq!(guid(&shown[name]), guid(&asked[name]));
            }
            assert_eq!(shown["scope"].as_str().unwrap().to_lowercase(), group.to_lowercase());
            // A condition that is kept is one that was asked for; one that was asked for is not dropped.
            let trimmed = |value: &Value| {
                value.as_str().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
            };
            assert_eq!(trimmed(&shown["condition"]), trimmed(&asked["condition"]));
            assert_eq!(shown["conditionVersion"] == "2.0", trimmed(&asked["condition"]).is_some());
            assert_eq!(site.delete(OWNER, &format!("{path}{version}")).await.status, 200);
        }
        if made.status == 201 {
            site.delete(OWNER, &found).await.is(200);
        }
    });
}

/// A scope as a path of a target.
fn encoded(scope: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.()".contains(&byte);
    scope
        .bytes()
        .map(|byte| if plain(byte) { char::from(byte).into() } else { format!("%{byte:02X}") })
        .collect()
}

/// The role that was made has the lists that were asked for, each bounded and of known characters.
fn role_is(made: &Value, asked: &Value) {
    let (made, asked) = (&made["properties"], &asked["properties"]);
    assert_eq!(made["roleName"].as_str(), asked["roleName"].as_str().map(str::trim));
    assert_eq!(made["type"], "CustomRole");
    assert_eq!(
        made["description"],
        *Some(&asked["description"]).filter(|text| !text.is_null()).unwrap_or(&json!(""))
    );
    let (blocks, wanted) =
        (made["permissions"].as_array().unwrap(), asked["permissions"].as_array().unwrap());
    assert!((1..=16).contains(&blocks.len()) && blocks.len() == wanted.len());
    for (block, wanted) in blocks.iter().zip(wanted) {
        for name in ["actions", "notActions", "dataActions", "notDataActions"] {
            let of = |value: &Value| value[name].as_array().cloned().unwrap_or_default();
            assert_eq!(of(block), of(wanted), "{name}");
            let known = |pattern: &Value| {
                let pattern = pattern.as_str().unwrap();
                (1..=256).contains(&pattern.len())
                    && pattern.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"./*-_".contains(&byte))
            };
            assert!(of(block).iter().all(known));
        }
    }
    let scopes = made["assignableScopes"].as_array().unwrap();
    assert!(!scopes.is_empty() && scopes.len() == asked["assignableScopes"].as_array().unwrap().len());
    assert!(scopes.iter().all(|scope| scope.as_str().unwrap().to_lowercase().starts_with("/subscriptions/")));
}
