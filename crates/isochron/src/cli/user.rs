//! `isochron user ...`

use clap::{Args, Subcommand};
use isochron_api::dto::{NewUser, Role, User, UserChange};

use super::{Session, password};
use crate::exit::Failure;
use crate::output::{Table, time};

/// What can be done to users.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Add a user, who gets in on TCP with a name and a password
    ///
    /// The password is asked for, or read from standard input: it is never an
    /// argument, which others could see.
    #[command(
        after_help = "Examples:\n  isochron user add ada --role administrator\n  \
        pass show isochron/ci | isochron user add ci --role operator --password-stdin"
    )]
    Add {
        /// The name
        name: String,
        /// What they may do: reader (look), operator (and take, apply and destroy
        /// snapshots, and switch machines), administrator (and define machines,
        /// collections and users)
        #[arg(long, value_enum, default_value = "reader")]
        role: RoleName,
        #[command(flatten)]
        password: PasswordSource,
    },
    /// List users
    #[command(after_help = "Example:\n  isochron user list --json | jq -r '.[].name'")]
    List,
    /// Give a user another password
    #[command(after_help = "Example:\n  isochron user passwd ada")]
    Passwd {
        /// The user
        name: String,
        #[command(flatten)]
        password: PasswordSource,
    },
    /// Give a user another role
    #[command(after_help = "Example:\n  isochron user role ada operator")]
    Role {
        /// The user
        name: String,
        /// The role
        #[arg(value_enum)]
        role: RoleName,
    },
    /// Remove users; what they do now they do to its end, their next request is refused
    #[command(after_help = "Example:\n  isochron user remove ada")]
    Remove {
        /// The users
        #[arg(required = true)]
        names: Vec<String>,
    },
}

/// Where a new password comes from.
#[derive(Args, Debug)]
pub struct PasswordSource {
    /// Read the password from standard input, up to the end of the first line
    #[arg(long)]
    password_stdin: bool,
    /// Let the user also log in by NTLM (WS-Management): a second hash is kept for it, from
    /// which the password is easier to guess, and with which one can log in
    #[arg(long)]
    ntlm: bool,
}

impl PasswordSource {
    fn read(&self) -> Result<String, Failure> {
        match self.password_stdin {
            true => password::from_stdin(),
            false => password::new_from_terminal(),
        }
    }
}

/// A role's name.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum RoleName {
    /// May look
    Reader,
    /// May work with what there is
    Operator,
    /// May define what there is
    Administrator,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Reader => Self::Reader,
            RoleName::Operator => Self::Operator,
            RoleName::Administrator => Self::Administrator,
        }
    }
}

impl Verb {
    /// Carries it out.
    pub async fn run(self, session: &Session) -> Result<(), Failure> {
        let client = &session.client;
        match self {
            Self::Add {
                name,
                role,
                password,
            } => {
                let new = NewUser {
                    name,
                    role: role.into(),
                    ntlm: password.ntlm,
                    password: password.read()?,
                };
                session.print(&client.add_user(&new).await?, one_line)
            }
            Self::List => session.print(&client.users().await?, |users| list(users)),
            Self::Passwd { name, password } => {
                let change = UserChange {
                    ntlm: password.ntlm,
                    password: Some(password.read()?),
                    role: None,
                };
                session.print(&client.change_user(&name, &change).await?, one_line)
            }
            Self::Role { name, role } => {
                let change = UserChange {
                    role: Some(role.into()),
                    ..UserChange::default()
                };
                session.print(&client.change_user(&name, &change).await?, one_line)
            }
            Self::Remove { names } => {
                for name in &names {
                    client.remove_user(name).await?;
                }
                session.print_done(&format!("removed: {}", names.join(", ")))
            }
        }
    }
}

fn role(user: &User) -> &'static str {
    match user.role {
        Role::Reader => "reader",
        Role::Operator => "operator",
        Role::Administrator => "administrator",
    }
}

fn one_line(user: &User) -> String {
    let ntlm = if user.ntlm { "  NTLM" } else { "" };
    format!("{}  {}{ntlm}\n", user.name, role(user))
}

fn list(users: &[User]) -> String {
    let mut table = Table::new(["NAME", "ROLE", "PASSWORD SINCE", "NTLM"]);
    for user in users {
        table.row([
            user.name.clone(),
            role(user).to_owned(),
            time(user.password_set),
            if user.ntlm { "yes" } else { "-" }.to_owned(),
        ]);
    }
    table.to_string()
}
