//! MOF, the language that CIM schemas are written in (DSP0004 annex A, CIM v2).
//!
//! [`parse`] reads qualifier types, classes and instances, one after another and
//! with their places; [`crate::Repository`] fits them together. [`write_class`]
//! and [`write_qualifier`] write MOF again, [`write_schema`] all of it. An error says where and what was
//! expected. Nothing here reads files: `#pragma include` asks the caller.
//!
//! Limits: [`MAX_BYTES`] of text, includes included, and [`MAX_INCLUDES`] levels
//! of them; nothing else in this grammar nests.

mod lexer;
mod literal;
mod parser;
mod schema;
mod writer;

use std::fmt;
use std::sync::Arc;

use indexmap::IndexMap;

use crate::{Class, Name};

pub use literal::Literal;
pub use parser::{Include, parse};
pub use schema::write_schema;
pub use writer::{write_class, write_qualifier};

/// The most text that one [`parse`] reads, in bytes.
pub const MAX_BYTES: usize = 16 * 1024 * 1024;
/// How deep files may include files.
pub const MAX_INCLUDES: usize = 16;

/// A place in a MOF text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// The file's name, as it was given.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: usize,
    /// The character in the line, from 1.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// Why a text is no MOF.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {message}")]
pub struct MofError {
    /// Where.
    pub at: Position,
    /// What was found and what was expected.
    pub message: String,
}

/// What a MOF text declares, besides qualifier types.
#[derive(Clone, Debug, PartialEq)]
pub enum Declaration {
    /// A class with only the elements and qualifiers that it declares itself.
    Class(Box<Class>),
    /// An instance.
    Instance(InstanceDecl),
    /// `#pragma namespace`: where what follows belongs.
    Namespace(String),
}

/// An instance as MOF declares it: its values get their types from the class.
#[derive(Clone, Debug, PartialEq)]
pub struct InstanceDecl {
    /// The creation class.
    pub class: Name,
    /// The alias by which later declarations refer to it, without `$`.
    pub alias: Option<Name>,
    /// The values given.
    pub properties: IndexMap<Name, Literal>,
}
