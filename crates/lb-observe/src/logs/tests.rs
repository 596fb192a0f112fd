//! A process has one log, so each case runs in a process of its own: this test binary, told to run [`child`].

use std::env;
use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::*;

/// What the processes under test do.
#[test]
fn child() {
    match env::var(ROLE).as_deref() {
        Ok("log") => {
            init().unwrap();
            assert!(init().is_err());
            tracing::info!(number = 7, "hello");
            tracing::debug!("hidden");
            assert!(finish(Duration::from_secs(10)));
        }
        Ok("panic") => {
            let metrics = Metrics::new(1);
            init().unwrap();
            install_panic_hook(Arc::clone(&metrics));
            let _ = std::panic::catch_unwind(|| panic!("boom {}", 1));
            assert_eq!(metrics.panics.value(), 1);
        }
        Ok("broken pipe") => {
            init().unwrap();
            // The parent closes its end of the pipe and then ends our input.
            io::stdin().read_line(&mut String::new()).unwrap();
            tracing::error!("nobody reads this");
            assert!(finish(Duration::from_secs(10)));
            assert_eq!(dropped(), 1);
        }
        Ok("stalled reader") => {
            let metrics = Metrics::new(1);
            init().unwrap();
            let began = std::time::Instant::now();
            for number in 0..20_000 {
                tracing::info!(number, "nobody reads this for now");
            }
            assert!(!finish(Duration::from_millis(50)));
            let dropped = dropped();
            assert!(dropped > 0 && began.elapsed() < Duration::from_secs(20));
            assert!(metrics.encode().contains(&format!("\nlog_dropped_total {dropped}\n")));
            // The parent reads from now on.
            println!("{dropped}");
            io::stdin().read_line(&mut String::new()).unwrap();
            assert!(finish(Duration::from_secs(10)));
        }
        _ => {}
    }
}

fn command(role: &str, variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "--nocapture", "logs::tests::child"]);
    command.env_remove("RUST_LOG").env_remove("LB_LOG_FORMAT").env_remove("RUST_BACKTRACE");
    command.env(ROLE, role).envs(variables.iter().copied());
    command
}

fn logged(role: &str, variables: &[(&str, &str)]) -> String {
    let Output { status, stdout, stderr } = command(role, variables).output().unwrap();
    assert!(status.success(), "{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    String::from_utf8(stderr).unwrap()
}

#[test]
fn json_is_the_default() {
    let text = logged("log", &[]);
    assert_eq!(text.lines().count(), 1, "{text}");
    let line: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(line["message"], "hello");
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["number"], 7);
    assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn text_is_one_plain_line() {
    for format in ["text", "plain"] {
        let text = logged("log", &[("LB_LOG_FORMAT", format)]);
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.ends_with("hello number=7\n"), "{text}");
        assert!(!text.contains('\u{1b}'));
    }
}

#[test]
fn the_filter_is_obeyed() {
    assert_eq!(logged("log", &[("RUST_LOG", "warn")]), "");
    assert!(logged("log", &[("RUST_LOG", "debug")]).contains("hidden"));
    assert_eq!(logged("log", &[("RUST_LOG", " ")]).lines().count(), 1);
}

#[test]
fn variables_that_do_not_parse_are_reported() {
    let text = logged("log", &[("RUST_LOG", "a=b=c"), ("LB_LOG_FORMAT", "xml")]);
    let messages = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["message"].clone());
    assert_eq!(
        messages.collect::<Vec<_>>(),
        ["RUST_LOG does not parse", "LB_LOG_FORMAT is none of json, text, plain", "hello"]
    );
}

#[test]
fn a_panic_is_logged_and_counted() {
    let line: Value = serde_json::from_str(&logged("panic", &[])).unwrap();
    assert_eq!(line["target"], "panic");
    assert_eq!(line["message"], "process panic — aborting");
    assert_eq!(line["payload"], "boom 1");
    assert!(line["location"].as_str().unwrap().contains("tests.rs:"));
}

#[test]
fn a_panic_is_shown_even_if_the_filter_hides_it() {
    let text = logged("panic", &[("RUST_LOG", "off")]);
    assert!(text.starts_with("process panic — aborting: boom 1, at "), "{text}");
}

#[test]
fn a_broken_pipe_does_not_end_the_process() {
    let mut child = command("broken pipe", &[]);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_reader_that_stalls_holds_nobody_up_and_is_told_of_what_it_missed() {
    let mut child = command("stalled reader", &[]);
    let mut child =
        child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
    // Around it stands what the test runner says.
    let dropped = stdout.find_map(|line| line.unwrap().parse::<u64>().ok()).expect("the count");
    let stderr = child.stderr.take().unwrap();
    let reading =
        std::thread::spawn(move || BufReader::new(stderr).lines().collect::<Result<Vec<_>, _>>().unwrap());
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    let lines = reading.join().unwrap();
    let values: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<&Value> = values
        .iter()
        .filter(|value| value["message"].as_str().unwrap().starts_with("log lines were dropped"))
        .collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0]["lines"].as_u64(), told[0]["level"].as_str()), (Some(dropped), Some("WARN")));
    assert_eq!(values.len() as u64, 20_000 - dropped + 1);
    assert_eq!(values[0]["number"], 0);
}

const ROLE: &str = "LB_OBSERVE_TEST_ROLE";
