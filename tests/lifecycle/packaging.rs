//! What is installed beside the binary: pages and completions that it writes, its Debian package, and what Prometheus reads.

use std::path::{Path, PathBuf};
use std::process::Command;

use testkit::gateway::{binary, cli};
use testkit::process::{Finished, run, run_command};
use testkit::seconds;
use testkit::tools::Tool;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn text(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[track_caller]
fn succeeded(what: &Finished) {
    assert_eq!(what.code, 0, "{}\n{}", what.stdout, what.stderr);
}

pub(crate) fn schema_completions_and_man_pages() {
    let schema = cli(&["schema"]);
    succeeded(&schema);
    let schema: serde_json::Value = serde_json::from_str(&schema.stdout).unwrap();
    assert_eq!(schema["properties"]["listeners"]["items"]["$ref"], "#/$defs/listeners");
    assert_eq!(schema["$defs"]["listeners"]["required"][0], "address");

    for shell in ["bash", "zsh", "fish"] {
        let script = cli(&["completions", shell]);
        succeeded(&script);
        for command in ["check", "explain", "demo", "schema"] {
            assert!(script.stdout.contains(command), "{shell} does not know {command}");
        }
    }
    assert_ne!(cli(&["completions", "cobol"]).code, 0);

    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("man1");
    succeeded(&cli(&["man", pages.to_str().unwrap()]));
    assert!(text(pages.join("expressgateway.1")).contains("SIGHUP"));
    assert!(text(pages.join("expressgateway-check.1")).contains("resolve"));
}

/// The package is installed into a directory that stands for a system, serves from there, and is purged.
pub(crate) fn a_debian_package_installs_and_goes() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let mut script = Command::new(repository().join("scripts/package.sh"));
    script.args(["--output", &path("out"), "--binary"]).arg(binary()).env("DPKG_DEB_COMPRESSOR_TYPE", "none");
    succeeded(&run_command(script, seconds(120)));
    let package = std::fs::read_dir(path("out")).unwrap().next().unwrap().unwrap().path();
    assert!(package.to_str().unwrap().ends_with(".deb"), "{}", package.display());

    for directory in ["root/etc", "root/var/lib/dpkg"] {
        std::fs::create_dir_all(path(directory)).unwrap();
    }
    for file in ["root/etc/passwd", "root/etc/shadow", "root/etc/group", "root/var/lib/dpkg/status"] {
        std::fs::write(path(file), "").unwrap();
    }
    let root = format!("--root={}", path("root"));
    let dpkg = |arguments: &[&str]| {
        let mut all = vec![root.as_str(), "--force-script-chrootless", "--force-depends", "--log=/dev/null"];
        all.extend(arguments);
        run(Tool::Dpkg.path().unwrap(), &all, seconds(60))
    };
    succeeded(&dpkg(&["--install", package.to_str().unwrap()]));

    let user = text(path("root/etc/passwd"));
    assert!(user.starts_with("expressgateway:x:"), "{user}");
    let unit = text(path("root/lib/systemd/system/expressgateway.service"));
    assert!(unit.contains("ExecStart=/usr/bin/expressgateway /etc/expressgateway/lb.toml"), "{unit}");
    let example = path("root/etc/expressgateway/lb.toml");
    succeeded(&run(path("root/usr/bin/expressgateway"), ["-t", "-c", &example], seconds(20)));
    let schema = text(path("root/usr/share/expressgateway/schema.json"));
    assert!(schema.trim_end() == cli(&["schema"]).stdout.trim_end(), "the schema is that of the binary");

    // A file that somebody has changed outlives the package, but not a purge.
    std::fs::write(&example, "# mine\n").unwrap();
    succeeded(&dpkg(&["--install", package.to_str().unwrap()]));
    assert_eq!(text(&example), "# mine\n");
    assert_eq!(text(path("root/etc/passwd")), user, "the user is made once");
    succeeded(&dpkg(&["--remove", "expressgateway"]));
    assert!(!Path::new(&path("root/usr/bin/expressgateway")).exists());
    assert_eq!(text(&example), "# mine\n");
    succeeded(&dpkg(&["--purge", "expressgateway"]));
    assert!(!Path::new(&example).exists());
}

/// Prometheus itself reads the alerts, and the queries of the dashboard as if they were rules.
pub(crate) fn prometheus_reads_alerts_and_dashboard() {
    let promtool = Tool::Promtool.path().unwrap();
    let alerts = repository().join("packaging/prometheus/alerts.yml");
    succeeded(&run(&promtool, ["check", "rules", "--lint-fatal", alerts.to_str().unwrap()], seconds(30)));

    let dashboard: serde_json::Value =
        serde_json::from_str(&text(repository().join("packaging/grafana/expressgateway.json"))).unwrap();
    let targets =
        dashboard["panels"].as_array().unwrap().iter().filter_map(|panel| panel["targets"].as_array());
    let mut rules = Vec::new();
    for target in targets.flatten() {
        let query = target["expr"].as_str().unwrap().replace("$__rate_interval", "5m");
        rules.push(serde_json::json!({ "record": format!("query:{}", rules.len()), "expr": query }));
    }
    assert!(rules.len() > 40);
    // JSON is YAML.
    let file = serde_json::json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rules.yml");
    std::fs::write(&path, file.to_string()).unwrap();
    succeeded(&run(&promtool, ["check", "rules", path.to_str().unwrap()], seconds(30)));
}
