//! Crates import in one direction, and ARCHITECTURE.md says in which.
//!
//! A crate may use crates of lower layers alone. The manifests say what a crate depends on, and the sources what they name: a development
//! dependency must not let a test or an example reach up either.

use std::collections::BTreeSet;
use std::path::Path;

/// The crates of the gateway by layer, lowest first. What stands on one line does not see what stands beside it.
const LAYERS: &[&[&str]] = &[
    &["lb-core"],
    &["lb-config", "lb-observe"],
    &["lb-io", "lb-desk"],
    &["lb-security", "lb-pool"],
    &["lb-http", "lb-l4", "lb-l4-xdp"],
    &["lb-quic"],
    &["lb-control"],
    &["lb"],
];

/// The layer of a crate of the gateway.
fn layer(name: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&name))
}

/// Whether `user` may see `used`.
fn may_see(user: &str, used: &str) -> bool {
    user == used || layer(used) < layer(user)
}

/// The names of the crates that stand in `crates/`.
fn crates() -> BTreeSet<String> {
    let entries = std::fs::read_dir(crate::repository("crates")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// What a manifest depends on of the crates of the gateway, in all its tables of dependencies or in `[dependencies]` alone.
fn dependencies(name: &str, in_tests_too: bool) -> BTreeSet<String> {
    let manifest = crate::text(&format!("crates/{name}/Cargo.toml"));
    depended_on(&manifest, in_tests_too)
}

fn depended_on(manifest: &str, in_tests_too: bool) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut is_listed = false;
    for line in manifest.lines().map(str::trim) {
        if let Some(table) = line.strip_prefix('[') {
            let table = table.trim_end_matches(']');
            is_listed = table == "dependencies" || in_tests_too && table.ends_with("dependencies");
            // `[dependencies.lb-core]`, and the same for one target.
            let single = table.rsplit_once("dependencies.").map(|(_, name)| name);
            found.extend(single.filter(|name| layer(name).is_some()).map(str::to_owned));
            continue;
        }
        let name = line.split(['=', '.', ' ']).next().unwrap_or_default();
        // A renamed dependency says its name behind `package`.
        let renamed = line.split_once("package = \"").and_then(|(_, rest)| rest.split('"').next());
        let name = renamed.unwrap_or(name);
        if is_listed && layer(name).is_some() {
            found.insert(name.to_owned());
        }
    }
    found
}

/// The crates of the gateway that a source names in a path, such as `lb_core::rng`, or alone in a `use`.
fn named(source: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in source.lines().filter(|line| !line.trim_start().starts_with("//")) {
        for (at, _) in line.match_indices("lb_") {
            let before = line[..at].chars().next_back();
            if before.is_some_and(|char| char.is_alphanumeric() || char == '_') {
                continue;
            }
            let rest = &line[at..];
            let end = rest.find(|char: char| !char.is_ascii_alphanumeric() && char != '_');
            let (name, after) = rest.split_at(end.unwrap_or(rest.len()));
            let is_path = after.starts_with("::") || line.trim_start().starts_with("use ");
            let name = name.replace('_', "-");
            if is_path && layer(&name).is_some() {
                found.insert(name);
            }
        }
    }
    found
}

/// Every Rust source below a directory, with its path.
pub(crate) fn sources(directory: &Path, visit: &mut dyn FnMut(&Path, &str)) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, visit);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            visit(&path, &std::fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn manifests_depend_on_lower_layers_alone() {
    let placed: BTreeSet<String> = LAYERS.iter().copied().flatten().map(|name| (*name).to_owned()).collect();
    assert_eq!(crates(), placed, "every crate has a layer");
    for name in crates() {
        for used in dependencies(&name, true) {
            // The features of a crate of the gateway may be chosen for its own tests.
            assert!(may_see(&name, &used), "crates/{name}/Cargo.toml: {used} stands beside {name}, or above");
        }
    }
}

#[test]
fn sources_name_lower_layers_alone() {
    let mut seen = 0;
    for name in crates() {
        sources(&crate::repository(&format!("crates/{name}")), &mut |path, text| {
            for used in named(text) {
                assert!(
                    may_see(&name, &used),
                    "{}: names {used}, which stands beside {name}, or above",
                    path.display()
                );
                seen += usize::from(used != name);
            }
        });
    }
    assert!(seen > 100, "{seen} imports were seen, so the sources were not read as they are written");
}

#[test]
fn architecture_lists_what_each_crate_depends_on() {
    let text = crate::text("docs/ARCHITECTURE.md");
    let mut listed = BTreeSet::new();
    for row in text.lines().filter(|line| line.starts_with("| `lb")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [name, _, uses] = cells[..] else { panic!("not three cells: {row}") };
        let name = name.trim_matches('`').to_owned();
        let spans = uses.split('`').skip(1).step_by(2);
        let uses: BTreeSet<String> = spans.map(|span| format!("lb-{span}")).collect();
        assert_eq!(uses, dependencies(&name, false), "docs/ARCHITECTURE.md, {name}");
        listed.insert(name);
    }
    assert_eq!(listed, crates(), "docs/ARCHITECTURE.md has a row for every crate");
}

#[test]
fn imports_are_read_as_they_are_written() {
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let source = "use lb_io::{\n    Phase,\n};\nuse lb_core;\nlet a = lb_pool::x(sub_lb_http::y);\n// lb_control::z\nlet lb_l4 = 1;\n";
    assert_eq!(named(source), set(&["lb-core", "lb-io", "lb-pool"]));
    let manifest = "[package]\nname = \"lb-http\"\n[dependencies]\nlb-core.workspace = true\nother = { package = \"lb-io\" }\n\
                    [dev-dependencies]\nlb-pool = { workspace = true }\n[target.x.dependencies.lb-l4]\n";
    assert_eq!(depended_on(manifest, true), set(&["lb-core", "lb-io", "lb-l4", "lb-pool"]));
    assert_eq!(depended_on(manifest, false), set(&["lb-core", "lb-io", "lb-l4"]));
    assert!(may_see("lb-control", "lb-http") && !may_see("lb-http", "lb-control"));
    assert!(!may_see("lb-http", "lb-l4") && !may_see("lb-config", "lb-observe"));
}

/// All that a manifest depends on outside tests.
fn all_dependencies(manifest: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut is_listed = false;
    for line in manifest.lines().map(str::trim) {
        if let Some(table) = line.strip_prefix('[') {
            let table = table.trim_end_matches(']');
            is_listed = table.ends_with("dependencies") && !table.ends_with("dev-dependencies");
        } else if is_listed && let Some((name, _)) = line.split_once(['=', '.', ' ']) {
            found.insert(name.trim().to_owned());
        }
    }
    found
}

/// What a lock file says that a crate of the gateway depends on.
fn locked(lock: &str, name: &str) -> Option<BTreeSet<String>> {
    let package =
        lock.split("[[package]]").find(|package| package.contains(&format!("\nname = \"{name}\"\n")))?;
    let names = package.lines().filter_map(|line| line.strip_prefix(" \"")?.split(['"', ' ']).next());
    Some(names.map(str::to_owned).collect())
}

/// The fuzz targets are no part of the workspace: nothing else tells that their lock file is of an earlier day.
#[test]
fn the_lock_of_the_fuzz_targets_is_that_of_the_manifests() {
    let lock = crate::text("fuzz/Cargo.lock");
    let mut compared = 0;
    for name in crates() {
        let Some(locked) = locked(&lock, &name) else { continue };
        let manifest = crate::text(&format!("crates/{name}/Cargo.toml"));
        assert_eq!(locked, all_dependencies(&manifest), "{name}: run `cargo check` in fuzz/");
        compared += 1;
    }
    assert!(compared > 5, "{compared} crates are compared");
}
