//! A watch over many pipelines, which hears each notice once.

use std::collections::BTreeSet;

use simplemix_data::{Metrics, Watch};

pub(super) struct ToldOnce<'a> {
    inner: &'a mut dyn Watch,
    told: BTreeSet<String>,
}

impl<'a> ToldOnce<'a> {
    pub(super) fn new(inner: &'a mut dyn Watch) -> Self {
        Self { inner, told: BTreeSet::new() }
    }
}

impl Watch for ToldOnce<'_> {
    fn progress(&mut self, stage: &str, done: u64, total: u64) {
        self.inner.progress(stage, done, total);
    }

    fn metrics(&mut self, metrics: &Metrics<'_>) {
        self.inner.metrics(metrics);
    }

    fn notice(&mut self, text: &str) {
        if self.told.insert(text.to_owned()) {
            self.inner.notice(text);
        }
    }

    fn is_interrupted(&self) -> bool {
        self.inner.is_interrupted()
    }
}
