//! How much of a tunnel may be under way: what upstream's protocol leaves out, and why one stalled reader
//! there stalls everybody.
//!
//! The end that receives keeps an [`Inbox`] a tunnel, the end that sends a [`Credit`]. Between our own ends the
//! inbox's window is what the sender has been promised, so it cannot overflow; it begins at 256 KiB and grows
//! to 4 MiB while whoever takes from it is quicker than it fills. With a peer that knows no credits the inbox
//! takes a mebibyte, slows the stream only while the tunnel moves, and gives up that one tunnel when it does not.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, timeout};

/// What a tunnel may have under way at first; both ends know it.
pub const FIRST_WINDOW: usize = 256 << 10;
const LARGEST_WINDOW: usize = 4 << 20;
/// What all windows of one agent's stream may grow by, together.
const GROWTH: usize = 64 << 20;
/// What a tunnel from a peer without credits may hold.
const QUEUE: usize = 1 << 20;
/// What the stalled ones among them may hold beyond that, together, until they are given up.
const SPILL: usize = 16 << 20;
/// A tunnel that took nothing for this long while its queue was full is given up.
pub const STALLED: Duration = Duration::from_secs(10);
/// How long a full queue that has just moved is waited for.
const SOON: Duration = Duration::from_millis(100);

/// What the tunnels of one stream share: room for windows to grow, and for the stalled to spill into.
#[derive(Debug)]
pub struct Budget {
    growth: AtomicUsize,
    spill: AtomicUsize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { growth: AtomicUsize::new(GROWTH), spill: AtomicUsize::new(SPILL) }
    }
}

fn take(from: &AtomicUsize, wanted: usize) -> bool {
    let less = |left: usize| left.checked_sub(wanted);
    from.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).is_ok()
}

/// Whether the peer keeps to credits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credits {
    Agreed,
    /// Upstream's: it sends as much as it likes.
    Unknown,
}

/// Why a tunnel's bytes were not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Overflow {
    #[error("the receiver took nothing for {STALLED:?} while its queue was full")]
    Stalled,
    #[error("the sender used more than its window")]
    Overdrawn,
}

/// What arrived for one tunnel and was not taken yet.
#[derive(Debug)]
pub struct Inbox {
    state: Mutex<Queue>,
    arrived: Notify,
    taken: Notify,
    credits: Credits,
    budget: Arc<Budget>,
    patience: Duration,
}

#[derive(Debug)]
struct Queue {
    waiting: VecDeque<Bytes>,
    bytes: usize,
    /// Nothing comes after what is waiting; with the sender's reason.
    end: Option<String>,
    moved: Instant,
    /// What the sender may have under way, and how much of it was taken and not yet promised anew.
    window: usize,
    owed: usize,
    spilled: usize,
}

