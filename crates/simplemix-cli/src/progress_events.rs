//! Progress that libraries tell as events of `tracing`: tokenising and loading, wherever they happen.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::progress::{Bar, bar};

/// Target of the events.
const TARGET: &str = "simplemix::progress";

/// Time that work takes before it is shown. Less is over before one has read about it.
const SHOWN_AFTER: Duration = Duration::from_millis(300);

/// Shows each piece of work as a bar, or as a line now and then.
#[derive(Default)]
pub(crate) struct ProgressEvents(Mutex<Option<Work>>);

/// Work that goes on.
struct Work {
    stage: String,
    started: Instant,
    bar: Option<Bar>,
}

/// Whether an event is one of progress.
pub(crate) fn is_progress(metadata: &Metadata<'_>) -> bool {
    metadata.target() == TARGET
}

impl<S: Subscriber> Layer<S> for ProgressEvents {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut told = Told::default();
        event.record(&mut told);
        let mut work = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *work = shown(work.take(), &told, now());
    }
}

/// The work after what was told of it; none once it is done.
fn shown(known: Option<Work>, told: &Told, now: Instant) -> Option<Work> {
    let known = known.filter(|work| work.stage == told.stage && told.done > 0);
    let mut work = known.unwrap_or_else(|| Work { stage: told.stage.clone(), started: now, bar: None });
    if told.done >= told.total {
        work.bar.iter().for_each(Bar::finish_and_clear);
        return None;
    }
    if now.duration_since(work.started) >= SHOWN_AFTER {
        work.bar.get_or_insert_with(|| bar(&told.stage, told.total)).set_position(told.done);
    }
    Some(work)
}

impl Drop for Work {
    fn drop(&mut self) {
        self.bar.iter().for_each(Bar::finish_and_clear);
    }
}

/// Fields of an event.
#[derive(Debug, Default, PartialEq)]
struct Told {
    stage: String,
    done: u64,
    total: u64,
}

impl Visit for Told {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "stage" {
            value.clone_into(&mut self.stage);
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "done" => self.done = value,
            "total" => self.total = value,
            _ => {}
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

#[expect(clippy::disallowed_methods, reason = "work is shown once it takes a while")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use simplemix_data::{Pair, PairTokenizer, Policy, TokenizeOptions};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    fn told(stage: &str, done: u64) -> Told {
        Told { stage: stage.to_owned(), done, total: 9 }
    }

    #[test]
    fn work_is_shown_once_it_takes_a_while_and_until_it_is_done() {
        let start = now();
        let begun = shown(None, &told("loading", 0), start).unwrap();
        let short = shown(Some(begun), &told("loading", 2), start + SHOWN_AFTER / 2).unwrap();
        assert!(short.bar.is_none());
        let long = shown(Some(short), &told("loading", 5), start + SHOWN_AFTER).unwrap();
        assert_eq!(long.bar.as_ref().map(Bar::position), Some(5));
        // Another piece of work, or the next one of this kind, begins anew.
        let other = shown(Some(long), &told("tokenising", 1), start + 2 * SHOWN_AFTER).unwrap();
        assert!(other.bar.is_none() && other.stage == "tokenising");
        let again = shown(Some(other), &told("tokenising", 0), start + 9 * SHOWN_AFTER).unwrap();
        assert!(again.bar.is_none());
        assert!(shown(Some(again), &told("tokenising", 9), start + 10 * SHOWN_AFTER).is_none());
    }

    /// The libraries tell their progress when a model is loaded and pairs are tokenised.
    #[test]
    fn libraries_tell_of_loading_and_tokenising() {
        #[derive(Clone, Default)]
        struct Kept(Arc<Mutex<Vec<Told>>>);
        impl<S: Subscriber> Layer<S> for Kept {
            fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
                if is_progress(event.metadata()) {
                    let mut told = Told::default();
                    event.record(&mut told);
                    self.0.lock().unwrap().push(told);
                }
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("model");
        simplemix_model::tiny::write_folder(&folder, 1).unwrap();
        let kept = Kept::default();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(kept.clone()), || {
            simplemix_model::CausalLm::load(&folder, simplemix_model::Dtype::Auto.kind(cpu()), cpu()).unwrap();
            let tokenizer = PairTokenizer::from_dir(&folder, TokenizeOptions::default()).unwrap();
            let pair = |i: usize| Pair::new("a".into(), format!("b {i}").as_str().into(), "c".into(), "s", Policy::Off);
            tokenizer.encode_all(&(0..1500).map(pair).collect::<Vec<_>>()).unwrap();
        });
        let told = kept.0.lock().unwrap();
        let of = |stage: &str| told.iter().filter(|told| told.stage == stage).map(|told| told.done).collect::<Vec<_>>();
        assert_eq!(of("tokenising"), [0, 1024, 1500]);
        let loading = of("loading");
        let last = told.iter().rfind(|told| told.stage == "loading").unwrap();
        assert!(
            loading[0] == 0 && loading.windows(2).all(|two| two[0] < two[1]) && last.done == last.total,
            "{told:?}"
        );
    }

    fn cpu() -> tch::Device {
        tch::Device::Cpu
    }
}
