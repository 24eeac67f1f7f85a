//! Fuzz targets for what servers may be called, asked for and set to.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use arcadia_arm::{PrincipalInfo, PrincipalSource, Resource, ResourceKind as _, TenantInfo};
use arcadia_crypto::SystemEntropy;
use arcadia_kernel::{Fault, FixedClock};
use arcadia_store::Store;
use serde_json::{Value, json};
use uuid::Uuid;

use super::flexible::check_sku;
use super::password::{check_login, check_password};
use super::server::{Asked, check_identity};
use super::{FlexibleServers, SingleServers};
use crate::Postgres;
use crate::cluster::Place;
use crate::names::{PostgresNames, is_reserved_role, is_server_name};
use crate::records::{StoredServer, to_stored};

arcadia_fuzz::target!(server_body, |data: &[u8]| what_is_taken_fits(data));

/// The properties of a server: what is taken of them is in its range, and nothing else is taken.
fn what_is_taken_fits(data: &[u8]) {
    let Ok(properties) = serde_json::from_slice::<Value>(data) else { return };
    let Ok(asked) = Asked::of(&properties) else { return assert!(!properties.is_object()) };
    let given = |name: &str| properties.get(name).filter(|value| !value.is_null());
    for name in ["administratorLogin", "administratorLoginPassword", "version", "createMode"] {
        match asked.text(name) {
            Ok(text) => assert_eq!(text, given(name).and_then(Value::as_str)),
            Err(_) => {
                assert!(given(name).is_some_and(|value| value.as_str().is_none_or(|text| text.len() > 128)))
            }
        }
    }
    let values = ["Create", "Default", "Update"];
    if let Ok(mode) = asked.one_of("createMode", &values) {
        let same = |mode: &str| {
            given("createMode").and_then(Value::as_str).is_some_and(|text| text.eq_ignore_ascii_case(mode))
        };
        assert!(mode.map_or(given("createMode").is_none(), |mode| values.contains(&mode) && same(mode)));
    }
    let Ok(storage) = asked.inside("storage") else {
        return assert!(given("storage").is_some_and(|storage| !storage.is_object()));
    };
    let size =
        given("storage").and_then(|storage| storage.get("storageSizeGB")).filter(|size| !size.is_null());
    // By the whole range: those that are written as a text, with zeros before them or without.
    let written = |size: &Value| {
        let text = size.as_str().map(|text| text.trim_start_matches('0'));
        size.as_u64().or_else(|| (1..=32_767).find(|number| text == Some(&number.to_string())))
    };
    match storage.number("storageSizeGB", 1..=32_767) {
        Ok(number) => assert_eq!(number, size.and_then(written)),
        Err(_) => {
            assert!(size.is_some_and(|size| written(size).is_none_or(|size| !(1..=32_767).contains(&size))))
        }
    }
    let text = |name: &str| given(name).and_then(Value::as_str).unwrap_or_default();
    let (login, password) = (text("administratorLogin"), text("administratorLoginPassword"));
    if check_login(login).is_ok() {
        // Such a name is the same in SQL, in a URI and in a start-up packet, whoever writes it.
        assert!(
            login.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
                && login.len() <= 63
        );
        assert!(!is_reserved_role(&login.to_ascii_uppercase()) && !login.is_empty());
    }
    if check_password(password, login).is_ok() {
        assert!(
            (8..=128).contains(&password.len()) && password.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        );
        let kinds = [b'A'..=b'Z', b'a'..=b'z', b'0'..=b'9']
            .map(|kind| password.bytes().any(|byte| kind.contains(&byte)));
        assert!(kinds.iter().filter(|has| **has).count() >= 2);
    }
    if is_server_name(login) {
        assert!(
            (3..=63).contains(&login.len())
                && login == login.to_lowercase()
                && !login.contains(['.', '_', '@'])
        );
    }
}

