//! Return codes: the families that the collection classes answer in, and how the
//! engine's refusals map to each. The only place where a method's return value is
//! a number.

use isochron_engine::ErrorKind;

/// Declares a family: an enum whose variants are the wire's numbers.
macro_rules! family {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $code:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant = $code,)*
        }

        impl From<$name> for u32 {
            fn from(code: $name) -> Self {
                code as Self
            }
        }
    };
}

family! {
    /// What Msvm_CollectionSnapshotService and Msvm_CollectionReferencePointService
    /// return, and what Msvm_ConcreteJob.ErrorCode says of their jobs.
    ServiceReturn {
        /// Done.
        Completed = 0,
        /// Makes sense, but cannot be done here.
        NotSupported = 1,
        /// Tried and failed.
        Failed = 2,
        /// Something did not answer, or not soon enough.
        Timeout = 3,
        /// A parameter makes no sense, or names nothing.
        InvalidParameter = 4,
        /// Makes sense, but not now.
        InvalidState = 5,
        /// SnapshotType is no type of snapshot.
        InvalidType = 6,
        /// The parameters were checked; the job does the rest.
        JobStarted = 4096,
    }
}

family! {
    /// What Msvm_CollectionManagementService, Msvm_ComputerSystem and the job's
    /// GetError return.
    ManagementReturn {
        /// Done.
        Completed = 0,
        /// The parameters were checked; the job does the rest.
        JobStarted = 4096,
        /// Tried and failed.
        Failed = 32768,
        /// The caller may not.
        AccessDenied = 32769,
        /// Makes sense, but cannot be done here.
        NotSupported = 32770,
        /// Nobody knows.
        Unknown = 32771,
        /// Something did not answer, or not soon enough.
        Timeout = 32772,
        /// A parameter makes no sense, or names nothing.
        InvalidParameter = 32773,
        /// Something else uses it.
        InUse = 32774,
        /// Makes sense, but not now.
        InvalidState = 32775,
        /// The member is of a kind that the collection does not hold.
        IncorrectDataType = 32776,
        /// The system cannot be reached.
        NotAvailable = 32777,
        /// Memory is exhausted.
        OutOfMemory = 32778,
        /// A file is missing.
        FileNotFound = 32779,
    }
}

family! {
    /// What Msvm_ConcreteJob.RequestStateChange and the services' own state
    /// changes return.
    StateChangeReturn {
        /// Done.
        Completed = 0,
        /// This state cannot be asked for.
        NotSupported = 1,
        /// Tried and failed.
        Failed = 4,
        /// The state asked for is none.
        InvalidParameter = 5,
        /// Not from the state that it is in.
        InvalidTransition = 4097,
        /// No deadline can be given.
        TimeoutNotSupported = 4098,
    }
}

impl From<ErrorKind> for ServiceReturn {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::InvalidType => Self::InvalidType,
            ErrorKind::NotFound | ErrorKind::Exists | ErrorKind::InvalidParameter => {
                Self::InvalidParameter
            }
            ErrorKind::InvalidState => Self::InvalidState,
            ErrorKind::NotSupported => Self::NotSupported,
            ErrorKind::Timeout => Self::Timeout,
            // These families have no word for AccessDenied: faces answer it otherwise.
            ErrorKind::AccessDenied | ErrorKind::Cancelled | ErrorKind::Failed => Self::Failed,
        }
    }
}

impl From<ErrorKind> for ManagementReturn {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::InvalidType => Self::IncorrectDataType,
            ErrorKind::NotFound | ErrorKind::Exists | ErrorKind::InvalidParameter => {
                Self::InvalidParameter
            }
            ErrorKind::AccessDenied => Self::AccessDenied,
            ErrorKind::InvalidState => Self::InvalidState,
            ErrorKind::NotSupported => Self::NotSupported,
            ErrorKind::Timeout => Self::Timeout,
            ErrorKind::Cancelled | ErrorKind::Failed => Self::Failed,
        }
    }
}

impl From<ErrorKind> for StateChangeReturn {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::InvalidState => Self::InvalidTransition,
            ErrorKind::NotSupported => Self::NotSupported,
            ErrorKind::NotFound
            | ErrorKind::Exists
            | ErrorKind::InvalidParameter
            | ErrorKind::InvalidType
            | ErrorKind::AccessDenied
            | ErrorKind::Timeout
            | ErrorKind::Cancelled
            | ErrorKind::Failed => Self::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_refusal_has_its_number_in_each_family() {
        let table = [
            (ErrorKind::NotFound, 4, 32773, 4),
            (ErrorKind::Exists, 4, 32773, 4),
            (ErrorKind::InvalidParameter, 4, 32773, 4),
            (ErrorKind::InvalidType, 6, 32776, 4),
            (ErrorKind::InvalidState, 5, 32775, 4097),
            (ErrorKind::NotSupported, 1, 32770, 1),
            (ErrorKind::AccessDenied, 2, 32769, 4),
            (ErrorKind::Timeout, 3, 32772, 4),
            (ErrorKind::Cancelled, 2, 32768, 4),
            (ErrorKind::Failed, 2, 32768, 4),
        ];
        for (kind, service, management, state) in table {
            assert_eq!(u32::from(ServiceReturn::from(kind)), service, "{kind:?}");
            assert_eq!(
                u32::from(ManagementReturn::from(kind)),
                management,
                "{kind:?}"
            );
            assert_eq!(u32::from(StateChangeReturn::from(kind)), state, "{kind:?}");
        }
    }
}
