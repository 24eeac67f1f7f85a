//! What a step must show.

/// What came of a step.
#[derive(Debug)]
pub struct Seen {
    /// Everything that was printed.
    pub text: String,
    /// What the step's own question printed afterwards, without white space around it.
    pub answer: String,
    /// The exit status of the commands.
    pub code: i32,
}

pub enum Check {
    /// The commands succeeded and the output has all of these words.
    Says(&'static [&'static str]),
    /// The commands failed, or an HTTP answer did, with all of these words.
    Refused(&'static [&'static str]),
    /// The answer is as described.
    Answer(&'static str, fn(&str) -> bool),
    /// The answer is exactly this.
    Is(&'static str),
}

impl Check {
    /// What was found, or why it is not what it should be.
    pub fn judge(&self, seen: &Seen) -> Result<String, String> {
        match self {
            Self::Refused(words) => {
                says(&seen.text, words)
                    .map_err(|word| format!("this should have been refused with {word:?}"))?;
                Ok(format!("refused: {}", words.join(", ")))
            }
            _ if seen.code != 0 => Err(format!("exit status {}", seen.code)),
            Self::Says(words) => {
                says(&seen.text, words).map_err(|word| format!("{word:?} is not in the output"))?;
                Ok("as it should be".to_owned())
            }
            Self::Answer(what, holds) => answer(&seen.answer, what, holds(&seen.answer)),
            Self::Is(wanted) => answer(&seen.answer, wanted, seen.answer == *wanted),
        }
    }
}

fn answer(found: &str, wanted: &str, holds: bool) -> Result<String, String> {
    if holds { Ok(found.replace('\n', " ")) } else { Err(format!("{found:?} is not {wanted}")) }
}

fn says<'a>(text: &str, words: &[&'a str]) -> Result<(), &'a str> {
    words.iter().find(|word| !text.contains(**word)).map_or(Ok(()), |word| Err(*word))
}

pub fn is_guid(text: &str) -> bool {
    uuid::Uuid::try_parse(text).is_ok() && text.len() == 36
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(text: &str, answer: &str, code: i32) -> Seen {
        Seen { text: text.to_owned(), answer: answer.to_owned(), code }
    }

    #[test]
    fn success_needs_both_words_and_status() {
        let check = Check::Says(&["a", "b"]);
        assert!(check.judge(&seen("a b", "", 0)).is_ok());
        assert!(check.judge(&seen("a", "", 0)).is_err());
        assert!(check.judge(&seen("a b", "", 1)).is_err());
    }

    #[test]
    fn a_refusal_needs_its_words_whatever_the_status() {
        let check = Check::Refused(&["Forbidden"]);
        assert!(check.judge(&seen("Forbidden", "", 1)).is_ok());
        assert!(check.judge(&seen("{\"code\":\"Forbidden\"}", "", 0)).is_ok());
        assert!(check.judge(&seen("command not found", "", 127)).is_err());
    }

    #[test]
    fn answers_are_compared_whole() {
        assert!(Check::Is("401").judge(&seen("", "401", 0)).is_ok());
        assert!(Check::Is("401").judge(&seen("", "4010", 0)).is_err());
        assert!(
            Check::Answer("a GUID", is_guid)
                .judge(&seen("", "c7d2f1de-0000-4000-8000-000000000000", 0))
                .is_ok()
        );
        assert!(Check::Answer("a GUID", is_guid).judge(&seen("", "", 0)).is_err());
    }
}