/// What is kept, and by what a client may set it: of the newer service, then of the older.
const KEPT: [&[&str]; 2] = [
    &[
        "version",
        "availabilityZone",
        "authConfig/activeDirectoryAuth",
        "authConfig/passwordAuth",
        "network/publicNetworkAccess",
        "storage/storageSizeGB",
        "storage/iops",
        "storage/throughput",
        "storage/autoGrow",
        "storage/tier",
        "storage/type",
        "backup/backupRetentionDays",
        "maintenanceWindow/customWindow",
        "maintenanceWindow/dayOfWeek",
        "maintenanceWindow/startHour",
        "maintenanceWindow/startMinute",
    ],
    &[
        "version",
        "sslEnforcement",
        "minimalTlsVersion",
        "publicNetworkAccess",
        "storageProfile/storageMB",
        "storageProfile/backupRetentionDays",
        "storageProfile/storageAutogrow",
    ],
];
/// What a client would believe to have, and the one value that it may have: what it means when it is left out. A part that
/// is no object has nothing in it that could be looked at.
const NOT_SERVED: [&[(&str, &str)]; 2] = [
    &[
        ("highAvailability/mode", "Disabled"),
        ("highAvailability/standbyAvailabilityZone", ""),
        ("backup/geoRedundantBackup", "Disabled"),
        ("dataEncryption/type", "SystemManaged"),
        ("dataEncryption/primaryKeyURI", ""),
        ("dataEncryption/primaryUserAssignedIdentityId", ""),
        ("dataEncryption/geoBackupKeyURI", ""),
        ("dataEncryption/geoBackupUserAssignedIdentityId", ""),
        ("replicationRole", "Primary"),
        ("replica/role", "Primary"),
        ("replica/promoteMode", ""),
        ("replica/promoteOption", ""),
        ("cluster", ""),
        ("sourceServerResourceId", ""),
        ("pointInTimeUTC", ""),
        ("authConfig/tenantId", "00000000-0000-0000-0000-00000000000a"),
        ("network/delegatedSubnetResourceId", ""),
        ("network/privateDnsZoneArmResourceId", ""),
        ("highAvailability/", ""),
        ("backup/", ""),
        ("dataEncryption/", ""),
        ("replica/", ""),
        ("authConfig/", ""),
        ("network/", ""),
        ("storage/", ""),
        ("maintenanceWindow/", ""),
    ],
    &[
        ("infrastructureEncryption", "Disabled"),
        ("sourceServerId", ""),
        ("restorePointInTime", ""),
        ("storageProfile/geoRedundantBackup", "Disabled"),
        ("storageProfile/", ""),
    ],
];

struct Nobody;

impl PrincipalSource for Nobody {
    fn principal(&self, _: Uuid) -> Option<PrincipalInfo> {
        None
    }

    fn groups_of(&self, _: Uuid) -> Option<HashSet<Uuid>> {
        None
    }

    fn tenant(&self) -> TenantInfo {
        TenantInfo { id: Uuid::from_u128(10), display_name: String::new(), default_domain: String::new() }
    }
}

/// Servers of both services, of which none is ever made.
fn services() -> &'static (FlexibleServers, SingleServers) {
    static SERVICES: OnceLock<(FlexibleServers, SingleServers)> = OnceLock::new();
    SERVICES.get_or_init(|| {
        let store = Store::in_memory(Arc::new(FixedClock::at_epoch_seconds(0)), Arc::new(SystemEntropy));
        let place = Place { folder: "/nonexistent".into(), account: None, installation: None };
        let (names, entropy) = (PostgresNames::azure(), Arc::new(SystemEntropy));
        let open = Postgres::open(store, names, Arc::new(Nobody), place, entropy);
        let postgres = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(open).unwrap();
        (FlexibleServers(postgres.clone()), SingleServers(postgres))
    })
}

arcadia_fuzz::target!(server_change, |data: &[u8]| nothing_is_ignored_that_a_client_would_rely_on(data));

