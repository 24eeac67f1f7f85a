//! Where a passphrase comes from: a file (or a descriptor, or a systemd credential), or a terminal. Never the command
//! line, which every process on the machine can read.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use arcadia_crypto::{PASSPHRASE_BYTES_MAX, Zeroizing, check_new_passphrase};

use super::SiteFault;
use crate::terminal;

/// The option that names the file with the passphrase of the site.
pub const PASSPHRASE_FILE: &str = "--passphrase-file";

/// Asked or read at most once, as a pipe can be read only once and nobody likes to type twice.
#[derive(Clone, Default)]
pub struct PassphraseSource {
    file: Option<PathBuf>,
    known: Arc<OnceLock<Zeroizing<String>>>,
}

impl fmt::Debug for PassphraseSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PassphraseSource").field("file", &self.file).finish_non_exhaustive()
    }
}

impl PassphraseSource {
    pub fn file(file: Option<PathBuf>) -> Self {
        Self { file, known: Arc::default() }
    }

    /// Whether one was given without being asked for.
    pub fn is_given(&self) -> bool {
        self.file.is_some() || self.known.get().is_some()
    }

    pub fn set(&self, passphrase: Zeroizing<String>) {
        let _ = self.known.set(passphrase);
    }

    /// That of a root key that exists.
    pub fn get(&self) -> Result<Zeroizing<String>, SiteFault> {
        self.once(|| terminal::ask_hidden("Passphrase of the site: "), SiteFault::PassphraseNeeded)
    }

    /// One that is chosen now: asked twice. `option` is the one by which a file is named.
    pub fn choose(&self, option: &'static str) -> Result<Zeroizing<String>, SiteFault> {
        let ask = || {
            let Some(first) = terminal::ask_hidden("New passphrase: ")? else { return Ok(None) };
            let second = terminal::ask_hidden("The same again: ")?;
            if second.as_ref() == Some(&first) {
                return Ok(Some(first));
            }
            Err(io::Error::new(io::ErrorKind::InvalidInput, "the two are not the same; nothing was changed"))
        };
        let chosen = self.once(ask, SiteFault::NoNewPassphrase(option))?;
        check_new_passphrase(&chosen)?;
        Ok(chosen)
    }

    fn once(
        &self,
        ask: impl FnOnce() -> io::Result<Option<Zeroizing<String>>>,
        nobody: SiteFault,
    ) -> Result<Zeroizing<String>, SiteFault> {
        if let Some(known) = self.known.get() {
            return Ok(known.clone());
        }
        let found = match &self.file {
            Some(path) => {
                let fault = |cause| SiteFault::PassphraseFile { path: path.clone(), cause };
                read_file(path).map_err(fault)?
            }
            None => ask().map_err(SiteFault::Asking)?.ok_or(nobody)?,
        };
        Ok(self.known.get_or_init(|| found).clone())
    }
}

fn read_file(path: &Path) -> io::Result<Zeroizing<String>> {
    read_from(File::open(path)?)
}

/// Up to the end, without the newline that editors and `echo` leave there.
pub fn read_from(from: impl Read) -> io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::with_capacity(PASSPHRASE_BYTES_MAX + 3));
    from.take(PASSPHRASE_BYTES_MAX as u64 + 3).read_to_string(&mut text)?;
    let length =
        text.strip_suffix('\n').map_or(text.len(), |line| line.strip_suffix('\r').unwrap_or(line).len());
    text.truncate(length);
    if text.len() > PASSPHRASE_BYTES_MAX {
        let told = format!("a passphrase has at most {PASSPHRASE_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, told));
    }
    if text.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is empty"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_without_its_newline_and_only_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passphrase");
        for (text, expected) in
            [("a b c\n", "a b c"), ("a b c\r\n", "a b c"), ("a b \n\n", "a b \n"), (" x", " x")]
        {
            std::fs::write(&path, text).unwrap();
            let source = PassphraseSource::file(Some(path.clone()));
            assert_eq!(*source.get().unwrap(), expected);
            std::fs::remove_file(&path).unwrap();
            assert_eq!(*source.clone().get().unwrap(), expected);
            assert!(!format!("{source:?}").contains(expected));
        }
        for bad in [String::new(), "\n".to_owned(), "x".repeat(PASSPHRASE_BYTES_MAX + 1)] {
            std::fs::write(&path, bad).unwrap();
            let fault = PassphraseSource::file(Some(path.clone())).get().unwrap_err();
            assert!(matches!(fault, SiteFault::PassphraseFile { .. }), "{fault}");
        }
    }

    #[test]
    fn a_short_one_is_not_chosen() {
        let source = PassphraseSource::default();
        source.set(Zeroizing::new("short".to_owned()));
        assert!(matches!(source.choose("--x"), Err(SiteFault::PassphraseRefused(_))));
    }
}
