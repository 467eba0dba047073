//! What a tunnel counts, by reason.
//!
//! Owns the list of reasons with their words, and a set of numbers for them. Relies on nothing. Two sums hold at any time
//! and are tested: every frame read from the bus for a peer is in exactly one of the reasons that begin with "to peers", or waits;
//! every frame read from a peer in exactly one of those that begin with "from peers", or waits.

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident, $text:literal;)*) => {
        /// A reason to count.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Count {
            $($(#[$doc])* $name,)*
        }

        impl Count {
            /// Every reason, in the order in which they are printed.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// What it counts, in a person's words.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

counts! {
    /// Frames read from the bus, for one peer.
    FromBus, "frames read from the bus";
    /// Lost in the kernel before they were read.
    BusOverflow, "frames lost in the kernel before they were read from the bus";
    /// There was no peer to hand them to.
    Unheard, "frames of the bus while no peer was connected";
    /// Handed to the network and acknowledged.
    ToPeer, "to peers: frames acknowledged";
    /// Too old before they could leave.
    ToPeerAged, "to peers: frames dropped, too old";
    /// The queue was full.
    ToPeerEvicted, "to peers: frames dropped, queue full";
    /// In flight when the connection ended.
    ToPeerUnconfirmed, "to peers: frames in flight when the connection ended (each may have arrived)";
    /// Waiting when the connection ended.
    ToPeerLeft, "to peers: frames dropped, connection ended";
    /// In the queue or in flight now.
    ToPeerWaiting, "to peers: frames waiting or in flight now";
    /// Frames read from a peer.
    FromPeer, "frames read from peers";
    /// Written to the bus.
    ToBus, "from peers: frames written to the bus";
    /// Too old before the bus took them.
    ToBusAged, "from peers: frames dropped, too old";
    /// The queue was full.
    ToBusEvicted, "from peers: frames dropped, queue full";
    /// There was no bus.
    NoBus, "from peers: frames dropped, no bus";
    /// The bus does not take this kind.
    BusRefused, "from peers: frames dropped, the bus takes no such frame (CAN FD on a classic bus)";
    /// Waiting when the connection ended.
    ToBusLeft, "from peers: frames dropped, connection ended";
    /// In the queue now.
    ToBusWaiting, "from peers: frames waiting now";
    /// With an actuator id.
    RefusedActuator, "from peers: frames refused, actuator id";
    /// Not on the list.
    RefusedNotListed, "from peers: frames refused, id not listed for this state";
    /// A peer asked for a diagnostic service that may change something.
    RefusedService, "from peers: frames refused, diagnostic service that may change something while driven";
    /// Beyond the peer's rate.
    RefusedPeerRate, "from peers: frames refused, more than this peer may send";
    /// Beyond the rate of all.
    RefusedTotalRate, "from peers: frames refused, more than all peers may send";
    /// Error messages, and what no bus knows.
    RefusedKind, "from peers: frames refused, error messages and lengths that no bus has";
    /// Error messages of the driver, consumed.
    BusErrors, "error messages of the bus";
    /// Connections made.
    Connections, "connections agreed";
    /// Not on the allow list.
    RefusedAddress, "connections refused, address not allowed";
    /// No room.
    RefusedFull, "connections refused, too many peers";
    /// They had not agreed to a version, and others wanted in.
    Displaced, "connections closed without an agreed version, to make room";
    /// No version in time.
    Handshakes, "connections closed, no version agreed";
    /// The stream was torn or no tcpcan.
    Torn, "connections closed, stream torn or not tcpcan";
    /// Three actuator frames.
    Struck, "connections closed, three frames with an actuator id";
    /// Frames in flight grew too old.
    Cut, "connections cut, frames in flight too old";
    /// The peer closed, or was lost.
    Lost, "connections ended by the peer or the network";
}

/// A number for each reason.
#[derive(Debug, Clone, Copy)]
pub struct Counts([u64; Count::ALL.len()]);

impl Default for Counts {
    fn default() -> Self {
        Self([0; Count::ALL.len()])
    }
}

impl Counts {
    /// Adds to one number.
    pub fn add(&mut self, count: Count, more: u64) {
        if let Some(cell) = self.0.get_mut(count as usize) {
            *cell = cell.saturating_add(more);
        }
    }

    /// One number.
    #[must_use]
    pub fn get(&self, count: Count) -> u64 {
        self.0.get(count as usize).copied().unwrap_or(0)
    }

    /// Every reason with its number.
    pub fn iter(&self) -> impl Iterator<Item = (Count, u64)> + '_ {
        Count::ALL.iter().map(|count| (*count, self.get(*count)))
    }

    /// Frames that were dropped or refused on the way to their bus or their peer.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        let is_loss = |text: &str| text.contains("frames dropped") || text.contains("frames refused");
        self.iter().filter(|(count, _)| is_loss(count.text())).map(|(_, value)| value).sum()
    }

    /// The sum of all reasons whose words begin so.
    #[must_use]
    pub fn sum(&self, beginning: &str) -> u64 {
        self.iter().filter(|(count, _)| count.text().starts_with(beginning)).map(|(_, value)| value).sum()
    }

    /// Adds all numbers of another set.
    pub fn absorb(&mut self, other: &Self) {
        for (cell, more) in self.0.iter_mut().zip(other.0) {
            *cell = cell.saturating_add(more);
        }
    }
}
