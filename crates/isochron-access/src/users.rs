//! The users, kept as records `user/NAME` of the engine's store.
//!
//! This process is the only one that writes them, so they are read from memory: who
//! is there is known without waiting. Names are told apart by case.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use isochron_engine::ports::{Batch, Check, Store, StoreError, Write};
use isochron_engine::{Engine, EngineError, ErrorKind, Operation, Role};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::sync::Mutex;

use crate::password::{self, Hashing, Password};

const PREFIX: &str = "user/";

/// The longest name, in bytes.
const NAME_MAX: usize = 64;

/// A user, as others see them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// Since when they have the password that they have.
    pub password_set: OffsetDateTime,
    /// Whether they may also prove it by NTLM.
    pub ntlm: bool,
}

/// A user's record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) name: String,
    pub(crate) role: Role,
    /// Argon2id's, in the PHC string format.
    pub(crate) hash: String,
    #[serde(with = "time::serde::rfc3339")]
    password_set: OffsetDateTime,
    /// The NT hash, for who is to prove their password by NTLM: 32 hexadecimal digits.
    /// Whoever has it can log in with it, by NTLM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) nt_hash: Option<String>,
}

impl From<&Kept> for User {
    fn from(kept: &Kept) -> Self {
        Self {
            name: kept.name.clone(),
            role: kept.role,
            password_set: kept.password_set,
            ntlm: kept.nt_hash.is_some(),
        }
    }
}

/// All users.
pub struct Users {
    store: Arc<dyn Store>,
    known: RwLock<BTreeMap<String, Arc<Kept>>>,
    /// One change at a time, from what it reads to what it writes.
    changing: Mutex<()>,
    pub(crate) hashing: Hashing,
}

impl Users {
    /// Reads the users of a store.
    ///
    /// # Errors
    /// `Failed`: the store, or a record that is none.
    pub async fn open(store: Arc<dyn Store>) -> Result<Self, EngineError> {
        let mut known = BTreeMap::new();
        for record in store.list(PREFIX).await? {
            let user: Kept = serde_json::from_slice(&record.value)
                .map_err(|error| failed(format!("the record {}: {error}", record.key)))?;
            known.insert(user.name.clone(), Arc::new(user));
        }
        Ok(Self {
            store,
            known: RwLock::new(known),
            changing: Mutex::default(),
            hashing: Hashing::new(),
        })
    }

    /// All users, by name.
    ///
    /// # Errors
    /// `AccessDenied` to others than administrators.
    pub fn list(&self, engine: &Engine) -> Result<Vec<User>, EngineError> {
        engine.caller().require(Role::Administrator)?;
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        Ok(known.values().map(|user| User::from(&**user)).collect())
    }

