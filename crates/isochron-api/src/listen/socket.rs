//! The unix socket: whoever it belongs to is an administrator, nobody else gets in.
//!
//! It belongs to root, to the daemon's own user, and to one group, if there is one
//! ([`Group`]). The kernel keeps others out by the socket's mode (0660, or 0600 without
//! a group); who gets to connect nevertheless, because somebody changed the mode, is
//! judged by what the kernel says of them (SO_PEERCRED), and told why they are refused.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::IntoResponse;
use http::StatusCode;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use isochron_access::AuditLog;
use isochron_engine::{Caller, Role};
use nix::unistd::{Gid, Uid, User, getgrouplist};
use tokio::net::unix::UCred;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::GRACE;
use crate::ApiError;
use crate::dto::ErrorKind;

/// The name of the face on the unix socket.
const FACE: &str = "unix";

/// Connections served at once; further ones wait.
const CONNECTIONS: usize = 256;

/// For how long a request's head may be on its way, and a connection idle.
const HEADER_TIME: Duration = Duration::from_secs(60);

/// A group whose members the socket is open to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    name: String,
    id: Gid,
}

impl Group {
    /// The group of this name, if there is one. Blocks.
    ///
    /// # Errors
    /// The system's database of groups cannot be read.
    pub fn find(name: &str) -> io::Result<Option<Self>> {
        let found = nix::unistd::Group::from_name(name)?;
        Ok(found.map(|group| Self {
            name: group.name,
            id: group.gid,
        }))
    }
}

/// A bound unix socket. Its file is removed when this is dropped.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    group: Option<Group>,
}

impl Socket {
    /// Binds, with its mode and group from the first moment. A socket file that nobody
    /// answers on is replaced; missing directories are made.
    ///
    /// # Errors
    /// `AddrInUse` when someone answers there, `AlreadyExists` when the path is
    /// something else than a socket, `PermissionDenied` when it cannot be given to the
    /// group, and what the system says.
    pub async fn bind(path: &Path, group: Option<Group>) -> io::Result<Self> {
        match tokio::fs::symlink_metadata(path).await {
            Ok(there) if !there.file_type().is_socket() => {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    format!("{} exists and is not a socket", path.display()),
                ));
            }
            Ok(_) => match UnixStream::connect(path).await {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(error),
                Ok(_) => {
                    return Err(io::Error::new(
                        io::ErrorKind::AddrInUse,
                        format!("another daemon answers on {}", path.display()),
                    ));
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if let Some(directory) = path.parent() {
            tokio::fs::create_dir_all(directory).await?;
        }
        // Under another name first, so that nobody meets it with a wider mode.
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}", std::process::id()));
        let fresh = path.with_file_name(name);
        let listener = UnixListener::bind(&fresh)?;
        let mode = if group.is_some() { 0o660 } else { 0o600 };
        let placed = async {
            tokio::fs::set_permissions(&fresh, Permissions::from_mode(mode)).await?;
            if let Some(Group { name, id }) = &group {
                std::os::unix::fs::chown(&fresh, None, Some(id.as_raw())).map_err(|error| {
                    let message = format!("it cannot be given to the group {name}: {error}");
                    io::Error::new(error.kind(), message)
                })?;
            }
            tokio::fs::rename(&fresh, path).await
        };
        if let Err(error) = placed.await {
            let _ = std::fs::remove_file(&fresh);
            return Err(error);
        }
        Ok(Self {
            listener,
            path: path.to_owned(),
            group,
        })
    }

