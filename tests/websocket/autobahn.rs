//! The Autobahn suite, with and without the gateway: whatever it thinks of the server, it must think the same through the gateway.

use crate::rig::{Cell, Rig};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use testkit::process::run;
use testkit::tools::Tool;
use testkit::{Peer, seconds};

/// All but the measures of speed (9) and what needs an hour of compressing (12, 13); of these a few.
const CASES: &[&str] = &[
    "1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.1.1", "9.2.1", "9.5.3", "10.*", "12.1.1", "12.1.5",
    "13.1.1",
];

pub(crate) fn verdicts_are_the_same(cell: Cell) {
    let rig = Rig::new(cell, &[]);
    // The suite itself speaks HTTP/1.1 only.
    let bridge = cell.front_h2.then(|| Peer::start("ws_h2_bridge.py", &[&rig.gateway.front().to_string()]));
    let through: SocketAddr = bridge.as_ref().map_or(rig.gateway.front(), |bridge| bridge.address);
    let scheme = if cell.tls { "wss" } else { "ws" };
    let dir = tempfile::tempdir().unwrap();
    let spec = json!({
        "outdir": dir.path(),
        "servers": [
            {"agent": "direct", "url": format!("ws://{}/echo", rig.server.address)},
            {"agent": "gateway", "url": format!("{scheme}://{through}/echo")},
        ],
        "cases": CASES, "exclude-cases": [], "exclude-agent-cases": {},
    });
    let file = dir.path().join("spec.json");
    std::fs::write(&file, spec.to_string()).unwrap();
    let wstest = Tool::Wstest.path().expect("wstest");
    let finished = run(wstest, ["-m", "fuzzingclient", "-s", file.to_str().unwrap()], seconds(880));
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    let report: Value =
        serde_json::from_slice(&std::fs::read(dir.path().join("index.json")).unwrap()).unwrap();
    let (direct, gateway) = (verdicts(&report["direct"]), verdicts(&report["gateway"]));
    assert!(direct.len() > 200, "only {} cases", direct.len());
    let differ: Vec<_> = direct
        .iter()
        .filter(|(case, direct)| !gateway.get(*case).is_some_and(|gateway| is_as_good(gateway, direct)))
        .collect();
    let shown: Vec<_> = differ
        .iter()
        .map(|(case, verdict)| format!("{case}: {verdict:?}, now {:?}", gateway.get(*case)))
        .collect();
    keep_reports(dir.path(), !shown.is_empty());
    assert!(shown.is_empty(), "{shown:#?}");
}

/// A server that is late with its end of the TCP connection gets `UNCLEAN`, and one that is late with an answer `FAILED`, with the gateway or
/// without; that it was in time through the gateway and late without is no fault of the gateway's.
fn is_as_good(gateway: &(String, String), direct: &(String, String)) -> bool {
    gateway == direct || (gateway.1 == "OK" && (gateway.0 == "OK" || gateway.0 == direct.0))
}

/// What the suite thought of each case: of the messages, and of the close.
fn verdicts(agent: &Value) -> BTreeMap<String, (String, String)> {
    // Whether an echo arrives before the close that follows it is a race with or without the gateway; the suite takes both for a pass.
    let text = |value: &Value| value.as_str().unwrap_or_default().replace("NON-STRICT", "OK");
    let cases = agent.as_object().expect("a report");
    let verdict = |(case, seen): (&String, &Value)| {
        (case.clone(), (text(&seen["behavior"]), text(&seen["behaviorClose"])))
    };
    cases.iter().map(verdict).collect()
}

/// Reports of a failed run are worth reading.
fn keep_reports(dir: &Path, failed: bool) {
    if failed {
        let kept = std::env::temp_dir().join("expressgateway-autobahn");
        std::fs::remove_dir_all(&kept).ok();
        if std::fs::rename(dir, &kept).is_ok() {
            eprintln!("the suite's reports are in {}", kept.display());
        }
    }
}
