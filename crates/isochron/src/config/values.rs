//! Values of the configuration that TOML has no type for: addresses that may be
//! off, durations with a unit, and roles that may be nobody's.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use isochron_engine::Role;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Where a TCP listener is, or that there is none: `127.0.0.1:5988`,
/// `localhost:5988`, `off` or an empty text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address(pub Option<SocketAddr>);

impl std::str::FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() || text == "off" {
            return Ok(Self(None));
        }
        let numeric = match text.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None => text.to_owned(),
        };
        numeric
            .parse()
            .map(|address| Self(Some(address)))
            .map_err(|_| format!("\"{text}\" is no address: ADDRESS:PORT or \"off\""))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("off"),
        }
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// The role of those who do not say who they are; `off`, and they are nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anonymous(pub Option<Role>);

impl Serialize for Anonymous {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.map_or("off", Role::as_str))
    }
}

impl<'de> Deserialize<'de> for Anonymous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "off" {
            return Ok(Self(None));
        }
        let role = text.parse();
        role.map(|role| Self(Some(role))).map_err(de::Error::custom)
    }
}

/// A duration: `"10s"`, `"500ms"`, `"1m 30s"`, or a number of milliseconds; never
/// nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(self.0))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Duration;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as \"10s\" or \"500ms\", or milliseconds")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
                humantime::parse_duration(text)
                    .map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
            }

            fn visit_i64<E: de::Error>(self, ms: i64) -> Result<Duration, E> {
                u64::try_from(ms)
                    .map(Duration::from_millis)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(ms), &self))
            }
        }

        let duration = deserializer.deserialize_any(Visitor)?;
        match duration.is_zero() {
            true => Err(de::Error::custom(
                "a duration of nothing leaves no time for anything",
            )),
            false => Ok(Self(duration)),
        }
    }
}
