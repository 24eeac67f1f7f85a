//! `$filter`: a small part of OData, read into a tree of bounded size.

use arcadia_kernel::Fault;

/// The longest filter that is read, in bytes.
const FILTER_BYTES_MAX: usize = 4096;
const DEPTH_MAX: usize = 24;
const TERMS_MAX: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    /// Everything: an empty filter.
    All,
    Equals(String, String),
    NotEquals(String, String),
    /// A function of literals and field names, in the order written; the name is in lower case.
    Call(String, Vec<Argument>),
    And(Box<Filter>, Box<Filter>),
    Or(Box<Filter>, Box<Filter>),
    Not(Box<Filter>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Argument {
    Text(String),
    Field(String),
}

impl Filter {
    pub(crate) fn parse(text: &str) -> Result<Self, Fault> {
        if text.len() > FILTER_BYTES_MAX {
            return Err(refused("it is too long"));
        }
        if text.trim().is_empty() {
            return Ok(Self::All);
        }
        let mut parser = Parser { rest: text, terms: 0 };
        let filter = parser.either(0)?;
        if parser.rest.trim_start().is_empty() {
            Ok(filter)
        } else {
            Err(refused("more follows after its end"))
        }
    }

    /// The terms that `and` joins at its top: each of them holds wherever the filter does.
    pub(crate) fn terms(&self) -> Vec<&Filter> {
        match self {
            Self::And(left, right) => [left.terms(), right.terms()].concat(),
            other => vec![other],
        }
    }

    /// Whether the filter holds, where `leaf` answers comparisons and calls. A leaf that cannot be answered
    /// refuses the request: silently listing too much or too little would be worse.
    pub(crate) fn holds(&self, leaf: &impl Fn(&Filter) -> Result<bool, Fault>) -> Result<bool, Fault> {
        Ok(match self {
            Self::All => true,
            Self::And(left, right) => left.holds(leaf)? && right.holds(leaf)?,
            Self::Or(left, right) => left.holds(leaf)? || right.holds(leaf)?,
            Self::Not(inner) => !inner.holds(leaf)?,
            Self::Equals(..) | Self::NotEquals(..) | Self::Call(..) => leaf(self)?,
        })
    }

    /// Every comparison and call in it, so that a filter is refused before anything is listed.
    pub(crate) fn check(&self, leaf: &impl Fn(&Filter) -> Result<(), Fault>) -> Result<(), Fault> {
        match self {
            Self::All => Ok(()),
            Self::And(left, right) | Self::Or(left, right) => {
                left.check(leaf)?;
                right.check(leaf)
            }
            Self::Not(inner) => inner.check(leaf),
            Self::Equals(..) | Self::NotEquals(..) | Self::Call(..) => leaf(self),
        }
    }
}

pub(crate) fn refused(why: &str) -> Fault {
    Fault::bad_request("InvalidFilterInQueryString", format!("Invalid $filter in the query string: {why}."))
}

struct Parser<'a> {
    rest: &'a str,
    terms: usize,
}

impl<'a> Parser<'a> {
    fn takes(&mut self, sign: char) -> bool {
        let trimmed = self.rest.trim_start();
        match trimmed.strip_prefix(sign) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn word(&mut self) -> &'a str {
        let trimmed = self.rest.trim_start();
        let end = trimmed
            .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-' | '$')))
            .unwrap_or(trimmed.len());
        let (word, rest) = trimmed.split_at(end);
        self.rest = rest;
        word
    }

    fn takes_word(&mut self, wanted: &str) -> bool {
        let before = self.rest;
        if self.word().eq_ignore_ascii_case(wanted) {
            return true;
        }
        self.rest = before;
        false
    }

    fn either(&mut self, depth: usize) -> Result<Filter, Fault> {
        let mut left = self.both(depth)?;
        while self.takes_word("or") {
            left = Filter::Or(Box::new(left), Box::new(self.both(depth)?));
        }
        Ok(left)
    }

    fn both(&mut self, depth: usize) -> Result<Filter, Fault> {
        let mut left = self.one(depth)?;
        while self.takes_word("and") {
            left = Filter::And(Box::new(left), Box::new(self.one(depth)?));
        }
        Ok(left)
    }

    fn one(&mut self, depth: usize) -> Result<Filter, Fault> {
        self.terms += 1;
        if depth == DEPTH_MAX || self.terms > TERMS_MAX {
            return Err(refused("it has too many terms"));
        }
        if self.takes('(') {
            let inner = self.either(depth + 1)?;
            return if self.takes(')') { Ok(inner) } else { Err(refused("a ')' is missing")) };
        }
        if self.takes_word("not") {
            return Ok(Filter::Not(Box::new(self.one(depth + 1)?)));
        }
        let name = self.word();
        if name.is_empty() {
            return Err(refused("a field or function is expected"));
        }
        if self.takes('(') {
            return Ok(Filter::Call(name.to_ascii_lowercase(), self.arguments()?));
        }
        let operator = self.word().to_ascii_lowercase();
        let field = name.to_ascii_lowercase();
        match operator.as_str() {
            "eq" => Ok(Filter::Equals(field, self.literal()?)),
            "ne" => Ok(Filter::NotEquals(field, self.literal()?)),
            _ => Err(refused("only the operators eq, ne, and, or and not are supported")),
        }
    }

