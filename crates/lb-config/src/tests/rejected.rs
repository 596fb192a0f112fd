//! Wrong files, each with the whole of what is said about it.

use super::errors;

#[test]
fn every_wrong_file_is_refused_with_the_message_expected() {
    let cases: Vec<_> = include_str!("rejected.txt").split("\n--- ").skip(1).collect();
    assert!(cases.len() >= 60, "only {} cases", cases.len());
    let mut wrong = String::new();
    for case in cases {
        let (name, rest) = case.split_once('\n').expect("a case has a name and a text");
        let (text, expected) = rest.split_once("\n=>\n").expect("a case has a text and a message");
        let (found, expected) = (errors(text), expected.trim_end());
        if found != expected {
            wrong.push_str(&format!("--- {name}\n{text}\n=>\n{found}\n\n"));
        }
    }
    assert!(wrong.is_empty(), "these cases say something else now:\n\n{wrong}");
}

#[test]
fn at_most_twenty_errors_are_shown() {
    let unknown: String = (0..25).map(|n| format!("zzzzzzzz{n} = 1\n")).collect();
    let said = errors(&unknown);
    assert_eq!(said.lines().count(), 21);
    assert!(said.ends_with("\n(and 5 more)"), "{said}");
}

#[test]
fn a_file_above_the_cap_is_not_even_read() {
    let said = errors(&" ".repeat((4 << 20) + 1));
    assert_eq!(said, "lb.toml: 4194305 bytes long: must be at most 4194304 bytes");
}

#[test]
fn a_file_that_is_wrong_throughout_is_refused_in_bounded_space() {
    let unknown: String = (0..400_000).map(|n| format!("z{n}=1\n")).collect();
    let said = errors(&unknown);
    assert!(said.ends_with("\n(and 980 more)"), "{said}");
}

#[test]
fn a_long_or_odd_value_stays_one_short_line() {
    let said = errors(&format!("runtime = {{ workers = \"{}\" }}\n\"a\\nb\" = 1", "x".repeat(500)));
    assert_eq!(said.lines().count(), 2, "{said}");
    assert!(said.lines().all(|line| line.len() < 300), "{said}");
    assert!(said.contains("lb.toml:2: \"a b\" = 1: unknown key"), "{said}");
}
