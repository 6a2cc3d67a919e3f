//! Text to template.

use std::collections::HashMap;

use super::value::Val;

/// A template and those that it defines.
#[derive(Debug, Default)]
pub(super) struct Template {
    pub(super) main: Vec<Node>,
    pub(super) defined: HashMap<String, Vec<Node>>,
}

#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    Action(Pipe),
    If(Pipe, Vec<Node>, Vec<Node>),
    Range(Pipe, Vec<Node>, Vec<Node>),
    With(Pipe, Vec<Node>, Vec<Node>),
    Call(String, Option<Pipe>),
    Break,
    Continue,
}

/// `$a, $b := command | command`.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    pub(super) variables: Vec<String>,
    /// `=` instead of `:=`.
    pub(super) assigns: bool,
    pub(super) commands: Vec<Vec<Term>>,
}

#[derive(Debug)]
pub(super) struct Term {
    pub(super) base: Base,
    /// `.A.B` behind it.
    pub(super) fields: Vec<String>,
}

#[derive(Debug)]
pub(super) enum Base {
    Dot,
    Variable(String),
    Literal(Val),
    Function(String),
    Pipe(Pipe),
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    /// `.A.B` or `.`.
    Fields(Vec<String>),
    /// `$x` with its `.A.B`.
    Variable(String, Vec<String>),
    Word(String),
    Text(String),
    Int(i64),
    Float(f64),
    /// `(`, `)`, `|`, `,`, `:=`, `=`, or `.A` right behind a `)`.
    Sign(&'static str),
}

/// Reads a template.
pub(super) fn parse(text: &str) -> Result<Template, String> {
    let mut parser = Parser {
        pieces: pieces(text)?.into_iter(),
        template: Template::default(),
        variables: vec!["$".to_owned()],
        ranges: 0,
    };
    let (nodes, end) = parser.nodes()?;
    match end {
        None => {
            parser.template.main = nodes;
            Ok(parser.template)
        }
        Some(word) => Err(format!("template: unexpected {{{{{word}}}}}")),
    }
}

enum Piece {
    Text(String),
    Action(Vec<Token>),
}

/// Splits text and actions, trims around `{{-` and `-}}`, drops comments.
fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut out = Vec::new();
    let (mut rest, mut trim) = (text, false);
    loop {
        let (before, after) = match rest.split_once("{{") {
            Some((before, after)) => (before, Some(after)),
            None => (rest, None),
        };
        let mut before = if trim { before.trim_start() } else { before };
        let Some(mut action) = after else {
            out.push(Piece::Text(before.to_owned()));
            return Ok(out);
        };
        if let Some(inner) = action.strip_prefix('-').filter(|s| s.starts_with(char::is_whitespace)) {
            before = before.trim_end();
            action = inner;
        }
        out.push(Piece::Text(before.to_owned()));
        if let Some(comment) = action.trim_start().strip_prefix("/*") {
            let (_, after) = comment.split_once("*/").ok_or("template: unclosed comment")?;
            let (end, behind) = after.split_once("}}").ok_or("template: unclosed comment")?;
            (rest, trim) = (behind, end.trim_end().ends_with('-'));
            continue;
        }
        let (tokens, behind, trims) = tokens(action)?;
        out.push(Piece::Action(tokens));
        (rest, trim) = (behind, trims);
    }
}

fn word(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    text.split_at(end)
}

fn fields(mut text: &str) -> (Vec<String>, &str) {
    let mut fields = Vec::new();
    while let Some(after) = text.strip_prefix('.') {
        let (name, behind) = word(after);
        if name.is_empty() {
            break;
        }
        fields.push(name.to_owned());
        text = behind;
    }
    (fields, text)
}

fn tokens(text: &str) -> Result<(Vec<Token>, &str, bool), String> {
    let mut out = Vec::new();
    let mut rest = text;
    loop {
        let trimmed = rest.trim_start();
        if let Some(behind) =
            trimmed.strip_prefix("-}}").filter(|_| trimmed.len() < rest.len() || out.is_empty())
        {
            return Ok((out, behind, true));
        }
        let touching = trimmed.len() == rest.len();
        rest = trimmed;
        if let Some(behind) = rest.strip_prefix("}}") {
            return Ok((out, behind, false));
        }
        let Some(first) = rest.chars().next() else { return Err("template: unclosed action".to_owned()) };
        if let Some(sign) = ["(", ")", "|", ",", ":=", "="].into_iter().find(|s| rest.starts_with(s)) {
            out.push(Token::Sign(sign));
            rest = &rest[sign.len()..];
        } else if first == '.' && !rest[1..].starts_with(|c: char| c.is_ascii_digit()) {
            let (names, behind) = fields(rest);
            let behind = if names.is_empty() { &rest[1..] } else { behind };
            if touching && out.last() == Some(&Token::Sign(")")) && !names.is_empty() {
                out.push(Token::Sign("."));
            }
            out.push(Token::Fields(names));
            rest = behind;
        } else if first == '$' {
            let (name, behind) = word(&rest[1..]);
            let (names, behind) = fields(behind);
            out.push(Token::Variable(format!("${name}"), names));
            rest = behind;
        } else if first == '"' || first == '\'' {
            let (text, behind) = quoted(rest, first)?;
            let char = text.chars().next().filter(|_| first == '\'');
            out.push(char.map_or(Token::Text(text), |c| Token::Int(i64::from(u32::from(c)))));
            rest = behind;
        } else if first == '`' {
            let (text, behind) =
                rest[1..].split_once('`').ok_or("template: unterminated raw quoted string")?;
            out.push(Token::Text(text.to_owned()));
            rest = behind;
        } else if first.is_ascii_digit() || "+-.".contains(first) {
            let end = rest[1..]
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '_')
                .map_or(rest.len(), |i| i + 1);
            let (number, behind) = rest.split_at(end);
            out.push(numeral(number).ok_or_else(|| format!("template: bad number syntax: {number:?}"))?);
            rest = behind;
        } else if first.is_alphabetic() || first == '_' {
            let (name, behind) = word(rest);
            out.push(Token::Word(name.to_owned()));
            rest = behind;
        } else {
            return Err(format!("template: unexpected {first:?} in an action"));
        }
    }
}

