//! Passwords that were proved right not long ago, so that not every request of a
//! client pays for Argon2.
//!
//! Per user, one keyed hash under a key of this process alone, which never leaves
//! memory. It counts only with the very hash that the user's record had then: another
//! password, or another user of the same name, and it is worth nothing.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use isochron_engine::{EngineError, ErrorKind};
use ring::hmac::{self, HMAC_SHA256, Key};
use ring::rand::SystemRandom;
use tokio::time::Instant;

use crate::users::Kept;

/// For how long one is remembered beyond its last use.
const MEMORY: Duration = Duration::from_secs(15 * 60);

pub(crate) struct Remembered {
    key: Key,
    entries: Mutex<HashMap<String, Entry>>,
}

struct Entry {
    tag: hmac::Tag,
    hash: String,
    until: Instant,
}

impl Remembered {
    pub(crate) fn new() -> Result<Self, EngineError> {
        let key = Key::generate(HMAC_SHA256, &SystemRandom::new())
            .map_err(|_| EngineError::new(ErrorKind::Failed, "there is no randomness"))?;
        Ok(Self {
            key,
            entries: Mutex::default(),
        })
    }

    /// What stands for a password in this process.
    pub(crate) fn tag(&self, password: &str) -> hmac::Tag {
        hmac::sign(&self.key, password.as_bytes())
    }

    /// This password was proved to be this user's.
    pub(crate) fn remember(&self, user: &Kept, password: &str) {
        let entry = Entry {
            tag: self.tag(password),
            hash: user.hash.clone(),
            until: Instant::now() + MEMORY,
        };
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.insert(user.name.clone(), entry);
    }

    /// Whether this password was proved to be this user's.
    pub(crate) fn knows(&self, user: &Kept, password: &str) -> bool {
        let now = Instant::now();
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = entries.get_mut(&user.name) else {
            return false;
        };
        if entry.hash != user.hash || entry.until <= now {
            entries.remove(&user.name);
            return false;
        }
        // In constant time.
        let same = hmac::verify(&self.key, password.as_bytes(), entry.tag.as_ref()).is_ok();
        if same {
            entry.until = now + MEMORY;
        }
        same
    }
}
