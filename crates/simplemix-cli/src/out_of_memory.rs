//! The line for memory that ran out, of the host or of a GPU: what was asked for, what is free, what to lower.

/// How every such line begins.
const START: &str = "out of memory";

/// Memory to save, by whoever runs out of it.
const LOWER: &str = "lower `batch.micro_batch_tokens`, `memory.logits_bytes` or `tokens.max_length` in training, or set \
                     `memory.activation_checkpointing = true`; lower the rows or new tokens of a generation; or take a smaller model";

/// Texts of CUDA and its libraries that name no numbers.
const WITHOUT_NUMBERS: [&str; 6] = [
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUSOLVER_STATUS_ALLOC_FAILED",
    "would exceed allowed memory. (out of memory)",
];

/// Parts of errors that repeat the words of a server or of a scorer's program, whose memory is not ours.
const FOREIGN: [&str; 3] = ["http://", "https://", "command `"];

/// Whether a line is one of [`line`].
pub(crate) fn is_line(text: &str) -> bool {
    text.starts_with(START)
}

/// The line for an error's text, if memory ran out in this process.
pub(crate) fn line(text: &str) -> Option<String> {
    // The text of CUDA's allocator ends with an address of its own.
    let head = text.split("See documentation for Memory Management").next().unwrap_or(text);
    if FOREIGN.iter().any(|start| head.contains(start)) {
        return None;
    }
    host(text).or_else(|| gpu(text)).map(|facts| format!("{START}{facts}; {LOWER}"))
}

/// Facts of the host's allocator.
fn host(text: &str) -> Option<String> {
    if let Some(asked) = between(text, "you tried to allocate ", " bytes").and_then(|bytes| bytes.parse().ok()) {
        let free = available().map_or(String::new(), |free| format!(", {} are free", size(free)));
        return Some(format!(": {} were asked for{free}", size(asked)));
    }
    text.contains("std::bad_alloc").then(String::new)
}

/// Facts of CUDA's allocator.
fn gpu(text: &str) -> Option<String> {
    let number = between(text, "GPU ", " has a total capacity of ").and_then(|number| number.parse::<u32>().ok());
    if let (Some(asked), Some(number)) = (between(text, "Tried to allocate ", ". GPU "), number) {
        let total = between(text, " has a total capacity of ", " of which ");
        let free = between(text, " of which ", " is free").zip(total);
        let free = free.map_or(String::new(), |(free, total)| format!(", {free} of {total} are free"));
        let own = between(text, "this process has ", " memory in use");
        let own = own.map_or(String::new(), |own| format!(", {own} are this process's"));
        return Some(format!(" on cuda:{number}: {asked} were asked for{free}{own}{}", scattered(text, asked)));
    }
    WITHOUT_NUMBERS.iter().any(|known| text.contains(known)).then(|| " on the GPU".to_owned())
}

/// Help where as much as was asked for is free, in pieces.
fn scattered(text: &str, asked: &str) -> String {
    let free = between(text, " and ", " is reserved by PyTorch but unallocated").and_then(bytes);
    match free.zip(bytes(asked)) {
        Some((free, asked)) if free >= asked => {
            ", and as much is free in pieces, which PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True avoids".to_owned()
        }
        _ => String::new(),
    }
}

/// A size as libtorch writes it, such as `1.50 GiB`.
fn bytes(text: &str) -> Option<f64> {
    let (number, unit) = text.rsplit_once(" and ").map_or(text, |(_, last)| last).split_once(' ')?;
    let power = ["bytes", "KiB", "MiB", "GiB"].iter().position(|known| *known == unit)?;
    Some(number.parse::<f64>().ok()? * 1024f64.powi(power as i32))
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let rest = text.split_once(start)?.1;
    Some(rest.split_once(end)?.0)
}

fn size(bytes: u64) -> String {
    let mebibytes = bytes as f64 / (1u64 << 20) as f64;
    if mebibytes < 1024.0 { format!("{mebibytes:.0} MiB") } else { format!("{:.1} GiB", mebibytes / 1024.0) }
}

/// Memory that the system would give, in bytes.
fn available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kibibytes: u64 = between(&text, "MemAvailable:", "kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CUDACachingAllocator.cpp of libtorch 2.11, with the process's own use, which NVML tells.
    const CUDA: &str = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 1 has a total capacity of 79.15 GiB of which 1.20 GiB \
                        is free. Including non-PyTorch memory, this process has 77.93 GiB memory in use. Of the allocated memory \
                        76.51 GiB is allocated by PyTorch, and 612.40 MiB is reserved by PyTorch but unallocated. If reserved but \
                        unallocated memory is large try setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid \
                        fragmentation.  See documentation for Memory Management  \
                        (https://docs.pytorch.org/docs/stable/notes/cuda.html#optimizing-memory-usage-with-pytorch-cuda-alloc-conf)";

    #[test]
    fn the_gpus_line_has_what_was_asked_for_and_what_is_free() {
        let said = line(CUDA).unwrap();
        let facts = "out of memory on cuda:1: 2.00 GiB were asked for, 1.20 GiB of 79.15 GiB are free, 77.93 GiB are this \
                     process's; lower `batch.micro_batch_tokens`, `memory.logits_bytes` or";
        assert!(said.starts_with(facts) && said.contains("activation_checkpointing = true"), "{said}");
        // Other processes' use is told one by one, and a pool of graphs stands between.
        let others =
            CUDA.replace("Including non-PyTorch memory, this process has 77.93 GiB", "Process 7 has 70.00 GiB");
        assert!(line(&others).unwrap().contains("79.15 GiB are free; lower"), "{others}");
    }

    #[test]
    fn memory_that_is_free_in_pieces_is_told() {
        let scattered = CUDA.replace("and 612.40 MiB is reserved", "and 9.00 GiB is reserved");
        assert!(line(&scattered).unwrap().contains("free in pieces, which PYTORCH_CUDA_ALLOC_CONF="));
        let pools =
            scattered.replace("PyTorch, and 9.00", "PyTorch, with 1.00 GiB allocated in private pools, and 9.00");
        assert!(line(&pools).unwrap().contains("free in pieces"));
    }

    #[test]
    fn texts_without_numbers_are_known_too() {
        for text in [
            "CUDA out of memory. Tried to allocate more than 1EB memory.",
            "CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.",
            "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        ] {
            let said = line(text).unwrap();
            assert!(said.starts_with("out of memory on the GPU; lower `batch.micro_batch_tokens`"), "{said}");
        }
        assert!(line("std::bad_alloc").unwrap().starts_with("out of memory; lower"));
        let server =
            "http://localhost:8000/v1: status 500: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total";
        let program = "command `python score.py`: CUDA error: out of memory, expected a line for each response";
        for text in [
            server,
            program,
            "CUDA error: an illegal memory access was encountered",
            "status 500: out of memory",
            "memory",
        ] {
            assert_eq!(line(text), None);
        }
    }

    #[test]
    fn the_hosts_line_has_them_as_well() {
        // libtorch 2.11 on a CPU.
        let text = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate \
                    4831838208 bytes. Error code 12 (Cannot allocate memory)";
        let said = line(text).unwrap();
        assert!(
            said.starts_with("out of memory: 4.5 GiB were asked for, ") && said.contains(" are free; lower"),
            "{said}"
        );
    }
}
