//! Bundles of root certificates: those a shell trusts already, and the site's authority.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use arcadia_crypto::{hex, sha256};

use crate::site::{DataDir, read_bounded, write_atomic};

/// Where systems keep their roots in one file.
const SYSTEM_BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// The line of a bundle of ours that says where its roots came from, so that a bundle made in a shell that uses one
/// already starts from the same place instead of from the bundle.
const SOURCE_MARK: &str = "# from: ";
const SITE_MARK: &str = "# the site's own authority";
const FOLDER_FILES_MAX: usize = 1024;

/// Writes (or finds) the bundle of `sources` and the site's authority; returns its path. Its name is made from its
/// contents, so shells with different roots do not disturb each other.
pub fn bundle(data: &DataDir, kind: &str, sources: &[PathBuf]) -> anyhow::Result<PathBuf> {
    let authority = read_bounded(&data.ca_file())?.ok_or_else(|| {
        let here = data.option();
        anyhow::anyhow!("{} is missing; start the site with `arcadia up{here}`", data.ca_file().display())
    })?;
    let authority = String::from_utf8(authority)?;
    let sources = resolved(data, sources);
    let mut text = String::new();
    let mut seen = HashSet::new();
    for source in &sources {
        text.push_str(&format!("{SOURCE_MARK}{}\n", source.display()));
        for certificate in certificates_of(source) {
            if seen.insert(compact(&certificate)) {
                text.push_str(&certificate);
            }
        }
    }
    text.push_str(&format!("{SITE_MARK}\n{authority}"));
    let digest = hex(&sha256(text.as_bytes()));
    let path = data.env_folder().join(format!("{kind}-{}.pem", &digest[..16]));
    if read_bounded(&path)?.as_deref() != Some(text.as_bytes()) {
        write_atomic(&path, text.as_bytes(), 0o644)?;
    }
    Ok(path)
}

/// The system's own bundle, where there is one.
pub fn system_bundle() -> Option<PathBuf> {
    SYSTEM_BUNDLES.iter().map(PathBuf::from).find(|path| path.is_file())
}

/// Replaces bundles of this site by what they were made from, and drops what is named twice.
fn resolved(data: &DataDir, sources: &[PathBuf]) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for source in sources {
        let ours = source.starts_with(data.env_folder()) || *source == data.ca_file();
        let origins = if ours { origins_of(source) } else { vec![source.clone()] };
        for origin in origins {
            if !found.contains(&origin) {
                found.push(origin);
            }
        }
    }
    found
}

fn origins_of(bundle: &Path) -> Vec<PathBuf> {
    match fs::read_to_string(bundle) {
        Ok(text) => {
            text.lines().filter_map(|line| line.strip_prefix(SOURCE_MARK)).map(PathBuf::from).collect()
        }
        // A bundle that is gone: the system's roots are the likeliest that it had.
        Err(_) => system_bundle().into_iter().collect(),
    }
}

/// The certificates of a file, or of every file in a folder, as PEM. What cannot be read trusts nothing.
fn certificates_of(source: &Path) -> Vec<String> {
    let files: Vec<PathBuf> = match fs::read_dir(source) {
        Ok(entries) => {
            let mut files: Vec<_> =
                entries.take(FOLDER_FILES_MAX).filter_map(Result::ok).map(|entry| entry.path()).collect();
            files.sort();
            files
        }
        Err(_) => vec![source.to_owned()],
    };
    files
        .iter()
        .filter_map(|file| read_bounded(file).ok().flatten())
        .flat_map(|bytes| certificates_in(&String::from_utf8_lossy(&bytes)))
        .collect()
}

fn certificates_in(text: &str) -> Vec<String> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once(BEGIN) {
        let Some((body, after)) = after.split_once(END) else { break };
        let lines: Vec<&str> = body.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        found.push(format!("{BEGIN}\n{}\n{END}\n", lines.join("\n")));
        rest = after;
    }
    found
}

fn compact(certificate: &str) -> [u8; 32] {
    let text: String = certificate.split_whitespace().collect();
    sha256(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem(letter: char) -> String {
        let body = String::from(letter).repeat(64);
        format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
    }

    fn site() -> (tempfile::TempDir, DataDir) {
        let folder = tempfile::TempDir::new().unwrap();
        let data = DataDir::at(folder.path().join("site"));
        data.prepare().unwrap();
        fs::write(data.ca_file(), pem('S')).unwrap();
        (folder, data)
    }

    #[test]
    fn roots_come_once_and_the_authority_last() {
        let (folder, data) = site();
        let (one, two) = (folder.path().join("one.pem"), folder.path().join("two.pem"));
        fs::write(&one, format!("comment\n{}{}", pem('A'), pem('B'))).unwrap();
        fs::write(&two, format!("{}{}", pem('B').replace('\n', "\r\n"), pem('C'))).unwrap();
        let path = bundle(&data, "roots", &[one, two, folder.path().join("absent")]).unwrap();
        let all = certificates_in(&fs::read_to_string(path).unwrap());
        assert_eq!(all, ['A', 'B', 'C', 'S'].map(pem));
    }

    #[test]
    fn a_bundle_is_not_nested_and_follows_a_new_authority() {
        let (folder, data) = site();
        let source = folder.path().join("roots.pem");
        fs::write(&source, pem('A')).unwrap();
        let first = bundle(&data, "roots", std::slice::from_ref(&source)).unwrap();
        assert_eq!(bundle(&data, "roots", &[first.clone(), source]).unwrap(), first);
        fs::write(data.ca_file(), pem('T')).unwrap();
        let second = bundle(&data, "roots", &[first.clone(), first.clone()]).unwrap();
        assert_ne!(first, second);
        assert_eq!(certificates_in(&fs::read_to_string(second).unwrap()), ['A', 'T'].map(pem));
    }

    #[test]
    fn a_folder_is_read_file_by_file() {
        let (folder, data) = site();
        let certificates = folder.path().join("certs");
        fs::create_dir(&certificates).unwrap();
        fs::write(certificates.join("a.crt"), pem('A')).unwrap();
        fs::write(certificates.join("readme"), "nothing here").unwrap();
        let path = bundle(&data, "roots", &[certificates]).unwrap();
        assert_eq!(certificates_in(&fs::read_to_string(path).unwrap()), ['A', 'S'].map(pem));
    }
}
