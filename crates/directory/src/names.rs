//! What may be a user name, a display name.

const USER_PART_CHARACTERS_MAX: usize = 64;
const DISPLAY_NAME_CHARACTERS_MAX: usize = 256;

/// What stands before the `@` of a user principal name.
pub(crate) fn is_user_part(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"'.-_!#^~+$%".contains(&b);
    !text.is_empty()
        && text.len() <= USER_PART_CHARACTERS_MAX
        && text.bytes().all(allowed)
        && !text.starts_with('.')
        && !text.ends_with('.')
}

/// 1 to 256 characters, none of them a control character.
pub(crate) fn is_display_name(text: &str) -> bool {
    let length = text.chars().count();
    (1..=DISPLAY_NAME_CHARACTERS_MAX).contains(&length) && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_people() {
        assert!(is_user_part("nina.o'neil+x"));
        for bad in ["", ".nina", "nina.", "ni na", "nina@x", "<nina>", &"n".repeat(65)] {
            assert!(!is_user_part(bad), "{bad}");
        }
        assert!(is_display_name("Nina"));
        assert!(!is_display_name("") && !is_display_name("a\nb") && !is_display_name(&"x".repeat(257)));
    }
}
