//! What is done about messages that are not taken: they are sent again, after pauses
//! that get longer as long as nothing gets through, and given up in the end.

use std::time::{Duration, Instant};

use super::SendError;

/// How often, and when, a message is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries {
    /// How often one message is sent again before it is given up.
    pub attempts: u32,
    /// The time before it is sent again; doubled with every attempt, until the
    /// destination answers.
    pub interval: Duration,
    /// The longest that this time gets.
    pub interval_max: Duration,
}

impl Default for Retries {
    /// 10 attempts, after 1 s at first and after a minute at last.
    fn default() -> Self {
        Self {
            attempts: 10,
            interval: Duration::from_secs(1),
            interval_max: Duration::from_secs(60),
        }
    }
}

/// What is known of a destination's failures.
#[derive(Debug)]
pub struct Retrying {
    /// The destination, for the log.
    name: String,
    retries: Retries,
    /// How often the present message was sent in vain.
    attempts: u32,
    since: Option<Instant>,
    pause: Duration,
}

/// A message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// For how long nothing could be delivered.
    pub lasting: Duration,
    /// How long to wait now.
    pub pause: Duration,
    /// Whether the message is given up: the next is sent after the pause.
    pub given_up: bool,
}

impl Retrying {
    /// Of a destination of which nothing is known yet.
    pub fn new(name: String, retries: Retries) -> Self {
        Self {
            name,
            retries,
            attempts: 0,
            since: None,
            pause: retries.interval,
        }
    }

    /// Takes note of what came of sending a message, and says what to do if it could not
    /// be delivered. One that is refused is done with as one that is taken is.
    pub fn note(&mut self, outcome: &Result<(), SendError>) -> Option<Failure> {
        let destination = &self.name;
        let Err(SendError::Unreachable(error)) = outcome else {
            if let Err(error) = outcome {
                tracing::warn!(destination, %error, "it does not want a message");
            }
            if let Some(since) = self.since.take() {
                let after = since.elapsed();
                tracing::info!(destination, ?after, "it answers again");
            }
            self.pause = self.retries.interval;
            self.attempts = 0;
            return None;
        };
        let since = *self.since.get_or_insert_with(|| {
            tracing::warn!(destination, error, "messages cannot be delivered");
            Instant::now()
        });
        let given_up = self.attempts >= self.retries.attempts;
        if given_up {
            tracing::warn!(destination, error, "a message is given up");
            self.attempts = 0;
        } else {
            self.attempts += 1;
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(self.retries.interval_max);
        Some(Failure {
            lasting: since.elapsed(),
            pause,
            given_up,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_get_longer_until_it_answers_and_a_message_is_given_up() {
        let retries = Retries {
            attempts: 2,
            interval: Duration::from_secs(1),
            interval_max: Duration::from_secs(3),
        };
        let mut retrying = Retrying::new("there".into(), retries);
        let mut note = |outcome: Result<(), SendError>| {
            let failure = retrying.note(&outcome)?;
            Some((failure.pause.as_secs(), failure.given_up))
        };
        let fails = || Err(SendError::Unreachable("gone".into()));
        assert_eq!(note(Ok(())), None);
        assert_eq!(note(fails()), Some((1, false)));
        assert_eq!(note(fails()), Some((2, false)));
        assert_eq!(note(fails()), Some((3, true)));
        // The next message; the destination still does not answer.
        assert_eq!(note(fails()), Some((3, false)));
        assert_eq!(note(Err(SendError::Refused("no".into()))), None);
        assert_eq!(note(fails()), Some((1, false)));
    }
}
