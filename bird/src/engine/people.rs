//! People and their programs: the control sockets, and the socket for questions about peers and routes.

use bird_speaker::Input;
use mio::Token;

use super::Engine;
use crate::api::World;
use crate::view;

impl Engine {
    pub(super) fn serve_control(&mut self, token: Token) {
        let times = view::Times { started: self.started, configured: self.configured };
        let speaker = self.speaker.as_ref();
        let (recovering, kernel) = (self.recovering, &self.kernel);
        let mut orders = Vec::new();
        self.control.ready(
            token,
            self.poll.registry(),
            &mut self.tokens,
            &|| view::of(speaker, &times, recovering),
            &|family, limit| view::routes(speaker, kernel, family, limit),
            &mut orders,
        );
        for command in orders {
            tracing::info!(?command, "asked for on the control socket");
            self.input(Input::Command(command));
        }
    }

    /// Something happened on the socket for questions, or at one of its clients.
    pub(super) fn serve_api(&mut self, token: Token) {
        self.api.ready(token, self.poll.registry(), &mut self.tokens);
    }

    /// A slice of work on answers, if there are any to make.
    pub(super) fn answer(&mut self) {
        if !self.api.is_busy() {
            return;
        }
        let world = World {
            speaker: self.speaker.as_ref(),
            kernel: &self.kernel,
            fib: &self.fib,
            watch: &self.watch,
            discovery: &self.discovery,
            times: view::Times { started: self.started, configured: self.configured },
            now: self.origin.elapsed(),
        };
        self.api.work(&world, self.poll.registry());
    }
}
