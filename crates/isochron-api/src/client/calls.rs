//! One method per operation. Things are named by identifier or by name.

use std::fmt::{self, Display};
use std::time::Duration;

use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{Client, ClientError};
use crate::dto::{
    Certificate, Collection, CollectionChange, ConvertSnapshot, Job, Machine, MachineChange,
    MachineSummary, NewCollection, NewExport, NewMachine, NewReferencePoint, NewSnapshot, NewUser,
    ReferencePoint, Snapshot, User, UserChange, Version,
};

/// A name as one segment of a path, or one value of a query.
struct Segment<'a>(&'a str);

impl Display for Segment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        utf8_percent_encode(self.0, NON_ALPHANUMERIC).fmt(f)
    }
}

const NO_WAIT: Duration = Duration::ZERO;

#[allow(
    missing_docs,
    reason = "each is the operation of its name; see the OpenAPI document"
)]
impl Client {
    pub async fn version(&self) -> Result<Version, ClientError> {
        self.get("/v1/version", NO_WAIT).await
    }

    pub async fn machines(&self) -> Result<Vec<MachineSummary>, ClientError> {
        self.get("/v1/machines", NO_WAIT).await
    }

    pub async fn machine(&self, name: &str) -> Result<Machine, ClientError> {
        self.get(&format!("/v1/machines/{}", Segment(name)), NO_WAIT)
            .await
    }

    pub async fn create_machine(&self, new: &NewMachine) -> Result<Machine, ClientError> {
        self.post("/v1/machines", new).await
    }

    pub async fn change_machine(
        &self,
        name: &str,
        change: &MachineChange,
    ) -> Result<Machine, ClientError> {
        self.patch(&format!("/v1/machines/{}", Segment(name)), change)
            .await
    }

    pub async fn undefine_machine(&self, name: &str) -> Result<(), ClientError> {
        self.act(
            Method::DELETE,
            &format!("/v1/machines/{}", Segment(name)),
            NO_WAIT,
        )
        .await
    }

    pub async fn start_machine(&self, name: &str) -> Result<Machine, ClientError> {
        self.act(
            Method::POST,
            &format!("/v1/machines/{}/start", Segment(name)),
            NO_WAIT,
        )
        .await
    }

    /// Asks the guest to shut down and waits so long for it.
    pub async fn shut_down_machine(
        &self,
        name: &str,
        wait: Duration,
    ) -> Result<Machine, ClientError> {
        let path = format!(
            "/v1/machines/{}/stop?wait={}",
            Segment(name),
            wait.as_secs_f64()
        );
        self.act(Method::POST, &path, wait).await
    }

    /// Ends the process without asking the guest.
    pub async fn kill_machine(&self, name: &str) -> Result<Machine, ClientError> {
        let path = format!("/v1/machines/{}/stop?force=true", Segment(name));
        self.act(Method::POST, &path, NO_WAIT).await
    }

    pub async fn save_machine(&self, name: &str) -> Result<Machine, ClientError> {
        let path = format!("/v1/machines/{}/save", Segment(name));
        self.act(Method::POST, &path, NO_WAIT).await
    }

    pub async fn pause_machine(&self, name: &str) -> Result<Machine, ClientError> {
        self.act(
            Method::POST,
            &format!("/v1/machines/{}/pause", Segment(name)),
            NO_WAIT,
        )
        .await
    }

    pub async fn resume_machine(&self, name: &str) -> Result<Machine, ClientError> {
        self.act(
            Method::POST,
            &format!("/v1/machines/{}/resume", Segment(name)),
            NO_WAIT,
        )
        .await
    }

    pub async fn collections(&self) -> Result<Vec<Collection>, ClientError> {
        self.get("/v1/collections", NO_WAIT).await
    }

    pub async fn collection(&self, name: &str) -> Result<Collection, ClientError> {
        self.get(&format!("/v1/collections/{}", Segment(name)), NO_WAIT)
            .await
    }

    pub async fn create_collection(&self, new: &NewCollection) -> Result<Collection, ClientError> {
        self.post("/v1/collections", new).await
    }

    pub async fn change_collection(
        &self,
        name: &str,
        change: &CollectionChange,
    ) -> Result<Collection, ClientError> {
        self.patch(&format!("/v1/collections/{}", Segment(name)), change)
            .await
    }

    pub async fn destroy_collection(&self, name: &str) -> Result<(), ClientError> {
        self.act(
            Method::DELETE,
            &format!("/v1/collections/{}", Segment(name)),
            NO_WAIT,
        )
        .await
    }

