//! The index of extensions, as az reads it: without a token.

use arcadia_crypto::{hex, sha256};
use serde_json::Value;

use crate::support::Site;

const FOLDER: &str = "https://management.azure.com/arcadia/extensions";

#[tokio::test]
async fn every_wheel_of_the_index_is_there_and_is_what_the_index_says() {
    let site = Site::start();
    let wire = site.client();
    let answer = wire.send("GET", &format!("{FOLDER}/index.json"), None, None).await;
    assert_eq!(answer.status, 200);
    let index: Value = serde_json::from_slice(&answer.body).unwrap();
    let extensions = index["extensions"].as_object().unwrap();
    assert_eq!(extensions.keys().collect::<Vec<_>>(), ["arcadia", "connectedmachine", "db-up"]);
    for entry in extensions.values() {
        let url = entry[0]["downloadUrl"].as_str().unwrap();
        let wheel = wire.send("GET", url, None, None).await;
        assert_eq!(wheel.status, 200, "{url}");
        assert_eq!(entry[0]["sha256Digest"], hex(&sha256(&wheel.body)), "{url}");
    }
}

#[tokio::test]
async fn nothing_else_of_the_folder_is_open() {
    let site = Site::start();
    let wire = site.client();
    for (method, path, wanted) in [
        ("GET", "other-0.1.0-py3-none-any.whl", 404),
        ("GET", "azext_arcadia", 404),
        ("GET", "", 401),
        ("GET", "a/b", 401),
        ("PUT", "index.json", 401),
        ("DELETE", "index.json", 401),
    ] {
        let answer = wire.send(method, &format!("{FOLDER}/{path}"), None, None).await;
        assert_eq!(answer.status, wanted, "{method} {path}");
    }
}
