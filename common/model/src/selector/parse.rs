//! The selector grammar: `!` binds tighter than `&&`, `&&` tighter than `||`.

use std::collections::BTreeSet;

use super::Selector;

/// Longest selector that is read, in bytes.
pub const MAX_LENGTH: usize = 256 * 1024;
/// Deepest nesting of operators.
pub const MAX_DEPTH: usize = 32;
/// Deepest nesting of brackets, which may be redundant.
const MAX_BRACKETS: usize = 128;
/// Longest label.
const MAX_LABEL: usize = 512;

/// Why a text is no selector, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("selector at byte {at}: {reason}")]
pub struct SelectorError {
    /// Byte offset in the text.
    pub at: usize,
    /// What is wrong there.
    pub reason: &'static str,
}

pub(super) fn parse(text: &str) -> Result<Selector, SelectorError> {
    let mut parser = Parser { text, at: 0, brackets: 0 };
    if text.len() > MAX_LENGTH {
        return Err(parser.error("longer than 256 KiB"));
    }
    parser.skip_blanks();
    if parser.rest().is_empty() {
        return Ok(Selector::All);
    }
    let (selector, depth) = parser.alternatives()?;
    if !parser.rest().is_empty() {
        return Err(parser.error("only '&&' or '||' may follow here"));
    }
    if depth > MAX_DEPTH {
        return Err(SelectorError { at: 0, reason: "nested deeper than 32 levels" });
    }
    Ok(selector)
}

/// A selector and the depth of its operators.
type Measured = (Selector, usize);

struct Parser<'a> {
    text: &'a str,
    at: usize,
    brackets: usize,
}

impl<'a> Parser<'a> {
    /// `and ("||" and)*`
    fn alternatives(&mut self) -> Result<Measured, SelectorError> {
        self.list("||", Selector::Or, Parser::conjunction)
    }

    /// `operand ("&&" operand)*`
    fn conjunction(&mut self) -> Result<Measured, SelectorError> {
        self.list("&&", Selector::And, Parser::operand)
    }

    fn list(
        &mut self,
        operator: &str,
        join: fn(Vec<Selector>) -> Selector,
        part: fn(&mut Self) -> Result<Measured, SelectorError>,
    ) -> Result<Measured, SelectorError> {
        let (first, mut depth) = part(self)?;
        let mut list = vec![first];
        while self.eat(operator) {
            let (next, inner) = part(self)?;
            list.push(next);
            depth = depth.max(inner);
        }
        match list.len() {
            1 => Ok((list.remove(0), depth)),
            _ => Ok((join(list), depth + 1)),
        }
    }

    /// `"!"* primary`; an even number of `!` is none.
    fn operand(&mut self) -> Result<Measured, SelectorError> {
        let mut negated = false;
        while self.rest().starts_with('!') && !self.rest().starts_with("!=") {
            self.eat("!");
            negated = !negated;
        }
        let (inner, depth) = self.primary()?;
        Ok(match (negated, inner) {
            (false, inner) => (inner, depth),
            (true, Selector::Not(twice)) => (*twice, depth.saturating_sub(1)),
            (true, inner) => (inner.negate(), depth + 1),
        })
    }

    fn primary(&mut self) -> Result<Measured, SelectorError> {
        if self.eat("(") {
            if self.brackets == MAX_BRACKETS {
                return Err(self.error("brackets nested deeper than 128 levels"));
            }
            self.brackets += 1;
            let inner = self.alternatives()?;
            self.brackets -= 1;
            return if self.eat(")") { Ok(inner) } else { Err(self.error("expected ')', '&&' or '||'")) };
        }
        if let Some(leaf) = self.call("all(", |_| Ok(Selector::All))? {
            return Ok((leaf, 0));
        }
        if let Some(leaf) = self.call("global(", |_| Ok(Selector::Global))? {
            return Ok((leaf, 0));
        }
        if let Some(leaf) = self.call("has(", |parser| Ok(Selector::Has(parser.label()?)))? {
            return Ok((leaf, 0));
        }
        let label = self.label()?;
        Ok((self.comparison(label)?, 0))
    }

    /// `name(` without a blank before the bracket, an argument, `)`.
    fn call(
        &mut self,
        name: &str,
        argument: fn(&mut Self) -> Result<Selector, SelectorError>,
    ) -> Result<Option<Selector>, SelectorError> {
        if !self.eat(name) {
            return Ok(None);
        }
        let selector = argument(self)?;
        if self.eat(")") { Ok(Some(selector)) } else { Err(self.error("expected ')'")) }
    }

    fn comparison(&mut self, label: String) -> Result<Selector, SelectorError> {
        if self.eat("==") {
            return Ok(Selector::Eq(label, self.string()?));
        }
        if self.eat("!=") {
            return Ok(Selector::Ne(label, self.string()?));
        }
        if self.eat_words(&["contains"]) {
            return Ok(Selector::Contains(label, self.string()?));
        }
        if self.eat_words(&["starts", "with"]) {
            return Ok(Selector::StartsWith(label, self.string()?));
        }
        if self.eat_words(&["ends", "with"]) {
            return Ok(Selector::EndsWith(label, self.string()?));
        }
        if self.eat_words(&["not", "in"]) {
            return Ok(Selector::NotIn(label, self.set()?));
        }
        if self.eat_words(&["in"]) {
            return Ok(Selector::In(label, self.set()?));
        }
        Err(self.error("expected ==, !=, in, not in, contains, starts with or ends with after a label"))
    }

    fn label(&mut self) -> Result<String, SelectorError> {
        let letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'/' | b'-');
        let length = self.rest().bytes().take_while(|b| letter(*b)).count();
        match length {
            0 => Err(self.error("expected a label, has(label), all(), '!' or '('")),
            1..=MAX_LABEL => Ok(self.take(length).to_owned()),
            _ => Err(self.error("a label longer than 512 characters")),
        }
    }

    fn string(&mut self) -> Result<String, SelectorError> {
        let Some(quote @ ('"' | '\'')) = self.rest().chars().next() else {
            return Err(self.error("expected a text in quotes"));
        };
        let Some(length) = self.rest()[1..].find(quote) else {
            return Err(self.error("the text's closing quote is missing"));
        };
        let quoted = self.take(length + 2);
        Ok(quoted[1..=length].to_owned())
    }

    fn set(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        let mut set = BTreeSet::new();
        if !self.eat("{") {
            return Err(self.error("expected '{'"));
        }
        while !self.eat("}") {
            set.insert(self.string()?);
            if !self.eat(",") && !self.rest().starts_with('}') {
                return Err(self.error("expected ',' or '}'"));
            }
        }
        Ok(set)
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Takes `length` bytes and the blanks after them.
    fn take(&mut self, length: usize) -> &'a str {
        let taken = &self.rest()[..length];
        self.at += length;
        self.skip_blanks();
        taken
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.take(token.len());
        }
        found
    }

    /// Words with or without blanks between them, and a word's end after the last.
    fn eat_words(&mut self, words: &[&str]) -> bool {
        let mut rest = self.rest();
        for word in words {
            match rest.trim_start_matches(BLANKS).strip_prefix(word) {
                Some(after) => rest = after,
                None => return false,
            }
        }
        let ends = !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        if ends {
            self.take(self.rest().len() - rest.len());
        }
        ends
    }

    fn skip_blanks(&mut self) {
        self.at = self.text.len() - self.rest().trim_start_matches(BLANKS).len();
    }

    fn error(&self, reason: &'static str) -> SelectorError {
        SelectorError { at: self.at, reason }
    }
}

/// The only white space of the grammar.
const BLANKS: [char; 2] = [' ', '\t'];
