//! One role's life, as a pure step: what happened goes in, what to do comes out.
//!
//! ```text
//!            Possible                Ready
//! Waiting ─────────────▶ Starting ─────────▶ Ready
//!    ▲  ▲                  │  ▲ Exited         │ Exited
//!    │  │ HostGone         ▼  └── Time ──┐     ▼
//!    │  └── (any)        Finished       BackingOff
//!    │ Start              (one-shot, exit code 0)
//! Stopped ◀── Exited ── Stopping ◀── Stop, Restart (then Waiting)
//! ```

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::lab::order::Exit;

/// The second start after a failure waits this long; then it doubles.
const FIRST_DELAY: Duration = Duration::from_millis(10);
const LONGEST_DELAY: Duration = Duration::from_secs(1);
/// A role that ran this long starts again at once.
const SETTLED: Duration = Duration::from_secs(10);
/// How long a role may take to stop.
const GRACE: Duration = Duration::from_secs(5);

/// Where a role is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// For its host, or for what it needs.
    Waiting,
    Starting {
        since: Instant,
    },
    Ready {
        since: Instant,
    },
    BackingOff {
        until: Instant,
    },
    /// Asked to end; killed at the deadline.
    Stopping {
        then: Then,
        deadline: Instant,
    },
    Stopped,
    /// A one-shot role that did its work.
    Finished,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    Rest,
    Again,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The host is there and so is what the role needs.
    Possible,
    /// It said that it serves.
    Ready,
    Exited(Exit),
    NotStarted,
    Start,
    Stop,
    Restart,
    HostGone,
    Time,
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    Launch,
    Signal(Signal),
}

/// A role's state and its history.
#[derive(Debug)]
pub struct Life {
    pub state: State,
    /// Of one-shot roles, success is the end.
    one_shot: bool,
    /// How often it was started again.
    pub restarts: u32,
    /// How often it ended before it ever served.
    pub false_starts: u32,
    pub ever_ready: bool,
    delay: Duration,
    started: bool,
}

impl Life {
    pub fn new(one_shot: bool) -> Life {
        Life {
            state: State::Waiting,
            one_shot,
            restarts: 0,
            false_starts: 0,
            ever_ready: false,
            delay: Duration::ZERO,
            started: false,
        }
    }

