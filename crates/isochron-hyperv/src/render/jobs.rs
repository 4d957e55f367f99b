//! Jobs, and the errors of those that failed.

use std::time::Duration;

use isochron_cim::{DateTime, Instance, ObjectPath};
use isochron_engine::ErrorKind;
use isochron_engine::model::{Job, JobError, JobExport, JobKind, JobState};
use time::OffsetDateTime;

use super::{set_some, status};
use crate::codes::{ManagementReturn, ServiceReturn};
use crate::object::class;

/// JobState (CIM_ConcreteJob): clients wait while it is 4 and take 7 for success.
fn job_state(state: JobState) -> u16 {
    match state {
        JobState::Running => 4,
        JobState::Completed => 7,
        JobState::Cancelled => 8,
        JobState::Failed => 10,
    }
}

/// JobType (Msvm_ConcreteJob), and the job in words. Hyper-V has a type of its own
/// for the snapshot of a single machine.
fn job_type(job: &Job, single: bool) -> (u16, &'static str) {
    match job.kind {
        JobKind::CreateSnapshot if single => (70, "Taking a snapshot of a virtual machine"),
        JobKind::CreateSnapshot => (198, "Taking a snapshot of a collection"),
        JobKind::ApplySnapshot => (71, "Applying a snapshot of a collection"),
        JobKind::DestroySnapshot => (72, "Destroying a snapshot of a collection"),
        JobKind::ExportSnapshot => (62, "Exporting a snapshot of a collection"),
        JobKind::CreateReferencePoint if single => {
            (201, "Creating a reference point of a virtual machine")
        }
        JobKind::DestroyReferencePoint if single => {
            (202, "Destroying a reference point of a virtual machine")
        }
        JobKind::ExportReferencePoint if single => {
            (203, "Exporting a reference point of a virtual machine")
        }
        JobKind::RemoveReferencePointData if single => (
            204,
            "Removing the data of a reference point of a virtual machine",
        ),
        JobKind::ConvertSnapshot => (200, "Turning a snapshot into a reference point"),
        JobKind::CreateReferencePoint => (205, "Creating a reference point of a collection"),
        JobKind::ExportReferencePoint => (206, "Exporting a reference point of a collection"),
        JobKind::RemoveReferencePointData => (207, "Removing the data of a reference point"),
        JobKind::DestroyReferencePoint => (208, "Destroying a reference point of a collection"),
        JobKind::StartMachine => (12, "Starting a virtual machine"),
        JobKind::PauseMachine => (26, "Pausing a virtual machine"),
        JobKind::SaveMachine => (14, "Saving a virtual machine"),
        JobKind::RestoreMachine => (15, "Restoring a virtual machine"),
        JobKind::ShutDownMachine => (16, "Shutting a virtual machine down"),
        JobKind::ResumeMachine => (27, "Resuming a virtual machine"),
        JobKind::TurnOffMachine => (13, "Turning a virtual machine off"),
        JobKind::ModifyMachine => (2, "Modifying a virtual machine"),
        JobKind::DestroyMachine => (3, "Destroying a virtual machine"),
    }
}

/// ElementEffects (CIM_AffectedJobElement) of a job, with the words for Other.
pub(crate) fn effects(kind: JobKind) -> (u16, &'static str) {
    match kind {
        JobKind::CreateSnapshot | JobKind::CreateReferencePoint => (5, ""),
        // 2: nothing else uses it meanwhile.
        JobKind::ApplySnapshot | JobKind::ExportSnapshot | JobKind::ExportReferencePoint => (2, ""),
        JobKind::DestroySnapshot => (1, "A snapshot is destroyed"),
        JobKind::ConvertSnapshot => (1, "A snapshot becomes a reference point"),
        JobKind::RemoveReferencePointData => (1, "The data of a reference point is removed"),
        JobKind::DestroyReferencePoint => (1, "A reference point is destroyed"),
        JobKind::StartMachine
        | JobKind::RestoreMachine
        | JobKind::ResumeMachine
        | JobKind::PauseMachine
        | JobKind::SaveMachine
        | JobKind::ShutDownMachine
        | JobKind::TurnOffMachine
        | JobKind::ModifyMachine
        | JobKind::DestroyMachine => (1, "The state of a virtual machine is changed"),
    }
}

/// Why a job ended otherwise than well, where that was not written down.
fn reason(job: &Job) -> Option<JobError> {
    let (kind, message) = match job.state {
        JobState::Running | JobState::Completed => return None,
        JobState::Cancelled => (
            ErrorKind::Cancelled,
            "the job was cancelled; nothing was changed",
        ),
        JobState::Failed => (ErrorKind::Failed, "the job failed"),
    };
    let unsaid = || JobError {
        kind,
        message: message.to_owned(),
    };
    Some(job.error.clone().unwrap_or_else(unsaid))
}

