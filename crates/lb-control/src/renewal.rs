//! SIGUSR1: files that were replaced on disk are opened and read anew.

use std::sync::Arc;

use tokio::task::spawn_blocking;

use crate::control::Control;
use crate::named_files::Stamps;
use crate::tls::Renewed;

impl Control {
    /// SIGUSR1: files that were replaced on disk are opened and read anew.
    pub(crate) async fn reopen(&mut self) {
        if let Some(upgrade) = &mut self.upgrade {
            upgrade.owes_user1();
        }
        if let Some(log) = &self.access_log {
            log.reopen();
        }
        // On a thread that nothing else waits for: a file system that does not answer must not keep the order to stop waiting.
        let (tls, keys, backends_tls) =
            (self.tls.clone(), self.keys.clone(), self.snapshot.backends_tls.clone());
        let (config, metrics) = (self.snapshot.config.clone(), Arc::clone(&self.metrics));
        let read = spawn_blocking(move || {
            let stamps = Stamps::take(&config);
            (stamps, tls.renew(&config, &metrics), keys.renew(&config), backends_tls.renew(&config))
        });
        // The panic hook has told of what else there is.
        let Ok((stamps, mut renewed, keys, backends_tls)) = read.await else { return };
        let before = std::mem::replace(&mut self.stamps, stamps);
        let (keys, failures) = keys;
        for (path, error) in failures {
            renewed.kept.extend(path);
            renewed.fail = renewed.fail.saturating_add(1);
            tracing::error!(reason = format!("{error:#}"), "key reload failed — keeping previous key live");
        }
        self.keys = keys;
        let (backends_tls, failures) = backends_tls;
        for (files, error) in failures {
            renewed.kept.extend(files);
            renewed.fail = renewed.fail.saturating_add(1);
            tracing::error!(
                reason = format!("{error:#}"),
                "TLS cert reload failed — keeping previous files for backends live"
            );
        }
        if !backends_tls.is_empty() || self.keys.has_files() {
            let (config, backends) = (self.snapshot.config.clone(), self.snapshot.backends.clone());
            self.publish(config, backends, backends_tls).await;
        }
        let Renewed { ok, fail, kept } = renewed;
        self.stamps.keep(&before, &kept);
        tracing::info!(ok, fail, entries = ok.saturating_add(fail), "SIGUSR1 cert reload pass complete");
    }
}
