"""Prints what a validation found, and ends with code 1 if anything failed: `table.py RESULTS.jsonl`."""
import sys

import results

# Of the losses of the same updates: in f32 TRL's own tolerance, in bf16 what roundings of either side come to.
LOSS = {"float32": 1e-4, "bfloat16": 2e-2}
NORM = {"float32": 1e-2, "bfloat16": 1e-1}


def checks(lines):
    """A row for each part of gpu_check, and one for each check that failed."""
    made = [line for line in lines if "part" in line]
    for part in dict.fromkeys(line["part"] for line in made):
        of_part = [line for line in made if line["part"] == part]
        failed = [line for line in of_part if not line["ok"]]
        yield part, not failed, f"{len(of_part)} checks, {len(failed)} failed"
        for line in failed:
            why = line.get("said") or f"error {line['error']:.2e}, at most {line['bound']:.1e}"
            yield f"  {line['name']}", False, f"{line['shapes']} {line['dtype']}: {why}"


def speeds(lines):
    for line in lines:
        if "pairs_per_s" not in line:
            continue
        peak = next((line[key] for key in ("device_peak_memory_gb", "peak_memory_gb") if key in line), float("nan"))
        yield line["stage"], line["ok"], (f"{line['pairs_per_s']:8.2f} pairs/s {line['tokens_per_s']:9.0f} tokens/s "
                                          f"{100 * line.get('mfu', float('nan')):5.1f} % of the product rate, peak {peak:6.2f} GB")


def against(lines, ours, theirs):
    """Speed and memory against a peer's run, and whether the losses are the same."""
    by_name = {line["stage"]: line for line in lines if "pairs_per_s" in line}
    if ours not in by_name or theirs not in by_name:
        return
    a, b = by_name[ours], by_name[theirs]
    peak = lambda line: line.get("device_peak_memory_gb", line.get("peak_memory_gb", float("nan")))
    text = f"{a['pairs_per_s'] / b['pairs_per_s']:.2f} times as fast, {peak(a) / peak(b):.2f} of the memory"
    if "lora" in ours:
        # The adapters begin at other random numbers.
        yield f"{ours} / {theirs}", True, text
        return
    loss = max(abs(x - y) for x, y in zip(a["losses"], b["losses"]))
    norm = max(abs(x - y) / y for x, y in zip(a["grad_norms"], b["grad_norms"]))
    agree = loss <= LOSS[a["dtype"]] and norm <= NORM[a["dtype"]]
    yield f"{ours} / {theirs}", agree, f"{text}; losses differ by {loss:.1e}, gradient norms by {norm:.1e}"


def rows(lines):
    for line in lines:
        if line.get("stage") == "machine":
            yield "machine", True, ", ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
                                             for key, value in line.items() if key not in ("stage", "ok"))
    yield from checks(lines)
    for line in lines:
        if line.get("part") == "parts" and line["ok"]:
            facts = {key: line[key] for key in ("launches", "waits", "pairs_2", "pairs_16") if key in line}
            for key, value in facts.items():
                text = ", ".join(f"{name} {number:.4g}" for name, number in value.items() if number is not None) \
                    if isinstance(value, dict) else str(value)
                yield f"  {key}", True, text
    yield from speeds(lines)
    for ours, theirs in (("ours", "trl"), ("ours", "trl-liger"), ("ours-lora", "trl-lora")):
        yield from against(lines, ours, theirs)
    for line in lines:
        if "told" in line:
            yield line["stage"], line["ok"], line["told"]
    for line in lines:
        if "rc" in line and (line["rc"] != 0 or line.get("skipped")):
            text = "no time was left" if line.get("skipped") else f"ended with {line['rc']} after {line['seconds']} s"
            yield f"stage {line['stage']}", bool(line.get("optional")), text


def main(path):
    passed = True
    for name, ok, text in rows(results.read(path)):
        passed &= ok
        print(f"{name:<22} {'ok' if ok else 'FAILED':<6} {text}")
    stages = sum(line["seconds"] for line in results.read(path) if "rc" in line)
    print(f"{'all':<22} {'ok' if passed else 'FAILED':<6} {stages} s of stages")
    raise SystemExit(0 if passed else 1)


if __name__ == "__main__":
    main(sys.argv[1])
