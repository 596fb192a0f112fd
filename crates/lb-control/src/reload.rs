//! SIGHUP: validate first, then swap what can be swapped; what cannot is named, every time.

use std::collections::HashSet;
use std::sync::Arc;

use lb_config::{Config, Plan};
use tokio::task::spawn_blocking;

use crate::control::{Control, give_back_of};
use crate::decision::Decision;
use crate::discovery::Look;
use crate::faults::Collected;
use crate::file_keys::FileKeys;
use crate::named_files::Stamps;
use crate::status::Pass;
use crate::xdp::faults_of_machine;
use crate::{aside, descriptors, listeners, process, source, systemd};

/// Files that a line of the log names.
const MOST_SHOWN: usize = 10;

impl Control {
    /// One pass. Whatever fails, what runs stays as it is.
    pub(crate) async fn reload(&mut self) {
        tracing::info!(signal = "SIGHUP", "lifecycle signal received");
        let _ = self.pass().await;
    }

    /// What SIGHUP begins, and the admin port.
    ///
    /// # Errors
    /// Why nothing of the file is in force, in lines; the log has them too.
    pub(crate) async fn pass(&mut self) -> Result<(), String> {
        if let Some(upgrade) = &mut self.upgrade {
            upgrade.owes_hangup();
        }
        systemd::reloading();
        let result = self.try_reload().await;
        let pass = match &result {
            Ok(plan) => Pass::Applied(plan.clone()),
            Err(error) => Pass::Rejected(format!("{error:#}")),
        };
        self.admin_port.reloaded(&pass, self.version);
        let verdict = match pass {
            Pass::Applied(_) => Ok(()),
            Pass::Rejected(error) => Err(error),
        };
        let status = match result.map(|plan| plan.restart.len()) {
            Ok(0) => format!("configuration version {} in force", self.version),
            Ok(restart) => {
                format!(
                    "configuration version {} in force, {restart} change(s) wait for a restart",
                    self.version
                )
            }
            Err(error) => {
                self.metrics.reload_failed.inc();
                let error = format!("{error:#}");
                for line in error.lines() {
                    tracing::error!(
                        reason = line,
                        "SIGHUP: config reload rejected — rolling back, keeping live config"
                    );
                }
                let first = error.lines().next().unwrap_or_default();
                format!("reload rejected, configuration version {} stays in force: {first}", self.version)
            }
        };
        self.tell_of_newer_files().await;
        // The file's text and what it was read into are gone by now.
        give_back_of(self.snapshot.members());
        systemd::ready(&status);
        verdict
    }

    /// SIGHUP reads no certificate again, which is what many expect of it: says so when there is a newer one.
    async fn tell_of_newer_files(&mut self) {
        let (mut stamps, config) = (self.stamps.clone(), self.snapshot.config.clone());
        let looked = spawn_blocking(move || {
            let changed = stamps.changed(&config);
            (stamps, changed)
        });
        // The panic hook has told of what else there is.
        let Ok((stamps, changed)) = looked.await else { return };
        self.stamps = stamps;
        if !changed.is_empty() {
            let shown: Vec<_> =
                changed.iter().take(MOST_SHOWN).map(|path| path.display().to_string()).collect();
            tracing::warn!(
                files = shown.join(", "),
                count = changed.len(),
                "files of certificates or keys are newer on disk than in force — SIGUSR1 reads them, SIGHUP does not"
            );
        }
    }

