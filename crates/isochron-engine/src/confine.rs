//! Paths that callers name, confined to the directories that are open to them.
//!
//! The daemon reads and writes as its own user, mostly root; a path from a client
//! must not lend that power. [`Engine::confine`] is what every such path goes
//! through: it is resolved as the kernel would, symbolic links and `..` included,
//! and what comes out has to lie below one of [`Config::roots`]. What is used
//! afterwards is what came out, not what was named.
//!
//! What does not hold: whoever may write to a root can put a link into it between
//! the check and the use. Roots belong to root and to whom root trusts.

use std::io;
use std::path::{Component, Path, PathBuf};

use crate::model::Definition;
use crate::{Engine, EngineError, ErrorKind};

#[allow(unused_imports, reason = "for the links above")]
use crate::Config;

impl Engine {
    /// The path to use for one that the caller names, which may be of something
    /// that does not exist yet. An unconfined caller's stays as it is; of others,
    /// it is absolute and free of links when it comes back, and below a root.
    ///
    /// # Errors
    /// `InvalidParameter` a relative path; `AccessDenied` one that is not, or not
    /// for certain, below a root.
    ///
    /// ```ignore
    /// let directory = self.confine(&request.directory).await?;
    /// ```
    pub async fn confine(&self, path: &Path) -> Result<PathBuf, EngineError> {
        if self.caller().unconfined {
            return Ok(path.to_owned());
        }
        let (path, roots) = (path.to_owned(), self.config().roots.clone());
        let resolving = tokio::task::spawn_blocking(move || confine(&path, &roots));
        resolving.await.map_err(|error| {
            EngineError::failed(format!("a path could not be resolved: {error}"))
        })?
    }

    /// A definition whose paths are the caller's to name.
    ///
    /// # Errors
    /// `AccessDenied` a path that is not below a root, or an option of QEMU that
    /// names one without our knowing.
    pub(crate) async fn confine_definition(
        &self,
        definition: &mut Definition,
    ) -> Result<(), EngineError> {
        if self.caller().unconfined {
            return Ok(());
        }
        if !definition.extra_args.is_empty() {
            return Err(denied(
                "extra_args can name any file and run any program: only root may give them",
            ));
        }
        for nic in &definition.nics {
            check_netdev(&nic.netdev)?;
        }
        let disks = definition.disks.iter_mut().map(|disk| &mut disk.path);
        let others = [
            &mut definition.kernel,
            &mut definition.initrd,
            &mut definition.firmware,
            &mut definition.serial_log,
        ];
        for path in disks.chain(others.into_iter().flatten()) {
            *path = self.confine(path).await?;
        }
        Ok(())
    }
}

fn denied(message: impl std::fmt::Display) -> EngineError {
    EngineError::new(ErrorKind::AccessDenied, message)
}

/// Of QEMU's network back ends and their options, those that name no file and run
/// no program (qemu(1), `-netdev`).
fn check_netdev(netdev: &str) -> Result<(), EngineError> {
    const OPTIONS: [&str; 12] = [
        "id",
        "ipv4",
        "net",
        "host",
        "restrict",
        "hostname",
        "dhcpstart",
        "dns",
        "ipv6",
        "domainname",
        "hostfwd",
        "dnssearch",
    ];
    let mut parts = netdev.split(',');
    let allowed = parts.next() == Some("user")
        && parts.all(|part| {
            let name = part.split_once('=').map_or(part, |(name, _)| name);
            OPTIONS.contains(&name)
        });
    match allowed {
        true => Ok(()),
        false => Err(denied(format!(
            "netdev {netdev:?} can name files or programs of this host: only root may give it; \
             others may use \"user\" with {}",
            OPTIONS.join(", ")
        ))),
    }
}

/// Resolves a path and checks that it is below a root.
fn confine(path: &Path, roots: &[PathBuf]) -> Result<PathBuf, EngineError> {
    if !path.is_absolute() {
        return Err(EngineError::invalid(format!(
            "the path {} is not absolute",
            path.display()
        )));
    }
    let resolved =
        resolve(path).map_err(|error| denied(format!("the path {}: {error}", path.display())))?;
    let open = roots
        .iter()
        .filter_map(|root| root.canonicalize().ok())
        .any(|root| resolved.starts_with(&root) && resolved != root);
    if open {
        return Ok(resolved);
    }
    Err(denied(match roots.is_empty() {
        true => format!(
            "the path {} is not open to clients; no directory is: paths.roots of the \
             configuration names those that are",
            path.display()
        ),
        false => format!(
            "the path {} is not below a directory that is open to clients; paths.roots of the \
             configuration names those that are",
            path.display()
        ),
    }))
}

