//! Peers that are found: what discovery says becomes the configuration, and a dead link ends its session.

use bird_speaker::Input;
use bird_speaker::fsm::State;
use bird_speaker::io::{Command, Witness};

use super::Engine;

impl Engine {
    /// Follows what was found, where anything changed.
    pub(super) fn discover(&mut self) {
        if self.stopping {
            return;
        }
        let speaker = self.speaker.as_ref();
        let session =
            |name: &str| speaker.is_some_and(|speaker| speaker.peer_state(name) == Some(State::Established));
        let outcome = self.discovery.look(&self.kernel, session);
        for peer in outcome.cut_off {
            self.input(Input::Command(Command::Unreachable { peer, why: Witness::Link }));
        }
        if let Some(plan) = outcome.plan {
            let configured = self.configured;
            self.follow(*plan);
            self.configured = configured;
        }
    }
}