    /// What differed, and whether it waits for a restart.
    async fn try_reload(&mut self) -> anyhow::Result<Plan> {
        // Files are read on a thread that nothing else waits for: a file system that does not answer must not keep the order to stop
        // waiting.
        let source = self.source.clone();
        let read = aside::run("config", move || -> anyhow::Result<_> {
            let text = source.read()?;
            let new = source::load(&text);
            Ok((text, new))
        });
        let (text, new) = read.await??;
        if text == self.text {
            tracing::info!("SIGHUP: config file unchanged — nothing to reload");
        }
        let new = new?;
        let Decision { plan, next, overlay, merged } = Decision::of(&self.config, &self.overlay, new)?;
        for warning in &next.warnings {
            tracing::warn!("{warning}");
        }
        let wanted = Arc::new(merged);
        let (named, known, tls) = (Arc::clone(&wanted), self.keys.clone(), self.tls.clone());
        let read = spawn_blocking(move || -> anyhow::Result<_> {
            let stamps = Stamps::take(&named);
            Ok((stamps, tls.next(&named)?, FileKeys::load(&named, &known)?))
        });
        let mut faults = Collected::default();
        let (read, prepared) = (faults.keep(read.await?), faults.keep(self.prepare(next, overlay).await));
        faults.extend(faults_of_machine(&wanted));
        let (Some((stamps, tls, keys)), Some(mut next), true) = (read, prepared, faults.is_empty()) else {
            // What is wrong with the sockets is told as well.
            faults.extend(self.listeners.obstacles(&wanted, &self.resolver, &self.metrics).await);
            return Err(faults.into_error());
        };
        drop(wanted);
        // Sockets come last: where anything else fails, no client has seen them.
        let workers = self.workers.orders.len();
        next.turn = self.listeners.turn(&next.merged, &self.resolver, &self.metrics, workers).await?;
        if next.merged.listeners.iter().any(|listener| listener.tls.is_some()) {
            process::forbid_core_dumps();
        }
        let files = tls.read.clone();
        next.tls = Some(tls);
        // Workers find their keys in what is published.
        let keys = std::mem::replace(&mut self.keys, keys);
        let before = self.config.clone();
        let differs = match self.commit(next).await {
            Ok(differs) => differs,
            Err(error) => {
                self.keys = keys;
                return Err(error);
            }
        };
        self.access_watch.follow(&self.keys.access, &self.metrics);
        self.stamps.keep(&stamps, &files);
        self.forget_weights();
        descriptors::warn_of_limit(&self.config, Some(&before), workers);
        self.text = text;
        if differs || !plan.live.is_empty() {
            self.show_drain_budgets(&self.config);
            self.version = self.version.saturating_add(1);
            self.metrics.reload_version.set(i64::try_from(self.version).unwrap_or(i64::MAX));
        }
        self.follow_sources(Vec::new());
        self.report(&plan);
        Ok(plan)
    }

    /// The file wins for the backends that it names: shares that the admin port gave them are theirs no more.
    fn forget_weights(&self) {
        for pool in self.config.pools_in_use() {
            let Some(in_force) = self.snapshot.pool(&pool.id) else { continue };
            let backends: HashSet<&str> = pool.backends.iter().map(|backend| backend.name.as_str()).collect();
            in_force.shared.forget_weights(|name| backends.contains(name));
        }
    }

    /// Looks at the sources of backends that the configuration names.
    pub(crate) fn follow_sources(&mut self, looked: Vec<Look>) {
        let pools = self.config.pools_in_use().into_iter().filter(|pool| pool.discovery.is_some());
        let names: Vec<&str> = pools.map(|pool| pool.id.name()).collect();
        self.metrics.discovery_failures.keep(&names);
        self.sources.follow(&self.config, &self.resolver, &self.metrics, looked);
    }

    fn show_drain_budgets(&self, config: &Config) {
        for listener in config.listeners.iter().filter(|listener| listener.starts()) {
            listeners::show(&self.metrics, listener);
        }
    }

    fn report(&self, plan: &Plan) {
        for change in &plan.live {
            self.metrics.reload_applied.inc(change.field);
            tracing::info!(field = change.field, "SIGHUP: {} — applied live", change.scope);
        }
        for change in &plan.restart {
            self.metrics.reload_restart_required.inc(change.field);
            tracing::warn!(field = change.field, "SIGHUP: {} — requires restart, not applied", change.scope);
        }
        self.metrics.reload_succeeded.inc();
        tracing::info!(
            applied_swappable = plan.live.len(),
            restart_required = plan.restart.len(),
            version = self.version,
            "SIGHUP config reload pass complete"
        );
    }
}
