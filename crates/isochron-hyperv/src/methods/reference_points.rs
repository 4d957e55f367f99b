//! Msvm_CollectionReferencePointService: there, so that clients that look for it
//! find it, but every method is Not Supported, and its job says so.

use isochron_cim::{CimError, Outcome};
use isochron_engine::model::JobKind;

use super::Call;

/// Calls a method; `None` if there is none of that name.
pub(super) async fn invoke(call: &Call<'_>, method: &str) -> Result<Option<Outcome>, CimError> {
    let kind = match method {
        "CreateReferencePoint" => JobKind::CreateReferencePoint,
        "DestroyReferencePoint" => JobKind::DestroyReferencePoint,
        "ExportReferencePoint" => JobKind::ExportReferencePoint,
        "RemoveAssociatedData" => JobKind::RemoveReferencePointData,
        _ => return Ok(None),
    };
    call.not_supported(kind).await.map(Some)
}