    fn arguments(&mut self) -> Result<Vec<Argument>, Fault> {
        let mut arguments = Vec::new();
        if self.takes(')') {
            return Ok(arguments);
        }
        loop {
            let quoted = self.rest.trim_start().starts_with('\'');
            arguments.push(if quoted {
                Argument::Text(self.literal()?)
            } else {
                Argument::Field(self.literal()?.to_ascii_lowercase())
            });
            if arguments.len() > TERMS_MAX {
                return Err(refused("it has too many terms"));
            }
            if self.takes(')') {
                return Ok(arguments);
            }
            if !self.takes(',') {
                return Err(refused("a ')' is missing"));
            }
        }
    }

    /// `'text'` with doubled quotes inside, or a bare word (a GUID, `true`).
    fn literal(&mut self) -> Result<String, Fault> {
        if !self.takes('\'') {
            let word = self.word();
            return if word.is_empty() { Err(refused("a value is expected")) } else { Ok(word.to_owned()) };
        }
        let mut value = String::new();
        let mut chars = self.rest.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            if c != '\'' {
                value.push(c);
            } else if chars.next_if(|(_, next)| *next == '\'').is_some() {
                value.push('\'');
            } else {
                self.rest = &self.rest[at + 1..];
                return Ok(value);
            }
        }
        Err(refused("a quote is not closed"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn equals(field: &str, value: &str) -> Box<Filter> {
        Box::new(Filter::Equals(field.into(), value.into()))
    }

    #[test]
    fn what_az_sends() {
        assert_eq!(Filter::parse(" ").unwrap(), Filter::All);
        assert_eq!(
            Filter::parse("resourceType eq 'Microsoft.KeyVault/vaults' and name eq 'kv1'").unwrap(),
            Filter::And(equals("resourcetype", "Microsoft.KeyVault/vaults"), equals("name", "kv1"))
        );
        assert_eq!(
            Filter::parse("atScope() and assignedTo('OID')").unwrap(),
            Filter::And(
                Box::new(Filter::Call("atscope".into(), vec![])),
                Box::new(Filter::Call("assignedto".into(), vec![Argument::Text("OID".into())]))
            )
        );
        assert_eq!(
            Filter::parse("substringof('a''b',name)").unwrap(),
            Filter::Call(
                "substringof".into(),
                vec![Argument::Text("a'b".into()), Argument::Field("name".into())]
            )
        );
    }

    #[test]
    fn and_binds_tighter_than_or() {
        let filter = Filter::parse("a eq 1 or b eq 2 and not (c ne 3)").unwrap();
        assert!(matches!(filter, Filter::Or(_, right) if matches!(*right, Filter::And(..))));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in ["a", "a eq", "a gt 1", "a eq 'x", "a eq 'x' b", "(a eq 1", "f(", "f(1", "'x'"] {
            assert_eq!(Filter::parse(text).unwrap_err().status.as_u16(), 400, "{text}");
        }
    }

    /// What would be understood but for its size.
    #[test]
    fn what_is_too_large_is_refused() {
        let nested = |depth: usize| format!("{}a eq 1{}", "(".repeat(depth), ")".repeat(depth));
        let negated = |depth: usize| format!("{}a eq 1", "not ".repeat(depth));
        let joined = |terms: usize| vec!["a eq 1"; terms].join(" or ");
        let called = |arguments: usize| format!("f({})", vec!["1"; arguments].join(","));
        let padded = |bytes: usize| format!("{:<bytes$}", "a eq 1");
        type Make<'a> = &'a dyn Fn(usize) -> String;
        let bounds: [(Make<'_>, usize, &str); 5] = [
            (&nested, 23, "it has too many terms"),
            (&negated, 23, "it has too many terms"),
            (&joined, 64, "it has too many terms"),
            (&called, 64, "it has too many terms"),
            (&padded, 4096, "it is too long"),
        ];
        for (make, most, why) in bounds {
            let fits = make(most);
            assert!(Filter::parse(&fits).is_ok(), "{fits}");
            let refused = Filter::parse(&make(most + 1)).unwrap_err();
            assert_eq!(refused.status.as_u16(), 400);
            assert!(refused.message.contains(why), "{}", refused.message);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]
        #[test]
        fn never_panics(text in "[a-z '(),é]{0,60}") {
            let _ = Filter::parse(&text);
        }

        #[test]
        fn any_quoted_value_comes_back(value in "\\PC{0,40}") {
            let text = format!("name eq '{}'", value.replace('\'', "''"));
            prop_assert_eq!(Filter::parse(&text).unwrap(), Filter::Equals("name".into(), value));
        }
    }
}
