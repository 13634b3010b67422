//! Who is connected over TCP: when it is full, whoever has been silent for longest makes room.
//!
//! CoreDNS has no bound here; ours must not let a few hundred idle clients silence DNS over TCP for all.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

/// The connections, by when each last asked something.
#[derive(Clone, Default)]
pub struct Connections(Arc<Mutex<Seats>>);

#[derive(Default)]
struct Seats {
    /// Grows with every question, so that the smallest is the one silent for longest.
    clock: u64,
    taken: BTreeMap<u64, CancellationToken>,
}

/// One connection's place; dropped, it is free.
pub struct Seat {
    connections: Connections,
    at: Mutex<u64>,
    evicted: CancellationToken,
}

impl Connections {
    /// Ends connections until there are fewer than `most`.
    pub fn make_room(&self, most: usize) {
        let mut seats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while seats.taken.len() >= most {
            let Some((_, oldest)) = seats.taken.pop_first() else { return };
            oldest.cancel();
        }
    }

    pub fn seat(&self) -> Seat {
        let evicted = CancellationToken::new();
        let at = self.put(evicted.clone());
        Seat { connections: self.clone(), at: Mutex::new(at), evicted }
    }

    fn put(&self, evicted: CancellationToken) -> u64 {
        let mut seats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seats.clock += 1;
        let at = seats.clock;
        seats.taken.insert(at, evicted);
        at
    }

    fn take(&self, at: u64) -> Option<CancellationToken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).taken.remove(&at)
    }
}

impl Seat {
    /// Ends when somebody else needs the place.
    pub fn evicted(&self) -> CancellationToken {
        self.evicted.clone()
    }

    /// A question came: others are silent for longer.
    pub fn used(&self) {
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(evicted) = self.connections.take(*at) {
            *at = self.connections.put(evicted);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let at = *self.at.lock().unwrap_or_else(PoisonError::into_inner);
        self.connections.take(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_silent_for_longest_makes_room() {
        let connections = Connections::default();
        let seats: Vec<Seat> = (0..3).map(|_| connections.seat()).collect();
        seats[0].used();
        connections.make_room(3);
        let gone: Vec<bool> = seats.iter().map(|seat| seat.evicted().is_cancelled()).collect();
        assert_eq!(gone, [false, true, false]);
        drop(seats);
        assert!(connections.0.lock().unwrap().taken.is_empty());
    }
}
