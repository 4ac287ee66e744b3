//! Any bytes as the answer of a server (a completion, a chat completion, an event stream, an error): a reply or an error.
//! The first byte says which of the two interfaces was asked.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((first, body)) = bytes.split_first() else { return };
    simplemix_rollout::fuzzing::reply(body, first % 2 == 0);
});
