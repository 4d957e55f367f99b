//! MOF's words, numbers, strings and signs, without the space and comments between.

use winnow::ascii::{digit1, hex_digit1};
use winnow::combinator::{alt, cut_err, delimited, dispatch, fail, not, opt, peek, repeat};
use winnow::error::{ContextError, ErrMode, StrContext, StrContextValue};
use winnow::prelude::*;
use winnow::stream::{LocatingSlice, Location};
use winnow::token::{any, none_of, one_of, take_until, take_while};

type Input<'a> = LocatingSlice<&'a str>;

/// A token of MOF.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token<'a> {
    /// A keyword, type or name.
    Word(&'a str),
    /// `$name`, without the `$`.
    Alias(&'a str),
    /// A string, its escapes resolved.
    Text(String),
    /// A character.
    Char(u16),
    Integer(i128),
    Real(f64),
    /// One of `{}()[];,:=#`.
    Sign(char),
    /// The end of the text.
    End,
}

impl Token<'_> {
    /// The token as an error message shows it.
    pub(super) fn found(&self) -> String {
        match self {
            Self::Word(word) => format!("'{word}'"),
            Self::Alias(name) => format!("'${name}'"),
            Self::Text(text) => {
                let shown: String = text.chars().take(30).collect();
                format!("the string {shown:?}")
            }
            Self::Char(_) => "a character".to_owned(),
            Self::Integer(number) => format!("the number {number}"),
            Self::Real(number) => format!("the number {number}"),
            Self::Sign(sign) => format!("'{sign}'"),
            Self::End => "the end of the text".to_owned(),
        }
    }
}

/// The tokens of a text with the offsets where they start, the last one being
/// [`Token::End`]; or the offset of what is no token, and what is wrong there.
pub(super) fn tokens(text: &str) -> Result<Vec<(usize, Token<'_>)>, (usize, String)> {
    let mut input = LocatingSlice::new(text);
    let mut tokens = Vec::new();
    loop {
        let next = (space, input_token);
        let (at, token) = parse_one(next, &mut input)?;
        let end = token == Token::End;
        tokens.push((at, token));
        if end {
            return Ok(tokens);
        }
    }
}

fn parse_one<'a>(
    mut parser: impl Parser<Input<'a>, ((), (usize, Token<'a>)), ErrMode<ContextError>>,
    input: &mut Input<'a>,
) -> Result<(usize, Token<'a>), (usize, String)> {
    match parser.parse_next(input) {
        Ok(((), token)) => Ok(token),
        Err(error) => {
            let at = input.current_token_start();
            let expected = error.into_inner().ok().and_then(|context| {
                context.context().find_map(|entry| match entry {
                    StrContext::Expected(StrContextValue::Description(text)) => Some(*text),
                    _ => None,
                })
            });
            Err((
                at,
                format!(
                    "expected {}",
                    expected.unwrap_or("a name, number, string or sign")
                ),
            ))
        }
    }
}

fn wanted(what: &'static str) -> StrContext {
    StrContext::Expected(StrContextValue::Description(what))
}

/// White space and comments.
fn space(input: &mut Input<'_>) -> ModalResult<()> {
    let blank = take_while(1.., |c: char| c.is_whitespace() || c == '\u{feff}').void();
    let line = ("//", take_while(0.., |c| c != '\n')).void();
    let end =
        cut_err((take_until(0.., "*/"), "*/")).context(wanted("*/ at the end of the comment"));
    let block = ("/*", end).void();
    repeat(0.., alt((blank, line, block))).parse_next(input)
}

fn input_token<'a>(input: &mut Input<'a>) -> ModalResult<(usize, Token<'a>)> {
    let at = input.current_token_start();
    if input.is_empty() {
        return Ok((at, Token::End));
    }
    let token = dispatch! { peek(any);
        '"' => text.map(Token::Text),
        '\'' => character.map(Token::Char),
        '$' => ('$', cut_err(word).context(wanted("a name after $"))).map(|(_, name)| Token::Alias(name)),
        '{' | '}' | '(' | ')' | '[' | ']' | ';' | ',' | ':' | '=' | '#' => any.map(Token::Sign),
        '0'..='9' | '+' | '-' | '.' => cut_err(number).context(wanted("a number")),
        c if starts_word(c) => word.map(Token::Word),
        _ => fail,
    }
    .parse_next(input)?;
    Ok((at, token))
}

fn starts_word(c: char) -> bool {
    c == '_' || c.is_alphabetic()
}

