//! Msvm_CollectionManagementService: defines collections and their members.
//!
//! Every method completes at once and returns 0 or a refusal's code; no job is
//! handed out, which the reference allows ("can be null if the task is
//! completed").

use isochron_cim::{CimError, Outcome, Value};
use isochron_engine::model::{Collection, CollectionId, CollectionKind, MachineId};
use isochron_engine::{EngineError, ErrorKind};

use super::{Call, invalid};
use crate::codes::ManagementReturn;
use crate::object::{Object, class};

/// Why a call is refused.
struct Refusal {
    code: ManagementReturn,
    error: EngineError,
}

impl From<EngineError> for Refusal {
    fn from(error: EngineError) -> Self {
        Self {
            code: error.kind.into(),
            error,
        }
    }
}

/// What can be a member.
enum Member {
    Machine(MachineId),
    Collection(CollectionId),
}

/// Calls a method; `None` if there is none of that name.
pub(super) async fn invoke(call: &Call<'_>, method: &str) -> Result<Option<Outcome>, CimError> {
    let done = match method {
        "DefineCollection" => match define(call).await {
            Ok(path) => {
                let defined = [("DefinedCollection", path)];
                return Ok(Some(call.reply(ManagementReturn::Completed, defined)));
            }
            Err(refusal) => Err(refusal),
        },
        "DestroyCollection" => destroy(call).await,
        "RenameCollection" => rename(call).await,
        "AddMember" => add(call).await,
        "RemoveMember" => remove(call).await,
        "RemoveMemberById" => remove_by_id(call).await,
        _ => return Ok(None),
    };
    let code = match done {
        Ok(()) => ManagementReturn::Completed,
        Err(Refusal { code, error }) => {
            tracing::info!(method, ?code, %error, "refused");
            call.because(&error);
            code
        }
    };
    Ok(Some(call.reply(code, [])))
}

async fn define(call: &Call<'_>) -> Result<Value, Refusal> {
    let name = call
        .text("Name")
        .ok_or_else(|| invalid("Name is missing"))?;
    let id = match call.text("Id") {
        Some(text) => Some(
            text.parse()
                .map_err(|_| invalid(format!("Id {text:?} is no GUID")))?,
        ),
        None => None,
    };
    let kind = match call.number("Type") {
        Some(0) => CollectionKind::Machines,
        Some(1) => CollectionKind::Collections,
        other => {
            let given = other.map_or("missing".to_owned(), |number| number.to_string());
            return Err(invalid(format!(
                "Type is {given}; 0 is a collection of virtual systems, 1 one of collections"
            ))
            .into());
        }
    };
    let collection = call.engine.create_collection(name, id, kind).await?;
    let object = Object::Collection(collection.into());
    Ok(call.path(object.path(&call.provider.host)))
}

async fn destroy(call: &Call<'_>) -> Result<(), Refusal> {
    let collection = call.collection("Collection").await?;
    Ok(call.engine.destroy_collection(collection.id).await?)
}

async fn rename(call: &Call<'_>) -> Result<(), Refusal> {
    let collection = call.collection("Collection").await?;
    let name = call
        .text("NewName")
        .ok_or_else(|| invalid("NewName is missing"))?;
    Ok(call.engine.rename_collection(collection.id, name).await?)
}

/// The member that a call names, if it is of the kind that the collection holds.
async fn member(call: &Call<'_>, collection: &Collection) -> Result<Member, Refusal> {
    let object = call.object("Member").await?;
    match (&object, collection.kind) {
        (Object::Machine(machine), CollectionKind::Machines) => Ok(Member::Machine(machine.id)),
        (Object::Collection(member), CollectionKind::Collections) => {
            Ok(Member::Collection(member.id))
        }
        (_, kind) => Err(Refusal {
            code: ManagementReturn::IncorrectDataType,
            error: invalid(format!(
                "{} holds {}; Member names {}",
                collection.name,
                match kind {
                    CollectionKind::Machines => "virtual machines",
                    CollectionKind::Collections => "collections",
                },
                match object {
                    Object::Host => "the host".to_owned(),
                    other => format!("a {}", other.class()),
                }
            )),
        }),
    }
}

async fn add(call: &Call<'_>) -> Result<(), Refusal> {
    let collection = call.collection("Collection").await?;
    let engine = &call.engine;
    match member(call, &collection).await? {
        Member::Machine(machine) => engine.add_machine(collection.id, machine).await?,
        Member::Collection(member) => engine.add_collection(collection.id, member).await?,
    }
    Ok(())
}

async fn remove(call: &Call<'_>) -> Result<(), Refusal> {
    let collection = call.collection("Collection").await?;
    let member = member(call, &collection).await?;
    Ok(take_out(call, collection.id, member).await?)
}

async fn take_out(
    call: &Call<'_>,
    collection: CollectionId,
    member: Member,
) -> Result<(), EngineError> {
    let engine = &call.engine;
    match member {
        Member::Machine(machine) => engine.remove_machine(collection, machine).await,
        Member::Collection(member) => engine.remove_collection(collection, member).await,
    }
}

/// Succeeds where there is nothing to remove: no such collection, no such object,
/// or no such member.
async fn remove_by_id(call: &Call<'_>) -> Result<(), Refusal> {
    let id = call
        .text("CollectionId")
        .ok_or_else(|| invalid("CollectionId is missing"))?;
    let id: CollectionId = id
        .parse()
        .map_err(|_| invalid(format!("CollectionId {id:?} is no GUID")))?;
    let reference = call
        .reference("Member")
        .ok_or_else(|| invalid("Member is missing"))?;
    let path = call.provider.complete(call.space, "Member", reference)?;
    let key = |name| path.key_str(name).and_then(|text| text.parse().ok());
    let member = match path.class.as_str() {
        name if name.eq_ignore_ascii_case(class::COMPUTER_SYSTEM) => {
            key("Name").map(|id| Member::Machine(MachineId(id)))
        }
        name if [class::SYSTEM_COLLECTION, class::MANAGEMENT_COLLECTION]
            .iter()
            .any(|class| name.eq_ignore_ascii_case(class)) =>
        {
            key("CollectionID").map(|id| Member::Collection(CollectionId(id)))
        }
        other => {
            return Err(Refusal {
                code: ManagementReturn::IncorrectDataType,
                error: invalid(format!(
                    "Member names a {other}, which is no collection's member"
                )),
            });
        }
    };
    let Some(member) = member else { return Ok(()) };
    let holds = match call.engine.collection(id).await {
        Ok(collection) => match member {
            Member::Machine(machine) => collection.machines.contains(&machine),
            Member::Collection(member) => collection.collections.contains(&member),
        },
        Err(error) if error.kind == ErrorKind::NotFound => false,
        Err(error) => return Err(error.into()),
    };
    if holds {
        take_out(call, id, member).await?;
    }
    Ok(())
}
