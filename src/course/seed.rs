//! Values that are a learner's own: the same at every start, and worth nothing to a neighbour.
//!
//! Juice Shop's flags gave the idea: an HMAC of the learner's secret and the value's name.

use ring::hmac;

use super::schema::Word;

const FIRST: &[&str] = &[
    "amber", "brisk", "calm", "dusty", "early", "faint", "green", "happy", "icy", "jolly", "keen", "lucid",
    "misty", "noble", "olive", "plain", "quiet", "rapid", "salty", "tidy", "urban", "vivid", "warm", "young",
];
const SECOND: &[&str] = &[
    "otter", "badger", "crane", "dingo", "egret", "ferret", "gecko", "heron", "ibex", "jackal", "koala",
    "lemur", "marten", "newt", "osprey", "puffin", "quail", "raven", "stoat", "tapir", "urchin", "vole",
    "wombat", "yak",
];

/// Sixteen bytes nobody else has for this learner, exercise and name.
pub fn bytes(learner: &str, exercise: u8, name: &str) -> [u8; 16] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, learner.as_bytes());
    let tag = hmac::sign(&key, format!("{exercise}/{name}").as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&tag.as_ref()[..16]);
    bytes
}

/// A value as the exercise asks for it.
pub fn value(learner: &str, exercise: u8, name: &str, word: Word) -> String {
    let bytes = bytes(learner, exercise, name);
    let number = |at: usize| usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
    match word {
        Word::Phrase => {
            let (first, second) = (FIRST[number(0) % FIRST.len()], SECOND[number(2) % SECOND.len()]);
            format!("{first}-{second}-{}", 10 + number(4) % 90)
        }
        Word::Port => format!("{}", 20_000 + number(0) % 10_000),
        Word::Hex => bytes[..8].iter().map(|byte| format!("{byte:02x}")).collect(),
        Word::Number => format!("{}", 1000 + number(0) % 9000),
    }
}

/// An order of so many choices that is this learner's own.
pub fn order(learner: &str, exercise: u8, name: &str, count: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..count).collect();
    let key = |place: &usize| bytes(learner, exercise, &format!("{name}/{place}"));
    places.sort_by_key(key);
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_a_learners_own_and_stay() {
        let of = |learner| value(learner, 1, "gold", Word::Phrase);
        assert_eq!(of("ada"), of("ada"));
        assert_ne!(of("ada"), of("bob"));
        assert_ne!(of("ada"), value("ada", 2, "gold", Word::Phrase));
        let port: u32 = value("ada", 1, "p", Word::Port).parse().unwrap();
        assert!((20_000..30_000).contains(&port));
        assert_eq!(value("ada", 1, "h", Word::Hex).len(), 16);
    }

    #[test]
    fn an_order_has_every_choice_once() {
        let mut order = order("ada", 3, "q", 4);
        order.sort_unstable();
        assert_eq!(order, [0, 1, 2, 3]);
    }
}
