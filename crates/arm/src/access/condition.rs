//! Conditions of role definitions and role assignments (version 2.0), with three answers: yes, no, and "not
//! known", which never grants anything.

use crate::access::pattern::ActionPattern;

/// The longest condition that is read, in bytes (Azure's own bound).
const CONDITION_BYTES_MAX: usize = 8 * 1024;
/// The deepest nesting that is read.
const DEPTH_MAX: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Truth {
    No,
    Unknown,
    Yes,
}

impl Truth {
    fn of(value: bool) -> Self {
        if value { Self::Yes } else { Self::No }
    }

    fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            Self::Unknown => Self::Unknown,
        }
    }

    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Yes, Self::Yes) => Self::Yes,
            _ => Self::Unknown,
        }
    }
}

/// Where an attribute comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Request,
    Resource,
    Principal,
    Environment,
}

/// What is known of a request beyond caller, action and scope. What is not here is "not known".
#[derive(Clone, Debug, Default)]
pub(crate) struct Attributes(Vec<(Source, String, Vec<String>)>);

impl Attributes {
    pub(crate) fn set(&mut self, source: Source, name: &str, value: &str) {
        self.0.push((source, name.to_lowercase(), vec![value.to_owned()]));
    }

    fn values(&self, source: Source, folded: &str) -> Option<&[String]> {
        let found = self.0.iter().find(|(s, n, _)| *s == source && n == folded);
        found.map(|(_, _, values)| values.as_slice())
    }
}

/// Attributes that requests on role assignments carry, in lower case.
pub(crate) const ROLE_ATTRIBUTE: &str = "microsoft.authorization/roleassignments:roledefinitionid";
pub(crate) const PRINCIPAL_ATTRIBUTE: &str = "microsoft.authorization/roleassignments:principalid";
pub(crate) const PRINCIPAL_TYPE_ATTRIBUTE: &str = "microsoft.authorization/roleassignments:principaltype";

#[derive(Clone, Debug)]
enum Expression {
    Not(Box<Expression>),
    And(Vec<Expression>),
    Or(Vec<Expression>),
    ActionMatches(ActionPattern),
    /// Operations of Arcadia have no suboperations that conditions could name: not known.
    SubOperation,
    Exists(Source, String),
    Compare(Comparison),
}

#[derive(Clone, Debug)]
struct Comparison {
    source: Source,
    name: String,
    any_left: bool,
    any_right: bool,
    operator: Operator,
    negated: bool,
    values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equals { fold: bool },
    StartsWith { fold: bool },
    Like { fold: bool },
    Guid,
    Bool,
}

/// A condition that was understood.
#[derive(Clone, Debug)]
pub(crate) struct Condition(Expression);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConditionFault {
    #[error("it is longer than {CONDITION_BYTES_MAX} bytes")]
    TooLong,
    #[error("it is nested too deeply")]
    TooDeep,
    #[error("it is not well formed at character {at}: {what}")]
    Syntax { at: usize, what: &'static str },
    #[error("the operator '{0}' is not supported")]
    Operator(String),
    #[error("the attribute '{0}' is not known here")]
    Attribute(String),
}

impl Condition {
    pub(crate) fn parse(text: &str) -> Result<Self, ConditionFault> {
        if text.len() > CONDITION_BYTES_MAX {
            return Err(ConditionFault::TooLong);
        }
        let mut parser = Parser { text, at: 0 };
        let expression = parser.either(0)?;
        parser.space();
        if parser.at < text.len() {
            return Err(parser.fault("more follows after the end of the condition"));
        }
        Ok(Self(expression))
    }

    /// Refuses attributes that no operation of this site supplies, so that nobody relies on them.
    pub(crate) fn check_attributes(&self) -> Result<(), ConditionFault> {
        fn walk(expression: &Expression) -> Result<(), ConditionFault> {
            let known = |source: Source, name: &str| {
                matches!(source, Source::Request | Source::Resource)
                    && [ROLE_ATTRIBUTE, PRINCIPAL_ATTRIBUTE, PRINCIPAL_TYPE_ATTRIBUTE].contains(&name)
            };
            match expression {
                Expression::Not(inner) => walk(inner),
                Expression::And(all) | Expression::Or(all) => all.iter().try_for_each(walk),
                Expression::ActionMatches(_) => Ok(()),
                Expression::SubOperation => Err(ConditionFault::Operator("SubOperationMatches".into())),
                Expression::Exists(source, name) if known(*source, name) => Ok(()),
                Expression::Compare(c) if known(c.source, &c.name) => Ok(()),
                Expression::Exists(_, name) => Err(ConditionFault::Attribute(name.clone())),
                Expression::Compare(c) => Err(ConditionFault::Attribute(c.name.clone())),
            }
        }
        walk(&self.0)
    }

