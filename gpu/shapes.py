"""Shapes of the random models, lengths of the pairs, and the useful work of a pair. Letters of a shape: layers, width, inner width,
query heads, key heads, vocabulary."""

SHAPES = {
    "small": (2, 512, 1376, 8, 4, 1000),
    # Qwen2.5-0.5B.
    "0.5b": (24, 896, 4864, 14, 2, 151_936),
}
# The byte-level tokenizer's tokens, three of ChatML's among them.
TOKENS = 259
# Means of UltraFeedback's prompts and responses in tokens, by the shape, and the spread of their logarithms.
LENGTHS = {"small": (20, 40), "0.5b": (150, 350)}
SPREADS = (0.8, 0.5)


def config(shape, vocabulary=None):
    layers, width, inner, heads, key_heads, own = SHAPES[shape]
    return {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu", "vocab_size": vocabulary or own,
        "hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": key_heads, "rms_norm_eps": 1e-6, "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"},
        "tie_word_embeddings": True, "max_position_embeddings": 4096, "use_sliding_window": False,
        "bos_token_id": 257, "eos_token_id": 258, "pad_token_id": 256,
    }


def useful_flop(shape, prompt, chosen, rejected, adapted=False, head=True):
    """Operations of a pair that nobody can do without: the prompt once, the head on responses alone, forward and backward."""
    layers, width, inner, heads, key_heads, vocabulary = SHAPES[shape]
    head_width = width // heads
    body = layers * (width * head_width * (2 * heads + 2 * key_heads) + 3 * width * inner)
    products = prompt * prompt / 2 + sum(own * prompt + own * own / 2 for own in (chosen, rejected))
    attention = 3 * layers * 4 * products * heads * head_width
    # Frozen weights need no gradient of their own.
    passes = 4 if adapted else 6
    # A reward model has a single score in place of the head.
    rows = chosen + rejected if head else 0
    return passes * (body * (prompt + chosen + rejected) + vocabulary * width * rows) + attention