    /// Whether there is any user.
    pub fn is_empty(&self) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.is_empty()
    }

    /// Adds a user; with `ntlm`, one who may prove their password by NTLM too, for which
    /// its NT hash is kept.
    ///
    /// # Errors
    /// `AccessDenied`, `Exists`, `InvalidParameter` (the name or the password), `Failed`.
    pub async fn add(
        &self,
        engine: &Engine,
        name: &str,
        role: Role,
        password: String,
        ntlm: bool,
    ) -> Result<User, EngineError> {
        let password = Password::new(password);
        let adding = async {
            check_name(name)?;
            password::check(&password)?;
            let exists = || {
                let message = format!("there is a user {name:?} already");
                Err(EngineError::new(ErrorKind::Exists, message))
            };
            if self.get(name).is_some() {
                return exists();
            }
            let nt_hash = ntlm.then(|| password::nt_hash(&password));
            let hash = self.hashing.hash(password).await?;
            let _changing = self.changing.lock().await;
            if self.get(name).is_some() {
                return exists();
            }
            self.put(Kept {
                name: name.to_owned(),
                role,
                hash,
                password_set: now(),
                nt_hash,
            })
            .await
        };
        let target = format!("user {name:?} as {role}");
        engine.perform(Operation::AddUser, target, adding).await
    }

    /// Gives a user another password; with `ntlm`, one that they may prove by NTLM too.
    /// What they proved with the old one counts no more.
    ///
    /// # Errors
    /// `AccessDenied`, `NotFound`, `InvalidParameter` (the password), `Failed`.
    pub async fn set_password(
        &self,
        engine: &Engine,
        name: &str,
        password: String,
        ntlm: bool,
    ) -> Result<User, EngineError> {
        let password = Password::new(password);
        let setting = async {
            password::check(&password)?;
            self.existing(name)?;
            let nt_hash = ntlm.then(|| password::nt_hash(&password));
            let hash = self.hashing.hash(password).await?;
            let _changing = self.changing.lock().await;
            let user = self.existing(name)?;
            self.put(Kept {
                hash,
                password_set: now(),
                nt_hash,
                ..(*user).clone()
            })
            .await
        };
        let target = format!("user {name:?}");
        engine
            .perform(Operation::ChangePassword, target, setting)
            .await
    }

    /// Gives a user another role, from their next request on.
    ///
    /// # Errors
    /// `AccessDenied`, `NotFound`, `Failed`.
    pub async fn set_role(
        &self,
        engine: &Engine,
        name: &str,
        role: Role,
    ) -> Result<User, EngineError> {
        let setting = async {
            let _changing = self.changing.lock().await;
            let user = self.existing(name)?;
            self.put(Kept {
                role,
                ..(*user).clone()
            })
            .await
        };
        let target = format!("user {name:?} to {role}");
        engine.perform(Operation::ChangeRole, target, setting).await
    }

    /// Removes a user, whose next request is refused.
    ///
    /// # Errors
    /// `AccessDenied`, `NotFound`, `Failed`.
    pub async fn remove(&self, engine: &Engine, name: &str) -> Result<(), EngineError> {
        let removing = async {
            let _changing = self.changing.lock().await;
            self.existing(name)?;
            let writes = vec![Write::Delete(key(name))];
            let batch = Batch {
                checks: Vec::new(),
                writes,
            };
            self.store.commit(batch).await?;
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            known.remove(name);
            Ok(())
        };
        let target = format!("user {name:?}");
        engine
            .perform(Operation::RemoveUser, target, removing)
            .await
    }

    /// The user of this name.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<Kept>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(name).cloned()
    }

    fn existing(&self, name: &str) -> Result<Arc<Kept>, EngineError> {
        self.get(name).ok_or_else(|| {
            EngineError::new(ErrorKind::NotFound, format!("there is no user {name:?}"))
        })
    }

    /// Writes a user, into the store first.
    async fn put(&self, user: Kept) -> Result<User, EngineError> {
        let key = key(&user.name);
        let checks = match self.get(&user.name) {
            Some(_) => Vec::new(),
            None => vec![Check {
                key: key.clone(),
                revision: None,
            }],
        };
        let value = serde_json::to_vec(&user).map_err(failed)?;
        let writes = vec![Write::Put(key, value)];
        match self.store.commit(Batch { checks, writes }).await {
            Err(StoreError::Conflict(key)) => {
                return Err(failed(format!("{key} was written by somebody else")));
            }
            committed => committed?,
        };
        let seen = User::from(&user);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(user.name.clone(), Arc::new(user));
        Ok(seen)
    }
}

fn key(name: &str) -> String {
    format!("{PREFIX}{name}")
}

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

fn failed(message: impl std::fmt::Display) -> EngineError {
    EngineError::new(ErrorKind::Failed, message)
}

/// Whether a user may be called so: what needs no quoting anywhere, and no colon,
/// which ends the name in Basic credentials (RFC 7617 §2).
pub(crate) fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._@+-".contains(c);
    (1..=NAME_MAX).contains(&name.len())
        && name.chars().all(plain)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
}

fn check_name(name: &str) -> Result<(), EngineError> {
    if is_name(name) {
        return Ok(());
    }
    Err(EngineError::new(
        ErrorKind::InvalidParameter,
        format!(
            "{name:?} is no user's name: letters, digits, and . _ @ + - behind the first, \
             {NAME_MAX} at most"
        ),
    ))
}
