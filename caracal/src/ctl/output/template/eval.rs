//! Runs a template.

use super::functions;
use super::parse::{Base, Node, Pipe, Template, Term};
use super::value::Val;

/// Templates that call one another.
const MAX_DEPTH: usize = 200;
/// Bytes of output.
const MAX_OUTPUT: usize = 256 << 20;

/// How a list of nodes ended.
#[derive(PartialEq)]
enum Flow {
    Next,
    Break,
    Continue,
}

struct Run<'t> {
    template: &'t Template,
    as_number: &'t str,
    variables: Vec<(String, Val)>,
    depth: usize,
    out: String,
}

/// The text that a template makes of its data.
pub(super) fn run(template: &Template, data: Val, as_number: &str) -> Result<String, String> {
    let mut run = Run {
        template,
        as_number,
        variables: vec![("$".to_owned(), data.clone())],
        depth: 0,
        out: String::new(),
    };
    run.nodes(&template.main, &data)
        .map_err(|e| if e.starts_with("template:") { e } else { format!("template: {e}") })?;
    Ok(run.out)
}

impl Run<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Val) -> Result<Flow, String> {
        for node in nodes {
            let flow = self.node(node, dot)?;
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn scoped(&mut self, nodes: &[Node], dot: &Val) -> Result<Flow, String> {
        let scope = self.variables.len();
        let flow = self.nodes(nodes, dot);
        self.variables.truncate(scope);
        flow
    }

    fn node(&mut self, node: &Node, dot: &Val) -> Result<Flow, String> {
        match node {
            Node::Text(text) => self.write(text)?,
            Node::Action(pipe) => {
                let value = self.pipe(pipe, dot)?;
                if pipe.variables.is_empty() {
                    self.write(&value.print())?;
                }
            }
            Node::If(pipe, then, otherwise) => {
                let scope = self.variables.len();
                let value = self.pipe(pipe, dot)?;
                let flow = self.scoped(if value.truth() { then } else { otherwise }, dot);
                self.variables.truncate(scope);
                return flow;
            }
            Node::With(pipe, then, otherwise) => {
                let scope = self.variables.len();
                let value = self.pipe(pipe, dot)?;
                let flow =
                    if value.truth() { self.scoped(then, &value) } else { self.scoped(otherwise, dot) };
                self.variables.truncate(scope);
                return flow;
            }
            Node::Range(pipe, body, otherwise) => return self.range(pipe, body, otherwise, dot),
            Node::Call(name, argument) => {
                let data = match argument {
                    Some(pipe) => self.pipe(pipe, dot)?,
                    None => Val::Nil,
                };
                let template = self.template;
                let body =
                    template.defined.get(name).ok_or_else(|| format!("template {name:?} not defined"))?;
                self.depth += 1;
                if self.depth > MAX_DEPTH {
                    return Err(format!("template {name:?} calls itself too deep"));
                }
                let outer = std::mem::replace(&mut self.variables, vec![("$".to_owned(), data.clone())]);
                self.nodes(body, &data)?;
                self.variables = outer;
                self.depth -= 1;
            }
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn write(&mut self, text: &str) -> Result<(), String> {
        self.out.push_str(text);
        if self.out.len() > MAX_OUTPUT { Err("the output grows beyond 256 MiB".to_owned()) } else { Ok(()) }
    }

    fn range(&mut self, pipe: &Pipe, body: &[Node], otherwise: &[Node], dot: &Val) -> Result<Flow, String> {
        let value = self.commands(pipe, dot)?;
        let entries = value.entries()?;
        if entries.is_empty() {
            return self.scoped(otherwise, dot);
        }
        let scope = self.variables.len();
        for (key, value) in entries {
            match pipe.variables.as_slice() {
                [] => {}
                [one] => self.variables.push((one.clone(), value.clone())),
                [one, two, ..] => {
                    self.variables.push((one.clone(), key));
                    self.variables.push((two.clone(), value.clone()));
                }
            }
            let flow = self.scoped(body, &value)?;
            self.variables.truncate(scope);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::Next)
    }

    /// The value of a pipeline; its variables are set.
    fn pipe(&mut self, pipe: &Pipe, dot: &Val) -> Result<Val, String> {
        let value = self.commands(pipe, dot)?;
        for name in &pipe.variables {
            if pipe.assigns {
                let slot = self.variables.iter_mut().rev().find(|(known, _)| known == name);
                slot.ok_or_else(|| format!("undefined variable {name:?}"))?.1 = value.clone();
            } else {
                self.variables.push((name.clone(), value.clone()));
            }
        }
        Ok(value)
    }

    fn commands(&mut self, pipe: &Pipe, dot: &Val) -> Result<Val, String> {
        let mut last: Option<Val> = None;
        for command in &pipe.commands {
            last = Some(self.command(command, dot, last)?);
        }
        last.ok_or_else(|| "missing value".to_owned())
    }

    fn command(&mut self, terms: &[Term], dot: &Val, last: Option<Val>) -> Result<Val, String> {
        let [first, rest @ ..] = terms else { return Err("empty command".to_owned()) };
        if let Base::Function(name) = &first.base {
            if let "and" | "or" = name.as_str() {
                return self.short_circuit(name == "and", rest, dot, last);
            }
            let mut arguments = Vec::new();
            for term in rest {
                arguments.push(self.term(term, dot)?);
            }
            arguments.extend(last);
            return functions::call(name, &arguments, self.as_number);
        }
        if !rest.is_empty() || last.is_some() {
            return Err("can't give argument to non-function".to_owned());
        }
        self.term(first, dot)
    }

    /// `and` gives its first false argument, `or` its first true one, or the last; the others are not looked at.
    fn short_circuit(
        &mut self,
        all: bool,
        terms: &[Term],
        dot: &Val,
        last: Option<Val>,
    ) -> Result<Val, String> {
        let mut value = None;
        for term in terms {
            let next = self.term(term, dot)?;
            if next.truth() != all {
                return Ok(next);
            }
            value = Some(next);
        }
        last.or(value).ok_or_else(|| "wrong number of args for and or or: want at least 1".to_owned())
    }

    fn term(&mut self, term: &Term, dot: &Val) -> Result<Val, String> {
        let mut value = match &term.base {
            Base::Dot => dot.clone(),
            Base::Literal(value) => value.clone(),
            Base::Variable(name) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                found.map(|(_, value)| value.clone()).ok_or_else(|| format!("undefined variable {name:?}"))?
            }
            Base::Function(name) => functions::call(name, &[], self.as_number)?,
            Base::Pipe(pipe) => self.pipe(pipe, dot)?,
        };
        for field in &term.fields {
            value = value.field(field)?;
        }
        Ok(value)
    }
}