/// Two bodies of properties, a line each, which one server is changed by in turn; then a sku or an identity.
fn nothing_is_ignored_that_a_client_would_rely_on(data: &[u8]) {
    let lines = data.splitn(3, |byte| *byte == b'\n').map(serde_json::from_slice::<Value>);
    let lines: Vec<Value> = lines.map_while(Result::ok).collect();
    let (flexible, _) = services();
    changed(&lines, 0, |stored, asked| flexible.change(stored, asked));
    changed(&lines, 1, SingleServers::change);
    let Some(last) = lines.get(2) else { return };
    let text = |name: &str| last.get(name).and_then(Value::as_str).unwrap_or_default();
    if check_sku(Some(last)).is_ok() {
        assert!((1..=64).contains(&text("name").len()));
        assert!(["Burstable", "GeneralPurpose", "MemoryOptimized"].contains(&text("tier")));
    }
    assert_eq!(check_identity(Some(last)).is_ok(), text("type").eq_ignore_ascii_case("none"));
}

fn changed(
    bodies: &[Value],
    service: usize,
    change: impl Fn(&mut StoredServer, &Asked<'_>) -> Result<(), Fault>,
) {
    let mut server: StoredServer = serde_json::from_value(json!({
        "instance": Uuid::nil(), "ready": true, "administratorLogin": "arcadmin", "keeperSecret": "", "requireTls": true,
        "passwordAuth": true, "entraAuth": false, "public": true, "version": (["15", "11"][service]), "shown": {},
    }))
    .unwrap();
    for body in bodies.iter().take(2) {
        let Ok(asked) = Asked::of(body) else { return };
        let before = shown(&server, service);
        if change(&mut server, &asked).is_err() {
            return;
        }
        let now = shown(&server, service);
        let at = |value: &Value, path: &str| value.pointer(&format!("/{path}")).cloned().unwrap_or_default();
        let same = |one: &Value, other: &str| one.as_str().is_some_and(|one| one.eq_ignore_ascii_case(other));
        for path in KEPT[service] {
            let wanted = Some(at(body, path)).filter(|value| !value.is_null());
            let (wanted, now) = (wanted.unwrap_or_else(|| at(&before, path)), at(&now, path));
            // A number may have been written as a text.
            let written = wanted.as_str().and_then(|text| text.parse().ok());
            let is_same = now == wanted
                || now.as_str().is_some_and(|now| same(&wanted, now))
                || now.as_u64().is_some_and(|now| written == Some(now));
            assert!(is_same, "{path}: {wanted} is {now}");
        }
        for (path, allowed) in NOT_SERVED[service] {
            let found = match path.strip_suffix('/') {
                Some(part) => Some(at(body, part)).filter(|value| !value.is_object()).unwrap_or_default(),
                None => at(body, path),
            };
            let is_left_out = found.is_null() || same(&found, "");
            assert!(is_left_out || same(&found, allowed), "{path} was ignored: {found}");
        }
        let kept = to_stored(&server).unwrap();
        assert!(change(&mut server, &Asked::of(&now).unwrap()).is_ok(), "what is shown is not taken: {now}");
        assert_eq!((shown(&server, service), server.instance), (now, Uuid::nil()));
        server = serde_json::from_value(kept).unwrap();
    }
}

/// What a client is shown.
fn shown(server: &StoredServer, service: usize) -> Value {
    let at = "2026-11-21T12:00:00Z";
    let resource: Resource = serde_json::from_value(json!({
        "id": format!("/subscriptions/s/resourceGroups/g/providers/{}/one", super::SERVERS[1 - service]),
        "location": "uksouth", "createdAt": at, "createdBy": "", "createdByType": "",
        "modifiedAt": at, "modifiedBy": "", "modifiedByType": "", "properties": to_stored(server).unwrap(),
    }))
    .unwrap();
    let (flexible, single) = services();
    if service == 0 { flexible.properties(&resource, "") } else { single.properties(&resource, "") }
}
