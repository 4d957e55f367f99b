//! MOF's grammar over tokens. Here: files, the place in them, errors, and the parts
//! that declarations are made of (names, lists, types, values); the declarations
//! themselves are in `declarations`.

mod declarations;

use std::sync::Arc;

use indexmap::IndexMap;

use super::lexer::{Token, tokens};
use super::{Declaration, Literal, MAX_BYTES, MAX_INCLUDES, MofError, Position};
use crate::{CimType, Name, Qualifier, QualifierDecl, Value};

/// Finds the text of an included file by the name in the pragma.
pub type Include<'a> = &'a mut dyn FnMut(&str) -> Option<String>;

/// Reads the declarations of a text and of what it includes, in order.
///
/// `file` names the text in errors. Qualifier types are looked up in
/// `qualifiers`, and those that the text declares are added to it.
///
/// ```
/// use isochron_cim::mof::{Declaration, parse};
///
/// let text = r#"
///     Qualifier Key : boolean = false, Scope(property, reference),
///         Flavor(DisableOverride, ToSubclass);
///     class EX_Thing { [Key] string Id; uint16 Sizes[] = { 1, 0x10 }; };
/// "#;
/// let mut qualifiers = indexmap::IndexMap::new();
/// let found = parse("thing.mof", text, &mut qualifiers, &mut |_| None)?;
/// let Declaration::Class(class) = &found[0].1 else { unreachable!() };
/// assert_eq!(class.keys().next().unwrap().as_str(), "Id");
/// # Ok::<(), isochron_cim::mof::MofError>(())
/// ```
pub fn parse(
    file: &str,
    text: &str,
    qualifiers: &mut IndexMap<Name, QualifierDecl>,
    include: Include<'_>,
) -> Result<Vec<(Position, Declaration)>, MofError> {
    let mut reading = Reading {
        qualifiers,
        include,
        bytes: 0,
        found: Vec::new(),
    };
    reading.file(file, text, 0)?;
    Ok(reading.found)
}

/// What the files of one parse share.
struct Reading<'s> {
    qualifiers: &'s mut IndexMap<Name, QualifierDecl>,
    include: Include<'s>,
    bytes: usize,
    found: Vec<(Position, Declaration)>,
}

impl Reading<'_> {
    fn file(&mut self, file: &str, text: &str, depth: usize) -> Result<(), MofError> {
        let file: Arc<str> = file.into();
        self.bytes = self.bytes.saturating_add(text.len());
        if self.bytes > MAX_BYTES || depth > MAX_INCLUDES {
            let message = match depth > MAX_INCLUDES {
                true => format!("files include files more than {MAX_INCLUDES} levels deep"),
                false => format!("more than {MAX_BYTES} bytes of MOF"),
            };
            return Err(MofError {
                at: Position {
                    file,
                    line: 1,
                    column: 1,
                },
                message,
            });
        }
        let tokens = tokens(text).map_err(|(offset, message)| MofError {
            at: position(&file, text, offset),
            message,
        })?;
        Parser {
            reading: self,
            file,
            text,
            tokens,
            next: 0,
            depth,
        }
        .declarations()
    }
}

fn position(file: &Arc<str>, text: &str, offset: usize) -> Position {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Position {
        file: file.clone(),
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
    }
}

/// One file's tokens and the place in them.
struct Parser<'p, 's, 't> {
    reading: &'p mut Reading<'s>,
    file: Arc<str>,
    text: &'t str,
    tokens: Vec<(usize, Token<'t>)>,
    next: usize,
    depth: usize,
}

type Qualifiers = IndexMap<Name, Qualifier>;

