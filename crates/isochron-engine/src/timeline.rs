//! Steps on a timeline: spans of the crate `tracing` under one target, for whoever
//! wants to see where a cut's time goes.
//!
//! A step lasts from where it is made to where it is dropped, across awaits. One
//! with a machine belongs to that machine's line, the others to the engine's.
//! While nobody listens to the target a step is one comparison. The span `window`
//! is open while guests stand still for a cut: a listener does nothing slow then.

/// The target of all spans and events of the timeline.
pub const TIMELINE: &str = "isochron::timeline";

/// A step of the engine's, or of a machine's by that name.
macro_rules! step {
    ($name:literal) => {
        tracing::trace_span!(target: $crate::timeline::TIMELINE, parent: None, $name)
    };
    ($name:literal, $machine:expr) => {
        tracing::trace_span!(
            target: $crate::timeline::TIMELINE,
            parent: None,
            $name,
            machine = %$machine
        )
    };
}

pub(crate) use step;
