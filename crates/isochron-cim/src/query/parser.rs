//! The grammar of queries over tokens.

use std::time::Duration;

use super::condition::{Condition, Expression, Operand};
use super::lexer::{Token, tokens};
use super::path::{Index, PropertyPath, Step, System};
use super::pattern::Pattern;
use super::scalar::{Comparison, Scalar};
use super::{Language, MAX_BYTES, MAX_DEPTH, MAX_ITEMS, Query, Select, Traversal, invalid};
use crate::{CimError, Name, ObjectPath};

/// Reads a WQL or CQL query.
pub(super) fn query(language: Language, text: &str) -> Result<Query, CimError> {
    let mut parser = Parser::new(language, text)?;
    let query = if parser.eat_word("SELECT") {
        Query::Select(parser.select()?)
    } else if language == Language::Wql && parser.eat_word("ASSOCIATORS") {
        Query::Traversal(parser.traversal(false)?)
    } else if language == Language::Wql && parser.eat_word("REFERENCES") {
        Query::Traversal(parser.traversal(true)?)
    } else {
        return match language {
            Language::Wql => parser.expected("SELECT, ASSOCIATORS OF or REFERENCES OF"),
            _ => parser.expected("SELECT"),
        };
    };
    parser.eat(";");
    parser.end()?;
    Ok(query)
}

/// Reads a condition that stands alone.
pub(super) fn condition(language: Language, text: &str) -> Result<Condition, CimError> {
    let mut parser = Parser::new(language, text)?;
    let expression = parser.or()?;
    parser.end()?;
    Ok(Condition::new(language, expression))
}

struct Parser<'t> {
    language: Language,
    text: &'t str,
    tokens: Vec<(usize, Token<'t>)>,
    next: usize,
    depth: usize,
    items: usize,
    /// What the class that is selected from is called in paths.
    class_names: Vec<Name>,
}

type Parsed<T> = Result<T, CimError>;

impl<'t> Parser<'t> {
    fn new(language: Language, text: &'t str) -> Parsed<Self> {
        if text.len() > MAX_BYTES {
            return Err(invalid(format!(
                "the query is longer than {MAX_BYTES} bytes"
            )));
        }
        let tokens = tokens(language, text)
            .map_err(|(offset, message)| invalid(format!("{}: {message}", place(text, offset))))?;
        Ok(Self {
            language,
            text,
            tokens,
            next: 0,
            depth: 0,
            items: 0,
            class_names: Vec::new(),
        })
    }