    /// Others that need it may go on.
    pub fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready { .. } | State::Finished)
    }

    /// There is a process.
    pub fn is_running(&self) -> bool {
        matches!(self.state, State::Starting { .. } | State::Ready { .. } | State::Stopping { .. })
    }

    /// When [`Input::Time`] is due.
    pub fn wakes(&self) -> Option<Instant> {
        match self.state {
            State::BackingOff { until } => Some(until),
            State::Stopping { deadline, .. } => Some(deadline),
            _ => None,
        }
    }

    /// As `minilab status` says it.
    pub fn word(&self) -> &'static str {
        match self.state {
            State::Waiting => "waiting",
            State::Starting { .. } => "starting",
            State::Ready { .. } => "ready",
            State::BackingOff { .. } => "backing-off",
            State::Stopping { .. } => "stopping",
            State::Stopped => "stopped",
            State::Finished => "finished",
        }
    }

    pub fn step(&mut self, now: Instant, input: Input) -> Option<Effect> {
        use State::{BackingOff, Finished, Ready, Starting, Stopped, Stopping, Waiting};
        match (self.state, input) {
            (Waiting, Input::Possible) => self.launch(now),
            (BackingOff { until }, Input::Time) if now >= until => self.launch(now),
            (Starting { since }, Input::Ready) => {
                self.ever_ready = true;
                self.state = Ready { since };
                None
            }
            (Starting { since } | Ready { since }, Input::Exited(exit)) => self.ended(now, since, Some(exit)),
            (Starting { since }, Input::NotStarted) => self.ended(now, since, None),
            (Stopping { then, .. }, Input::Exited(_) | Input::NotStarted) => match then {
                Then::Again => self.launch(now),
                Then::Rest => self.rest(),
            },
            (Stopping { then, deadline }, Input::Time) if now >= deadline => {
                self.state = Stopping { then, deadline: now + GRACE };
                Some(Effect::Signal(Signal::SIGKILL))
            }
            (Stopping { deadline, .. }, Input::Stop) => {
                self.state = Stopping { then: Then::Rest, deadline };
                None
            }
            (Stopping { deadline, .. }, Input::Start | Input::Restart) => {
                self.state = Stopping { then: Then::Again, deadline };
                None
            }
            (Starting { .. } | Ready { .. }, Input::Stop) => self.end(now, Then::Rest),
            (Starting { .. } | Ready { .. }, Input::Restart) => self.end(now, Then::Again),
            (_, Input::Stop) => self.rest(),
            (Stopped | Finished | BackingOff { .. }, Input::Start | Input::Restart) => {
                self.state = Waiting;
                None
            }
            (Stopped, Input::HostGone) => None,
            (_, Input::HostGone) => {
                self.state = Waiting;
                None
            }
            _ => None,
        }
    }

    fn launch(&mut self, now: Instant) -> Option<Effect> {
        self.restarts += u32::from(self.started);
        self.started = true;
        self.state = State::Starting { since: now };
        Some(Effect::Launch)
    }

    fn rest(&mut self) -> Option<Effect> {
        self.state = State::Stopped;
        // Started again, it is no restart that somebody should wonder about.
        self.started = false;
        None
    }

    fn end(&mut self, now: Instant, then: Then) -> Option<Effect> {
        self.state = State::Stopping { then, deadline: now + GRACE };
        Some(Effect::Signal(Signal::SIGTERM))
    }

    fn ended(&mut self, now: Instant, since: Instant, exit: Option<Exit>) -> Option<Effect> {
        if self.one_shot && exit == Some(Exit::Code(0)) {
            self.ever_ready = true;
            self.state = State::Finished;
            return None;
        }
        self.false_starts += u32::from(!self.ever_ready);
        if now - since >= SETTLED {
            self.delay = Duration::ZERO;
        }
        self.state = State::BackingOff { until: now + self.delay };
        self.delay = (self.delay * 2).clamp(FIRST_DELAY, LONGEST_DELAY);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KILLED: Input = Input::Exited(Exit::Signal(9));

    fn serving(now: Instant) -> Life {
        let mut life = Life::new(false);
        assert_eq!(life.step(now, Input::Possible), Some(Effect::Launch));
        life.step(now, Input::Ready);
        assert!(life.is_ready());
        life
    }

    #[test]
    fn a_killed_role_starts_again_at_once_and_then_ever_later() {
        let begin = Instant::now();
        let mut life = serving(begin);
        let mut now = begin;
        let mut waits = Vec::new();
        for _ in 0..10 {
            life.step(now, KILLED);
            let due = life.wakes().unwrap();
            waits.push((due - now).as_millis());
            now = due;
            assert_eq!(life.step(now, Input::Time), Some(Effect::Launch));
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        assert_eq!(life.restarts, 10);
        now += SETTLED;
        life.step(now, KILLED);
        assert_eq!(life.wakes(), Some(now));
    }

    #[test]
    fn a_role_that_will_not_stop_is_killed() {
        let now = Instant::now();
        let mut life = serving(now);
        assert_eq!(life.step(now, Input::Stop), Some(Effect::Signal(Signal::SIGTERM)));
        assert_eq!(life.step(now + GRACE, Input::Time), Some(Effect::Signal(Signal::SIGKILL)));
        life.step(now + GRACE, KILLED);
        assert_eq!((life.word(), life.wakes()), ("stopped", None));
    }

    #[test]
    fn a_restart_ends_the_role_first_and_counts() {
        let now = Instant::now();
        let mut life = serving(now);
        assert_eq!(life.step(now, Input::Restart), Some(Effect::Signal(Signal::SIGTERM)));
        assert_eq!(life.step(now, Input::Exited(Exit::Code(0))), Some(Effect::Launch));
        assert_eq!(life.restarts, 1);
    }

    #[test]
    fn a_one_shot_role_is_over_with_success_and_tried_again_after_a_failure() {
        let now = Instant::now();
        let mut life = Life::new(true);
        life.step(now, Input::Possible);
        life.step(now, Input::Exited(Exit::Code(1)));
        assert_eq!((life.word(), life.false_starts), ("backing-off", 1));
        life.step(now, Input::Time);
        life.step(now, Input::Exited(Exit::Code(0)));
        assert!(life.is_ready() && !life.is_running());
    }

    #[test]
    fn a_stopped_role_stays_stopped_when_its_host_comes_back() {
        let now = Instant::now();
        let mut life = serving(now);
        life.step(now, Input::Stop);
        life.step(now, KILLED);
        life.step(now, Input::HostGone);
        assert_eq!(life.step(now, Input::Possible), None);
        life.step(now, Input::Start);
        assert_eq!(life.step(now, Input::Possible), Some(Effect::Launch));
    }
}
