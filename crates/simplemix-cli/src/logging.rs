//! Messages of the libraries on standard error: `warning: ...`, in colour on a terminal only. Events of progress become bars.

use std::fmt;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicU8, Ordering};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::progress_events::{ProgressEvents, is_progress};

use crate::lines::{self, shown};

/// How often -v was given.
static VERBOSITY: AtomicU8 = AtomicU8::new(0);

/// How often -v was given.
pub(crate) fn verbosity() -> u8 {
    VERBOSITY.load(Ordering::Relaxed)
}

/// Shows warnings by default, more with -v; `RUST_LOG` overrides both.
pub(crate) fn to_stderr(verbose: u8) {
    VERBOSITY.store(verbose, Ordering::Relaxed);
    let level = ["warn", "info", "debug"][usize::from(verbose.min(2))];
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| level.into());
    let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(lines::beside)
        .with_ansi(!is_plain && std::io::stderr().is_terminal())
        // Such an error would be printed to the stream that failed, with a panic.
        .log_internal_errors(false)
        .event_format(Line)
        .with_filter(filter);
    let bars = ProgressEvents::default().with_filter(filter_fn(is_progress));
    tracing_subscriber::registry().with(lines).with(bars).init();
}

/// A line for each event; the module is named from the level `info` down, for which one asks.
struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let level = *event.metadata().level();
        let (name, colour) = named(level);
        match writer.has_ansi_escapes() {
            true => write!(writer, "\u{1b}[1;{colour}m{name}:\u{1b}[0m ")?,
            false => write!(writer, "{name}: ")?,
        }
        if level > Level::WARN {
            write!(writer, "{}: ", event.metadata().target())?;
        }
        // Dependencies log what servers send, and requests.
        let mut fields = String::new();
        context.field_format().format_fields(Writer::new(&mut fields), event)?;
        writeln!(writer, "{}", shown(&fields).replace('\n', "\n  "))
    }
}

/// Word and colour of a level.
fn named(level: Level) -> (&'static str, u8) {
    match level {
        Level::ERROR => ("error", 31),
        Level::WARN => ("warning", 33),
        Level::INFO => ("info", 32),
        Level::DEBUG => ("debug", 34),
        Level::TRACE => ("trace", 35),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Logged text, with or without colours.
    fn logged(ansi: bool) -> String {
        #[derive(Clone, Default)]
        struct Kept(Arc<Mutex<Vec<u8>>>);
        impl std::io::Write for Kept {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().extend(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let kept = Kept::default();
        let writer = kept.clone();
        let subscriber =
            tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(ansi).event_format(Line).finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!("5 rows are left out");
            tracing::info!("read");
            tracing::warn!(url = "http://a:b@h/", "name \u{202e}\u{9b}\nerror: forged");
        });
        let bytes = kept.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_warning_off_a_terminal_is_plain() {
        assert_eq!(
            logged(false),
            "warning: 5 rows are left out\ninfo: simplemix::logging::tests: read\n\
             warning: name \\u{202e}\\u{9b}\n  error: forged url=\"http://***@h/\"\n"
        );
        assert!(logged(true).starts_with("\u{1b}[1;33mwarning:\u{1b}[0m 5 rows are left out\n"));
    }
}
