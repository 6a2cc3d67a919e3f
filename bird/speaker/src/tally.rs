//! What is counted over all peers.

use std::collections::BTreeMap;

use bird_packet::Notification;

use crate::speaker::Speaker;

/// NOTIFICATION messages so far, by code and subcode.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Notifications {
    /// By us.
    pub sent: BTreeMap<(u8, u8), u64>,
    /// By peers; codes that no RFC knows count as 0/0, so that a peer cannot make the map grow.
    pub received: BTreeMap<(u8, u8), u64>,
}

impl Notifications {
    pub(crate) fn note_sent(&mut self, notification: &Notification) {
        *self.sent.entry((notification.code, notification.subcode)).or_default() += 1;
    }

    pub(crate) fn note_received(&mut self, notification: &Notification) {
        let (code, subcode) = (notification.code, notification.subcode);
        let key = match (known(code), notification.subcode_name().is_some() || subcode == 0) {
            (false, _) => (0, 0),
            (true, true) => (code, subcode),
            (true, false) => (code, 0),
        };
        *self.received.entry(key).or_default() += 1;
    }
}

/// Codes of RFC 4271, 7313 and 9687.
fn known(code: u8) -> bool {
    (1..=8).contains(&code)
}

impl Speaker {
    /// NOTIFICATION messages so far.
    pub fn notifications(&self) -> &Notifications {
        &self.notifications
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_rfc_knows_is_counted_together() {
        let mut notifications = Notifications::default();
        for code in 0..=255 {
            for subcode in [0, 2, 77, 255] {
                let notification = Notification { code, subcode, data: Vec::new() };
                notifications.note_received(&notification);
            }
        }
        assert_eq!(notifications.received[&(0, 0)], 248 * 4);
        assert!(notifications.received.len() <= 1 + 8 * 2, "{:?}", notifications.received);
        assert_eq!(notifications.received[&(6, 2)], 1);
        assert_eq!(notifications.received[&(6, 0)], 3);
    }
}
