//! Links between the documents.

use std::fs;
use std::path::Path;

/// The links of a document that lead nowhere: to a file that is not there, or to a heading that it does not have.
pub fn broken(root: &Path, file: &Path, text: &str) -> Vec<String> {
    let folder = root.join(file);
    let folder = folder.parent().unwrap_or(root);
    let mut found = Vec::new();
    for target in targets(text) {
        let (path, heading) = target.split_once('#').unwrap_or((target.as_str(), ""));
        if !path.is_empty() && !folder.join(path).exists() {
            found.push(format!("{}: the link to {target} leads nowhere", file.display()));
            continue;
        }
        let linked =
            if path.is_empty() { Ok(text.to_owned()) } else { fs::read_to_string(folder.join(path)) };
        if !heading.is_empty() && !headings(&linked.unwrap_or_default()).any(|known| known == heading) {
            found.push(format!("{}: {target} names a heading that is not there", file.display()));
        }
    }
    found
}

/// The targets of `[text](target)` outside of code, apart from those on the web.
fn targets(text: &str) -> Vec<String> {
    let prose = without_code(text);
    let mut found = Vec::new();
    for part in prose.split("](").skip(1) {
        let target = part.split([')', ' ']).next().unwrap_or_default();
        if !target.contains("://") && !target.starts_with("mailto:") {
            found.push(target.to_owned());
        }
    }
    found
}

fn without_code(text: &str) -> String {
    let mut fenced = false;
    let mut prose = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            // Every second part between backquotes is code.
            prose.extend(line.split('`').step_by(2));
            prose.push('\n');
        }
    }
    prose
}

/// The headings as links name them: lower case, spaces as hyphens, other signs left out.
fn headings(text: &str) -> impl Iterator<Item = String> {
    text.lines().filter(|line| line.starts_with('#')).map(|line| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|sign| sign.is_alphanumeric() || matches!(sign, ' ' | '-' | '_'));
        kept.map(|sign| if sign == ' ' { '-' } else { sign }).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_in_prose_only() {
        let text = "a [b](c.md#d) and `[x](y)` and [web](https://e.test)\n```\n[f](g)\n```\n[h](#i-j)";
        assert_eq!(targets(text), ["c.md#d", "#i-j"]);
    }

    #[test]
    fn headings_as_links_name_them() {
        let found: Vec<String> = headings("# A title: with `code`\ntext\n## Two words").collect();
        assert_eq!(found, ["a-title-with-code", "two-words"]);
    }

    #[test]
    fn a_link_to_nothing_is_told() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let text = "[here](src/main.rs) [there](src/nothing.rs) [heading](#no) \n# Yes\n[yes](#yes)";
        assert_eq!(broken(root, Path::new("README.md"), text).len(), 2);
    }
}
