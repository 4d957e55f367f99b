//! Msvm_CollectionReferencePointService: there, so that clients that look for it
//! find it, but every method is Not Supported, and its job says so.

use isochron_cim::{CimError, Outcome};
use isochron_engine::model::JobKind;
use isochron_engine::{EngineError, ErrorKind};

use super::Call;
use crate::codes::ManagementReturn;

/// Calls a method of the service for single machines; `None` if there is none of
/// that name.
pub(super) async fn invoke_single(
    call: &Call<'_>,
    method: &str,
) -> Result<Option<Outcome>, CimError> {
    let (kind, code) = match method {
        "CreateReferencePoint" => {
            let kind = JobKind::CreateReferencePoint;
            return call.not_supported(kind).await.map(Some);
        }
        "DestroyReferencePoint" => (
            JobKind::DestroyReferencePoint,
            ManagementReturn::NotSupported,
        ),
        "ExportReferencePoint" => (
            JobKind::ExportReferencePoint,
            ManagementReturn::NotSupported,
        ),
        "RemoveAssociatedData" => (
            JobKind::RemoveReferencePointData,
            ManagementReturn::NotSupported,
        ),
        "ImportReferencePointMetadata" => (
            JobKind::CreateReferencePoint,
            ManagementReturn::NotSupported,
        ),
        _ => return Ok(None),
    };
    let message = "this server keeps no reference points of single machines; \
                   Msvm_CollectionReferencePointService is for collections";
    let error = EngineError::new(ErrorKind::NotSupported, message);
    call.refuse_as(kind, &error, code).await.map(Some)
}

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
