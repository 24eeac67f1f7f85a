//! `$filter`, the part of it that clients use: a bounded recursive-descent parser and its evaluation.
//!
//! ```text
//! or      = and *("or" and)
//! and     = unary *("and" unary)
//! unary   = "not" unary / "(" or ")" / call / compare / any
//! call    = ("startswith" / "endswith" / "contains") "(" path "," text ")"
//! compare = path ("eq" / "ne") literal / path "in" "(" text *("," text) ")"
//! any     = path "/any(" name ":" name "eq" text ")"
//! ```

use std::borrow::Cow;

const FILTER_BYTES_MAX: usize = 8 * 1024;
const DEPTH_MAX: usize = 32;
const NODES_MAX: usize = 256;

/// The value of one property.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Field<'a> {
    Text(Cow<'a, str>),
    Flag(bool),
    Texts(Vec<Cow<'a, str>>),
    Null,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Flag,
    Texts,
}

/// The properties of a kind of object that can be filtered by.
pub(crate) type Fields = &'static [(&'static str, Kind)];

/// An object that can be filtered.
pub(crate) trait Queried {
    const FIELDS: Fields;
    /// The value of one of [`Queried::FIELDS`], by its exact name.
    fn field(&self, name: &str) -> Field<'_>;
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FilterFault {
    #[error("the filter is longer or deeper than is accepted")]
    TooLarge,
    #[error("unexpected end or character at position {0}")]
    Syntax(usize),
    #[error("the property '{0}' does not exist or cannot be filtered by in this way")]
    Property(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    StartsWith,
    EndsWith,
    Contains,
}

#[derive(Clone, Debug, PartialEq)]
enum Literal {
    Text(String),
    Flag(bool),
    Null,
}

#[derive(Clone, Debug, PartialEq)]
enum Node {
    Or(Box<Node>, Box<Node>),
    And(Box<Node>, Box<Node>),
    Not(Box<Node>),
    Compare(&'static str, Literal),
    In(&'static str, Vec<String>),
    Call(Function, &'static str, String),
    Any(&'static str, String),
}

/// A parsed filter over one kind of object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Filter(Node);

impl Filter {
    pub(crate) fn parse(text: &str, fields: Fields) -> Result<Self, FilterFault> {
        if text.len() > FILTER_BYTES_MAX {
            return Err(FilterFault::TooLarge);
        }
        let mut parser = Parser { text, at: 0, fields, nodes: 0 };
        let node = parser.or(0)?;
        parser.blanks();
        if parser.at == text.len() { Ok(Self(node)) } else { Err(parser.syntax()) }
    }

    pub(crate) fn matches<T: Queried>(&self, object: &T) -> bool {
        holds(&self.0, object)
    }
}

/// Texts compare without regard to case.
fn same(left: &str, right: &str) -> bool {
    left == right || left.to_lowercase() == right.to_lowercase()
}

fn holds<T: Queried>(node: &Node, object: &T) -> bool {
    match node {
        Node::Or(left, right) => holds(left, object) || holds(right, object),
        Node::And(left, right) => holds(left, object) && holds(right, object),
        Node::Not(inner) => !holds(inner, object),
        Node::Compare(name, literal) => match (object.field(name), literal) {
            (Field::Text(found), Literal::Text(wanted)) => same(&found, wanted),
            (Field::Flag(found), Literal::Flag(wanted)) => found == *wanted,
            (Field::Null, Literal::Null) => true,
            _ => false,
        },
        Node::In(name, wanted) => match object.field(name) {
            Field::Text(found) => wanted.iter().any(|wanted| same(&found, wanted)),
            _ => false,
        },
        Node::Call(function, name, wanted) => match object.field(name) {
            Field::Text(found) => {
                let (found, wanted) = (found.to_lowercase(), wanted.to_lowercase());
                match function {
                    Function::StartsWith => found.starts_with(&wanted),
                    Function::EndsWith => found.ends_with(&wanted),
                    Function::Contains => found.contains(&wanted),
                }
            }
            _ => false,
        },
        Node::Any(name, wanted) => match object.field(name) {
            Field::Texts(found) => found.iter().any(|found| same(found, wanted)),
            _ => false,
        },
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    fields: Fields,
    nodes: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn syntax(&self) -> FilterFault {
        FilterFault::Syntax(self.at)
    }

    fn blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t']).len();
    }

    /// Steps over one character, if it is next.
    fn takes(&mut self, wanted: char) -> bool {
        self.blanks();
        let found = self.rest().starts_with(wanted);
        if found {
            self.at += wanted.len_utf8();
        }
        found
    }

    fn expect(&mut self, wanted: char) -> Result<(), FilterFault> {
        if self.takes(wanted) { Ok(()) } else { Err(self.syntax()) }
    }

    /// The identifier at this position, without stepping over it.
    fn peek_word(&mut self) -> &'a str {
        self.blanks();
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        &rest[..end]
    }

    fn word(&mut self) -> Result<&'a str, FilterFault> {
        let word = self.peek_word();
        if word.is_empty() {
            return Err(self.syntax());
        }
        self.at += word.len();
        Ok(word)
    }

    fn takes_word(&mut self, wanted: &str) -> bool {
        let found = self.peek_word().eq_ignore_ascii_case(wanted);
        if found {
            self.at += wanted.len();
        }
        found
    }

    fn count(&mut self, depth: usize) -> Result<(), FilterFault> {
        self.nodes += 1;
        if self.nodes > NODES_MAX || depth > DEPTH_MAX { Err(FilterFault::TooLarge) } else { Ok(()) }
    }

    fn or(&mut self, depth: usize) -> Result<Node, FilterFault> {
        self.count(depth)?;
        let mut node = self.and(depth)?;
        while self.takes_word("or") {
            node = Node::Or(Box::new(node), Box::new(self.and(depth)?));
        }
        Ok(node)
    }

    fn and(&mut self, depth: usize) -> Result<Node, FilterFault> {
        let mut node = self.unary(depth)?;
        while self.takes_word("and") {
            node = Node::And(Box::new(node), Box::new(self.unary(depth)?));
        }
        Ok(node)
    }

    fn unary(&mut self, depth: usize) -> Result<Node, FilterFault> {
        self.count(depth)?;
        if self.takes('(') {
            let node = self.or(depth + 1)?;
            self.expect(')')?;
            return Ok(node);
        }
        let start = self.at;
        let word = self.word()?;
        let function = match word.to_ascii_lowercase().as_str() {
            "not" => return Ok(Node::Not(Box::new(self.unary(depth + 1)?))),
            "startswith" => Function::StartsWith,
            "endswith" => Function::EndsWith,
            "contains" => Function::Contains,
            _ => return self.property(word),
        };
        // A property may be called like a function; only a parenthesis makes it one.
        if !self.takes('(') {
            self.at = start;
            return Err(self.syntax());
        }
        let name = self.word()?;
        let name = self.named(name, Kind::Text)?;
        self.expect(',')?;
        let text = self.quoted()?;
        self.expect(')')?;
        Ok(Node::Call(function, name, text))
    }

    fn property(&mut self, word: &str) -> Result<Node, FilterFault> {
        if self.takes('/') {
            return self.any(word);
        }
        if self.takes_word("in") {
            let name = self.named(word, Kind::Text)?;
            self.expect('(')?;
            let mut texts = vec![self.quoted()?];
            while self.takes(',') {
                self.count(0)?;
                texts.push(self.quoted()?);
            }
            self.expect(')')?;
            return Ok(Node::In(name, texts));
        }
        let negated = match () {
            () if self.takes_word("eq") => false,
            () if self.takes_word("ne") => true,
            () => return Err(self.syntax()),
        };
        let literal = self.literal()?;
        let name = match &literal {
            Literal::Text(_) => self.named(word, Kind::Text)?,
            Literal::Flag(_) => self.named(word, Kind::Flag)?,
            Literal::Null => self.named(word, Kind::Text).or_else(|_| self.named(word, Kind::Flag))?,
        };
        let node = Node::Compare(name, literal);
        Ok(if negated { Node::Not(Box::new(node)) } else { node })
    }

    fn any(&mut self, property: &str) -> Result<Node, FilterFault> {
        let name = self.named(property, Kind::Texts)?;
        if !self.takes_word("any") {
            return Err(self.syntax());
        }
        self.expect('(')?;
        let variable = self.word()?;
        self.expect(':')?;
        if self.word()? != variable || !self.takes_word("eq") {
            return Err(self.syntax());
        }
        let text = self.quoted()?;
        self.expect(')')?;
        Ok(Node::Any(name, text))
    }

    fn named(&self, word: &str, kind: Kind) -> Result<&'static str, FilterFault> {
        let found = self.fields.iter().find(|(name, of)| name.eq_ignore_ascii_case(word) && *of == kind);
        let unknown = || FilterFault::Property(word.chars().take(100).collect());
        found.map(|(name, _)| *name).ok_or_else(unknown)
    }

    fn literal(&mut self) -> Result<Literal, FilterFault> {
        match () {
            () if self.takes_word("true") => Ok(Literal::Flag(true)),
            () if self.takes_word("false") => Ok(Literal::Flag(false)),
            () if self.takes_word("null") => Ok(Literal::Null),
            () => self.quoted().map(Literal::Text),
        }
    }

    /// Text in single quotes; two of them stand for one.
    fn quoted(&mut self) -> Result<String, FilterFault> {
        self.expect('\'')?;
        let mut text = String::new();
        loop {
            let rest = self.rest();
            let end = rest.find('\'').ok_or_else(|| self.syntax())?;
            text.push_str(&rest[..end]);
            self.at += end + 1;
            if !self.rest().starts_with('\'') {
                return Ok(text);
            }
            text.push('\'');
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Thing {
        name: &'static str,
        on: bool,
        names: Vec<&'static str>,
    }

    impl Queried for Thing {
        const FIELDS: Fields =
            &[("displayName", Kind::Text), ("mail", Kind::Text), ("on", Kind::Flag), ("names", Kind::Texts)];

        fn field(&self, name: &str) -> Field<'_> {
            match name {
                "displayName" => Field::Text(self.name.into()),
                "on" => Field::Flag(self.on),
                "names" => Field::Texts(self.names.iter().map(|name| (*name).into()).collect()),
                _ => Field::Null,
            }
        }
    }

    fn fits(filter: &str) -> bool {
        let thing = Thing { name: "O'Neil App", on: true, names: vec!["a", "api://x"] };
        Filter::parse(filter, Thing::FIELDS).unwrap().matches(&thing)
    }

    #[test]
    fn what_clients_send() {
        assert!(fits("displayName eq 'O''Neil App'"));
        assert!(fits("startswith(displayName,'o''neil')"));
        assert!(fits("names/any(c:c eq 'API://x')"));
        assert!(fits("displayName eq 'o''neil app' and on eq true"));
        assert!(fits("displayName eq 'x' or (on eq true and not (mail eq 'y'))"));
        assert!(fits("mail eq null and displayName ne 'x'"));
        assert!(fits("displayName in ('a', 'O''Neil App')"));
        assert!(fits("endswith( displayName , 'app' )"));
        assert!(!fits("names/any(c:c eq 'b')"));
        assert!(!fits("on eq false"));
        assert!(!fits("startswith(displayName,'x')"));
    }

    #[test]
    fn and_binds_tighter_than_or() {
        assert!(fits("on eq true or on eq false and on eq false"));
        assert!(!fits("(on eq true or on eq false) and on eq false"));
    }

    #[test]
    fn everything_else_is_refused() {
        for bad in [
            "",
            " ",
            "displayName",
            "displayName eq",
            "displayName eq x",
            "displayName eq 'x",
            "displayName gt 'x'",
            "unknown eq 'x'",
            "on eq 'true'",
            "displayName eq true",
            "names eq 'x'",
            "displayName/any(c:c eq 'x')",
            "names/any(c:d eq 'x')",
            "names/all(c:c eq 'x')",
            "startswith(displayName,'x'",
            "startswith displayName",
            "displayName eq 'x' displayName eq 'y'",
            "displayName eq 'x')",
            "displayName in ()",
            "not",
            "é eq 'x'",
        ] {
            assert!(Filter::parse(bad, Thing::FIELDS).is_err(), "{bad}");
        }
    }

    #[test]
    fn size_and_depth_are_bounded() {
        let deep = format!("{}on eq true{}", "(".repeat(100), ")".repeat(100));
        assert_eq!(Filter::parse(&deep, Thing::FIELDS), Err(FilterFault::TooLarge));
        let nots = format!("{}on eq true", "not ".repeat(1000));
        assert_eq!(Filter::parse(&nots, Thing::FIELDS), Err(FilterFault::TooLarge));
        let wide = vec!["on eq true"; 700].join(" or ");
        assert_eq!(Filter::parse(&wide, Thing::FIELDS), Err(FilterFault::TooLarge));
        assert_eq!(Filter::parse(&"x".repeat(9000), Thing::FIELDS), Err(FilterFault::TooLarge));
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,200}") {
            let _ = Filter::parse(&text, Thing::FIELDS);
        }

        #[test]
        fn never_panics_on_near_filters(parts in proptest::collection::vec(
            prop_oneof![
                Just("displayName"), Just("names"), Just("/any("), Just("c:c"), Just("eq"), Just("'x'"),
                Just("'"), Just("("), Just(")"), Just("and"), Just("or"), Just("not"), Just("startswith("),
                Just(","), Just(" "), Just("é"), Just("true"), Just("in"),
            ], 0..40)) {
            let _ = Filter::parse(&parts.join(" "), Thing::FIELDS);
            let _ = Filter::parse(&parts.concat(), Thing::FIELDS);
        }

        #[test]
        fn any_text_can_be_quoted(text in "\\PC{0,60}") {
            let filter = format!("displayName eq '{}'", text.replace('\'', "''"));
            let parsed = Filter::parse(&filter, Thing::FIELDS).unwrap();
            prop_assert_eq!(parsed.0, Node::Compare("displayName", Literal::Text(text)));
        }
    }
}
