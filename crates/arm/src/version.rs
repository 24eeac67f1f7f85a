//! `api-version`: required, well formed, and never a reason to refuse a client that is newer than we are.

use arcadia_kernel::{Fault, Query};
use jiff::civil::Date;

use crate::error::shown;

const SUFFIX_CHARS_MAX: usize = 32;

/// The request's version, such as `2024-11-01` or `2022-05-01-preview`.
pub(crate) fn required(query: &Query) -> Result<&str, Fault> {
    match query.first("api-version") {
        None | Some("") => Err(Fault::bad_request(
            "MissingApiVersionParameter",
            "The api-version query parameter (?api-version=) is required for all requests.",
        )),
        Some(version) if well_formed(version) => Ok(version),
        Some(version) => Err(Fault::bad_request(
            "InvalidApiVersionParameter",
            format!(
                "The api-version '{}' is invalid. Use a date such as '2024-11-01', with '-preview' after it \
                 where the service has one.",
                shown(version)
            ),
        )),
    }
}

fn well_formed(version: &str) -> bool {
    let Some(date) = version.get(..10) else { return false };
    let suffix = &version[10..];
    let suffix_fits = suffix.is_empty()
        || (suffix.starts_with('-')
            && suffix.len() <= SUFFIX_CHARS_MAX
            && suffix[1..].starts_with(|c: char| c.is_ascii_alphabetic())
            && suffix[1..].chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '-'));
    suffix_fits && date.is_ascii() && date.parse::<Date>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_date_is_served_and_nothing_else() {
        for good in ["2015-11-01", "2024-11-01", "2099-12-31", "2022-05-01-preview", "2025-01-01-preview.1"] {
            assert_eq!(required(&Query::parse(&format!("Api-Version={good}"))).unwrap(), good);
        }
        for bad in
            ["7.4", "2024-13-01", "2024-02-30", "2024-11-01-", "2024-11-01x", "latest", "2024-11-01-9", "é"]
        {
            let fault = required(&Query::parse(&format!("api-version={bad}"))).unwrap_err();
            assert_eq!(fault.code, "InvalidApiVersionParameter", "{bad}");
        }
        for missing in ["", "api-version=", "x=y"] {
            assert_eq!(required(&Query::parse(missing)).unwrap_err().code, "MissingApiVersionParameter");
        }
    }
}
