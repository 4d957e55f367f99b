//! Where passwords come from: the terminal without echo, standard input, never an
//! argument.

use std::io::{self, BufRead};

use crate::exit::Failure;

/// The first line of standard input, without its end.
pub fn from_stdin() -> Result<String, Failure> {
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    read.map_err(|error| Failure::usage(format!("no password on standard input: {error}")))?;
    let password = line.strip_suffix('\n').unwrap_or(&line);
    let password = password.strip_suffix('\r').unwrap_or(password);
    match password.is_empty() {
        true => Err(Failure::usage("no password on standard input")),
        false => Ok(password.to_owned()),
    }
}

/// A new password, asked for twice.
pub fn new_from_terminal() -> Result<String, Failure> {
    let password = from_terminal("New password: ")?;
    match from_terminal("The same again: ")? == password {
        true => Ok(password),
        false => Err(Failure::usage(
            "the two are not the same; nothing was changed",
        )),
    }
}

/// A password, asked for once.
pub fn from_terminal(prompt: &str) -> Result<String, Failure> {
    rpassword::prompt_password(prompt).map_err(|error| {
        Failure::usage(format!(
            "no password can be asked for, as there is no terminal ({error}); \
             --password-stdin and ISOCHRON_PASSWORD are for programs"
        ))
    })
}
