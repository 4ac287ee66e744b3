//! Any text as a chat template: rendered text within its limits, or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use simplemix_data::{ChatTemplate, Message, TemplateLimits};

fuzz_target!(|text: &str| {
    let turns = [Message::new("system", "s"), Message::user("u é"), Message::assistant("a\n")];
    if let Ok(template) = ChatTemplate::from_str(text) {
        let limits = TemplateLimits { fuel: 20_000, output_bytes: 1 << 16 };
        let _ = template.with_limits(limits).render(&turns, true);
    }
});
