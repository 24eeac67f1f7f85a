//! Extensions for az that bring commands of 2021 back, and the index from which az installs them.
//!
//! `az extension add --name NAME` reads the index at `AZURE_EXTENSION_INDEX_URL`, which `arcadia env` sets to this
//! site's, then the wheel that the index names, and compares its SHA-256. The index is az's own format, version 1.

mod wheel;
mod zip;

use std::sync::Arc;

use anyhow::Context as _;
use arcadia_arm::Arm;
use arcadia_kernel::{At, Fault, Method, Op, Open, Permit, Reply, Request, StatusCode, public};
use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::VERSION;
use wheel::{AZ_VERSION_MIN, SOURCES, Wheel};

/// Where the index is, below the resource manager's origin.
pub const INDEX_PATH: &str = "/arcadia/extensions/index.json";
const WHEEL_PATH: &str = "/arcadia/extensions/{file}";

const BECAUSE: &str =
    "az reads extensions without a token, before anybody has signed in; they hold no secrets";

/// The index and the wheels, as rows of the resource manager.
pub fn extension_ops() -> anyhow::Result<Vec<Op<Arm>>> {
    let wheels: Option<Vec<Wheel>> = SOURCES.iter().map(wheel::Source::wheel).collect();
    let wheels = Arc::new(wheels.context("the extensions for az do not fit into wheels")?);
    let for_index = wheels.clone();
    let index = move |_: At<Arm>, _: Permit<Open>, request: Request| {
        let reply = Reply::ok(&index(&for_index, &request.origin));
        async move { reply }
    };
    let file = move |_: At<Arm>, _: Permit<Open>, request: Request| {
        let reply = find(&wheels, request.param("file"));
        async move { reply }
    };
    Ok(vec![
        public("ExtensionIndex", Method::GET, INDEX_PATH, BECAUSE, index),
        public("ExtensionWheel", Method::GET, WHEEL_PATH, BECAUSE, file),
    ])
}

fn index(wheels: &[Wheel], origin: &str) -> Value {
    let folder = INDEX_PATH.trim_end_matches("index.json");
    let entries: Map<String, Value> = wheels
        .iter()
        .map(|wheel| {
            let entry = json!({
                "downloadUrl": format!("{origin}{folder}{}", wheel.file_name),
                "filename": wheel.file_name,
                "sha256Digest": wheel.digest,
                "metadata": {
                    "name": wheel.name,
                    "version": VERSION,
                    "summary": wheel.summary,
                    "license": "Apache-2.0",
                    "azext.minCliCoreVersion": AZ_VERSION_MIN,
                    "azext.isPreview": false,
                },
            });
            (wheel.name.to_owned(), json!([entry]))
        })
        .collect();
    json!({ "formatVersion": "1", "extensions": entries })
}

fn find(wheels: &[Wheel], name: &str) -> Result<Reply, Fault> {
    let wheel = wheels.iter().find(|wheel| wheel.file_name == name).ok_or_else(|| {
        Fault::not_found("ExtensionNotFound", format!("There is no such extension; {INDEX_PATH} lists them."))
    })?;
    Ok(Reply::bytes(StatusCode::OK, "application/zip", Bytes::copy_from_slice(&wheel.bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_names_wheels_that_are_there() {
        let wheels: Vec<Wheel> = SOURCES.iter().map(|source| source.wheel().unwrap()).collect();
        let index = index(&wheels, "https://management.example.net:8443");
        for name in ["arcadia", "connectedmachine", "db-up"] {
            let entry = &index["extensions"][name][0];
            let url = entry["downloadUrl"].as_str().unwrap();
            let start = "https://management.example.net:8443/arcadia/extensions/";
            let file = url.strip_prefix(start).unwrap();
            assert_eq!(entry["filename"], file);
            assert_eq!(find(&wheels, file).unwrap().status, StatusCode::OK);
            let wheel = wheels.iter().find(|wheel| wheel.name == name).unwrap();
            assert_eq!(entry["sha256Digest"], wheel.digest);
            assert_eq!(entry["metadata"]["version"], VERSION);
        }
        assert_eq!(find(&wheels, "other-1.0-py3-none-any.whl").err().unwrap().status, StatusCode::NOT_FOUND);
        assert_eq!(find(&wheels, "index.json").err().unwrap().status, StatusCode::NOT_FOUND);
    }
}
