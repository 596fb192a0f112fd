//! No text makes the parser panic.

use crate::config::Config;

/// xorshift64: the same walk in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % most.max(1) as u64).unwrap()
    }
}

const PIECES: &[&str] = &[
    "[",
    "]",
    "[[",
    "]]",
    "\"",
    "'''",
    "\"\"\"",
    "=",
    "\n",
    "{",
    "}",
    ",",
    ".",
    "-1",
    "0x",
    "1e9",
    "é",
    "\u{0}",
    "#",
    "[[listeners]]\n",
    "[runtime]\n",
    "listeners = []\n",
    "18446744073709551615",
    "inf",
    "2020-01-01",
    "true",
];

#[test]
fn mutated_files_are_read_or_refused() {
    let seeds = [
        include_str!("keys.toml"),
        include_str!("../../../../config/default.toml"),
        include_str!("../../../../config/examples/combined.toml"),
        include_str!("../../../../config/examples/quic-mode-b.toml"),
        include_str!("../../../../config/examples/passthrough-mode-a.toml"),
    ];
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for round in 0..4000 {
        let mut text: Vec<char> = seeds[round % seeds.len()].chars().collect();
        for _ in 0..=dice.below(4) {
            let at = dice.below(text.len());
            match dice.below(4) {
                0 => text.truncate(at),
                1 => drop(text.splice(at..(at + dice.below(9)).min(text.len()), [])),
                2 => drop(text.splice(at..at, PIECES[dice.below(PIECES.len())].chars())),
                _ => {
                    let line: Vec<char> = text[at..].iter().take(dice.below(60)).copied().collect();
                    text.splice(at..at, line);
                }
            }
        }
        let text: String = text.into_iter().collect();
        if let Err(errors) = Config::parse(&text, "lb.toml") {
            assert!(!errors.to_string().is_empty());
        }
    }
}

#[test]
fn deep_nesting_is_refused() {
    assert!(Config::parse(&format!("a = {}", "[".repeat(100_000)), "lb.toml").is_err());
    assert!(Config::parse(&format!("a = {}", "{a=".repeat(100_000)), "lb.toml").is_err());
    assert!(Config::parse(&format!("[{}a]", "a.".repeat(100_000)), "lb.toml").is_err());
}
