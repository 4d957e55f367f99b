//! What this QEMU can do, from its own description of itself
//! (`query-qmp-schema`).

use qapi::qmp;
use serde::Deserialize;

use super::Connection;
use crate::error::QmpError;

/// What differs between the versions that are supported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Features {
    /// `blockdev-set-active`: images can be taken back after memory was saved.
    pub(crate) set_active: bool,
    /// The migration transport `file:`, which replaces `fd:` for files.
    pub(crate) file_transport: bool,
    /// `migrate-incoming` can fail without ending the process.
    pub(crate) survives_bad_memory: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Entity {
    name: String,
    meta_type: String,
    arg_type: Option<String>,
    #[serde(default)]
    members: Vec<Member>,
    #[serde(default)]
    values: Vec<String>,
}

#[derive(Deserialize)]
struct Member {
    name: Option<String>,
}

impl Features {
    /// Asks.
    pub(super) async fn ask(connection: &Connection) -> Result<Self, QmpError> {
        let schema: Vec<Entity> = connection.ask_much(&qmp::query_qmp_schema {}).await?;
        Ok(Self::of(&schema))
    }

    fn of(schema: &[Entity]) -> Self {
        let command = |name: &str| {
            schema
                .iter()
                .find(|e| e.meta_type == "command" && e.name == name)
        };
        let argument = |command: &Entity, name: &str| {
            let arguments = command.arg_type.as_ref();
            let arguments = schema.iter().find(|e| Some(&e.name) == arguments);
            arguments.is_some_and(|a| a.members.iter().any(|m| m.name.as_deref() == Some(name)))
        };
        // Types have no names in the schema: MigrationAddressType is known by its
        // values.
        let transports = ["socket", "exec", "rdma", "file"];
        Self {
            set_active: command("blockdev-set-active").is_some(),
            file_transport: schema.iter().any(|e| {
                e.meta_type == "enum" && transports.iter().all(|t| e.values.iter().any(|v| v == t))
            }),
            survives_bad_memory: command("migrate-incoming")
                .is_some_and(|c| argument(c, "exit-on-error")),
        }
    }
}
