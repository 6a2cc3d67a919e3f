//! What felix reports through the datastore.

use crate::json::{record, text_enum};

/// A status value.
#[derive(Debug, Clone, PartialEq)]
pub enum Status {
    /// The agent's own report.
    Felix(FelixStatusReport),
    /// A workload's or a host's endpoint.
    Endpoint(EndpointStatus),
}

text_enum! {
    /// Whether an endpoint is programmed and its interface up.
    pub enum EndpointState { Up = "up", Down = "down", Error = "error", }
}

record! {
    /// The agent's own report.
    pub struct FelixStatusReport {
        /// When it was written, RFC 3339.
        pub time: Option<String>,
        /// Seconds since the agent started.
        pub uptime: Option<f64>,
        /// Whether it is the first report since the start.
        #[serde(rename = "first_update")]
        pub first_update: Option<bool>,
    }
    /// An endpoint's status.
    pub struct EndpointStatus {
        /// up, down or error.
        pub status: Option<EndpointState>,
    }
}