fn numeral(text: &str) -> Option<Token> {
    let plain = text.replace('_', "");
    let (sign, digits) = plain.strip_prefix('-').map_or((1, plain.as_str()), |d| (-1, d));
    if let Some(hex) = digits.strip_prefix("0x") {
        return i64::from_str_radix(hex, 16).ok().map(|n| Token::Int(sign * n));
    }
    plain.parse().map(Token::Int).ok().or_else(|| plain.parse().map(Token::Float).ok())
}

fn quoted(text: &str, quote: char) -> Result<(String, &str), String> {
    let mut out = String::new();
    let mut chars = text[1..].char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            _ if c == quote => return Ok((out, &text[i + 2..])),
            '\n' => break,
            '\\' => out.push(match chars.next().map(|(_, c)| c) {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('r') => '\r',
                Some('u') => {
                    let code: String = chars.by_ref().take(4).map(|(_, c)| c).collect();
                    u32::from_str_radix(&code, 16)
                        .ok()
                        .and_then(char::from_u32)
                        .ok_or("template: bad \\u escape")?
                }
                Some(c) => c,
                None => break,
            }),
            c => out.push(c),
        }
    }
    Err("template: unterminated quoted string".to_owned())
}

struct Parser {
    pieces: std::vec::IntoIter<Piece>,
    template: Template,
    variables: Vec<String>,
    ranges: usize,
}

/// Nodes up to an `end` or `else`, and that word.
type Block = (Vec<Node>, Option<String>);
/// The same with what follows the word.
type OpenBlock = (Vec<Node>, Option<String>, Vec<Token>);

impl Parser {
    fn nodes(&mut self) -> Result<Block, String> {
        self.nodes_until().map(|(nodes, end, _)| (nodes, end))
    }