/// A job, at a time. `single`: it works on a single machine. `retention` is how long
/// it is kept after its end.
pub(super) fn job(
    job: &Job,
    single: bool,
    retention: Duration,
    now: OffsetDateTime,
    instance: &mut Instance,
) {
    let (job_type, words) = job_type(job, single);
    let elapsed = job.ended_at.unwrap_or(now) - job.started_at;
    instance
        .set("Caption", words)
        .set("Description", words)
        .set("ElementName", words)
        .set("Name", words)
        .set("JobState", job_state(job.state))
        .set("JobStatus", job.step.as_str())
        .set("PercentComplete", u16::from(job.percent))
        .set("Cancellable", job.cancellable)
        .set("DeleteOnCompletion", true)
        .set("TimeBeforeRemoval", DateTime::from(retention))
        .set("InstallDate", DateTime::from(job.started_at))
        .set("TimeSubmitted", DateTime::from(job.started_at))
        .set("StartTime", DateTime::from(job.started_at))
        .set(
            "ElapsedTime",
            DateTime::from(Duration::try_from(elapsed).unwrap_or_default()),
        )
        .set("TimeOfLastStateChange", DateTime::from(job.changed_at))
        .set("JobRunTimes", 1_u32)
        .set("LocalOrUtcTime", 2_u16)
        .set("RecoveryAction", 2_u16);
    set_some(instance, "Owner", job.owner.as_deref());
    // The class that tells of files has no JobType.
    match (&job.export, instance.class.is(class::POINT_EXPORT_JOB)) {
        (Some(export), true) => exported(job, export, instance),
        _ => {
            instance.set("JobType", job_type);
        }
    }
    match job.state {
        JobState::Running => status(instance, &[(2, "OK")], 5),
        JobState::Completed => status(instance, &[(2, "OK"), (17, "Completed")], 5),
        JobState::Cancelled => status(instance, &[(10, "Stopped")], 5),
        JobState::Failed => status(instance, &[(6, "Error")], 20),
    }
    let reason = reason(job);
    let code = reason.as_ref().map_or(0, |e| error_code(job.kind, e.kind));
    instance.set("ErrorCode", code);
    if let Some(error) = reason {
        instance.set("ErrorDescription", error.message.as_str());
        instance.set("ErrorSummaryDescription", error.message);
    }
}

/// What Msvm_CollectionReferencePointExportJob says of an export: the files as absolute
/// paths, which are known when it is finished.
fn exported(job: &Job, export: &JobExport, instance: &mut Instance) {
    let id = |id: Option<String>| id.unwrap_or_default();
    let machines = export.machines.iter().map(ToString::to_string);
    instance
        .set("CollectionId", id(job.collection.map(|id| id.to_string())))
        .set(
            "ReferencePointGroupId",
            id(job.point.map(|id| id.to_string())),
        )
        .set("VirtualMachineId", machines.collect::<Vec<_>>())
        .set("ExportDirectory", export.directory.display().to_string());
    let base = export.base.map(|base| base.to_string());
    set_some(instance, "BaseReferencePointGroupId", base);
    let (mut disks, mut config) = (Vec::new(), Vec::new());
    for file in &export.files {
        let path = export.directory.join(file).display().to_string();
        match file.extension().is_some_and(|end| end == "qcow2") {
            true => disks.push(path),
            false => config.push(path),
        }
    }
    // No log is kept, and a reference point has no memory.
    instance
        .set("ExportedDisks", disks)
        .set("ExportedConfigFilePaths", config)
        .set("ExportedLogFilePaths", Vec::<String>::new())
        .set("ExportedRuntimeFilePaths", Vec::<String>::new())
        .set("ExportedGuestStateFilePaths", Vec::<String>::new());
}

/// Msvm_ConcreteJob.ErrorCode: what the method that starts such jobs returns for it.
fn error_code(job: JobKind, error: ErrorKind) -> u16 {
    let code: u32 = match job {
        JobKind::StartMachine
        | JobKind::RestoreMachine
        | JobKind::ResumeMachine
        | JobKind::PauseMachine
        | JobKind::SaveMachine
        | JobKind::ShutDownMachine
        | JobKind::TurnOffMachine => ManagementReturn::from(error).into(),
        _ => ServiceReturn::from(error).into(),
    };
    // Both families' numbers have 16 bits.
    u16::try_from(code).unwrap_or(u16::MAX)
}

