//! SIGHUP: validate first, then swap what can be swapped; what cannot is named, every time.

use lb_config::{Config, Plan};

use crate::control::Control;
use crate::sticky::StickyKeys;
use crate::tls::BackendsTls;
use crate::{boot, check, gateway, names};

impl Control {
    /// One pass. Whatever fails, what runs stays as it is.
    pub(crate) async fn reload(&mut self) {
        tracing::info!(signal = "SIGHUP", "lifecycle signal received");
        gateway::notify_systemd(&[
            sd_notify::NotifyState::Reloading,
            sd_notify::NotifyState::monotonic_usec_now().unwrap_or(sd_notify::NotifyState::Reloading),
        ]);
        match self.try_reload().await {
            Ok(()) => {}
            Err(error) => {
                self.metrics.reload_failed.inc();
                for line in format!("{error:#}").lines() {
                    tracing::error!(
                        reason = line,
                        "SIGHUP: config reload rejected — rolling back, keeping live config"
                    );
                }
            }
        }
        gateway::notify_systemd(&[sd_notify::NotifyState::Ready]);
    }

    async fn try_reload(&mut self) -> anyhow::Result<()> {
        let text = self.source.read()?;
        if text == self.text {
            tracing::info!("SIGHUP: config file unchanged — nothing to reload");
        }
        let new = check::load(&text, &self.source.path())?;
        let running = &self.snapshot.config;
        let plan = Plan::between(running, &new);
        let next = Plan::apply(running, new);
        for warning in &next.warnings {
            tracing::warn!("{warning}");
        }
        let known = Some(self.snapshot.backends.as_slice());
        let resolution = names::resolve(&next, &self.resolver, &self.metrics, known).await?;
        let backends_tls = BackendsTls::load(&next, &self.snapshot.backends_tls)?;
        self.sticky = StickyKeys::load(&next, &self.sticky)?;
        let addresses_changed = resolution.listeners != self.snapshot.backends;
        self.valid_until = resolution.valid_until;
        self.text = text;
        if addresses_changed || !plan.live.is_empty() {
            self.show_drain_budgets(&next);
            self.publish(next, resolution.listeners, backends_tls);
            self.version = self.version.saturating_add(1);
            self.metrics.reload_version.set(i64::try_from(self.version).unwrap_or(i64::MAX));
        }
        self.report(&plan);
        Ok(())
    }

    fn show_drain_budgets(&self, config: &Config) {
        for listener in config.listeners.iter().filter(|listener| listener.starts()) {
            boot::show_listener(&self.metrics, listener);
        }
    }

    fn report(&self, plan: &Plan) {
        for change in &plan.live {
            self.metrics.reload_applied.inc(change.field);
            tracing::info!(field = change.field, "SIGHUP: {} — applied live", change.scope);
        }
        for change in &plan.restart {
            self.metrics.reload_restart_required.inc(change.field);
            tracing::warn!(
                field = change.field,
                "SIGHUP: {} changed — requires restart, not applied",
                change.scope
            );
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
