//! The data plane's `api-version`: any is served, it only gates fields.

use std::str::FromStr;

use arcadia_kernel::{Fault, Query};

/// What a refusal recommends.
const LATEST: &str = "2026-04-01";
const VERSION_CHARS_MAX: usize = 40;

/// A version in order of publication: first dates up to 2016, then 7.x, then dates again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion {
    era: u8,
    major: u16,
    minor: u16,
}

impl ApiVersion {
    /// `recoverableDays` in attributes.
    pub(crate) fn shows_recoverable_days(self) -> bool {
        self >= Self { era: 1, major: 7, minor: 1 }
    }

    /// The version a request names.
    pub(crate) fn of(query: &Query) -> Result<Self, Fault> {
        let text = query.first("api-version").map(str::trim).filter(|text| !text.is_empty());
        let Some(text) = text else {
            let message = format!(
                "The request is missing the api-version query parameter. Consider using the latest \
                 supported version ({LATEST})."
            );
            return Err(Fault::bad_request("BadParameter", message));
        };
        text.parse().map_err(|()| {
            let shown: String = text.chars().take(VERSION_CHARS_MAX).collect();
            let message = format!(
                "The specified version ({shown}) is not recognized. Consider using the latest supported \
                 version ({LATEST})."
            );
            Fault::bad_request("BadParameter", message)
        })
    }
}

impl FromStr for ApiVersion {
    type Err = ();

    /// `7.4`, `7.6-preview.2`, `2026-04-01`, `2025-06-01-preview`.
    fn from_str(text: &str) -> Result<Self, ()> {
        if text.len() > VERSION_CHARS_MAX || !text.is_ascii() {
            return Err(());
        }
        let (number, preview) = match text.find("-preview") {
            Some(at) => (&text[..at], &text[at + "-preview".len()..]),
            None => (text, ""),
        };
        let preview_fits = preview.is_empty() || preview.strip_prefix('.').and_then(digits).is_some();
        if !preview_fits {
            return Err(());
        }
        if let Some(minor) = number.strip_prefix("7.") {
            return Ok(Self { era: 1, major: 7, minor: digits(minor).ok_or(())? });
        }
        let mut parts = number.split('-');
        let mut part =
            |width: usize| parts.next().filter(|part| part.len() == width).and_then(digits).ok_or(());
        let (year, month, day) = (part(4)?, part(2)?, part(2)?);
        let fits = (2014..=2999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
        if parts.next().is_some() || !fits {
            return Err(());
        }
        Ok(Self { era: if year < 2018 { 0 } else { 2 }, major: year, minor: month * 100 + day })
    }
}

fn digits(text: &str) -> Option<u16> {
    let plain = !text.is_empty() && text.len() <= 4 && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_forms_are_read_in_order_of_publication() {
        let order = ["2016-10-01", "7.0", "7.1", "7.4", "7.6-preview.2", "2025-07-01", "2026-04-01"];
        let read: Vec<ApiVersion> = order.iter().map(|text| text.parse().unwrap()).collect();
        assert!(read.windows(2).all(|pair| pair[0] < pair[1]));
        assert!("2027-12-31-preview".parse::<ApiVersion>().is_ok());
        let shows: Vec<bool> = read.iter().map(|version| version.shows_recoverable_days()).collect();
        assert_eq!(shows, [false, false, true, true, true, true, true]);
    }

    #[test]
    fn other_forms_are_not_recognized() {
        for text in [
            "",
            "7",
            "7.",
            "8.0",
            "x",
            "7.4.1",
            "7.4-beta",
            "7.4-preview.x",
            "7.99999",
            "2026-4-1",
            "2026-13-01",
            "2026-04-01-02",
            "2026-04-0é",
            "7.+4",
            "1999-01-01",
            &"7.1".repeat(40),
        ] {
            assert!(text.parse::<ApiVersion>().is_err(), "{text}");
        }
    }

    #[test]
    fn refusals_say_what_to_send() {
        let missing = ApiVersion::of(&Query::parse("")).unwrap_err();
        assert_eq!((missing.status.as_u16(), &*missing.code), (400, "BadParameter"));
        let unknown = ApiVersion::of(&Query::parse("api-version=6.6")).unwrap_err();
        assert_eq!(
            unknown.message,
            "The specified version (6.6) is not recognized. Consider using the latest supported version \
             (2026-04-01)."
        );
        assert!(ApiVersion::of(&Query::parse("Api-Version=7.4")).is_ok());
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_strange(text in ".{0,60}", tail in "[-7.0-9preview]{0,30}") {
            let _ = text.parse::<ApiVersion>();
            let _ = tail.parse::<ApiVersion>();
            let _ = format!("7.{tail}").parse::<ApiVersion>();
        }
    }
}
