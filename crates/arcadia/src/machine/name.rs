use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

const LENGTH_MAX: usize = 54;

/// The name of a machine, which is also its host name and the last part of its resource id: 1 to 54 of
/// `a-z 0-9 -`, neither beginning nor ending with `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MachineName(String);

impl MachineName {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The machine's folder in the data directory.
    pub fn folder(&self, data: &Path) -> PathBuf {
        data.join("machines").join(&self.0)
    }
}

impl fmt::Display for MachineName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for MachineName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if text.is_empty() || text.len() > LENGTH_MAX {
            return Err(format!("a machine's name has 1 to {LENGTH_MAX} characters"));
        }
        if !text.bytes().all(allowed) || text.starts_with('-') || text.ends_with('-') {
            return Err("a machine's name is made of a-z, 0-9 and -, and begins and ends with a letter or \
                        digit, for example ubuntu-01"
                .to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for MachineName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<MachineName> for String {
    fn from(name: MachineName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_good_host_names() {
        for good in ["ubuntu-01", "a", "0", &"x".repeat(LENGTH_MAX)] {
            assert_eq!(good.parse::<MachineName>().unwrap().as_str(), good);
        }
    }

    #[test]
    fn names_that_could_leave_the_folder_or_are_no_host_names() {
        for bad in
            ["", ".", "..", "a/b", "../x", "A", "a_b", "-a", "a-", "a b", "ü", &"x".repeat(LENGTH_MAX + 1)]
        {
            assert!(bad.parse::<MachineName>().is_err(), "{bad:?}");
        }
    }
}
