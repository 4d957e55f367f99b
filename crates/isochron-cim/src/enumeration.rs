//! Enumerations that clients read in pages: DSP0200's pulled enumerations and
//! WS-Management's contexts.
//!
//! What holds: a context belongs to the caller and the namespace that opened it,
//! and nobody else learns that it is there; one page is read at a time; a context
//! that nobody uses for its timeout is gone, with what it held; there are no more
//! of them than [`EnumerationLimits`] allow. Of each sequence at most one instance
//! is held beyond what was asked for, which is how its end is known.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::stream::TryStreamExt;
use uuid::Uuid;

use crate::{CimError, Instance, InstanceStream, Name, RequestContext, Status, Value};

/// How many enumerations may be open, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct EnumerationLimits {
    /// Altogether.
    pub open: usize,
    /// By one caller.
    pub by_caller: usize,
    /// Instances in one page, whatever is asked for.
    pub page: usize,
    /// What the texts in a page may come to, in bytes. A page ends with the instance
    /// that exceeds this.
    pub page_bytes: usize,
    /// How long a context may be unused where its client does not say.
    pub default_timeout: Duration,
    /// The longest that a client may ask for.
    pub longest_timeout: Duration,
}

impl Default for EnumerationLimits {
    /// 256 altogether, 64 by one caller, 10,000 instances or 16 MiB in a page, one
    /// minute, and a quarter of an hour at most.
    fn default() -> Self {
        Self {
            open: 256,
            by_caller: 64,
            page: 10_000,
            page_bytes: 16 << 20,
            default_timeout: Duration::from_secs(60),
            longest_timeout: Duration::from_secs(900),
        }
    }
}

/// The open enumerations. `K` is what a protocol must know about one when its next
/// page is asked for: its kind.
#[derive(Debug)]
pub struct Enumerations<K> {
    limits: EnumerationLimits,
    open: Mutex<HashMap<String, Open<K>>>,
}

#[derive(Debug)]
struct Open<K> {
    owner: Owner,
    kind: K,
    timeout: Duration,
    state: State,
}

#[derive(Debug)]
enum State {
    Idle {
        rest: Box<Rest>,
        deadline: Instant,
    },
    /// A page is being read.
    Busy,
}

/// What is still to come.
struct Rest {
    stream: InstanceStream,
    /// Read already, to see whether there is more.
    ahead: Option<Instance>,
}

impl std::fmt::Debug for Rest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rest").finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Owner {
    caller: Option<String>,
    namespace: Name,
}

impl Owner {
    fn of(cx: &RequestContext) -> Self {
        Self {
            caller: cx.principal.name.clone(),
            namespace: crate::path::normal_namespace(&cx.namespace).into(),
        }
    }
}

/// Some of the instances of an enumeration.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The instances.
    pub instances: Vec<Instance>,
    /// By what to ask for more; `None` at the end.
    pub context: Option<String>,
}

impl<K: Clone> Enumerations<K> {
    /// None yet.
    pub fn new(limits: EnumerationLimits) -> Self {
        Self {
            limits,
            open: Mutex::default(),
        }
    }

    /// The timeout to use where a client asks for this many seconds, or for none.
    ///
    /// # Errors
    /// `INVALID_OPERATION_TIMEOUT` for 0 (never) and for more than the limit.
    pub fn timeout(&self, seconds: Option<u64>) -> Result<Duration, CimError> {
        let longest = self.limits.longest_timeout;
        match seconds.map(Duration::from_secs) {
            None => Ok(self.limits.default_timeout),
            Some(timeout) if !timeout.is_zero() && timeout <= longest => Ok(timeout),
            Some(_) => Err(CimError::new(
                Status::InvalidOperationTimeout,
                format!(
                    "enumerations stay open unused for 1 to {} s, not for less or ever",
                    longest.as_secs()
                ),
            )),
        }
    }

    /// The longest that an enumeration stays open unused.
    pub fn longest(&self) -> Duration {
        self.limits.longest_timeout
    }

    /// Opens an enumeration of the stream with its first page of `most` instances.
    ///
    /// # Errors
    /// The stream's; `SERVER_LIMITS_EXCEEDED` where there would be too many.
    pub async fn open(
        &self,
        cx: &RequestContext,
        stream: InstanceStream,
        kind: K,
        timeout: Duration,
        most: usize,
    ) -> Result<Page, CimError> {
        let fits = |_: &Instance| true;
        self.open_fitting(cx, stream, kind, timeout, most, fits)
            .await
    }