fn word<'a>(input: &mut Input<'a>) -> ModalResult<&'a str> {
    (
        one_of(starts_word),
        take_while(0.., |c| starts_word(c) || c.is_ascii_digit()),
    )
        .take()
        .parse_next(input)
}

/// DSP0004 annex A: integerValue and realValue.
fn number<'a>(input: &mut Input<'a>) -> ModalResult<Token<'a>> {
    let exponent = (one_of(['e', 'E']), opt(one_of(['+', '-'])), digit1);
    let unsigned = alt((
        (one_of('0'), one_of(['x', 'X']), hex_digit1)
            .try_map(|(_, _, digits)| i128::from_str_radix(digits, 16).map(Token::Integer)),
        (take_while(1.., ['0', '1']), one_of(['b', 'B']))
            .try_map(|(digits, _)| i128::from_str_radix(digits, 2).map(Token::Integer)),
        (opt(digit1), '.', digit1, opt(exponent))
            .take()
            .try_map(|digits: &str| digits.parse().map(Token::Real)),
        ('0', take_while(1.., '0'..='7'))
            .try_map(|(_, digits)| i128::from_str_radix(digits, 8).map(Token::Integer)),
        digit1
            .verify(|digits: &str| digits == "0" || !digits.starts_with('0'))
            .try_map(|digits: &str| digits.parse().map(Token::Integer)),
    ));
    let more = one_of(|c: char| starts_word(c) || c.is_ascii_digit() || c == '.');
    let after = cut_err(not(more)).context(wanted("the end of the number"));
    let (sign, number, ()) = (opt(one_of(['+', '-'])), unsigned, after).parse_next(input)?;
    Ok(match (sign, number) {
        (Some('-'), Token::Integer(number)) => Token::Integer(-number),
        (Some('-'), Token::Real(number)) => Token::Real(-number),
        (_, number) => number,
    })
}

fn text(input: &mut Input<'_>) -> ModalResult<String> {
    let units = repeat(
        0..,
        alt((none_of(['"', '\\', '\n']).map(Unit::Scalar), escape)),
    )
    .fold(TextBuilder::default, TextBuilder::push);
    delimited(
        '"',
        units,
        cut_err('"').context(wanted("a quote at the end of the string")),
    )
    .map(TextBuilder::finish)
    .parse_next(input)
}

fn character(input: &mut Input<'_>) -> ModalResult<u16> {
    let unit = alt((none_of(['\'', '\\', '\n']).map(Unit::Scalar), escape));
    let unit = unit.verify_map(|unit| match unit {
        Unit::Code(code) => Some(code),
        Unit::Scalar(c) => u16::try_from(u32::from(c)).ok(),
    });
    cut_err(delimited('\'', unit, '\''))
        .context(wanted("one character between apostrophes"))
        .parse_next(input)
}

/// A character as it stands, or a UCS-2 code from an escape.
enum Unit {
    Scalar(char),
    Code(u16),
}

/// DSP0004 annex A, escape sequences.
fn escape(input: &mut Input<'_>) -> ModalResult<Unit> {
    let simple = any.verify_map(|c: char| {
        Some(match c {
            'b' => 8,
            't' => 9,
            'n' => 10,
            'f' => 12,
            'r' => 13,
            '"' | '\'' | '\\' => c as u16,
            _ => return None,
        })
    });
    let hex = (
        one_of(['x', 'X']),
        take_while(1..=4, |c: char| c.is_ascii_hexdigit()),
    )
        .try_map(|(_, digits)| u16::from_str_radix(digits, 16));
    (
        '\\',
        cut_err(alt((simple, hex)))
            .context(wanted(r#"one of b t n f r " ' \ x after the backslash"#)),
    )
        .map(|(_, code)| Unit::Code(code))
        .parse_next(input)
}

/// Puts a string together from characters and UCS-2 codes; a surrogate without
/// its partner becomes the replacement character.
#[derive(Default)]
struct TextBuilder {
    text: String,
    codes: Vec<u16>,
}

impl TextBuilder {
    fn push(mut self, unit: Unit) -> Self {
        match unit {
            Unit::Code(code) => self.codes.push(code),
            Unit::Scalar(c) => {
                self.flush();
                self.text.push(c);
            }
        }
        self
    }

    fn flush(&mut self) {
        if !self.codes.is_empty() {
            self.text.push_str(&String::from_utf16_lossy(&self.codes));
            self.codes.clear();
        }
    }

    fn finish(mut self) -> String {
        self.flush();
        self.text
    }
}
