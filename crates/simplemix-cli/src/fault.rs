//! Faults that are not errors of ours: panics, and libtorch's errors with their C++ frames, each as one line.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{self, PanicHookInfo};

use crate::lines::warn;
use crate::out_of_memory;

/// Runs `work`; a panic in it is printed as one line, and gives `None`. With `RUST_BACKTRACE=1` the backtrace is printed too.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Option<T> {
    panic::set_hook(Box::new(|info| {
        // It becomes an error, which names the file.
        if simplemix_files::is_guarded() {
            return;
        }
        let text = said(&message(info), &place(info));
        warn(&format!("error: {text}"));
        if out_of_memory::is_line(&text) {
            // A backtrace needs memory too, and hangs without.
            return;
        }
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            warn(&backtrace.to_string());
        }
    }));
    let result = panic::catch_unwind(panic::AssertUnwindSafe(work)).ok();
    drop(panic::take_hook());
    result
}

fn message(info: &PanicHookInfo<'_>) -> String {
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().map(ToString::to_string).or(payload.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "no message".to_owned())
}

fn place(info: &PanicHookInfo<'_>) -> String {
    info.location().map_or_else(|| "an unknown place".to_owned(), |at| format!("{}:{}", at.file(), at.line()))
}

/// The line for a panic. libtorch's out of memory is the machine's fault, everything else is ours.
fn said(message: &str, place: &str) -> String {
    let text = plain(message);
    if out_of_memory::is_line(&text) {
        return text;
    }
    format!("simplemix has a fault, please report it: {} ({place})", text.replace('\n', " "))
}

/// An error's text without libtorch's C++ frames; the line of [`out_of_memory`] if memory ran out.
pub(crate) fn plain(text: &str) -> String {
    // In a panic's message the line ends are escaped.
    let starts = ["\nException raised from", "\nframe #", "\\nException raised from", "\\nframe #"];
    let end = starts.iter().filter_map(|start| text.find(start)).min();
    let text = text[..end.unwrap_or(text.len())].trim_end();
    out_of_memory::line(text).unwrap_or_else(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_cut_off() {
        let text = "The size of tensor a (2) must match the size of tensor b (3)\nException raised from infer at x.cpp:35 \
                    (most recent call first):\nframe #0: c10::Error";
        assert_eq!(plain(text), "The size of tensor a (2) must match the size of tensor b (3)");
        assert_eq!(plain("a\nb"), "a\nb");
        let said = said(text, "x.rs:3");
        assert!(
            said.ends_with("report it: The size of tensor a (2) must match the size of tensor b (3) (x.rs:3)"),
            "{said}"
        );
    }

    #[test]
    fn memory_that_ran_out_is_one_line_with_what_to_lower() {
        // libtorch 2.11 on a CPU.
        let text = "called `Result::unwrap()` on an `Err` value: Torch(\"[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried \
                    to allocate 4831838208 bytes. Error code 12 (Cannot allocate memory)\\nframe #0: c10::ThrowEnforceNotMet\")";
        let line = plain(text);
        assert!(line.starts_with("out of memory: 4.5 GiB were asked for"), "{line}");
        assert!(line.ends_with("or take a smaller model") && !line.contains('\n'), "{line}");
        assert_eq!(said(text, "x.rs:3").split(',').next(), line.split(',').next());
        // A panic of tch on a GPU.
        let text = "called `Result::unwrap()` on an `Err` value: Torch(\"CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a \
                    total capacity of 79.15 GiB of which 1.20 GiB is free. Process 1 has 70.00 GiB memory in use. \\nException \
                    raised from malloc at CUDACachingAllocator.cpp:1482\\nframe #0: c10::Error\")";
        let line = said(text, "x.rs:3");
        assert!(line.starts_with("out of memory on cuda:0: 2.00 GiB were asked for, 1.20 GiB of 79.15"), "{line}");
        assert!(!line.contains("frame") && !line.contains('\n'), "{line}");
    }

    #[test]
    fn a_panic_is_no_result() {
        assert_eq!(caught(|| 3), Some(3));
        assert_eq!(caught(|| -> u8 { panic!("for this test") }), None);
    }
}
