"""A vocabulary of SentencePiece's kind, and token ids of texts as llama.cpp's tokenizer finds them.

Python 3.11 alone: the neighbours whose piece has the highest score are joined, the leftmost of equals (llama-vocab.cpp,
`llm_tokenizer_spm_session`); what no piece has becomes bytes. White space is written as U+2581, and one stands before each text.
Usage: gguf_pieces.py OUT.json
"""
import json
import random
import sys

rng = random.Random(5)
SPACE = "\u2581"
words = "the model of preference pairs train reward policy token hello world naïve café über Straße привет you are not".split()
pieces = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
kinds = [2, 3, 3] + [6] * 256
normal = []
for word in words:
    for text in (word, SPACE + word):
        for _ in range(6):
            first = rng.randrange(len(text))
            normal.append(text[first:first + rng.randint(2, 5)])
letters = sorted({letter for word in words for letter in word if letter != "ü"} | {SPACE, ".", ","})
# A letter of a piece is always a piece; one that no piece has becomes bytes.
normal = [piece for piece in dict.fromkeys(normal) if len(piece) > 1 and "ü" not in piece] + [SPACE + SPACE]
pieces += normal + letters
kinds += [1] * (len(normal) + len(letters))
# Some scores are equal, which the places of the neighbours decide.
scores = [0.0] * 259 + [-float(rng.randrange(len(normal) // 2)) for _ in normal] + [-1e6 - i for i in range(len(letters))]
ids = {piece: id for id, piece in enumerate(pieces)}
is_normal = {piece: kinds[id] == 1 for piece, id in ids.items()}


def encoded(text):
    parts = list(SPACE + text.replace(" ", SPACE))
    while True:
        best = None
        for at in range(len(parts) - 1):
            joined = parts[at] + parts[at + 1]
            if is_normal.get(joined) and (best is None or scores[ids[joined]] > best[0]):
                best = (scores[ids[joined]], at)
        if best is None:
            break
        parts[best[1]:best[1] + 2] = [parts[best[1]] + parts[best[1] + 1]]
    out = []
    for part in parts:
        if is_normal.get(part):
            out.append(ids[part])
        else:
            out.extend(ids[f"<0x{byte:02X}>"] for byte in part.encode())
    return out


texts = ["", "the model", "über  naïve café, 12 🦀", "not\nyou   are", "привет мир"]
for _ in range(60):
    texts.append("".join(rng.choice([rng.choice(words), " ", "  ", ".", "x", "漢"]) for _ in range(rng.randint(1, 9))))
json.dump({"pieces": pieces, "kinds": kinds, "scores": scores,
           "texts": [{"text": text, "ids": encoded(text)} for text in texts if text]},
          open(sys.argv[1], "w"), ensure_ascii=True)
