//! How a Subscribe asks for events to be delivered: everything in `wse:Delivery`
//! (DSP0226 §10.2).

use std::time::Duration;

use http::HeaderValue;
use isochron_net::basic_authorization;
use isochron_net::outgoing::{Outgoing, Retries};

use super::endpoint::Endpoint;
use crate::names::{EVENTING, WSMAN};
use crate::soap::{Charset, Credentials, ENVELOPE_MIN, Fault, Kind, Node, duration};

/// The delivery modes (DSP0226 §10.2.7; without one it is Push, WS-Eventing §3.1).
const PULL: &str = "http://schemas.dmtf.org/wbem/wsman/1/wsman/Pull";
const PUSH: &str = "http://schemas.xmlsoap.org/ws/2004/08/eventing/DeliveryModes/Push";
const PUSH_WITH_ACK: &str = "http://schemas.dmtf.org/wbem/wsman/1/wsman/PushWithAck";
const EVENTS: &str = "http://schemas.dmtf.org/wbem/wsman/1/wsman/Events";

/// What profiles of security begin with (DSP0226 annex C).
const PROFILES: &str = "http://schemas.dmtf.org/wbem/wsman/1/wsman/secprofile/";

/// The shortest time between heartbeats.
const HEARTBEAT_MIN: Duration = Duration::from_secs(1);
/// The longest that events are collected.
const COLLECTED_MOST: Duration = Duration::from_secs(3600);
/// Between two attempts, at least and at most, and how many there are at most.
const RETRY_MIN: Duration = Duration::from_millis(10);
const RETRY_MOST: Duration = Duration::from_secs(3600);
const RETRIES_MOST: u32 = 1000;

/// In what messages events come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// One in each.
    Push,
    /// One in each, which has to be acknowledged.
    PushWithAck,
    /// Several in each, which has to be acknowledged.
    Events {
        /// The most in one message.
        most: usize,
        /// How long they are collected.
        time: Duration,
    },
}

/// What becomes of an event that does not fit into a message (DSP0226 §10.2.9.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TooLarge {
    /// The subscription ends.
    CancelSubscription,
    /// It is left out.
    Skip,
    /// It is left out, and counted among those that were dropped.
    Notify,
}

/// How events are delivered by us.
pub(super) struct Delivery {
    pub(super) mode: Mode,
    pub(super) to: Endpoint,
    /// After how long without a message one is sent that says nothing.
    pub(super) heartbeats: Option<Duration>,
    pub(super) retries: Retries,
    /// The largest message, in bytes of UTF-8.
    pub(super) envelope: usize,
    pub(super) too_large: TooLarge,
}

/// Whether a Subscribe asks for events to be pulled.
///
/// # Errors
/// `DeliveryModeRequestedUnavailable`; there is no `wse:Delivery`.
pub(super) fn is_pulled(delivery: &Node) -> Result<bool, Fault> {
    match delivery.attribute("Mode").map(str::trim) {
        Some(PULL) => Ok(true),
        None | Some(PUSH | PUSH_WITH_ACK | EVENTS) => Ok(false),
        Some(other) => {
            let start: String = other.chars().take(200).collect();
            Err(Fault::new(
                Kind::DELIVERY_MODE,
                format!(
                    "there is no delivery mode {start:?}; there are {PULL}, {PUSH}, \
                     {PUSH_WITH_ACK} and {EVENTS}"
                ),
            ))
        }
    }
}

impl Delivery {
    /// Reads `wse:Delivery` of a mode other than Pull. `credentials` came with it.
    ///
    /// # Errors
    /// `UnsupportedFeature` with what of it is not here.
    pub(super) fn read(
        delivery: &Node,
        credentials: Option<&Credentials>,
        config: &Outgoing,
    ) -> Result<Self, Fault> {
        let mode = delivery.attribute("Mode").map(str::trim);
        let notify_to = delivery.child(EVENTING, "NotifyTo").ok_or_else(|| {
            Fault::unsupported("AddressingMode", "NotifyTo is missing: where events go")
        })?;
        let mut to = Endpoint::read("NotifyTo", notify_to, config)?;
        to.charset = charset(delivery)?;
        to.authorization = authorization(delivery, credentials, &to)?;
        let most = number(delivery, "MaxElements")?;
        let time = length(delivery, "MaxTime")?;
        let mode = match mode {
            Some(EVENTS) => Mode::Events {
                most: most.unwrap_or(usize::MAX),
                time: time.unwrap_or_default().min(COLLECTED_MOST),
            },
            _ if most.is_some() || time.is_some() => {
                return Err(Fault::unsupported(
                    "FormatMismatch",
                    format!("MaxElements and MaxTime are for the delivery mode {EVENTS}"),
                ));
            }
            Some(PUSH_WITH_ACK) => Mode::PushWithAck,
            _ => Mode::Push,
        };
        let (envelope, too_large) = envelope(delivery)?;
        Ok(Self {
            mode,
            to,
            heartbeats: heartbeats(delivery)?,
            retries: retries(delivery)?,
            envelope: envelope.min(config.message_max),
            too_large,
        })
    }