    /// `folded_action` is in lower case.
    pub(crate) fn holds(&self, folded_action: &str, attributes: &Attributes) -> Truth {
        self.0.holds(folded_action, attributes)
    }
}

impl Expression {
    fn holds(&self, action: &str, attributes: &Attributes) -> Truth {
        match self {
            Self::Not(inner) => inner.holds(action, attributes).not(),
            Self::And(all) => {
                all.iter().fold(Truth::Yes, |so_far, e| so_far.and(e.holds(action, attributes)))
            }
            Self::Or(all) => {
                all.iter().fold(Truth::Yes, |so_far, e| so_far.and(e.holds(action, attributes).not())).not()
            }
            Self::ActionMatches(pattern) => Truth::of(pattern.matches(action)),
            Self::SubOperation => Truth::Unknown,
            Self::Exists(source, name) => match attributes.values(*source, name) {
                Some(values) => Truth::of(!values.is_empty()),
                None => Truth::Unknown,
            },
            Self::Compare(comparison) => comparison.holds(attributes),
        }
    }
}

impl Comparison {
    fn holds(&self, attributes: &Attributes) -> Truth {
        let Some(found) = attributes.values(self.source, &self.name) else { return Truth::Unknown };
        // An attribute without values satisfies no comparison, not even "for all of them".
        if found.is_empty() {
            return Truth::No;
        }
        let one = |left: &String| {
            let fits = |right: &String| self.operator.compare(left, right) != self.negated;
            if self.any_right { self.values.iter().any(fits) } else { self.values.iter().all(fits) }
        };
        Truth::of(if self.any_left { found.iter().any(one) } else { found.iter().all(one) })
    }
}

impl Operator {
    fn compare(self, left: &str, right: &str) -> bool {
        let folded = |fold: bool, text: &str| if fold { text.to_lowercase() } else { text.to_owned() };
        match self {
            Self::Equals { fold } => folded(fold, left) == folded(fold, right),
            Self::StartsWith { fold } => folded(fold, left).starts_with(&folded(fold, right)),
            Self::Like { fold } => like(folded(fold, right).as_bytes(), folded(fold, left).as_bytes()),
            Self::Guid => match (uuid::Uuid::try_parse(left), uuid::Uuid::try_parse(right)) {
                (Ok(left), Ok(right)) => left == right,
                _ => false,
            },
            Self::Bool => left.eq_ignore_ascii_case(right),
        }
    }

