//! What one client wants to be told.
//!
//! Owns the list and its limit. Relies on the caller for whether a topic exists. Never lets an event through before the
//! answer to its subscription is in line: the client would see it for an event of something that it has not asked for.

use super::{Event, SUBSCRIPTIONS};

/// The topic that stands for all of a publisher.
pub const ALL: &str = "*";

/// What a client names when it subscribes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name<'a> {
    /// The device; none is the gateway itself.
    pub device: Option<&'a str>,
    /// The upper level.
    pub publisher: &'a str,
    /// The lower level, or `*`.
    pub topic: &'a str,
}

#[derive(Debug)]
struct Subscription {
    device: Option<String>,
    publisher: String,
    topic: String,
    /// The number of the command that made it, until that is answered.
    waits_for: Option<u64>,
}

impl Subscription {
    fn is(&self, name: &Name<'_>) -> bool {
        self.device.as_deref() == name.device && self.publisher == name.publisher && self.topic == name.topic
    }
}

/// The subscriptions of one client.
#[derive(Debug, Default)]
pub struct Subscriptions {
    list: Vec<Subscription>,
}

/// There is no room for one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl core::fmt::Display for Full {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "at most {SUBSCRIPTIONS} subscriptions")
    }
}

impl core::error::Error for Full {}

impl Subscriptions {
    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Adds one that counts from the answer to this command on; one that is there stays as it is.
    ///
    /// # Errors
    /// [`Full`]: there are [`SUBSCRIPTIONS`] others.
    pub fn add(&mut self, name: &Name<'_>, command: u64) -> Result<(), Full> {
        if self.list.iter().any(|subscription| subscription.is(name)) {
            return Ok(());
        }
        if self.list.len() >= SUBSCRIPTIONS {
            return Err(Full);
        }
        self.list.push(Subscription {
            device: name.device.map(str::to_owned),
            publisher: name.publisher.to_owned(),
            topic: name.topic.to_owned(),
            waits_for: Some(command),
        });
        Ok(())
    }

    /// Removes one; `false` where there is none of that name.
    pub fn remove(&mut self, name: &Name<'_>) -> bool {
        let before = self.list.len();
        self.list.retain(|subscription| !subscription.is(name));
        self.list.len() < before
    }

    /// The answer to this command is in line.
    pub fn answered(&mut self, command: u64) {
        for subscription in &mut self.list {
            if subscription.waits_for == Some(command) {
                subscription.waits_for = None;
            }
        }
    }

    /// Whether this event is for the client; once, however many subscriptions fit.
    #[must_use]
    pub fn want(&self, event: &Event) -> bool {
        self.list.iter().any(|subscription| {
            subscription.waits_for.is_none()
                && subscription.device == event.device
                && subscription.publisher == event.publisher
                && (subscription.topic == ALL || subscription.topic == event.topic)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUS: Name<'_> = Name { device: Some("can0"), publisher: "DeviceEvents", topic: "BusStateChanged" };

    fn event(device: Option<&str>, publisher: &str, topic: &str) -> Event {
        Event {
            publisher: publisher.to_owned(),
            topic: topic.to_owned(),
            device: device.map(str::to_owned),
            data: serde_json::Value::Null,
        }
    }

    #[test]
    fn an_event_reaches_who_named_its_device_its_publisher_and_its_topic() {
        let mut subscriptions = Subscriptions::default();
        subscriptions.add(&BUS, 1).unwrap();
        let wanted = event(Some("can0"), "DeviceEvents", "BusStateChanged");
        assert!(!subscriptions.want(&wanted), "not before the answer");
        subscriptions.answered(2);
        assert!(!subscriptions.want(&wanted), "not by another answer");
        subscriptions.answered(1);
        assert!(subscriptions.want(&wanted));
        for other in [
            event(None, "DeviceEvents", "BusStateChanged"),
            event(Some("can1"), "DeviceEvents", "BusStateChanged"),
            event(Some("can0"), "deviceEvents", "BusStateChanged"),
            event(Some("can0"), "DeviceEvents", "Busstatechanged"),
        ] {
            assert!(!subscriptions.want(&other), "{other:?}");
        }
    }

    #[test]
    fn a_star_is_every_topic_of_its_publisher_and_a_name_of_its_own() {
        let mut subscriptions = Subscriptions::default();
        subscriptions.add(&Name { topic: ALL, ..BUS }, 1).unwrap();
        subscriptions.answered(1);
        assert!(subscriptions.want(&event(Some("can0"), "DeviceEvents", "Anything")));
        assert!(!subscriptions.want(&event(Some("can0"), "Else", "Anything")));
        assert!(!subscriptions.remove(&BUS));
        assert!(subscriptions.remove(&Name { topic: ALL, ..BUS }));
        assert!(!subscriptions.want(&event(Some("can0"), "DeviceEvents", "Anything")));
    }

    #[test]
    fn twice_is_once_and_a_live_one_stays_live() {
        let mut subscriptions = Subscriptions::default();
        subscriptions.add(&BUS, 1).unwrap();
        subscriptions.answered(1);
        subscriptions.add(&BUS, 2).unwrap();
        assert!(subscriptions.want(&event(BUS.device, BUS.publisher, BUS.topic)));
        assert!(subscriptions.remove(&BUS) && !subscriptions.remove(&BUS));
        // Gone and asked for again in one breath: it counts from the second answer on.
        subscriptions.add(&BUS, 3).unwrap();
        assert!(subscriptions.remove(&BUS));
        subscriptions.add(&BUS, 5).unwrap();
        subscriptions.answered(3);
        assert!(!subscriptions.want(&event(BUS.device, BUS.publisher, BUS.topic)));
        subscriptions.answered(5);
        assert!(subscriptions.want(&event(BUS.device, BUS.publisher, BUS.topic)));
    }

    #[test]
    fn there_is_room_for_sixty_four() {
        let mut subscriptions = Subscriptions::default();
        let topics: Vec<String> = (0..=SUBSCRIPTIONS).map(|number| format!("t{number}")).collect();
        let name = |topic| Name { device: None, publisher: "p", topic };
        for topic in &topics[..SUBSCRIPTIONS] {
            assert_eq!(subscriptions.add(&name(topic), 0), Ok(()));
        }
        assert_eq!(subscriptions.add(&name(&topics[SUBSCRIPTIONS]), 0), Err(Full));
        assert_eq!(subscriptions.add(&name(&topics[7]), 0), Ok(()), "that one is there");
        assert!(subscriptions.remove(&name(&topics[7])));
        assert_eq!(subscriptions.add(&name(&topics[SUBSCRIPTIONS]), 0), Ok(()));
    }
}
