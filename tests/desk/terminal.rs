//! `expressgateway top` and `expressgateway tap`.

use std::process::Command;

use serde_json::Value;
use testkit::gateway::{binary, cli};
use testkit::load::Load;
use testkit::process::{Finished, Process, run_command};
use testkit::{eventually, ms, seconds};

use crate::rig::{Desk, TOKEN};

/// Runs a command with the token in its environment until it ends.
fn with_token(token: &str, arguments: &[&str]) -> Finished {
    let mut command = Command::new(binary());
    command.args(arguments).env("EXPRESSGATEWAY_TOKEN", token);
    run_command(command, seconds(20))
}

pub(crate) fn top_writes_how_everything_stands() {
    let desk = Desk::start(|config| config);
    desk.traffic(10);
    desk.status_after(31);
    let admin = desk.gateway.admin().to_string();
    let said = cli(&["top", "--once", "--admin", &admin]);
    assert_eq!(said.code, 0, "{said:?}");
    for part in
        ["POOLS", "BACKENDS", "ROUTES", "LISTENERS", "ERRORS BY REASON", "CERTIFICATES", "  ok  up ", "2/2"]
    {
        assert!(said.stdout.contains(part), "{part} is missing in\n{}", said.stdout);
    }
    let api = desk.api.address.to_string();
    assert!(
        said.stdout
            .lines()
            .any(|line| line.starts_with(&api) && line.contains(" api ") && line.contains(" up "))
    );
    assert!(!said.stdout.contains('\u{1b}'), "nothing moves a cursor where there is none");
    let file = desk.gateway.dir().join("lb.toml").display().to_string();
    let json = cli(&["top", "--once", "--json", "-c", &file]);
    let status: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(status["process"]["requests_total"], 31);
    let one = cli(&["top", "--once", "--pool", "api", "--admin", &admin]);
    assert!(one.stdout.contains(&api) && !one.stdout.contains(&desk.bad.address.to_string()));
    let free = testkit::ports::reserve().to_string();
    let nobody = cli(&["top", "--once", "--admin", &free]);
    assert_eq!(nobody.code, 1);
    assert!(nobody.stderr.contains("cannot be asked"), "{}", nobody.stderr);
}

pub(crate) fn a_tap_shows_what_is_chosen() {
    let desk = Desk::start(|config| config);
    let admin = desk.gateway.admin().to_string();
    let refused = with_token("wrong", &["tap", "--admin", &admin]);
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains("403: forbidden: the bearer token is missing or wrong"),
        "{}",
        refused.stderr
    );
    let wrong = with_token(TOKEN, &["tap", "--status", "9xx", "--admin", &admin]);
    assert!(wrong.stderr.contains("status: \"9xx\" is not a status"), "{}", wrong.stderr);

    let tap = |arguments: &[&str]| {
        let mut command = Command::new(binary());
        command.args(["tap", "--admin", &admin]).args(arguments).env("EXPRESSGATEWAY_TOKEN", TOKEN);
        Process::spawn(command)
    };
    let failed = tap(&["--status", "5xx", "--json"]);
    let routed = tap(&["--route", "api", "--fields"]);
    let other = tap(&["--client", "192.0.2.0/24"]);
    desk.fail_with(500);
    eventually("both taps show something", seconds(15), || {
        desk.traffic(1);
        !failed.stdout.is_empty() && routed.stdout.len() > 3
    });
    for line in failed.stdout.lines() {
        let record: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (&record["status"], &record["backend"]),
            (&500.into(), &desk.bad.address.to_string().into())
        );
    }
    let shown = routed.stdout.lines();
    let requests: Vec<_> = shown.iter().filter(|line| !line.starts_with("    ")).collect();
    assert!(
        requests.iter().all(|line| line.contains(" route api ") && line.contains("GET api.example/")),
        "{shown:#?}"
    );
    assert!(shown.iter().any(|line| line.trim().eq_ignore_ascii_case("host: api.example")), "{shown:#?}");
    assert!(other.stdout.is_empty());
    // It ends by itself after as many as were asked for.
    let mut two = tap(&["--count", "2"]);
    eventually("it has ended", seconds(15), || {
        desk.traffic(1);
        two.exit().is_some()
    });
    eventually("its output was read", seconds(5), || two.stdout.ended());
    assert_eq!(two.stdout.len(), 2);
}

pub(crate) fn d_06_a_tap_shows_a_part_of_too_much_and_holds_nobody_up() {
    let desk = Desk::start(|config| config);
    let admin = desk.gateway.admin().to_string();
    let mut command = Command::new(binary());
    command.args(["tap", "--admin", &admin, "--per-second", "5"]).env("EXPRESSGATEWAY_TOKEN", TOKEN);
    let tap = Process::spawn(command);
    // And one that nobody reads.
    let mut silent = desk.gateway.admin_client();
    silent
        .send(format!("GET /tap?per_second=1000&fields=1 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"))
        .unwrap();
    eventually("it is open", seconds(10), || {
        desk.traffic(1);
        !tap.stdout.is_empty()
    });
    let from = tap.stdout.len();
    let load = Load::start(desk.gateway.front(), 4, "/", ms(0));
    std::thread::sleep(seconds(3));
    let served = load.served();
    load.stop();
    let shown = tap.stdout.len() - from;
    assert!(served > 200, "{served}");
    assert!((5..=25).contains(&shown), "{shown} of {served}");
    eventually("what is missed is told", seconds(5), || tap.stderr.count("more were not shown") > 0);
}
