//! How much clients may leave with us.

/// Bounds on what is kept for clients. Reaching one is
/// `CIM_ERR_SERVER_LIMITS_EXCEEDED`; nothing is changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Namespaces of clients.
    pub namespaces: usize,
    /// Classes in one namespace.
    pub classes: usize,
    /// Qualifier types in one namespace.
    pub qualifiers: usize,
    /// Stored instances in one namespace.
    pub instances: usize,
    /// The size of one class, qualifier type or instance as it is kept, in bytes.
    pub record: usize,
    /// Filters of indications.
    pub filters: usize,
    /// Destinations of indications.
    pub destinations: usize,
    /// Subscriptions to indications.
    pub subscriptions: usize,
    /// Indications that wait for one destination; beyond, the oldest are dropped.
    pub queue: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            namespaces: 256,
            classes: 10_000,
            qualifiers: 1_000,
            instances: 100_000,
            record: 1024 * 1024,
            filters: 1_000,
            destinations: 256,
            subscriptions: 1_000,
            queue: 4_096,
        }
    }
}