    /// Whether its messages have to be acknowledged.
    pub(super) fn is_acknowledged(&self) -> bool {
        self.mode != Mode::Push
    }
}

fn length(delivery: &Node, name: &str) -> Result<Option<Duration>, Fault> {
    let node = delivery.child(WSMAN, name);
    node.map(|node| duration(name, &node.text)).transpose()
}

fn number(delivery: &Node, name: &str) -> Result<Option<usize>, Fault> {
    let Some(node) = delivery.child(WSMAN, name) else {
        return Ok(None);
    };
    match node.value().parse() {
        Ok(number) if number > 0 => Ok(Some(number)),
        _ => Err(Fault::schema(format!("{name} is no number above 0"))),
    }
}

fn charset(delivery: &Node) -> Result<Charset, Fault> {
    let Some(node) = delivery.child(WSMAN, "ContentEncoding") else {
        return Ok(Charset::Utf8);
    };
    Charset::named(node.value())
        .map_err(|fault| Fault::unsupported("CharacterSet", format!("events: {}", fault.reason)))
}

/// The header by which we log in at the receiver (DSP0226 §10.2.1, `wsman:Auth`).
fn authorization(
    delivery: &Node,
    credentials: Option<&Credentials>,
    to: &Endpoint,
) -> Result<Option<HeaderValue>, Fault> {
    if let Some(auth) = delivery.child(WSMAN, "Auth") {
        let profile = auth.attribute("Profile").unwrap_or_default().trim();
        if !["http/basic", "https/basic"].contains(&profile.trim_start_matches(PROFILES)) {
            return Err(Fault::unsupported(
                "AuthorizationMode",
                "we log in at a receiver by Basic alone",
            ));
        }
        if credentials.is_none() {
            return Err(Fault::unsupported(
                "FormatSecurityToken",
                "the header wst:IssuedTokens has no user's name and password",
            ));
        }
    }
    let Some(Credentials { user, password }) = credentials else {
        return Ok(None);
    };
    if !to.destination().is_loopback() {
        return Err(Fault::unsupported(
            "InsecureAddress",
            "a password is not sent to another host without TLS",
        ));
    }
    let header = HeaderValue::try_from(basic_authorization(user, password));
    let mut header = header.map_err(|_| Fault::schema("the credentials are none"))?;
    header.set_sensitive(true);
    Ok(Some(header))
}

fn heartbeats(delivery: &Node) -> Result<Option<Duration>, Fault> {
    match length(delivery, "Heartbeats")? {
        Some(interval) if interval < HEARTBEAT_MIN => Err(Fault::unsupported(
            "Heartbeats",
            format!(
                "heartbeats are {} s apart at least",
                HEARTBEAT_MIN.as_secs()
            ),
        )),
        interval => Ok(interval),
    }
}

/// How often, and when, what fails is sent again (DSP0226 §10.2.3): what is asked for
/// within bounds.
fn retries(delivery: &Node) -> Result<Retries, Fault> {
    let Some(node) = delivery.child(WSMAN, "ConnectionRetry") else {
        return Ok(Retries::default());
    };
    let interval = duration("ConnectionRetry", &node.text)?.clamp(RETRY_MIN, RETRY_MOST);
    let attempts = match node.attribute("Total") {
        None => Retries::default().attempts,
        Some(total) => {
            let total: u64 = total
                .trim()
                .parse()
                .map_err(|_| Fault::schema("ConnectionRetry's Total is no number"))?;
            u32::try_from(total)
                .unwrap_or(RETRIES_MOST)
                .min(RETRIES_MOST)
        }
    };
    Ok(Retries {
        attempts,
        interval,
        interval_max: interval,
    })
}

fn envelope(delivery: &Node) -> Result<(usize, TooLarge), Fault> {
    let Some(node) = delivery.child(WSMAN, "MaxEnvelopeSize") else {
        return Ok((usize::MAX, TooLarge::CancelSubscription));
    };
    let size = number(delivery, "MaxEnvelopeSize")?.unwrap_or(usize::MAX);
    if size < ENVELOPE_MIN {
        return Err(Fault::unsupported(
            "MaxEnvelopeSize",
            format!("MaxEnvelopeSize is less than {ENVELOPE_MIN}"),
        ));
    }
    let policy = match node.attribute("Policy").map(str::trim) {
        None | Some("CancelSubscription") => TooLarge::CancelSubscription,
        Some("Skip") => TooLarge::Skip,
        Some("Notify") => TooLarge::Notify,
        Some(other) => {
            return Err(Fault::unsupported(
                "MaxEnvelopePolicy",
                format!("there is no policy {other:?} for events that are too large"),
            ));
        }
    };
    Ok((size, policy))
}
