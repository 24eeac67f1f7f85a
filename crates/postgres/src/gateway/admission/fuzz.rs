//! Fuzz target for whom a client says it is, and at which server.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::OnceLock;

use arcadia_arm::Resource;
use arcadia_kernel::ArmId;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{choose, named};
use crate::names::{PostgresNames, ROLE_BYTES_MAX};
use crate::snapshot::Snapshot;

const GROUP: &str = "/subscriptions/s/resourceGroups/g/providers/Microsoft.DBforPostgreSQL";
/// An administrator of the server `two`, which knows principals.
const PRINCIPAL: &str = "nina@arcadia.example";

fn snapshot() -> &'static Snapshot {
    static SNAPSHOT: OnceLock<Snapshot> = OnceLock::new();
    SNAPSHOT.get_or_init(|| {
        let mut snapshot = Snapshot::default();
        let mut add = |path: &str, properties: Value| {
            let id = ArmId::parse(&format!("{GROUP}/{path}")).unwrap();
            let mut resource: Value = serde_json::from_str(r#"{"location":"uksouth","createdAt":"2026-11-21T12:00:00Z","createdBy":"","createdByType":"","modifiedAt":"2026-11-21T12:00:00Z","modifiedBy":"","modifiedByType":""}"#).unwrap();
            resource["id"] = json!(id);
            resource["properties"] = properties;
            let resource: Resource = serde_json::from_value(resource).unwrap();
            snapshot.apply(&id, Some(&resource));
        };
        let server = |entra: bool| json!({
            "instance": Uuid::nil(), "ready": true, "administratorLogin": "arcadmin", "keeperSecret": "", "requireTls": true,
            "passwordAuth": true, "entraAuth": entra, "public": true, "version": "15", "shown": {},
        });
        add("servers/one", server(false));
        add("flexibleServers/two", server(true));
        add("flexibleServers/two/administrators/a", json!({
            "objectId": Uuid::nil(), "principalName": PRINCIPAL, "principalType": "User", "tenantId": Uuid::nil(), "roleSecret": "",
        }));
        add("flexibleServers/two/firewallRules/r", json!({ "startIpAddress": "10.0.0.1", "endIpAddress": "10.0.1.0" }));
        snapshot
    })
}

arcadia_fuzz::target!(server_choice, |data: &[u8]| the_name_and_the_user_agree(data));

/// What a host's labels say, by hand: a server below the site's name, a mistake below it, or nothing.
fn read(host: &str) -> Option<Result<String, ()>> {
    let labels = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let labels: Vec<&str> = labels.split('.').collect();
    match labels.strip_suffix(&["postgres", "database", "azure", "com"])? {
        [name] if !name.is_empty() => Some(Ok((*name).to_owned())),
        _ => Some(Err(())),
    }
}

/// A host, a user and an address, a line each. The server is the one that the host names, or the user where there is
/// no host or one from elsewhere; never one of two that disagree.
fn the_name_and_the_user_agree(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.splitn(3, '\n');
    let (host, user) = (lines.next().unwrap_or(""), lines.next().unwrap_or(""));
    let names = PostgresNames::azure();
    let suffix = user.rsplit_once('@').map(|(role, server)| (role, server.to_ascii_lowercase()));
    let expected = match (host, read(host)) {
        ("", _) => Ok(None),
        (_, Some(read)) => read.map(Some),
        (_, None) => suffix.is_some().then_some(None).ok_or(()),
    };
    let host = Some(host).filter(|host| !host.is_empty());
    let found = named(&names, host, user).map_err(drop);
    assert_eq!(found, expected);
    let Ok(named) = found else { return };
    if let Some(name) = &named {
        assert!(!name.contains('.') && *name == name.to_ascii_lowercase());
        assert_eq!(names.server_of(&format!("{}.", names.host(name))).as_ref(), Some(name));
    }
    let known = |name: &str| ["one", "two"].contains(&name);
    let chosen = choose(snapshot(), named.as_deref(), user).ok();
    let chosen = chosen.map(|(server, role)| (server.id.name().to_owned(), role));
    let expected = match (named.as_deref(), &suffix) {
        (Some(named), _) if !known(named) => None,
        (Some("two"), _) if user == PRINCIPAL => Some(("two", user)),
        (Some(named), Some((role, server))) if server == named => Some((named, *role)),
        (Some(_), Some((_, server))) if known(server) => None,
        (Some(named), _) => Some((named, user)),
        (None, Some((role, server))) if known(server) => Some((server.as_str(), *role)),
        (None, _) => None,
    };
    // A server would cut a longer one, and take it for another's.
    let expected = expected.filter(|(_, role)| role.len() <= ROLE_BYTES_MAX);
    assert_eq!(chosen, expected.map(|(server, role)| (server.to_owned(), role.to_owned())));
    let Some(address) = lines.next().and_then(|line| line.trim().parse::<IpAddr>().ok()) else { return };
    let two = ArmId::parse(&format!("{GROUP}/flexibleServers/two")).unwrap();
    let admitted = match address.to_canonical() {
        IpAddr::V4(address) => {
            let number = u32::from(address);
            (u32::from(Ipv4Addr::new(10, 0, 0, 1))..=u32::from(Ipv4Addr::new(10, 0, 1, 0))).contains(&number)
        }
        IpAddr::V6(_) => false,
    };
    assert_eq!(snapshot().admits(&two, address), admitted);
}

#[test]
fn a_role_is_never_longer_than_a_server_takes() {
    let role = |user: &str| choose(snapshot(), Some("two"), user).ok().map(|(_, role)| role);
    let (longest, longer) = ("a".repeat(ROLE_BYTES_MAX), "a".repeat(ROLE_BYTES_MAX + 1));
    assert_eq!(role(&longest), Some(longest.clone()));
    assert_eq!(role(&format!("{longest}@two")), Some(longest.clone()));
    for user in [longer.clone(), format!("{longer}@two"), format!("{longest}@x"), "ä".repeat(32)] {
        assert_eq!(role(&user), None, "{user}");
    }
    assert!(choose(snapshot(), None, &format!("{longer}@two")).is_err());
}