impl Inbox {
    pub fn new(credits: Credits, budget: Arc<Budget>) -> Self {
        let state = Queue {
            waiting: VecDeque::new(),
            bytes: 0,
            end: None,
            moved: Instant::now(),
            window: FIRST_WINDOW,
            owed: 0,
            spilled: 0,
        };
        Self {
            state: Mutex::new(state),
            arrived: Notify::new(),
            taken: Notify::new(),
            credits,
            budget,
            patience: STALLED,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.state.lock().expect("nothing panics while holding the lock")
    }

    /// Takes in what arrived. With a peer without credits this waits a little for a tunnel that moves.
    pub async fn push(&self, data: Bytes) -> Result<(), Overflow> {
        loop {
            let taken = self.taken.notified();
            match self.offer(&data) {
                Offer::Taken => {
                    self.arrived.notify_one();
                    return Ok(());
                }
                Offer::Refused(why) => return Err(why),
                Offer::Full => drop(timeout(SOON, taken).await),
            }
        }
    }

    fn offer(&self, data: &Bytes) -> Offer {
        let mut queue = self.lock();
        if queue.end.is_some() {
            // Whoever was to take it has gone.
            return Offer::Taken;
        }
        let after = queue.bytes + data.len();
        match self.credits {
            Credits::Agreed if after > queue.window => return Offer::Refused(Overflow::Overdrawn),
            Credits::Unknown if after > QUEUE && queue.bytes > 0 => {
                let still = queue.moved.elapsed();
                if still < SOON {
                    return Offer::Full;
                }
                if still >= self.patience || !take(&self.budget.spill, data.len()) {
                    return Offer::Refused(Overflow::Stalled);
                }
                queue.spilled += data.len();
            }
            _ => {}
        }
        if queue.bytes == 0 {
            queue.moved = Instant::now();
        }
        queue.bytes = after;
        queue.waiting.push_back(data.clone());
        Offer::Taken
    }

    /// Nothing comes any more; what is waiting can still be taken.
    pub fn finish(&self, reason: String) {
        self.lock().end.get_or_insert(reason);
        self.arrived.notify_one();
        self.taken.notify_waiters();
    }

    /// The next bytes and the credit to give for those taken before, or why there are no more.
    pub async fn next(&self) -> Result<Taken, String> {
        loop {
            let arrived = self.arrived.notified();
            if let Some(outcome) = self.try_next() {
                return outcome;
            }
            arrived.await;
        }
    }

    fn try_next(&self) -> Option<Result<Taken, String>> {
        let mut queue = self.lock();
        let Some(data) = queue.waiting.pop_front() else { return queue.end.clone().map(Err) };
        queue.bytes -= data.len();
        queue.moved = Instant::now();
        let back = std::mem::take(&mut queue.spilled);
        self.budget.spill.fetch_add(back, Ordering::AcqRel);
        let credit = self.promise(&mut queue, data.len());
        drop(queue);
        self.taken.notify_one();
        Some(Ok(Taken { data, credit }))
    }

    /// What to promise the sender after so much was taken; in halves of the window, not by the byte.
    fn promise(&self, queue: &mut Queue, taken: usize) -> usize {
        queue.owed += taken;
        if self.credits == Credits::Unknown || queue.owed < queue.window / 2 {
            return 0;
        }
        let mut credit = std::mem::take(&mut queue.owed);
        let more = queue.window.min(LARGEST_WINDOW - queue.window);
        if queue.waiting.is_empty() && more > 0 && take(&self.budget.growth, more) {
            queue.window += more;
            credit += more;
        }
        credit
    }

    /// Resolves when a full queue has not moved for [`STALLED`]: its reader has stopped reading.
    pub async fn stalled(&self) {
        loop {
            let since = {
                let queue = self.lock();
                if queue.bytes >= QUEUE && self.credits == Credits::Unknown {
                    queue.moved.elapsed()
                } else {
                    Duration::ZERO
                }
            };
            if since >= self.patience {
                return;
            }
            tokio::time::sleep(self.patience - since).await;
        }
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        if let Ok(queue) = self.state.get_mut() {
            self.budget.growth.fetch_add(queue.window - FIRST_WINDOW, Ordering::AcqRel);
            self.budget.spill.fetch_add(queue.spilled, Ordering::AcqRel);
        }
    }
}

enum Offer {
    Taken,
    Full,
    Refused(Overflow),
}

/// What came out of an inbox.
#[derive(Debug, PartialEq)]
pub struct Taken {
    pub data: Bytes,
    /// To be given to the sender; 0 is nothing yet.
    pub credit: usize,
}

/// What may still be sent into a tunnel.
#[derive(Debug)]
pub struct Credit {
    left: Option<Semaphore>,
}

impl Credit {
    pub fn new(credits: Credits) -> Self {
        let left = (credits == Credits::Agreed).then(|| Semaphore::new(FIRST_WINDOW));
        Self { left }
    }

    /// Waits until something may be sent; of `wanted` bytes (at least one) so many. Nothing once closed.
    pub async fn take(&self, wanted: usize) -> Option<usize> {
        let Some(left) = &self.left else { return Some(wanted) };
        left.acquire().await.ok()?.forget();
        let more = left.available_permits().min(wanted.saturating_sub(1));
        match left.try_acquire_many(u32::try_from(more).unwrap_or(u32::MAX)) {
            Ok(permits) => {
                permits.forget();
                Some(1 + more)
            }
            // Somebody else's part of the same tunnel was quicker.
            Err(_) => Some(1),
        }
    }

