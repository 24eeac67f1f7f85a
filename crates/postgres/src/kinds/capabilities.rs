//! What can be asked for: the installed version, and sizes, which change nothing on a site.

use std::sync::Arc;

use arcadia_arm::Arm;
use arcadia_kernel::{At, Fault, Method, Op, Permit, Reply, Request, action, op};
use serde_json::{Value, json};

use crate::Postgres;
use crate::fault::not_installed;

action!(pub ReadCapabilities, Control, "Microsoft.DBforPostgreSQL/locations/capabilities/read");
action!(pub ReadServerCapabilities, Control, "Microsoft.DBforPostgreSQL/flexibleServers/capabilities/read");

/// Name, cores, memory of each core in megabytes.
type Size = (&'static str, u32, u32);

/// Tier, default, and the sizes of it.
const TIERS: [(&str, &str, &[Size]); 3] = [
    ("Burstable", "Standard_B1ms", &[("Standard_B1ms", 1, 2048), ("Standard_B2s", 2, 2048)]),
    (
        "GeneralPurpose",
        "Standard_D2ds_v4",
        &[
            ("Standard_D2ds_v4", 2, 4096),
            ("Standard_D2s_v3", 2, 4096),
            ("Standard_D4ds_v4", 4, 4096),
            ("Standard_D4s_v3", 4, 4096),
        ],
    ),
    (
        "MemoryOptimized",
        "Standard_E2ds_v4",
        &[("Standard_E2ds_v4", 2, 8192), ("Standard_E2s_v3", 2, 8192), ("Standard_E4ds_v4", 4, 8192)],
    ),
];
/// Gigabytes, performance tier, operations a second.
const STORAGE: [(u32, &str, u32); 7] = [
    (32, "P4", 120),
    (64, "P6", 240),
    (128, "P10", 500),
    (256, "P15", 1100),
    (512, "P20", 2300),
    (1024, "P30", 5000),
    (2048, "P40", 7500),
];

pub(super) fn ops(postgres: &Arc<Postgres>) -> Vec<Op<Arm>> {
    let (at_location, at_server) = (postgres.clone(), postgres.clone());
    vec![
        op(
            "PostgresCapabilitiesAtLocation",
            Method::GET,
            "/subscriptions/{subscription}/providers/Microsoft.DBforPostgreSQL/locations/{location}/capabilities",
            move |_: At<Arm>, _: Permit<ReadCapabilities>, _: Request| {
                let postgres = at_location.clone();
                async move { answer(&postgres) }
            },
        ),
        op(
            "PostgresCapabilitiesOfServer",
            Method::GET,
            "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.DBforPostgreSQL/flexibleServers/{server}/capabilities",
            move |_: At<Arm>, _: Permit<ReadServerCapabilities>, _: Request| {
                let postgres = at_server.clone();
                async move { answer(&postgres) }
            },
        ),
    ]
}

fn answer(postgres: &Postgres) -> Result<Reply, Fault> {
    let installed = postgres.clusters.place.installation.as_ref().ok_or_else(not_installed)?;
    let feature = |name: &str, status: &str| json!({ "name": name, "status": status });
    let storage: Vec<Value> = STORAGE.iter().map(storage).collect();
    let editions: Vec<Value> = TIERS
        .iter()
        .map(|(name, default, sizes)| {
            let sizes: Vec<Value> = sizes
                .iter()
                .map(|(name, cores, memory)| {
                    json!({
                        "name": name, "vCores": cores, "supportedIops": 120 * cores,
                        "supportedMemoryPerVcoreMb": memory, "supportedZones": [], "supportedHaMode": [],
                        "supportedFeatures": [],
                    })
                })
                .collect();
            json!({
                "name": name,
                "defaultSkuName": default,
                "supportedStorageEditions": [{
                    "name": "ManagedDisk", "defaultStorageSizeMb": 32 * 1024, "supportedStorageMb": storage,
                }],
                "supportedServerSkus": sizes,
            })
        })
        .collect();
    Reply::ok(&json!({ "value": [{
        "name": "FlexibleServerCapabilities",
        "supportedServerEditions": editions,
        "supportedServerVersions":
            [{ "name": installed.major().to_string(), "supportedVersionsToUpgrade": [], "supportedFeatures": [] }],
        "supportedFeatures": [
            feature("OfferRestricted", "Disabled"),
            feature("ZoneRedundantHa", "Disabled"),
            feature("GeoBackup", "Disabled"),
            feature("OnlineResize", "Disabled"),
            feature("IndexTuning", "Disabled"),
            feature("StorageAutoGrowth", "Disabled"),
            feature("FastProvisioning", "Disabled"),
        ],
        "supportedFastProvisioningEditions": [],
    }] }))
}

fn storage((gigabytes, tier, operations): &(u32, &str, u32)) -> Value {
    json!({
        "storageSizeMb": gigabytes * 1024,
        "supportedIops": operations,
        "defaultIopsTier": tier,
        "supportedIopsTiers": [{ "name": tier, "iops": operations }],
    })
}
