//! BFD of the peers: who is watched, and what follows when one is gone.

use std::time::Instant;

use bird_speaker::Input;
use bird_speaker::io::Command;

use super::Engine;

impl Engine {
    /// Lets BFD follow the speaker's peers, where anything changed.
    pub(super) fn watch_peers(&mut self) {
        if self.stopping {
            return;
        }
        let now = self.elapsed();
        let Self { speaker, watch, kernel, .. } = self;
        if watch.stale
            && let Some(speaker) = speaker
        {
            watch.follow(speaker.watched(now), |name| kernel.link_index(name));
            self.tell_bfd();
        }
        let watch = &mut self.watch;
        if watch.retry_at().is_some_and(|at| at <= Instant::now()) {
            watch.hand_over();
        }
    }

    /// A peer that BFD says is gone has no session any more.
    pub(super) fn hear_bfd(&mut self) {
        let now = self.elapsed();
        let Self { speaker, watch, .. } = self;
        let Some(speaker) = speaker else { return };
        for (peer, why) in watch.news(|| speaker.watched(now)) {
            self.input(Input::Command(Command::Unreachable { peer, why }));
        }
        self.tell_bfd();
    }

    /// Lets the speaker know for whom BFD is up: sessions may wait for it.
    fn tell_bfd(&mut self) {
        let now = self.elapsed();
        let Some(speaker) = &self.speaker else { return };
        for (peer, up) in self.watch.untold(speaker.watched(now)) {
            self.input(Input::Command(Command::Bfd { peer, up }));
        }
    }
}
