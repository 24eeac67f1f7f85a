//! The extensions as wheels (PEP 427), made of the sources below `extensions/`.

use arcadia_crypto::{b64url, hex, sha256};

use super::zip;
use crate::VERSION;

/// The oldest az that the extensions are for; `azext_metadata.json` says the same.
pub const AZ_VERSION_MIN: &str = "2.60.0";

/// An extension's sources.
pub struct Source {
    /// What people add.
    pub name: &'static str,
    summary: &'static str,
    /// Path in the wheel and content.
    files: &'static [(&'static str, &'static str)],
}

macro_rules! files {
    ($folder:literal: $($path:literal),+) => {
        &[$(($path, include_str!(concat!("../../../../extensions/", $folder, "/", $path)))),+]
    };
}

pub const SOURCES: &[Source] = &[
    Source {
        name: "arcadia",
        summary: "az role assignment create --resource-group, as it was",
        files: files!("arcadia":
            "azext_arcadia/__init__.py", "azext_arcadia/azext_metadata.json", "azext_arcadia/custom.py"),
    },
    Source {
        name: "connectedmachine",
        summary: "az connectedmachine show, list and delete",
        files: files!("connectedmachine":
            "azext_connectedmachine/__init__.py", "azext_connectedmachine/azext_metadata.json",
            "azext_connectedmachine/custom.py"),
    },
    Source {
        name: "db-up",
        summary: "az postgres up and show-connection-string, for single servers",
        files: files!("db_up":
            "azext_db_up/__init__.py", "azext_db_up/arm.py", "azext_db_up/azext_metadata.json",
            "azext_db_up/custom.py", "azext_db_up/strings.py"),
    },
];

const LICENSE: &str = include_str!("../../../../LICENSE");
const KIND: &str = "Wheel-Version: 1.0\nGenerator: arcadia\nRoot-Is-Purelib: true\nTag: py3-none-any\n";

/// A wheel that is ready to be sent.
pub struct Wheel {
    pub name: &'static str,
    pub summary: &'static str,
    pub file_name: String,
    pub bytes: Vec<u8>,
    /// Lower-case hexadecimal SHA-256 of the bytes.
    pub digest: String,
}

impl Source {
    /// The same sources give the same bytes. `None` when they do not fit into a zip archive.
    pub fn wheel(&self) -> Option<Wheel> {
        let stem = format!("{}-{VERSION}", self.name.replace('-', "_"));
        let info = format!("{stem}.dist-info");
        let metadata = format!(
            "Metadata-Version: 2.1\nName: {}\nVersion: {VERSION}\nSummary: {}\nLicense: Apache-2.0\n\
             Requires-Python: >=3.9\n",
            self.name, self.summary
        );
        let mut files: Vec<(String, Vec<u8>)> =
            self.files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect();
        for (name, text) in [("LICENSE", LICENSE), ("METADATA", &metadata), ("WHEEL", KIND)] {
            files.push((format!("{info}/{name}"), text.as_bytes().to_vec()));
        }
        let mut record: String = files
            .iter()
            .map(|(path, content)| format!("{path},sha256={},{}\n", b64url(&sha256(content)), content.len()))
            .collect();
        record.push_str(&format!("{info}/RECORD,,\n"));
        files.push((format!("{info}/RECORD"), record.into_bytes()));
        let bytes = zip::archive(&files)?;
        let digest = hex(&sha256(&bytes));
        let file_name = format!("{stem}-py3-none-any.whl");
        Some(Wheel { name: self.name, summary: self.summary, file_name, bytes, digest })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    fn folder(source: &Source) -> PathBuf {
        let extensions = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../extensions");
        extensions.join(source.name.replace('-', "_"))
    }

    #[test]
    fn a_wheel_holds_every_file_of_its_package() {
        for source in SOURCES {
            let package = format!("azext_{}", source.name.replace('-', "_"));
            let there: BTreeSet<String> = fs::read_dir(folder(source).join(&package))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .filter(|name| name.ends_with(".py") || name.ends_with(".json"))
                .map(|name| format!("{package}/{name}"))
                .collect();
            let held: BTreeSet<String> = source.files.iter().map(|(path, _)| (*path).to_owned()).collect();
            assert_eq!(there, held);
        }
    }

    #[test]
    fn the_projects_say_the_same() {
        for source in SOURCES {
            let project = fs::read_to_string(folder(source).join("pyproject.toml")).unwrap();
            for line in [
                format!("name = \"{}\"", source.name),
                format!("version = \"{VERSION}\""),
                format!("description = \"{}\"", source.summary),
            ] {
                assert!(project.contains(&line), "{line} is not in the project of {}", source.name);
            }
            let (_, metadata) = source.files.iter().find(|(path, _)| path.ends_with(".json")).unwrap();
            let metadata: serde_json::Value = serde_json::from_str(metadata).unwrap();
            assert_eq!(metadata["azext.minCliCoreVersion"], AZ_VERSION_MIN);
        }
    }

    #[test]
    fn the_record_has_every_file_and_its_digest() {
        for source in SOURCES {
            let wheel = source.wheel().unwrap();
            assert_eq!(wheel.digest, hex(&sha256(&wheel.bytes)));
            assert_eq!(wheel.bytes, source.wheel().unwrap().bytes);
            let text = String::from_utf8_lossy(&wheel.bytes);
            for (path, content) in source.files {
                let line =
                    format!("{path},sha256={},{}\n", b64url(&sha256(content.as_bytes())), content.len());
                assert!(text.contains(&line), "{line}");
            }
            assert!(text.contains(&format!("Name: {}\nVersion: {VERSION}\n", source.name)));
        }
    }
}
