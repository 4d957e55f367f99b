//! `isochron collection ...`

use clap::Subcommand;
use isochron_api::dto::{Collection, CollectionChange, CollectionKind, NewCollection};

use super::Session;
use crate::exit::Failure;
use crate::output::{Table, facts, time};

/// What can be done to collections.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Create a collection
    #[command(after_help = "Examples:\n  isochron collection create shop web db\n  \
        isochron collection create site shop mail --of-collections")]
    Create {
        /// Its name
        name: String,
        /// Its first members, by name or identifier
        members: Vec<String>,
        /// Its members are collections instead of machines
        #[arg(long)]
        of_collections: bool,
        /// Its identifier [default: a new one]
        #[arg(long, value_name = "UUID")]
        id: Option<uuid::Uuid>,
    },
    /// Add members
    #[command(after_help = "Example:\n  isochron collection add shop queue cache")]
    Add {
        /// Name or identifier
        collection: String,
        /// Members, by name or identifier
        #[arg(required = true)]
        members: Vec<String>,
    },
    /// Remove members
    #[command(after_help = "Example:\n  isochron collection remove shop cache")]
    Remove {
        /// Name or identifier
        collection: String,
        /// Members, by name or identifier
        #[arg(required = true)]
        members: Vec<String>,
    },
    /// Give a collection another name
    #[command(after_help = "Example:\n  isochron collection rename shop old-shop")]
    Rename {
        /// Name or identifier
        collection: String,
        /// The new name
        new_name: String,
    },
    /// List collections
    #[command(after_help = "Example:\n  isochron collection list")]
    List,
    /// Show a collection
    #[command(after_help = "Example:\n  isochron collection show shop")]
    Show {
        /// Name or identifier
        collection: String,
    },
    /// Destroy a collection; its machines stay
    #[command(after_help = "Example:\n  isochron collection destroy shop")]
    Destroy {
        /// Name or identifier
        collection: String,
    },
}

impl Verb {
    /// Carries it out.
    pub async fn run(self, session: &Session) -> Result<(), Failure> {
        let client = &session.client;
        match self {
            Self::Create {
                name,
                members,
                of_collections,
                id,
            } => {
                let kind = match of_collections {
                    true => CollectionKind::Collections,
                    false => CollectionKind::Machines,
                };
                let new = NewCollection {
                    name,
                    id,
                    kind,
                    members,
                };
                session.print(&client.create_collection(&new).await?, one_line)
            }
            Self::Add {
                collection,
                members,
            } => {
                let change = CollectionChange {
                    add: members,
                    ..Default::default()
                };
                session.print(
                    &client.change_collection(&collection, &change).await?,
                    one_line,
                )
            }
            Self::Remove {
                collection,
                members,
            } => {
                let change = CollectionChange {
                    remove: members,
                    ..Default::default()
                };
                session.print(
                    &client.change_collection(&collection, &change).await?,
                    one_line,
                )
            }
            Self::Rename {
                collection,
                new_name,
            } => {
                let change = CollectionChange {
                    name: Some(new_name),
                    ..Default::default()
                };
                session.print(
                    &client.change_collection(&collection, &change).await?,
                    one_line,
                )
            }
            Self::List => session.print(&client.collections().await?, |all| list(all)),
            Self::Show { collection } => {
                session.print(&client.collection(&collection).await?, show)
            }
            Self::Destroy { collection } => {
                client.destroy_collection(&collection).await?;
                session.print_done(&format!("{collection} is destroyed; its machines stay"))
            }
        }
    }
}

fn members(collection: &Collection) -> String {
    match collection.members.as_slice() {
        [] => "(empty)".to_owned(),
        members => members
            .iter()
            .map(|member| member.name.as_str())
            .collect::<Vec<_>>()
            .join(", "),
    }
}

fn kind(collection: &Collection) -> &'static str {
    match collection.kind {
        CollectionKind::Machines => "machines",
        CollectionKind::Collections => "collections",
    }
}

fn one_line(collection: &Collection) -> String {
    format!(
        "{}  {}: {}\n",
        collection.id,
        collection.name,
        members(collection)
    )
}

fn list(collections: &[Collection]) -> String {
    let mut table = Table::new(["NAME", "OF", "MEMBERS", "ID"]);
    for collection in collections {
        table.row([
            collection.name.clone(),
            kind(collection).to_owned(),
            members(collection),
            collection.id.to_string(),
        ]);
    }
    table.to_string()
}

fn show(collection: &Collection) -> String {
    let mut text = facts(&[
        ("name", Some(collection.name.clone())),
        ("id", Some(collection.id.to_string())),
        ("of", Some(kind(collection).to_owned())),
        ("created", Some(time(collection.created_at))),
        (
            "current snapshot",
            collection.current.map(|id| id.to_string()),
        ),
    ]);
    text.push_str("\nmembers\n");
    let mut table = Table::headless();
    for member in &collection.members {
        table.row([format!("  {}", member.name), member.id.to_string()]);
    }
    text.push_str(&table.to_string());
    text
}