    /// The same with a page that ends before the first instance that does not fit.
    ///
    /// # Errors
    /// As of [`Enumerations::open`].
    pub async fn open_fitting(
        &self,
        cx: &RequestContext,
        stream: InstanceStream,
        kind: K,
        timeout: Duration,
        most: usize,
        fits: impl FnMut(&Instance) -> bool + Send,
    ) -> Result<Page, CimError> {
        let owner = Owner::of(cx);
        drop(self.room(&owner)?);
        let mut rest = Box::new(Rest {
            stream,
            ahead: None,
        });
        let (instances, more) = rest.read(most, self.limits, fits).await?;
        let context = match more {
            false => None,
            true => {
                let context = Uuid::new_v4().to_string();
                // Others may have come in the meantime.
                let mut open = self.room(&owner)?;
                let state = State::Idle {
                    rest,
                    deadline: Instant::now() + timeout,
                };
                open.insert(
                    context.clone(),
                    Open {
                        owner,
                        kind,
                        timeout,
                        state,
                    },
                );
                Some(context)
            }
        };
        Ok(Page { instances, context })
    }

    /// The next page of `most` instances. It begins the timeout anew, also with no
    /// instance. An error ends the enumeration.
    ///
    /// # Errors
    /// `INVALID_ENUMERATION_CONTEXT` if there is none of this kind for this caller
    /// in this namespace; `PULL_HAS_BEEN_ABANDONED` if it was closed meanwhile;
    /// `FAILED` if another page of it is being read; the stream's.
    pub async fn pull(
        &self,
        cx: &RequestContext,
        context: &str,
        kind: impl Fn(&K) -> bool,
        most: usize,
    ) -> Result<Page, CimError> {
        self.pull_fitting(cx, context, kind, most, |_: &Instance| true)
            .await
    }

    /// The same with a page that ends before the first instance that does not fit, which
    /// is the next page's first: a page that is empty before the end is one whose first
    /// instance is too large.
    ///
    /// # Errors
    /// As of [`Enumerations::pull`].
    pub async fn pull_fitting(
        &self,
        cx: &RequestContext,
        context: &str,
        kind: impl Fn(&K) -> bool,
        most: usize,
        fits: impl FnMut(&Instance) -> bool + Send,
    ) -> Result<Page, CimError> {
        let mut busy = self.take(cx, context, kind)?;
        let Some(rest) = &mut busy.rest else {
            return Err(unknown(context));
        };
        let (instances, more) = rest.read(most, self.limits, fits).await?;
        if !busy.put_back(more) {
            return Err(CimError::new(
                Status::PullHasBeenAbandoned,
                "the enumeration was closed while this page was read",
            ));
        }
        let context = more.then(|| context.to_owned());
        Ok(Page { instances, context })
    }

    /// Closes an enumeration; one of which a page is being read ends with that page.
    ///
    /// # Errors
    /// `INVALID_ENUMERATION_CONTEXT`.
    pub fn close(&self, cx: &RequestContext, context: &str) -> Result<(), CimError> {
        let mut open = self.current();
        find(&mut open, cx, context)?;
        open.remove(context);
        Ok(())
    }

    /// What kind of enumeration this is.
    ///
    /// # Errors
    /// `INVALID_ENUMERATION_CONTEXT`.
    pub fn kind(&self, cx: &RequestContext, context: &str) -> Result<K, CimError> {
        find(&mut self.current(), cx, context).map(|open| open.kind.clone())
    }

    /// Lets go of those that nobody has used for their timeout at this moment.
    pub fn expire(&self, now: Instant) {
        let expired = |open: &Open<K>| match &open.state {
            State::Idle { deadline, .. } => *deadline <= now,
            State::Busy => false,
        };
        self.lock().retain(|_, open| !expired(open));
    }