    fn peek(&self) -> &Token<'t> {
        self.at(0)
    }

    /// The token that comes after as many others.
    fn at(&self, ahead: usize) -> &Token<'t> {
        self.tokens
            .get(self.next + ahead)
            .map_or(&Token::End, |(_, token)| token)
    }

    fn error<T>(&self, message: impl std::fmt::Display) -> Parsed<T> {
        let offset = self
            .tokens
            .get(self.next)
            .map_or(self.text.len(), |(offset, _)| *offset);
        Err(invalid(format!("{}: {message}", place(self.text, offset))))
    }

    fn expected<T>(&self, what: &str) -> Parsed<T> {
        self.error(format!("expected {what}, found {}", self.peek().shown()))
    }

    fn unsupported<T>(&self, what: &str) -> Parsed<T> {
        self.error(format!("this server does not support {what}"))
    }

    fn is(&self, ahead: usize, sign: &str) -> bool {
        matches!(self.at(ahead), Token::Sign(found) if *found == sign)
    }

    fn eat(&mut self, sign: &str) -> bool {
        let found = self.is(0, sign);
        self.next += usize::from(found);
        found
    }

    fn need(&mut self, sign: &str) -> Parsed<()> {
        match self.eat(sign) {
            true => Ok(()),
            false => self.expected(&format!("{sign:?}")),
        }
    }

    fn is_word(&self, ahead: usize, word: &str) -> bool {
        matches!(self.at(ahead), Token::Word(found) if found.eq_ignore_ascii_case(word))
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let found = self.is_word(0, word);
        self.next += usize::from(found);
        found
    }

    fn need_word(&mut self, word: &str) -> Parsed<()> {
        match self.eat_word(word) {
            true => Ok(()),
            false => self.expected(word),
        }
    }

    fn word(&mut self, what: &str) -> Parsed<&'t str> {
        match *self.peek() {
            Token::Word(word) => {
                self.next += 1;
                Ok(word)
            }
            _ => self.expected(what),
        }
    }

    fn name(&mut self, what: &str) -> Parsed<Name> {
        self.word(what).map(Name::from)
    }

    fn end(&self) -> Parsed<()> {
        if *self.peek() == Token::End {
            return Ok(());
        }
        for (word, what) in [
            ("ORDER", "sorting"),
            ("GROUP", "grouping of events"),
            ("HAVING", "grouping of events"),
        ] {
            if self.is_word(0, word) {
                return self.unsupported(what);
            }
        }
        self.expected("the end of the query")
    }

    fn count(&mut self) -> Parsed<()> {
        self.items += 1;
        match self.items > MAX_ITEMS {
            true => self.error(format!(
                "a query has at most {MAX_ITEMS} properties and comparisons"
            )),
            false => Ok(()),
        }
    }

    fn select(&mut self) -> Parsed<Select> {
        let mut columns = Some(Vec::new());
        loop {
            self.count()?;
            if self.eat("*") {
                columns = None;
            } else {
                let path = self.path()?;
                if self.is(0, "(") {
                    return self.unsupported("functions in queries");
                }
                // `Class.*` is everything too; other paths end before a sign.
                if self.eat(".") {
                    self.need("*")?;
                    columns = None;
                }
                if self.is_word(0, "AS") {
                    return self.unsupported("new names for selected properties");
                }
                if let Some(columns) = &mut columns {
                    columns.push(path);
                }
            }
            if !self.eat(",") {
                break;
            }
        }
        self.need_word("FROM")?;
        let class = self.name("a class")?;
        if self.is(0, ":") {
            return self.unsupported("other namespaces in FROM: send the query to the namespace");
        }
        self.class_names.push(class.clone());
        let alias = self.eat_word("AS");
        let clause = ["WHERE", "WITHIN", "GROUP", "HAVING", "ORDER"];
        let clause = clause.iter().any(|word| self.is_word(0, word));
        if alias || (matches!(self.peek(), Token::Word(_)) && !clause) {
            let alias = self.name("another name for the class")?;
            self.class_names.push(alias);
        }
        if self.is(0, ",") || self.is_word(0, "JOIN") {
            return self.unsupported("joins: a query selects from one class");
        }
        let within = match self.eat_word("WITHIN") {
            true => Some(self.seconds()?),
            false => None,
        };
        let condition = match self.eat_word("WHERE") {
            true => Some(Condition::new(self.language, self.or()?)),
            false => None,
        };
        if let Some(columns) = &mut columns {
            for column in columns {
                self.without_class(column);
            }
        }
        Ok(Select {
            columns,
            class,
            within,
            condition,
        })
    }

    fn seconds(&mut self) -> Parsed<Duration> {
        #[allow(clippy::cast_precision_loss)] // A fraction of a second more or less.
        let seconds = match self.peek() {
            Token::Integer(seconds) => *seconds as f64,
            Token::Real(seconds) => *seconds,
            _ => return self.expected("a number of seconds"),
        };
        match Duration::try_from_secs_f64(seconds) {
            Ok(within) => {
                self.next += 1;
                Ok(within)
            }
            Err(_) => self.error("the number of seconds is out of range"),
        }
    }

    fn or(&mut self) -> Parsed<Expression> {
        let mut terms = vec![self.and()?];
        while self.eat_word("OR") {
            terms.push(self.and()?);
        }
        Ok(one_or(terms, Expression::Any))
    }

    fn and(&mut self) -> Parsed<Expression> {
        let mut terms = vec![self.nested(Self::not)?];
        while self.eat_word("AND") {
            terms.push(self.nested(Self::not)?);
        }
        Ok(one_or(terms, Expression::All))
    }

    /// What may nest, counted.
    fn nested<T>(&mut self, inner: fn(&mut Self) -> Parsed<T>) -> Parsed<T> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.error(format!("conditions nest deeper than {MAX_DEPTH}"));
        }
        let result = inner(self)?;
        self.depth -= 1;
        Ok(result)
    }

    fn not(&mut self) -> Parsed<Expression> {
        if self.eat_word("NOT") {
            return Ok(Expression::Not(Box::new(self.nested(Self::not)?)));
        }
        if self.eat("(") {
            let inner = self.or()?;
            self.need(")")?;
            return Ok(inner);
        }
        self.count()?;
        let every = self.is_word(0, "EVERY");
        if self.language != Language::Wql
            && (every || self.is_word(0, "ANY"))
            && matches!(self.at(1), Token::Word(_))
        {
            self.next += 1;
            return self.elements(every);
        }
        self.comparison()
    }

    /// CQL: `name IN array[*] SATISFIES (condition)`; FQL: a comparison.
    fn elements(&mut self, every: bool) -> Parsed<Expression> {
        if !self.is_word(1, "IN") {
            let array = self.path()?;
            // A name that no property has.
            let name = Name::default();
            let element = Operand::Path(PropertyPath::property(name.clone()));
            let holds = Box::new(self.compared(element)?);
            return Ok(Expression::Elements {
                every,
                name,
                array,
                holds,
            });
        }
        let name = self.name("a name")?;
        self.need_word("IN")?;
        let array = self.operand_path()?;
        self.need_word("SATISFIES")?;
        self.need("(")?;
        let holds = Box::new(self.nested(Self::or)?);
        self.need(")")?;
        Ok(Expression::Elements {
            every,
            name,
            array,
            holds,
        })
    }

    fn comparison(&mut self) -> Parsed<Expression> {
        // FQL: of the instance itself.
        if self.language == Language::Fql
            && (self.is_word(0, "ISA") || self.is_word(0, "INSTANCEOF"))
        {
            return self.compared(Operand::Path(PropertyPath::default()));
        }
        let left = self.operand()?;
        self.compared(left)
    }

    /// What stands after the left side of a comparison.
    fn compared(&mut self, left: Operand) -> Parsed<Expression> {
        if let Operand::Path(path) = &left
            && path.has_all()
        {
            return self.error("an array as a whole is compared with ANY or EVERY only");
        }
        if let Token::Sign(sign) = *self.peek()
            && let Some(comparison) = Comparison::from_sign(sign)
        {
            self.next += 1;
            if self.eat_word("NULL") {
                let null = self.is_null(left)?;
                return match comparison {
                    Comparison::Equal => Ok(null),
                    Comparison::NotEqual => Ok(Expression::Not(Box::new(null))),
                    _ => self.error("nothing is more or less than NULL"),
                };
            }
            let right = self.operand()?;
            return Ok(Expression::Compare(left, comparison, right));
        }
        if self.eat_word("IS") {
            let not = self.eat_word("NOT");
            self.need_word("NULL")?;
            let null = self.is_null(left)?;
            return Ok(if not {
                Expression::Not(Box::new(null))
            } else {
                null
            });
        }
        if self.eat_word("ISA") || (self.language == Language::Fql && self.eat_word("INSTANCEOF")) {
            let Operand::Path(mut path) = left else {
                return self.error("what stands before ISA is a property or the class");
            };
            // `__CLASS ISA` means the object as well.
            if path.steps.last() == Some(&Step::System(System::Class)) {
                path.steps.pop();
            }
            let class = match self.peek().clone() {
                Token::Text(class) => Name::from(class),
                Token::Word(class) => Name::from(class),
                _ => return self.expected("a class"),
            };
            self.next += 1;
            return Ok(Expression::IsA(path, class));
        }
        let not = self.eat_word("NOT");
        if self.eat_word("LIKE") {
            let Token::Text(text) = self.peek().clone() else {
                return self.expected("a pattern in quotes");
            };
            let pattern = match Pattern::new(self.language, &text) {
                Ok(pattern) => pattern,
                Err(message) => return self.error(message),
            };
            self.next += 1;
            let like = Expression::Like(left, pattern);
            return Ok(if not {
                Expression::Not(Box::new(like))
            } else {
                like
            });
        }
        for (sign, what) in [("(", "functions in queries"), ("#", "symbolic constants")] {
            if self.is(0, sign) {
                return self.unsupported(what);
            }
        }
        self.expected("=, <>, <, <=, >, >=, LIKE, ISA or IS NULL")
    }

    fn is_null(&self, operand: Operand) -> Parsed<Expression> {
        match operand {
            Operand::Path(path) => Ok(Expression::IsNull(path)),
            Operand::Constant(_) => self.error("a constant is never NULL"),
        }
    }

    fn operand(&mut self) -> Parsed<Operand> {
        let constant = match self.peek().clone() {
            Token::Text(text) => Scalar::Text(text.into()),
            Token::Integer(number) => Scalar::Integer(number),
            Token::Real(number) => Scalar::Real(number),
            Token::Word(word) if word.eq_ignore_ascii_case("TRUE") => Scalar::Boolean(true),
            Token::Word(word) if word.eq_ignore_ascii_case("FALSE") => Scalar::Boolean(false),
            Token::Word(_) => return self.operand_path().map(Operand::Path),
            _ => return self.expected("a property or a constant"),
        };
        self.next += 1;
        Ok(Operand::Constant(constant))
    }

    fn operand_path(&mut self) -> Parsed<PropertyPath> {
        let mut path = self.path()?;
        if self.is(0, "(") {
            return self.unsupported("functions in queries");
        }
        self.without_class(&mut path);
        Ok(path)
    }

    /// Takes off the name of the class that is selected from.
    fn without_class(&self, path: &mut PropertyPath) {
        if path
            .first()
            .is_some_and(|name| self.class_names.contains(name))
        {
            path.steps.remove(0);
        }
    }

    fn path(&mut self) -> Parsed<PropertyPath> {
        let mut path = PropertyPath::default();
        if self.eat_word("__this") {
            return Ok(path);
        }
        loop {
            self.count()?;
            let word = self.word("a property")?;
            path.steps.push(match System::from_name(word) {
                Some(system) => Step::System(system),
                None => self.step(word)?,
            });
            if !(self.is(0, ".") && matches!(self.at(1), Token::Word(_))) {
                return Ok(path);
            }
            self.next += 1;
        }
    }

    fn step(&mut self, word: &str) -> Parsed<Step> {
        let (scope, name) = match self.eat("::") {
            true => (Some(Name::from(word)), self.name("a property")?),
            false => (None, Name::from(word)),
        };
        let index = match self.eat("[") {
            false => None,
            true => {
                let index = match *self.peek() {
                    Token::Sign("*") => Index::All,
                    Token::Integer(index) => match usize::try_from(index) {
                        Ok(index) => Index::At(index),
                        Err(_) => return self.error("an array's index is 0 or more"),
                    },
                    _ => return self.unsupported("an array's index that is no number"),
                };
                self.next += 1;
                self.need("]")?;
                Some(index)
            }
        };
        Ok(Step::Property { scope, name, index })
    }

    /// What stands after ASSOCIATORS or REFERENCES.
    fn traversal(&mut self, references: bool) -> Parsed<Traversal> {
        self.need_word("OF")?;
        let Token::Braces(text) = *self.peek() else {
            return self.expected("an object path in braces");
        };
        let source: ObjectPath = match text.trim().parse() {
            Ok(source) => source,
            Err(error) => return self.error(error),
        };
        self.next += 1;
        let mut traversal = Traversal {
            references,
            source,
            filter: Default::default(),
            required_qualifier: None,
            classes_only: false,
            keys_only: false,
        };
        if !self.eat_word("WHERE") {
            return Ok(traversal);
        }
        let mut result_class = None;
        loop {
            let place = self.next;
            let keyword = match *self.peek() {
                Token::Word(word) => word.to_ascii_lowercase(),
                _ => return self.expected("AssocClass, ResultClass, Role, ResultRole, RequiredQualifier, ClassDefsOnly or KeysOnly"),
            };
            self.next += 1;
            let named = match keyword.as_str() {
                "classdefsonly" => {
                    traversal.classes_only = true;
                    None
                }
                "keysonly" => {
                    traversal.keys_only = true;
                    None
                }
                "assocclass" if !references => Some(&mut traversal.filter.association),
                "resultrole" if !references => Some(&mut traversal.filter.result_role),
                "resultclass" => Some(&mut result_class),
                "role" => Some(&mut traversal.filter.role),
                "requiredqualifier" => Some(&mut traversal.required_qualifier),
                "schemaonly" => {
                    return self
                        .unsupported("queries for classes: ask for the class's associations");
                }
                "requiredassocqualifier" => return self.unsupported("RequiredAssocQualifier"),
                _ => {
                    self.next = place;
                    return self.expected(
                        "a keyword such as ResultClass (between them stands nothing, no AND either)",
                    );
                }
            };
            if let Some(named) = named {
                if named.is_some() {
                    self.next = place;
                    return self.error(format!("{keyword} is given twice"));
                }
                self.need("=")?;
                *named = Some(self.name("a name")?);
            }
            if *self.peek() == Token::End || self.is(0, ";") {
                break;
            }
        }
        if traversal.classes_only && result_class.is_some() {
            return self.error("ClassDefsOnly and ResultClass exclude each other");
        }
        match references {
            true => traversal.filter.association = result_class,
            false => traversal.filter.result_class = result_class,
        }
        Ok(traversal)
    }
}

fn one_or(mut terms: Vec<Expression>, many: fn(Vec<Expression>) -> Expression) -> Expression {
    match terms.len() {
        1 => terms.remove(0),
        _ => many(terms),
    }
}

fn place(text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or(text);
    format!("character {}", before.chars().count() + 1)
}
