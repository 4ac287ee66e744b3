"""Golden token ids of SmolLM2 on a thousand varied strings, for crates/simplemix-model/tests/gguf.rs.

Python 3.11, transformers 5.23.0, tokenizers 0.23.3, gguf 0.19.0. Usage: gguf_tokens.py MODEL.gguf OUT.json

transformers' GGUF loader builds the tokenizer but ignores `tokenizer.ggml.pre`; the model's own tokenizer
(HuggingFaceTB/SmolLM2) splits off single digits before GPT-2's pattern. So the ids come from transformers' tokenizer
with that pre-tokenizer put in; the script prints on how many strings the unchanged one differs, and asserts that each
of them holds white space before a digit or a numeral outside ASCII.
"""
import hashlib
import json
import os
import random
import re
import sys

from tokenizers import pre_tokenizers
from transformers import AutoTokenizer

folder, name = os.path.split(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
rng = random.Random(7)
words = """the model of on-policy preference pairs Straße naïve café résumé Ελλάδα привет 你好 世界 こんにちは مرحبا
def return lambda x: print("hello") { } [ ] ( ) != == -> => 0x1F 3.14159 1,000,000 $5.00 50% ½ ² x² 🦀 🙂 👩‍🚀 e\u0301
<|im_start|> <|im_end|> <|endoftext|> <repo_name> don't we're I'll they've it's A.I. U.S.A. http://a.b/c?d=e&f=g
\\frac{a}{b} \\n \\t ... --- ### ** __ ~~ `code` ''' \"\"\" tab\tinside new\nline""".split(" ")
spaces = [" ", " ", " ", "  ", "   ", "\n", "\n\n", "\t", " \n ", "\u00a0", ""]


def text():
    parts = []
    for _ in range(rng.randint(1, 14)):
        kind = rng.random()
        if kind < 0.5:
            parts.append(rng.choice(words))
        elif kind < 0.75:
            parts.append(str(rng.randint(0, 10 ** rng.randint(1, 7))))
        else:
            parts.append("".join(chr(rng.choice([rng.randint(32, 126), rng.randint(0xA1, 0x17F), rng.randint(0x370, 0x4FF),
                                                 rng.randint(0x4E00, 0x4EFF)])) for _ in range(rng.randint(1, 8))))
        parts.append(rng.choice(spaces))
    return "".join(parts)


texts = [text() for _ in range(1000)]
plain = [tokenizer(t, add_special_tokens=False).input_ids for t in texts]
tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
    [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
ids = [tokenizer(t, add_special_tokens=False).input_ids for t in texts]
differ = [t for t, a, b in zip(texts, plain, ids) if a != b]
assert all(re.search(r"\s\s+\d|\s\d|[^\x00-\x7f]", t) for t in differ)
print(len(differ), "of 1000 differ from transformers' own GGUF tokenizer;", sum(map(len, ids)), "ids")
# A digest a string keeps the file small; the first twenty strings carry their ids for whoever has to debug.
digest = lambda row: hashlib.sha256(",".join(map(str, row)).encode()).hexdigest()[:8]
json.dump([{"text": t, "count": len(i), "sha256": digest(i), **({"ids": i} if n < 20 else {})}
           for n, (t, i) in enumerate(zip(texts, ids))], open(sys.argv[2], "w"), ensure_ascii=True, indent=0)