    /// How many are open.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Open<K>>> {
        // What holds the lock does not panic half way.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that are open and not expired.
    fn current(&self) -> MutexGuard<'_, HashMap<String, Open<K>>> {
        self.expire(Instant::now());
        self.lock()
    }

    fn room(&self, owner: &Owner) -> Result<MutexGuard<'_, HashMap<String, Open<K>>>, CimError> {
        let open = self.current();
        let own = open.values().filter(|o| o.owner.caller == owner.caller);
        if open.len() < self.limits.open && own.count() < self.limits.by_caller {
            return Ok(open);
        }
        Err(CimError::new(
            Status::ServerLimitsExceeded,
            format!(
                "too many enumerations are open ({} by one caller, {} altogether): \
                 close those that are not needed",
                self.limits.by_caller, self.limits.open
            ),
        ))
    }

    fn take<'a>(
        &'a self,
        cx: &RequestContext,
        context: &str,
        kind: impl Fn(&K) -> bool,
    ) -> Result<Taken<'a, K>, CimError> {
        let mut open = self.current();
        let found = find(&mut open, cx, context)?;
        if !kind(&found.kind) {
            return Err(CimError::new(
                Status::InvalidEnumerationContext,
                "the enumeration was opened by an operation of another kind",
            ));
        }
        match std::mem::replace(&mut found.state, State::Busy) {
            State::Idle { rest, .. } => Ok(Taken {
                enumerations: self,
                context: context.to_owned(),
                rest: Some(rest),
            }),
            State::Busy => Err(CimError::failed(
                "another page of the enumeration is being read: ask for one at a time",
            )),
        }
    }
}

/// An enumeration of which a page is being read. Dropped, it is closed: half a page
/// that nobody got cannot be read again.
struct Taken<'a, K: Clone> {
    enumerations: &'a Enumerations<K>,
    context: String,
    rest: Option<Box<Rest>>,
}

impl<K: Clone> Taken<'_, K> {
    /// Keeps it for the next page if there is `more`; false if it was closed.
    fn put_back(mut self, more: bool) -> bool {
        let mut open = self.enumerations.lock();
        let Some(found) = open.get_mut(&self.context) else {
            return false;
        };
        if more && let Some(rest) = self.rest.take() {
            found.state = State::Idle {
                rest,
                deadline: Instant::now() + found.timeout,
            };
        }
        true
    }
}

impl<K: Clone> Drop for Taken<'_, K> {
    fn drop(&mut self) {
        if self.rest.is_some() {
            self.enumerations.lock().remove(&self.context);
        }
    }
}

impl Rest {
    /// As many instances, as far as one page takes them, and whether there are more.
    async fn read(
        &mut self,
        most: usize,
        limits: EnumerationLimits,
        mut fits: impl FnMut(&Instance) -> bool + Send,
    ) -> Result<(Vec<Instance>, bool), CimError> {
        // A page without instances does not touch the source.
        let most = most.min(limits.page);
        if most == 0 {
            return Ok((Vec::new(), true));
        }
        let (mut instances, mut bytes) = (Vec::new(), 0);
        while instances.len() < most && bytes <= limits.page_bytes {
            let next = match self.ahead.take() {
                Some(ahead) => Some(ahead),
                None => self.stream.try_next().await?,
            };
            let Some(instance) = next else {
                return Ok((instances, false));
            };
            if !fits(&instance) {
                self.ahead = Some(instance);
                return Ok((instances, true));
            }
            bytes += text_bytes(&instance);
            instances.push(instance);
        }
        self.ahead = self.stream.try_next().await?;
        Ok((instances, self.ahead.is_some()))
    }
}

/// The bytes of the texts in an instance: what makes one large.
fn text_bytes(instance: &Instance) -> usize {
    fn of(value: &Value) -> usize {
        match value {
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().flatten().map(of).sum(),
            Value::Instance(instance) => text_bytes(instance),
            _ => 0,
        }
    }
    let values = instance.properties.values();
    values
        .filter_map(|property| property.value.value.as_ref())
        .map(of)
        .sum()
}

fn find<'a, K>(
    open: &'a mut HashMap<String, Open<K>>,
    cx: &RequestContext,
    context: &str,
) -> Result<&'a mut Open<K>, CimError> {
    let owner = Owner::of(cx);
    open.get_mut(context)
        .filter(|open| open.owner == owner)
        .ok_or_else(|| unknown(context))
}

fn unknown(context: &str) -> CimError {
    let start: String = context.chars().take(60).collect();
    CimError::new(
        Status::InvalidEnumerationContext,
        format!(
            "there is no enumeration {start:?}: it ended, was closed or was not used for too long"
        ),
    )
}

#[cfg(test)]
mod tests;