/// What GetError and GetErrorEx return: one Msvm_Error if the job ended otherwise
/// than well, none else.
pub(crate) fn errors(job: &Job, path: &ObjectPath) -> Option<Instance> {
    let error = reason(job)?;
    let mut instance = Instance::new(class::ERROR);
    let (cim_status, error_type, message_id): (u32, u16, _) = match error.kind {
        ErrorKind::NotFound => (6, 1, "NotFound"),
        ErrorKind::Exists => (11, 1, "Exists"),
        ErrorKind::InvalidParameter => (4, 1, "InvalidParameter"),
        ErrorKind::InvalidType => (4, 1, "InvalidType"),
        ErrorKind::NotSupported => (7, 1, "NotSupported"),
        ErrorKind::InvalidState => (1, 1, "InvalidState"),
        ErrorKind::AccessDenied => (2, 1, "AccessDenied"),
        ErrorKind::Timeout => (1, 2, "Timeout"),
        ErrorKind::Cancelled => (1, 1, "Cancelled"),
        ErrorKind::Failed => (1, 4, "Failed"),
    };
    instance
        .set("OwningEntity", "Isochron")
        .set("MessageID", message_id)
        .set("Message", error.message)
        // 1 Other, 2 Communications, 4 Software.
        .set("ErrorType", error_type)
        .set(
            "PerceivedSeverity",
            if job.state == JobState::Cancelled {
                2_u16
            } else {
                4
            },
        )
        .set("ErrorSource", path.to_string())
        .set("ErrorSourceFormat", 2_u16)
        .set("CIMStatusCode", cim_status);
    if error_type == 1 {
        instance.set("OtherErrorType", message_id);
    }
    Some(instance)
}

#[cfg(test)]
mod tests {
    use isochron_engine::model::JobId;
    use time::macros::datetime;

    use super::*;

    fn sample(state: JobState) -> Job {
        let at = datetime!(2024-02-29 12:00 UTC);
        Job {
            id: JobId::new(),
            kind: JobKind::CreateSnapshot,
            state,
            percent: 40,
            step: "stopping".to_owned(),
            cancellable: true,
            owner: None,
            collection: None,
            snapshot: None,
            point: None,
            export: None,
            affected: None,
            started_at: at,
            changed_at: at,
            ended_at: None,
            error: None,
        }
    }

    fn shown(record: &Job) -> Instance {
        let mut instance = Instance::new(class::JOB);
        let now = record.started_at + Duration::from_millis(1500);
        job(record, false, Duration::from_secs(300), now, &mut instance);
        instance
    }

    #[test]
    fn states_and_errors_are_what_clients_wait_for() {
        for (state, number, code) in [
            (JobState::Running, 4, 0),
            (JobState::Completed, 7, 0),
            (JobState::Cancelled, 8, 2),
            (JobState::Failed, 10, 2),
        ] {
            let record = sample(state);
            let instance = shown(&record);
            assert_eq!(instance.get("JobState").unwrap().as_u64(), Some(number));
            assert_eq!(instance.get("ErrorCode").unwrap().as_u64(), Some(code));
            assert_eq!(instance.get("ErrorDescription").is_some(), code != 0);
            assert_eq!(errors(&record, &ObjectPath::default()).is_some(), code != 0);
        }
    }

    #[test]
    fn a_job_tells_its_times_its_type_and_why_it_failed() {
        let mut record = sample(JobState::Failed);
        record.error = Some(JobError {
            kind: ErrorKind::Timeout,
            message: "web hangs".into(),
        });
        let instance = shown(&record);
        let text = |name| match instance.get(name) {
            Some(isochron_cim::Value::DateTime(value)) => value.to_string(),
            Some(value) => value.as_str().map_or_else(
                || value.as_u64().unwrap_or_default().to_string(),
                str::to_owned,
            ),
            None => String::new(),
        };
        assert_eq!(text("ElapsedTime"), "00000000000001.500000:000");
        assert_eq!(text("TimeBeforeRemoval"), "00000000000500.000000:000");
        assert_eq!(text("StartTime"), "20240229120000.000000+000");
        assert_eq!(text("JobType"), "198");
        assert_eq!(text("ErrorCode"), "3");
        record.kind = JobKind::SaveMachine;
        assert_eq!(
            shown(&record).get("ErrorCode").unwrap().as_u64(),
            Some(32772)
        );
        assert_eq!(text("ErrorDescription"), "web hangs");
        let error = errors(&record, &ObjectPath::class(class::JOB)).unwrap();
        assert_eq!(error.get("Message").unwrap().as_str(), Some("web hangs"));
    }
}