/// The path without links, as far as it exists; what does not exist yet must be
/// plain names.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    let mut missing = Vec::new();
    let mut existing = path;
    loop {
        match existing.canonicalize() {
            Ok(mut resolved) => {
                resolved.extend(missing.iter().rev());
                return Ok(resolved);
            }
            // A link whose target is missing is there, and would be followed.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    && existing.symlink_metadata().is_err() =>
            {
                let (Some(Component::Normal(name)), Some(parent)) =
                    (existing.components().next_back(), existing.parent())
                else {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidInput,
                        "\"..\" below a directory that does not exist",
                    ));
                };
                missing.push(name.to_owned());
                existing = parent;
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn paths_stay_below_the_roots() {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path().canonicalize().unwrap();
        for name in ["open/sub", "shut", "openly"] {
            std::fs::create_dir_all(top.join(name)).unwrap();
        }
        std::fs::write(top.join("shut/secret"), "s").unwrap();
        symlink(top.join("shut"), top.join("open/out")).unwrap();
        symlink("sub", top.join("open/in")).unwrap();
        symlink(top.join("nowhere"), top.join("open/dangling")).unwrap();
        symlink("loop", top.join("open/loop")).unwrap();
        symlink(top.join("open"), top.join("way")).unwrap();
        // A root that is itself a link counts as what it leads to.
        let roots = [top.join("way"), top.join("absent")];
        for (path, expected) in [
            ("open/new", Ok("open/new")),
            ("open/new/deeper", Ok("open/new/deeper")),
            ("open/sub", Ok("open/sub")),
            ("open/in/x", Ok("open/sub/x")),
            ("way/sub/x", Ok("open/sub/x")),
            ("open/sub/../y", Ok("open/y")),
            ("open/./z", Ok("open/z")),
            ("open", Err(ErrorKind::AccessDenied)),
            ("openly/x", Err(ErrorKind::AccessDenied)),
            ("shut/secret", Err(ErrorKind::AccessDenied)),
            ("open/out/secret", Err(ErrorKind::AccessDenied)),
            ("open/out/new", Err(ErrorKind::AccessDenied)),
            ("open/../shut/secret", Err(ErrorKind::AccessDenied)),
            ("open/sub/../../shut/x", Err(ErrorKind::AccessDenied)),
            ("open/in/../../shut/x", Err(ErrorKind::AccessDenied)),
            ("open/new/../../shut/secret", Err(ErrorKind::AccessDenied)),
            ("open/dangling", Err(ErrorKind::AccessDenied)),
            ("open/dangling/x", Err(ErrorKind::AccessDenied)),
            ("open/loop/x", Err(ErrorKind::AccessDenied)),
            ("absent/x", Err(ErrorKind::AccessDenied)),
        ] {
            let found = confine(&top.join(path), &roots).map_err(|error| error.kind);
            assert_eq!(found, expected.map(|path| top.join(path)), "{path}");
        }
        let relative = confine("open/new".as_ref(), &roots).unwrap_err();
        assert_eq!(relative.kind, ErrorKind::InvalidParameter);
        let none = confine(&top.join("open/new"), &[]).unwrap_err();
        assert!(none.message.contains("paths.roots"), "{none}");
    }

    #[test]
    fn network_back_ends_that_reach_files_or_programs_are_refused() {
        for (netdev, allowed) in [
            ("user", true),
            ("user,hostfwd=tcp:127.0.0.1:8080-:80", true),
            ("user,net=10.0.9.0/24,restrict=on", true),
            ("user,smb=/etc", false),
            ("user,tftp=/etc", false),
            ("user,guestfwd=tcp:10.0.2.100:1-cmd:/bin/sh", false),
            ("tap,script=/tmp/x", false),
            ("bridge,helper=/tmp/x", false),
            ("", false),
        ] {
            assert_eq!(check_netdev(netdev).is_ok(), allowed, "{netdev}");
        }
    }
}
