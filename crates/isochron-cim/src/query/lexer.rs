//! A query's words, numbers, strings and signs, without the space between.

use winnow::ascii::{digit1, hex_digit1};
use winnow::combinator::{alt, cut_err, delimited, dispatch, fail, not, opt, peek, repeat};
use winnow::error::{ContextError, ErrMode, StrContext, StrContextValue};
use winnow::prelude::*;
use winnow::stream::{LocatingSlice, Location};
use winnow::token::{any, none_of, one_of, take_while};

use super::Language;

type Input<'a> = LocatingSlice<&'a str>;

/// A token of a query.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token<'a> {
    /// A keyword or name.
    Word(&'a str),
    /// A string, its escapes resolved.
    Text(String),
    Integer(i128),
    Real(f64),
    Sign(&'a str),
    /// What stands between braces.
    Braces(&'a str),
    /// The end of the text.
    End,
}

impl Token<'_> {
    /// The token as an error message shows it.
    pub fn shown(&self) -> String {
        match self {
            Self::Word(word) => format!("{word:?}"),
            Self::Text(text) => {
                let start: String = text.chars().take(30).collect();
                format!("the string {start:?}")
            }
            Self::Integer(number) => format!("the number {number}"),
            Self::Real(number) => format!("the number {number}"),
            Self::Sign(sign) => format!("{sign:?}"),
            Self::Braces(_) => "a text in braces".to_owned(),
            Self::End => "the end of the query".to_owned(),
        }
    }
}

/// The tokens with the offsets where they start, the last being [`Token::End`];
/// or the offset of what is no token, and what is wrong there.
pub(super) fn tokens(
    language: Language,
    text: &str,
) -> Result<Vec<(usize, Token<'_>)>, (usize, String)> {
    let mut input = LocatingSlice::new(text);
    let mut tokens = Vec::new();
    loop {
        let _: &str = take_while(0.., char::is_whitespace)
            .parse_next(&mut input)
            .map_err(|_: ErrMode<ContextError>| (0, String::new()))?;
        let at = input.current_token_start();
        if input.is_empty() {
            tokens.push((at, Token::End));
            return Ok(tokens);
        }
        match token(language, &mut input) {
            Ok(token) => tokens.push((at, token)),
            Err(error) => {
                let at = input.current_token_start();
                let expected = error.into_inner().ok().and_then(|context| {
                    context.context().find_map(|entry| match entry {
                        StrContext::Expected(StrContextValue::Description(text)) => Some(*text),
                        _ => None,
                    })
                });
                let expected = expected.unwrap_or("a name, a number, a string or a sign");
                return Err((at, format!("expected {expected}")));
            }
        }
    }
}

fn wanted(what: &'static str) -> StrContext {
    StrContext::Expected(StrContextValue::Description(what))
}

fn token<'a>(language: Language, input: &mut Input<'a>) -> ModalResult<Token<'a>> {
    dispatch! { peek(any);
        '"' => |i: &mut Input<'a>| string(language, '"', i).map(Token::Text),
        '\'' => |i: &mut Input<'a>| string(language, '\'', i).map(Token::Text),
        '{' => braces.map(Token::Braces),
        '0'..='9' | '-' | '+' => cut_err(number).context(wanted("a number")),
        '<' | '>' | '!' | '=' | ':' | '(' | ')' | '[' | ']' | ',' | '.' | '*' | '#' | ';' =>
            alt(("<=", ">=", "<>", "!=", "::", any.take())).map(Token::Sign),
        c if starts_word(c) => word.map(Token::Word),
        _ => fail,
    }
    .parse_next(input)
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

fn number<'a>(input: &mut Input<'a>) -> ModalResult<Token<'a>> {
    let exponent = || (one_of(['e', 'E']), opt(one_of(['+', '-'])), digit1);
    let unsigned = alt((
        ('0', one_of(['x', 'X']), hex_digit1)
            .try_map(|(_, _, digits)| i128::from_str_radix(digits, 16).map(Token::Integer)),
        alt((
            (digit1, '.', digit1, opt(exponent())).take(),
            (digit1, exponent()).take(),
        ))
        .try_map(|digits: &str| digits.parse().map(Token::Real)),
        digit1.try_map(|digits: &str| digits.parse().map(Token::Integer)),
    ));
    let after = cut_err(not(one_of(|c: char| starts_word(c) || c.is_ascii_digit())))
        .context(wanted("the end of the number"));
    let (sign, number, ()) = (opt(one_of(['+', '-'])), unsigned, after).parse_next(input)?;
    Ok(match (sign, number) {
        (Some('-'), Token::Integer(number)) => Token::Integer(-number),
        (Some('-'), Token::Real(number)) => Token::Real(-number),
        (_, number) => number,
    })
}

fn string(language: Language, quote: char, input: &mut Input<'_>) -> ModalResult<String> {
    let plain = none_of([quote, '\\']);
    let content = repeat(
        0..,
        alt((plain, |i: &mut Input<'_>| match language {
            Language::Wql => wql_escape(i),
            Language::Cql | Language::Fql => cql_escape(i),
        })),
    );
    let end = cut_err(quote).context(wanted("a quote at the end of the string"));
    delimited(quote, content, end).parse_next(input)
}

/// A backslash makes a quote or a backslash ordinary; before anything else it is
/// meant as itself, as in Windows' file names.
fn wql_escape(input: &mut Input<'_>) -> ModalResult<char> {
    alt((('\\', one_of(['\\', '"', '\''])).map(|(_, c)| c), '\\')).parse_next(input)
}

/// DSP0202's char-escape. Before a character that needs no escape the backslash
/// stays: patterns are strings too.
fn cql_escape(input: &mut Input<'_>) -> ModalResult<char> {
    let code = |digits: &str| {
        u32::from_str_radix(digits, 16)
            .ok()
            .and_then(char::from_u32)
    };
    let hex = move |count: usize| {
        take_while(count..=count, |c: char| c.is_ascii_hexdigit()).verify_map(code)
    };
    let escaped = alt((
        one_of(['\\', '"', '\'']),
        'b'.value('\u{8}'),
        't'.value('\t'),
        'n'.value('\n'),
        'f'.value('\u{c}'),
        'r'.value('\r'),
        ('u', hex(4)).map(|(_, c)| c),
        ('U', hex(8)).map(|(_, c)| c),
    ));
    alt((('\\', escaped).map(|(_, c)| c), '\\')).parse_next(input)
}

/// An object path between braces, in which quoted text may hold braces.
fn braces<'a>(input: &mut Input<'a>) -> ModalResult<&'a str> {
    let quoted = |quote: char| {
        (
            quote,
            repeat::<_, _, (), _, _>(
                0..,
                alt((('\\', any).void(), none_of([quote, '\\']).void())),
            ),
            quote,
        )
            .void()
    };
    let content = repeat::<_, _, (), _, _>(
        0..,
        alt((
            quoted('"'),
            quoted('\''),
            none_of(['{', '}', '"', '\'']).void(),
        )),
    )
    .take();
    let end = cut_err('}').context(wanted("a } after the object path"));
    delimited('{', content, end).parse_next(input)
}