    fn nodes_until(&mut self) -> Result<OpenBlock, String> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let tokens = match piece {
                Piece::Text(text) => {
                    if !text.is_empty() {
                        nodes.push(Node::Text(text));
                    }
                    continue;
                }
                Piece::Action(tokens) => tokens,
            };
            let keyword = match tokens.first() {
                Some(Token::Word(word)) => word.clone(),
                _ => String::new(),
            };
            let rest = || tokens[1..].to_vec();
            match keyword.as_str() {
                "end" | "else" => return Ok((nodes, Some(keyword), rest())),
                "if" | "range" | "with" => nodes.push(self.control(&keyword, rest())?),
                "define" => self.define(&rest())?,
                "block" => {
                    let tokens = rest();
                    self.define(&tokens[..tokens.len().min(1)])?;
                    nodes.push(self.call(tokens)?);
                }
                "template" => nodes.push(self.call(rest())?),
                "break" | "continue" if self.ranges == 0 => {
                    return Err(format!("template: {{{{{keyword}}}}} outside {{{{range}}}}"));
                }
                "break" => nodes.push(Node::Break),
                "continue" => nodes.push(Node::Continue),
                _ => nodes.push(Node::Action(self.pipe(tokens)?)),
            }
        }
        Ok((nodes, None, Vec::new()))
    }

    fn define(&mut self, tokens: &[Token]) -> Result<(), String> {
        let [Token::Text(name)] = tokens else {
            return Err("template: define wants a quoted name".to_owned());
        };
        let outer = std::mem::replace(&mut self.variables, vec!["$".to_owned()]);
        let (body, end) = self.nodes()?;
        self.variables = outer;
        if end.as_deref() != Some("end") {
            return Err("template: unexpected end of template in define".to_owned());
        }
        self.template.defined.insert(name.clone(), body);
        Ok(())
    }

    fn call(&mut self, mut tokens: Vec<Token>) -> Result<Node, String> {
        match tokens.first() {
            Some(Token::Text(name)) => {
                let name = name.clone();
                tokens.remove(0);
                let argument = if tokens.is_empty() { None } else { Some(self.pipe(tokens)?) };
                Ok(Node::Call(name, argument))
            }
            _ => Err("template: template wants a quoted name".to_owned()),
        }
    }

    fn control(&mut self, keyword: &str, tokens: Vec<Token>) -> Result<Node, String> {
        let scope = self.variables.len();
        let pipe = self.pipe(tokens)?;
        if pipe.commands.is_empty() {
            return Err(format!("template: missing value for {keyword}"));
        }
        let looping = usize::from(keyword == "range");
        self.ranges += looping;
        let (then, end, rest) = self.nodes_until()?;
        self.ranges -= looping;
        let otherwise = match (end.as_deref(), rest.first()) {
            (Some("end"), _) => Vec::new(),
            // `else if` is an if within the else, and shares its end.
            (Some("else"), Some(Token::Word(word))) if word == "if" || word == "with" => {
                vec![self.control(&word.clone(), rest[1..].to_vec())?]
            }
            (Some("else"), None) => match self.nodes_until()? {
                (nodes, Some(end), _) if end == "end" => nodes,
                _ => return Err("template: unexpected end of template after else".to_owned()),
            },
            (Some(_), _) => return Err("template: unexpected words after else".to_owned()),
            (None, _) => return Err(format!("template: unexpected end of template in {keyword}")),
        };
        self.variables.truncate(scope);
        Ok(match keyword {
            "if" => Node::If(pipe, then, otherwise),
            "with" => Node::With(pipe, then, otherwise),
            _ => Node::Range(pipe, then, otherwise),
        })
    }

    fn pipe(&mut self, tokens: Vec<Token>) -> Result<Pipe, String> {
        let mut tokens = tokens.into_iter().peekable();
        let pipe = self.pipe_until(&mut tokens, false)?;
        match tokens.next() {
            None => Ok(pipe),
            Some(_) => Err("template: unexpected right paren".to_owned()),
        }
    }

    fn pipe_until(
        &mut self,
        tokens: &mut std::iter::Peekable<std::vec::IntoIter<Token>>,
        nested: bool,
    ) -> Result<Pipe, String> {
        let mut pipe = Pipe::default();
        let mut command: Vec<Term> = Vec::new();
        let mut closed = !nested;
        while let Some(token) = tokens.next() {
            let term = match token {
                Token::Sign(")") if nested => {
                    closed = true;
                    break;
                }
                Token::Sign("(") => {
                    let inner = self.pipe_until(tokens, true)?;
                    let mut names = Vec::new();
                    if tokens.peek() == Some(&Token::Sign(".")) {
                        tokens.next();
                        if let Some(Token::Fields(found)) = tokens.next() {
                            names = found;
                        }
                    }
                    Term { base: Base::Pipe(inner), fields: names }
                }
                Token::Sign("|") => {
                    if command.is_empty() {
                        return Err("template: missing command before |".to_owned());
                    }
                    pipe.commands.push(std::mem::take(&mut command));
                    continue;
                }
                Token::Sign(sign @ (":=" | "=" | ",")) => {
                    // What stood before names the variables.
                    let [Term { base: Base::Variable(name), fields }] = command.as_slice() else {
                        return Err(format!("template: unexpected {sign:?} in a command"));
                    };
                    if !fields.is_empty() || !pipe.commands.is_empty() {
                        return Err(format!("template: unexpected {sign:?} in a command"));
                    }
                    pipe.variables.push(name.clone());
                    command.clear();
                    if sign != "," {
                        pipe.assigns = sign == "=";
                        if !pipe.assigns {
                            self.variables.extend(pipe.variables.iter().cloned());
                        }
                    }
                    continue;
                }
                Token::Sign(sign) => return Err(format!("template: unexpected {sign:?}")),
                Token::Fields(names) => Term { base: Base::Dot, fields: names },
                Token::Variable(name, names) => {
                    let declared = matches!(tokens.peek(), Some(Token::Sign(":=" | ",")));
                    if !declared && !self.variables.contains(&name) {
                        return Err(format!("template: undefined variable {name:?}"));
                    }
                    Term { base: Base::Variable(name), fields: names }
                }
                Token::Word(word) => match word.as_str() {
                    "true" | "false" => {
                        Term { base: Base::Literal(Val::Bool(word == "true")), fields: Vec::new() }
                    }
                    "nil" => Term { base: Base::Literal(Val::Nil), fields: Vec::new() },
                    _ if super::functions::exists(&word) => {
                        Term { base: Base::Function(word), fields: Vec::new() }
                    }
                    _ => return Err(format!("template: function {word:?} not defined")),
                },
                Token::Text(text) => Term { base: Base::Literal(Val::Text(text)), fields: Vec::new() },
                Token::Int(n) => Term { base: Base::Literal(Val::Int(n)), fields: Vec::new() },
                Token::Float(f) => Term { base: Base::Literal(Val::Float(f)), fields: Vec::new() },
            };
            command.push(term);
        }
        if !closed {
            return Err("template: unclosed left paren".to_owned());
        }
        if !command.is_empty() {
            pipe.commands.push(command);
        } else if !pipe.commands.is_empty() || !pipe.variables.is_empty() {
            return Err("template: missing value at the end of a pipeline".to_owned());
        }
        Ok(pipe)
    }
}