impl<'t> Parser<'_, '_, 't> {
    fn peek(&self) -> &Token<'t> {
        self.tokens
            .get(self.next)
            .map_or(&Token::End, |(_, token)| token)
    }

    fn advance(&mut self) -> Token<'t> {
        let token = self.peek().clone();
        self.next += 1;
        token
    }

    /// The place of the token `index`.
    fn at(&self, index: usize) -> Position {
        let offset = self
            .tokens
            .get(index)
            .map_or(self.text.len(), |(offset, _)| *offset);
        position(&self.file, self.text, offset)
    }

    fn error(&self, index: usize, message: impl Into<String>) -> MofError {
        MofError {
            at: self.at(index),
            message: message.into(),
        }
    }

    fn expected<T>(&self, what: &str) -> Result<T, MofError> {
        Err(self.error(
            self.next,
            format!("expected {what}, found {}", self.peek().found()),
        ))
    }

    fn eat(&mut self, sign: char) -> bool {
        let found = *self.peek() == Token::Sign(sign);
        self.next += usize::from(found);
        found
    }

    fn need(&mut self, sign: char, where_: &str) -> Result<(), MofError> {
        if self.eat(sign) {
            Ok(())
        } else {
            self.expected(&format!("'{sign}' {where_}"))
        }
    }

    fn is_word(&self, index: usize, word: &str) -> bool {
        matches!(self.tokens.get(index), Some((_, Token::Word(w))) if w.eq_ignore_ascii_case(word))
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let found = self.is_word(self.next, word);
        self.next += usize::from(found);
        found
    }

    fn name(&mut self, what: &str) -> Result<Name, MofError> {
        match *self.peek() {
            Token::Word(word) => {
                self.next += 1;
                Ok(word.into())
            }
            _ => self.expected(what),
        }
    }

    /// Items up to `close`, separated by commas.
    fn list<T>(
        &mut self,
        close: char,
        where_: &str,
        mut item: impl FnMut(&mut Self) -> Result<T, MofError>,
    ) -> Result<Vec<T>, MofError> {
        let mut items = Vec::new();
        if self.eat(close) {
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            if self.eat(close) {
                return Ok(items);
            }
            if !self.eat(',') {
                return self.expected(&format!("',' or '{close}' {where_}"));
            }
        }
    }

    fn intrinsic_type(&mut self) -> Result<CimType, MofError> {
        let ty = match *self.peek() {
            Token::Word(word) => CimType::from_name(word),
            _ => None,
        };
        match ty {
            Some(ty) if !matches!(ty, CimType::Reference(_)) => {
                self.next += 1;
                Ok(ty)
            }
            _ => self.expected("a type such as string or uint16"),
        }
    }

    /// An intrinsic type, or `Class REF`.
    fn any_type(&mut self, what: &str) -> Result<CimType, MofError> {
        if !self.is_word(self.next + 1, "ref") {
            return match self.peek() {
                Token::Word(_) => self.intrinsic_type(),
                _ => self.expected(what),
            };
        }
        let class = self.name("a class")?;
        self.next += 1;
        Ok(CimType::Reference(if class.is("object") {
            None
        } else {
            Some(class)
        }))
    }

    /// `[]`, `[8]` or nothing.
    fn array(&mut self) -> Result<(bool, Option<u32>), MofError> {
        if !self.eat('[') {
            return Ok((false, None));
        }
        let size = match *self.peek() {
            Token::Integer(size) => match u32::try_from(size) {
                Ok(size) if size > 0 => {
                    self.next += 1;
                    Some(size)
                }
                _ => return self.expected("an array's size"),
            },
            _ => None,
        };
        self.need(']', "after an array's size")?;
        Ok((true, size))
    }

    fn default(&mut self, ty: &CimType, is_array: bool) -> Result<Option<Value>, MofError> {
        if !self.eat('=') {
            return Ok(None);
        }
        let at = self.next;
        let literal = self.literal()?;
        literal
            .typed(ty, is_array, &|_| None)
            .map_err(|message| self.error(at, message))
    }

    fn literal(&mut self) -> Result<Literal, MofError> {
        if !self.eat('{') {
            return self.scalar();
        }
        Ok(Literal::Array(self.list(
            '}',
            "in the array",
            Self::scalar,
        )?))
    }

    fn scalar(&mut self) -> Result<Literal, MofError> {
        let literal = match self.peek().clone() {
            Token::Integer(number) => Literal::Integer(number),
            Token::Real(number) => Literal::Real(number),
            Token::Char(unit) => Literal::Char(unit),
            Token::Alias(alias) => Literal::Alias(alias.into()),
            Token::Word(word) if word.eq_ignore_ascii_case("true") => Literal::Boolean(true),
            Token::Word(word) if word.eq_ignore_ascii_case("false") => Literal::Boolean(false),
            Token::Word(word) if word.eq_ignore_ascii_case("null") => Literal::Null,
            Token::Text(mut text) => {
                while let Some((_, Token::Text(more))) = self.tokens.get(self.next + 1) {
                    text.push_str(more);
                    self.next += 1;
                }
                Literal::Text(text)
            }
            _ => return self.expected("a value"),
        };
        self.next += 1;
        Ok(literal)
    }
}