    /// Operator and whether it is negated.
    fn parse(word: &str) -> Option<(Self, bool)> {
        let folded = word.to_ascii_lowercase();
        let (stem, fold) = match folded.strip_suffix("ignorecase") {
            Some(stem) => (stem, true),
            None => (folded.as_str(), false),
        };
        Some(match stem {
            "stringequals" => (Self::Equals { fold }, false),
            "stringnotequals" => (Self::Equals { fold }, true),
            "stringstartswith" => (Self::StartsWith { fold }, false),
            "stringnotstartswith" => (Self::StartsWith { fold }, true),
            "stringlike" => (Self::Like { fold }, false),
            "stringnotlike" => (Self::Like { fold }, true),
            "guidequals" if !fold => (Self::Guid, false),
            "guidnotequals" if !fold => (Self::Guid, true),
            "boolequals" if !fold => (Self::Bool, false),
            "boolnotequals" if !fold => (Self::Bool, true),
            _ => return None,
        })
    }
}

/// `*` is any run, `?` one character; in time proportional to both lengths.
fn like(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t, mut retry) = (0, 0, None);
    while t < text.len() {
        if pattern.get(p).is_some_and(|c| *c == b'?' || (*c != b'*' && *c == text[t])) {
            (p, t) = (p + 1, t + 1);
        } else if pattern.get(p) == Some(&b'*') {
            retry = Some((p, t));
            p += 1;
        } else if let Some((star, from)) = retry {
            retry = Some((star, from + 1));
            (p, t) = (star + 1, from + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn fault(&self, what: &'static str) -> ConditionFault {
        ConditionFault::Syntax { at: self.at, what }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    /// Takes `sign` after white space.
    fn takes(&mut self, sign: &str) -> bool {
        self.space();
        let found = self.rest().starts_with(sign);
        if found {
            self.at += sign.len();
        }
        found
    }

    fn expect(&mut self, sign: &str, what: &'static str) -> Result<(), ConditionFault> {
        if self.takes(sign) { Ok(()) } else { Err(self.fault(what)) }
    }

    /// The letters, digits, `-`, `.` and `:` that come next.
    fn word(&mut self) -> &'a str {
        self.space();
        let rest = self.rest();
        let end =
            rest.find(|c: char| !(c.is_ascii_alphanumeric() || "-.:_+".contains(c))).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn takes_word(&mut self, wanted: &[&str]) -> bool {
        let before = self.at;
        if wanted.iter().any(|sign| !sign.as_bytes()[0].is_ascii_alphabetic() && self.takes(sign)) {
            return true;
        }
        let word = self.word();
        if wanted.iter().any(|w| w.eq_ignore_ascii_case(word)) {
            return true;
        }
        self.at = before;
        false
    }

    fn either(&mut self, depth: usize) -> Result<Expression, ConditionFault> {
        let mut all = vec![self.both(depth)?];
        while self.takes_word(&["OR", "||"]) {
            all.push(self.both(depth)?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Expression::Or(all) })
    }

    fn both(&mut self, depth: usize) -> Result<Expression, ConditionFault> {
        let mut all = vec![self.one(depth)?];
        while self.takes_word(&["AND", "&&"]) {
            all.push(self.one(depth)?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Expression::And(all) })
    }

    fn one(&mut self, depth: usize) -> Result<Expression, ConditionFault> {
        if depth == DEPTH_MAX {
            return Err(ConditionFault::TooDeep);
        }
        if self.takes("!") {
            return Ok(Expression::Not(Box::new(self.one(depth + 1)?)));
        }
        if self.takes("(") {
            let inner = self.either(depth + 1)?;
            self.expect(")", "a ')' is missing")?;
            return Ok(inner);
        }
        if self.takes("@") {
            let (source, name) = self.attribute()?;
            return self.comparison(source, name);
        }
        if self.takes_word(&["NOT"]) {
            return Ok(Expression::Not(Box::new(self.one(depth + 1)?)));
        }
        if self.takes_word(&["EXISTS"]) {
            self.expect("@", "EXISTS needs an attribute")?;
            let (source, name) = self.attribute()?;
            return Ok(Expression::Exists(source, name));
        }
        if self.takes_word(&["ActionMatches"]) {
            return Ok(Expression::ActionMatches(ActionPattern::new(&self.braced()?)));
        }
        if self.takes_word(&["SubOperationMatches"]) {
            self.braced()?;
            return Ok(Expression::SubOperation);
        }
        Err(self.fault("a term is expected"))
    }

    fn braced(&mut self) -> Result<String, ConditionFault> {
        self.expect("{", "a '{' is missing")?;
        let value = self.value()?;
        self.expect("}", "a '}' is missing")?;
        Ok(value)
    }

    fn attribute(&mut self) -> Result<(Source, String), ConditionFault> {
        let source = match self.word().to_ascii_lowercase().as_str() {
            "request" => Source::Request,
            "resource" => Source::Resource,
            "principal" => Source::Principal,
            "environment" => Source::Environment,
            _ => return Err(self.fault("the attribute's source is not known")),
        };
        self.expect("[", "a '[' is missing")?;
        let end = self.rest().find(']').ok_or_else(|| self.fault("a ']' is missing"))?;
        let name = self.rest()[..end].trim().to_lowercase();
        self.at += end + 1;
        Ok((source, name))
    }

    fn comparison(&mut self, source: Source, name: String) -> Result<Expression, ConditionFault> {
        let word = self.word();
        let (quantifier, operator) = match word.split_once(':') {
            Some((quantifier, operator)) => (quantifier.to_ascii_lowercase(), operator),
            None => (String::new(), word),
        };
        let (any_left, any_right) = match quantifier.as_str() {
            "" | "foranyofanyvalues" => (true, true),
            "forallofanyvalues" => (false, true),
            "foranyofallvalues" => (true, false),
            "forallofallvalues" => (false, false),
            _ => return Err(ConditionFault::Operator(word.to_owned())),
        };
        let (operator, negated) =
            Operator::parse(operator).ok_or_else(|| ConditionFault::Operator(word.to_owned()))?;
        let values = self.values()?;
        Ok(Expression::Compare(Comparison { source, name, any_left, any_right, operator, negated, values }))
    }

    fn values(&mut self) -> Result<Vec<String>, ConditionFault> {
        if !self.takes("{") {
            return Ok(vec![self.value()?]);
        }
        let mut values = vec![self.value()?];
        while self.takes(",") {
            values.push(self.value()?);
        }
        self.expect("}", "a '}' is missing")?;
        Ok(values)
    }

    fn value(&mut self) -> Result<String, ConditionFault> {
        if self.takes("'") {
            let end = self.rest().find('\'').ok_or_else(|| self.fault("a quote is not closed"))?;
            let value = self.rest()[..end].to_owned();
            self.at += end + 1;
            return Ok(value);
        }
        let word = self.word();
        if word.is_empty() { Err(self.fault("a value is expected")) } else { Ok(word.to_owned()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OFFICER: &str = "b86a8fe4-44ce-4948-aee5-eccb2c155cd7";
    const OWNER: &str = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635";

    fn truth(condition: &str, action: &str, attributes: &[(Source, &str, &str)]) -> Truth {
        let mut known = Attributes::default();
        for (source, name, value) in attributes {
            known.set(*source, name, value);
        }
        Condition::parse(condition).unwrap().holds(&action.to_lowercase(), &known)
    }

    #[test]
    fn a_condition_on_role_assignments() {
        let condition = format!(
            "((!(ActionMatches{{'Microsoft.Authorization/roleAssignments/write'}})) OR \
             (@Request[Microsoft.Authorization/roleAssignments:RoleDefinitionId] \
             ForAnyOfAnyValues:GuidEquals{{{}, 4633458b-17de-408a-b874-0445c86b69e6}}))",
            OFFICER.replace('-', "")
        );
        let write = "Microsoft.Authorization/roleAssignments/write";
        assert_eq!(truth(&condition, "Microsoft.KeyVault/vaults/read", &[]), Truth::Yes);
        assert_eq!(truth(&condition, write, &[]), Truth::Unknown);
        assert_eq!(truth(&condition, write, &[(Source::Request, ROLE_ATTRIBUTE, OFFICER)]), Truth::Yes);
        assert_eq!(truth(&condition, write, &[(Source::Request, ROLE_ATTRIBUTE, OWNER)]), Truth::No);
        assert_eq!(truth(&condition, write, &[(Source::Resource, ROLE_ATTRIBUTE, OFFICER)]), Truth::Unknown);
    }

    #[test]
    fn operators_and_quantifiers() {
        let at = [(Source::Request, "a:b", "Abc")];
        for (condition, expected) in [
            ("@Request[a:b] StringEquals 'Abc'", Truth::Yes),
            ("@Request[a:b] StringEquals 'abc'", Truth::No),
            ("@request[A:B] StringEqualsIgnoreCase 'abc'", Truth::Yes),
            ("@Request[a:b] StringNotEquals 'abc'", Truth::Yes),
            ("@Request[a:b] ForAnyOfAllValues:StringNotEquals {'abc', 'Abc'}", Truth::No),
            ("@Request[a:b] StringLike 'A?c'", Truth::Yes),
            ("@Request[a:b] StringLike 'A*x'", Truth::No),
            ("@Request[a:b] StringStartsWith 'Ab'", Truth::Yes),
            ("Exists @Request[a:b]", Truth::Yes),
            ("NOT Exists @Request[a:b]", Truth::No),
            ("@Request[a:c] StringEquals 'x' OR @Request[a:b] StringEquals 'Abc'", Truth::Yes),
            ("@Request[a:c] StringEquals 'x' && @Request[a:b] StringEquals 'Abc'", Truth::Unknown),
            ("!(@Request[a:c] StringEquals 'x')", Truth::Unknown),
            ("SubOperationMatches{'Blob.List'}", Truth::Unknown),
        ] {
            assert_eq!(truth(condition, "x/read", &at), expected, "{condition}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for condition in [
            "",
            "(",
            "()",
            "ActionMatches{'a'",
            "@Other[a] StringEquals 'x'",
            "@Request[a StringEquals 'x'",
            "@Request[a] DateTimeGreaterThan '2020'",
            "@Request[a] StringEquals",
            "@Request[a] StringEquals 'x",
            "@Request[a] StringEquals 'x' extra",
        ] {
            assert!(Condition::parse(condition).is_err(), "{condition}");
        }
        let foreign = Condition::parse("@Principal[x] StringEquals 'y'").unwrap();
        assert!(foreign.check_attributes().is_err());
    }

    /// What would be understood but for its size.
    #[test]
    fn what_is_too_deep_or_too_long_is_refused() {
        const TERM: &str = "ActionMatches{'a'}";
        let deep = |open: &str, close: &str, depth: usize| {
            Condition::parse(&[&open.repeat(depth), TERM, &close.repeat(depth)].concat()).map(drop)
        };
        for (open, close, of_each) in [("(", ")", 1), ("!", "", 1), ("NOT ", "", 1), ("(!", ")", 2)] {
            assert_eq!(deep(open, close, 31 / of_each), Ok(()), "{open}");
            assert_eq!(deep(open, close, 32 / of_each), Err(ConditionFault::TooDeep), "{open}");
            assert_eq!(deep(open, close, 2000), Err(ConditionFault::TooDeep), "{open}");
        }
        let long = |bytes: usize| Condition::parse(&format!("{TERM:<bytes$}")).map(drop);
        assert_eq!(long(8 * 1024), Ok(()));
        assert_eq!(long(8 * 1024 + 1), Err(ConditionFault::TooLong));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn never_panics(text in "[@!(){}\\[\\]'a-zA-Z: ,&|é]{0,60}") {
            let _ = Condition::parse(&text);
        }
    }
}