    /// Serves until `shutdown` is ready, then lets requests end within a bound. Whom
    /// the socket is not open to is told so, and the log is told.
    pub async fn serve(
        self,
        router: Router,
        audit: Option<Arc<AuditLog>>,
        shutdown: impl Future<Output = ()>,
    ) {
        let doors = Arc::new(Doors {
            router,
            group: self.group.clone(),
            audit,
        });
        serve(&self.listener, doors, shutdown).await;
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// What is behind the socket, and for whom.
struct Doors {
    router: Router,
    group: Option<Group>,
    audit: Option<Arc<AuditLog>>,
}

impl Doors {
    /// What answers a process that connected. Reads the system's databases: blocks.
    fn open(&self, peer: UCred) -> Router {
        let name = user_name(peer.uid());
        if self.belongs_to(peer) {
            // Only root and who the daemon runs as could reach every path by themselves.
            let caller = Caller {
                name: Some(name),
                role: Role::Administrator,
                face: FACE,
                address: None,
                unconfined: is_own(peer.uid()),
            };
            return self.router.clone().layer(axum::Extension(caller));
        }
        if let Some(audit) = &self.audit {
            let why = "the socket does not belong to this user";
            audit.login_refused(Some(&name), FACE, None, why);
        }
        let members = self.group.as_ref().map_or_else(String::new, |group| {
            format!(", and to members of the group {}", group.name)
        });
        let message = format!(
            "{name} may not use this socket: it is open to root and to the daemon's own \
             user{members}"
        );
        Router::new().fallback(async move || {
            ApiError::new(StatusCode::FORBIDDEN, ErrorKind::Forbidden, message).into_response()
        })
    }

    fn belongs_to(&self, peer: UCred) -> bool {
        let Some(group) = &self.group else {
            return is_own(peer.uid());
        };
        is_own(peer.uid()) || peer.gid() == group.id.as_raw() || groups(peer).contains(&group.id)
    }
}

fn is_own(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

fn user(uid: u32) -> Option<User> {
    User::from_uid(Uid::from_raw(uid)).ok().flatten()
}

fn user_name(uid: u32) -> String {
    user(uid).map_or_else(|| format!("uid {uid}"), |user| user.name)
}

/// The groups that a user is in, by the system's database.
fn groups(peer: UCred) -> Vec<Gid> {
    let name = user(peer.uid()).and_then(|user| std::ffi::CString::new(user.name).ok());
    let groups = name.map(|name| getgrouplist(&name, Gid::from_raw(peer.gid())));
    groups.and_then(Result::ok).unwrap_or_default()
}

/// Accepts and serves connections until `shutdown` is ready.
async fn serve(listener: &UnixListener, doors: Arc<Doors>, shutdown: impl Future<Output = ()>) {
    let connections = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut shutdown = pin!(shutdown);
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            next = next => next,
            () = &mut shutdown => break,
        };
        match (place, accepted) {
            (Ok(place), Ok((stream, _))) => answer(stream, &doors, &connections, place),
            (_, Err(error)) => {
                // Out of descriptors, or the peer is gone already.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            // Nobody closes the semaphore.
            (Err(_), Ok(_)) => break,
        }
    }
    if tokio::time::timeout(GRACE, connections.shutdown())
        .await
        .is_err()
    {
        tracing::info!("requests that were still under way are given up");
    }
}

/// Serves one connection in a task of its own.
fn answer(
    stream: UnixStream,
    doors: &Arc<Doors>,
    connections: &GracefulShutdown,
    place: OwnedSemaphorePermit,
) {
    let doors = Arc::clone(doors);
    let watcher = connections.watcher();
    tokio::spawn(async move {
        let opening = async {
            let peer = stream.peer_cred()?;
            let opened = tokio::task::spawn_blocking(move || doors.open(peer)).await;
            opened.map_err(io::Error::other)
        };
        let router = match opening.await {
            Ok(router) => router,
            Err(error) => {
                tracing::warn!(%error, "a connection's other end could not be told");
                return;
            }
        };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIME)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
        if let Err(error) = watcher.watch(connection).await {
            tracing::debug!(%error, "a connection ended early");
        }
        drop(place);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/api.sock");
        let first = Socket::bind(&path, None).await.unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let error = Socket::bind(&path, None).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(path.exists());

        // As a killed daemon leaves it: the file without a listener.
        let stale = directory.path().join("stale.sock");
        drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
        assert!(stale.exists());
        let second = Socket::bind(&stale, None).await.unwrap();
        UnixStream::connect(&stale).await.unwrap();

        drop((first, second));
        assert!(!path.exists() && !stale.exists());
        let left = std::fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(left, 0);
    }

    #[tokio::test]
    async fn what_is_not_a_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "precious").unwrap();
        assert!(Socket::bind(&path, None).await.is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
