//! One operation on its way to its response.
//!
//! It runs in a task of its own. A response that fits into one piece is handed over
//! whole, and an error before its end is a response of its own. A longer one is
//! handed over with its first piece and goes on being written while it is sent, so
//! that it never sits in memory: an error is then told after what was sent.

use std::sync::Weak;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::TryStreamExt;
use isochron_cim::{CimError, Principal};
use isochron_net::Place;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::reply::{Piece, Reply};
use crate::decode::Call;
use crate::encode::{self, Origin};
use crate::operations::{Answer, Items, Operations};

/// Bytes after which a piece of a response is sent.
const PIECE: usize = 64 * 1024;

/// For how long a response that is being sent waits for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sending {
    /// For the next instance from the provider.
    pub next: Duration,
    /// For the client to take a piece.
    pub taken: Duration,
}

/// What an operation needs beside the call.
pub(super) struct Answering {
    pub operations: Operations,
    pub principal: Principal,
    pub id: String,
    pub method: String,
    /// The server's name, as the client knows it.
    pub host: String,
    pub patience: Sending,
    /// The connection's place, which is busy until everything is sent.
    pub place: Weak<Place>,
}

type ReplyTo = oneshot::Sender<Result<Reply, CimError>>;

impl Answering {
    /// Carries out the call. If nobody waits for the reply any more, it is done all
    /// the same.
    pub async fn answer(self, call: Call, reply: ReplyTo) {
        let whole = match call {
            Call::Intrinsic {
                namespace,
                arguments,
            } => {
                let principal = self.principal.clone();
                let answer = self
                    .operations
                    .intrinsic(principal, namespace.clone(), &self.method, arguments)
                    .await;
                match answer {
                    Ok(Answer::Stream(items)) => return self.send(items, &namespace, reply).await,
                    Ok(answer) => Ok(self.intrinsic(answer, &namespace)),
                    Err(error) => Err(error),
                }
            }
            Call::Extrinsic { target, parameters } => self
                .operations
                .invoke(self.principal.clone(), target, &self.method, parameters)
                .await
                .map(|outcome| encode::methodresponse(&self.id, &self.method, &outcome)),
        };
        let _ = reply.send(whole.map(|xml| Reply::Whole(xml.into())));
    }

    fn intrinsic(&self, answer: Answer, namespace: &str) -> String {
        let (items, state) = match answer {
            Answer::Items(items) => (items, None),
            Answer::Page(items, state) => (items, Some(state)),
            // A stream is sent as it is made.
            Answer::Nothing | Answer::Stream(_) => {
                return encode::empty_imethodresponse(&self.id, &self.method);
            }
        };
        let origin = self.origin(namespace);
        encode::imethodresponse(&self.id, &self.method, &items, state.as_ref(), origin)
    }

    fn origin<'a>(&'a self, namespace: &'a str) -> Origin<'a> {
        Origin {
            host: &self.host,
            namespace,
        }
    }

    /// Writes the response to an operation that finds its result as it goes.
    async fn send(self, Items(mut items): Items, namespace: &str, reply: ReplyTo) {
        let origin = self.origin(namespace);
        let mut out = encode::begin_imethodresponse(&self.id, &self.method);
        while out.len() < PIECE {
            match items.try_next().await {
                Ok(Some(item)) => encode::item(&mut out, &item, origin),
                Ok(None) => {
                    encode::end_imethodresponse(&mut out, None);
                    let _ = reply.send(Ok(Reply::Whole(out.into())));
                    return;
                }
                Err(error) => {
                    let _ = reply.send(Err(error));
                    return;
                }
            }
        }
        let Some(_busy) = self.place.upgrade().map(|place| place.busy()) else {
            return;
        };
        // One piece waits while another is sent.
        let (sender, pieces) = mpsc::channel(1);
        let first = Bytes::from(std::mem::take(&mut out));
        if reply.send(Ok(Reply::Pieces(first, pieces))).is_err() {
            return;
        }
        loop {
            let mut last = None;
            match timeout(self.patience.next, items.try_next()).await {
                Ok(Ok(Some(item))) => {
                    encode::item(&mut out, &item, origin);
                    if out.len() < PIECE {
                        continue;
                    }
                }
                Ok(Ok(None)) => {
                    encode::end_imethodresponse(&mut out, None);
                    last = Some(Piece::End);
                }
                Ok(Err(error)) => last = Some(Piece::Failed(error)),
                Err(_) => {
                    let error = "what is still missing did not come in time";
                    last = Some(Piece::Failed(CimError::failed(error)));
                }
            }
            let data = Piece::Data(Bytes::from(std::mem::take(&mut out)));
            for piece in [data].into_iter().chain(last.take()) {
                let ended = !matches!(piece, Piece::Data(_));
                match timeout(self.patience.taken, sender.send(piece)).await {
                    Ok(Ok(())) if ended => return,
                    Ok(Ok(())) => {}
                    Ok(Err(_)) | Err(_) => {
                        let method = &self.method;
                        tracing::debug!(method, "a client did not take the whole response");
                        return;
                    }
                }
            }
        }
    }
}