    /// The peer promises more, or what was taken was not used. A promise beyond all windows is cut.
    pub fn give(&self, more: u64) {
        if let Some(left) = &self.left {
            let room = (2 * LARGEST_WINDOW).saturating_sub(left.available_permits());
            left.add_permits(usize::try_from(more).unwrap_or(usize::MAX).min(room));
        }
    }

    pub fn close(&self) {
        if let Some(left) = &self.left {
            left.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kib(count: usize) -> Bytes {
        Bytes::from(vec![0; count << 10])
    }

    fn inbox(credits: Credits) -> Inbox {
        Inbox::new(credits, Arc::default())
    }

    #[tokio::test]
    async fn a_window_is_promised_anew_and_grows_while_its_reader_is_quick() {
        let inbox = inbox(Credits::Agreed);
        let mut window = FIRST_WINDOW;
        let mut promised = FIRST_WINDOW;
        for _ in 0..2000 {
            let length = promised.min(32 << 10);
            assert!(length > 0, "a quick reader never leaves the sender without credit");
            promised -= length;
            inbox.push(Bytes::from(vec![0; length])).await.unwrap();
            promised += inbox.next().await.unwrap().credit;
            window = window.max(promised);
        }
        assert!(window > LARGEST_WINDOW / 2 && window <= LARGEST_WINDOW, "{window}");
    }

    #[tokio::test]
    async fn a_reader_that_stops_keeps_a_window_and_no_more() {
        let inbox = inbox(Credits::Agreed);
        for _ in 0..8 {
            inbox.push(kib(32)).await.unwrap();
        }
        assert_eq!(inbox.push(kib(1)).await, Err(Overflow::Overdrawn));
    }

    #[tokio::test]
    async fn without_credits_only_a_tunnel_that_stands_still_is_given_up_and_nobody_waits_for_it() {
        let mut inbox = inbox(Credits::Unknown);
        inbox.patience = Duration::from_secs(5);
        let begin = Instant::now();
        for _ in 0..(1 << 20) / (64 << 10) {
            inbox.push(kib(64)).await.unwrap();
        }
        // What overflows waits a moment, then is kept aside without holding up the stream.
        for _ in 0..8 {
            inbox.push(kib(64)).await.unwrap();
        }
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
        inbox.stalled().await;
        assert!(begin.elapsed() >= Duration::from_secs(5));
        assert_eq!(inbox.push(kib(64)).await, Err(Overflow::Stalled));
    }

    #[tokio::test]
    async fn what_the_stalled_may_keep_aside_is_bounded() {
        let inbox = inbox(Credits::Unknown);
        let mut kept = 0;
        while inbox.push(kib(256)).await.is_ok() {
            kept += 256 << 10;
            assert!(kept <= QUEUE + SPILL);
        }
        assert_eq!(kept, QUEUE + SPILL);
        drop(inbox);
    }

    #[tokio::test]
    async fn without_credits_a_slow_reader_gets_everything() {
        let inbox = Arc::new(inbox(Credits::Unknown));
        let reader = Arc::clone(&inbox);
        let reading = tokio::spawn(async move {
            let mut total = 0;
            while let Ok(taken) = reader.next().await {
                total += taken.data.len();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            total
        });
        for _ in 0..200 {
            inbox.push(kib(64)).await.unwrap();
        }
        inbox.finish(String::new());
        assert_eq!(reading.await.unwrap(), (200 * 64) << 10);
    }

    #[tokio::test]
    async fn credit_is_what_the_window_was_and_what_is_given() {
        let credit = Credit::new(Credits::Agreed);
        assert_eq!(credit.take(FIRST_WINDOW + 5).await, Some(FIRST_WINDOW));
        credit.give(3);
        assert_eq!(credit.take(10).await, Some(3));
        // No promise, however absurd, breaks the count.
        credit.give(u64::MAX);
        credit.give(u64::MAX);
        assert_eq!(credit.take(usize::MAX).await, Some(2 * LARGEST_WINDOW));
        credit.close();
        assert_eq!(credit.take(1).await, None);
        assert_eq!(Credit::new(Credits::Unknown).take(7).await, Some(7));
    }
}
