//! How an endpoint is, for its status key.

/// What is reported of one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Calico's word.
    pub state: State,
    /// Why it is not up, for people.
    pub reason: Option<String>,
}

/// Calico's three words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Programmed, and its link can carry packets.
    Up,
    /// Its link is not there, or down.
    Down,
    /// Something has to be mended.
    Error,
}

impl State {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Error => "error",
        }
    }
}

impl Status {
    pub(crate) fn up() -> Self {
        Self { state: State::Up, reason: None }
    }

    pub(crate) fn down(reason: impl Into<String>) -> Self {
        Self { state: State::Down, reason: Some(reason.into()) }
    }

    pub(crate) fn error(reason: impl Into<String>) -> Self {
        Self { state: State::Error, reason: Some(reason.into()) }
    }
}