    /// All snapshots, or one collection's, oldest first.
    pub async fn snapshots(&self, collection: Option<&str>) -> Result<Vec<Snapshot>, ClientError> {
        match collection {
            None => self.get("/v1/snapshots", NO_WAIT).await,
            Some(name) => {
                self.get(
                    &format!("/v1/snapshots?collection={}", Segment(name)),
                    NO_WAIT,
                )
                .await
            }
        }
    }

    pub async fn snapshot(&self, name: &str) -> Result<Snapshot, ClientError> {
        self.get(&format!("/v1/snapshots/{}", Segment(name)), NO_WAIT)
            .await
    }

    pub async fn create_snapshot(&self, new: &NewSnapshot) -> Result<Job, ClientError> {
        self.post("/v1/snapshots", new).await
    }

    pub async fn apply_snapshot(&self, name: &str) -> Result<Job, ClientError> {
        self.act(
            Method::POST,
            &format!("/v1/snapshots/{}/apply", Segment(name)),
            NO_WAIT,
        )
        .await
    }

    pub async fn destroy_snapshot(&self, name: &str) -> Result<Job, ClientError> {
        self.act(
            Method::DELETE,
            &format!("/v1/snapshots/{}", Segment(name)),
            NO_WAIT,
        )
        .await
    }

    pub async fn export_snapshot(&self, name: &str, new: &NewExport) -> Result<Job, ClientError> {
        self.post(&format!("/v1/snapshots/{}/export", Segment(name)), new)
            .await
    }

    pub async fn convert_snapshot(
        &self,
        name: &str,
        convert: &ConvertSnapshot,
    ) -> Result<Job, ClientError> {
        self.post(&format!("/v1/snapshots/{}/convert", Segment(name)), convert)
            .await
    }

    /// All reference points, or one collection's, oldest first.
    pub async fn reference_points(
        &self,
        collection: Option<&str>,
    ) -> Result<Vec<ReferencePoint>, ClientError> {
        let path = match collection {
            None => "/v1/refpoints".to_owned(),
            Some(name) => format!("/v1/refpoints?collection={}", Segment(name)),
        };
        self.get(&path, NO_WAIT).await
    }

    pub async fn reference_point(&self, name: &str) -> Result<ReferencePoint, ClientError> {
        self.get(&format!("/v1/refpoints/{}", Segment(name)), NO_WAIT)
            .await
    }

    pub async fn create_reference_point(
        &self,
        new: &NewReferencePoint,
    ) -> Result<Job, ClientError> {
        self.post("/v1/refpoints", new).await
    }

    pub async fn export_reference_point(
        &self,
        name: &str,
        new: &NewExport,
    ) -> Result<Job, ClientError> {
        self.post(&format!("/v1/refpoints/{}/export", Segment(name)), new)
            .await
    }

    pub async fn forget_reference_point_data(&self, name: &str) -> Result<Job, ClientError> {
        let path = format!("/v1/refpoints/{}/data", Segment(name));
        self.act(Method::DELETE, &path, NO_WAIT).await
    }

    pub async fn destroy_reference_point(&self, name: &str) -> Result<Job, ClientError> {
        let path = format!("/v1/refpoints/{}", Segment(name));
        self.act(Method::DELETE, &path, NO_WAIT).await
    }

    pub async fn jobs(&self) -> Result<Vec<Job>, ClientError> {
        self.get("/v1/jobs", NO_WAIT).await
    }

    /// A job: when it has ended, or after so long (60 s at most) as it is then.
    pub async fn job(&self, id: &str, wait: Duration) -> Result<Job, ClientError> {
        let path = format!("/v1/jobs/{}?wait={}", Segment(id), wait.as_secs_f64());
        self.get(&path, wait).await
    }

    pub async fn cancel_job(&self, id: &str) -> Result<Job, ClientError> {
        self.act(
            Method::POST,
            &format!("/v1/jobs/{}/cancel", Segment(id)),
            NO_WAIT,
        )
        .await
    }
    pub async fn users(&self) -> Result<Vec<User>, ClientError> {
        self.get("/v1/users", NO_WAIT).await
    }

    pub async fn add_user(&self, new: &NewUser) -> Result<User, ClientError> {
        self.post("/v1/users", new).await
    }

    pub async fn change_user(&self, name: &str, change: &UserChange) -> Result<User, ClientError> {
        self.patch(&format!("/v1/users/{}", Segment(name)), change)
            .await
    }

    pub async fn remove_user(&self, name: &str) -> Result<(), ClientError> {
        let path = format!("/v1/users/{}", Segment(name));
        self.act(Method::DELETE, &path, NO_WAIT).await
    }

    pub async fn tls(&self) -> Result<Certificate, ClientError> {
        self.get("/v1/tls", NO_WAIT).await
    }
}
