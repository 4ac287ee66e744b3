//! The class that transformers 5.24 loads a folder's tokenizer with: its `AutoTokenizer`.
//!
//! Some classes build the tokenizer anew from the vocabulary and merges of `tokenizer.json`, with a normaliser and a pre-tokeniser
//! of their own, and leave those of the file aside.

use serde_json::Value;

/// How transformers reads a tokenizer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Class {
    /// `tokenizer.json` as it stands.
    File,
    /// Built anew.
    Rebuilt(Rebuilt),
    /// Built anew by a class that is not reproduced here.
    Unknown(String),
}

/// A class that builds a tokenizer anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rebuilt {
    Cohere,
    Gemma,
    Gpt2,
    GptNeoX,
    Llama,
    Qwen2,
}

impl Rebuilt {
    /// The class' name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Cohere => "CohereTokenizer",
            Self::Gemma => "GemmaTokenizer",
            Self::Gpt2 => "GPT2Tokenizer",
            Self::GptNeoX => "GPTNeoXTokenizer",
            Self::Llama => "LlamaTokenizer",
            Self::Qwen2 => "Qwen2Tokenizer",
        }
    }

    const ALL: [Self; 6] = [Self::Cohere, Self::Gemma, Self::Gpt2, Self::GptNeoX, Self::Llama, Self::Qwen2];

    /// Special tokens that the class has where the folder names none.
    pub(super) fn default_tokens(self) -> &'static [(&'static str, &'static str)] {
        const END: &str = "<|endoftext|>";
        match self {
            Self::Cohere => &[
                ("bos_token", "<BOS_TOKEN>"),
                ("eos_token", "<|END_OF_TURN_TOKEN|>"),
                ("unk_token", "<UNK>"),
                ("pad_token", "<PAD>"),
                ("cls_token", "<CLS>"),
                ("sep_token", "<SEP>"),
                ("mask_token", "<MASK_TOKEN>"),
            ],
            Self::Gemma => &[
                ("bos_token", "<bos>"),
                ("eos_token", "<eos>"),
                ("unk_token", "<unk>"),
                ("pad_token", "<pad>"),
                ("mask_token", "<mask>"),
            ],
            Self::Gpt2 => &[("bos_token", END), ("eos_token", END), ("unk_token", END)],
            Self::GptNeoX => {
                &[("bos_token", END), ("eos_token", END), ("unk_token", END), ("pad_token", "<|padding|>")]
            }
            Self::Llama => &[("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<unk>")],
            Self::Qwen2 => &[("eos_token", END), ("unk_token", END), ("pad_token", END)],
        }
    }
}

/// Class of a model type in transformers' table, as far as the types matter here; none where the table has no entry.
fn registered(model_type: &str) -> Option<Class> {
    Some(match model_type {
        "gemma" | "gemma2" | "gemma3" | "gemma3_text" => Class::Rebuilt(Rebuilt::Gemma),
        "qwen2" | "qwen2_moe" | "qwen3" | "qwen3_moe" | "internvl" | "lighton_ocr" | "ovis2" | "qwen2_5_vl"
        | "qwen2_audio" | "qwen2_vl" | "qwen3_vl" => Class::Rebuilt(Rebuilt::Qwen2),
        "idefics2" => Class::Rebuilt(Rebuilt::Llama),
        "aya_vision" | "cohere" | "cohere2" => Class::Rebuilt(Rebuilt::Cohere),
        "gpt2" | "phi" => Class::Rebuilt(Rebuilt::Gpt2),
        "gpt_neox" | "olmo" => Class::Rebuilt(Rebuilt::GptNeoX),
        "glm" | "glm4" | "got_ocr2" | "granite" | "llava" | "llava_next" | "ministral" | "ministral3" | "mistral"
        | "mistral3" | "mixtral" | "olmo2" | "olmo3" | "phi3" | "smolvlm" | "vipllava" | "voxtral" => Class::File,
        _ => return None,
    })
}

/// Model types whose folders name a wrong class so often that transformers takes its own.
const WITH_WRONG_CLASS: [&str; 2] = ["phi3", "qwen2"];

impl Class {
    /// From `tokenizer_config.json` and `config.json`; `has_byte_level` says whether `tokenizer.json` holds the word `ByteLevel`.
    pub(super) fn of(tokenizer: &Value, model: &Value, has_byte_level: bool) -> Self {
        let model_type = model["model_type"].as_str().unwrap_or_default();
        let declared = tokenizer["tokenizer_class"].as_str().or_else(|| model["tokenizer_class"].as_str());
        let registered = registered(model_type);
        let Some(declared) = declared.map(Self::named) else { return registered.unwrap_or(Self::File) };
        // Llama 3's kind, under the name of the class for Llama 2's.
        let is_llama = declared == Self::Rebuilt(Rebuilt::Llama);
        if is_llama && has_byte_level && !WITH_WRONG_CLASS.contains(&model_type) {
            return Self::File;
        }
        match registered {
            None => declared,
            Some(Self::File) => Self::File,
            Some(registered) if WITH_WRONG_CLASS.contains(&model_type) => registered,
            Some(_) => declared,
        }
    }

    /// The class of that name; transformers takes the file where it knows none.
    fn named(name: &str) -> Self {
        let name = name.strip_suffix("Fast").unwrap_or(name);
        if let Some(rebuilt) = Rebuilt::ALL.into_iter().find(|class| class.name() == name) {
            return Self::Rebuilt(rebuilt);
        }
        match name.strip_suffix("Tokenizer") {
            Some(short) if OTHERS.contains(&short) => Self::Unknown(name.to_owned()),
            _ => Self::File,
        }
    }
}

/// Further classes of transformers 5.24 with a constructor of their own, without `Tokenizer`.
const OTHERS: &[&str] = &[
    "Albert",
    "Bart",
    "Barthez",
    "Bartpho",
    "BertGeneration",
    "BertJapanese",
    "Bert",
    "Bertweet",
    "BigBird",
    "BioGpt",
    "BlenderbotSmall",
    "Blenderbot",
    "ByT5",
    "CLIP",
    "CTRL",
    "Camembert",
    "Canine",
    "Clvp",
    "CodeGen",
    "CodeLlama",
    "CpmAnt",
    "Cpm",
    "Deberta",
    "DebertaV2",
    "Dia",
    "DistilBert",
    "Esm",
    "Esmc",
    "FSMT",
    "Flaubert",
    "Funnel",
    "GPTNeoXJapanese",
    "GPTSw3",
    "Herbert",
    "LED",
    "Lasr",
    "LayoutLMv2",
    "LayoutLMv3",
    "LayoutXLM",
    "Luke",
    "Lxmert",
    "M2M100",
    "MBart50",
    "MBart",
    "MLuke",
    "MPNet",
    "Marian",
    "MarkupLM",
    "Mgpstr",
    "MobileBert",
    "Mvp",
    "MyT5",
    "Nllb",
    "Nougat",
    "OpenAIGPT",
    "PLBart",
    "Pegasus",
    "Perceiver",
    "Phobert",
    "Pop2Piano",
    "ProphetNet",
    "Qwen3_5",
    "Rag",
    "Reformer",
    "RemBert",
    "RoCBert",
    "RoFormer",
    "Roberta",
    "SeamlessM4T",
    "Siglip2",
    "Siglip",
    "Speech2Text",
    "SpeechT5",
    "Splinter",
    "SqueezeBert",
    "T5",
    "Tapas",
    "Tipsv2",
    "Udop",
    "VideoPrism",
    "Vits",
    "Wav2Vec2CTC",
    "Wav2Vec2PhonemeCTC",
    "Whisper",
    "XGLM",
    "XLMRoberta",
    "XLM",
    "XLNet",
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn classes_are_those_of_auto_tokenizer() {
        let gpt2 = Class::Rebuilt(Rebuilt::Gpt2);
        let llama = Class::Rebuilt(Rebuilt::Llama);
        let qwen2 = Class::Rebuilt(Rebuilt::Qwen2);
        for (class, model_type, byte_level, expected) in [
            (Some("PreTrainedTokenizerFast"), "llama", true, Class::File),
            (Some("TokenizersBackend"), "qwen3", true, Class::File),
            (Some("LlamaTokenizerFast"), "llama", false, llama.clone()),
            (Some("LlamaTokenizer"), "llama", true, Class::File),
            (Some("LlamaTokenizer"), "mistral", false, Class::File),
            (Some("LlamaTokenizer"), "phi3", false, Class::File),
            (Some("LlamaTokenizerFast"), "qwen2", true, qwen2.clone()),
            (Some("PreTrainedTokenizerFast"), "qwen2", true, qwen2.clone()),
            (Some("GPT2Tokenizer"), "llama", true, gpt2.clone()),
            (Some("GPT2TokenizerFast"), "qwen3", true, gpt2),
            (Some("GPT2Tokenizer"), "olmo2", true, Class::File),
            (Some("GPT2Tokenizer"), "ministral3", true, Class::File),
            (None, "qwen3", true, qwen2),
            (None, "llama", true, Class::File),
            (None, "gemma3_text", false, Class::Rebuilt(Rebuilt::Gemma)),
            (Some("LlamaTokenizer"), "mistral3", false, Class::File),
            (Some("Qwen2Tokenizer"), "smolvlm", false, Class::File),
            (None, "qwen2_5_vl", true, Class::Rebuilt(Rebuilt::Qwen2)),
            (Some("PreTrainedTokenizerFast"), "internvl", true, Class::File),
            (Some("CohereTokenizerFast"), "llama", true, Class::Rebuilt(Rebuilt::Cohere)),
            (None, "cohere2", true, Class::Rebuilt(Rebuilt::Cohere)),
            (Some("GPT2Tokenizer"), "granite", true, Class::File),
            (Some("RobertaTokenizer"), "llama", true, Class::Unknown("RobertaTokenizer".to_owned())),
            (Some("SomebodysTokenizer"), "llama", true, Class::File),
            (Some("LlamaTokenizer"), "", false, llama),
        ] {
            let found = Class::of(&json!({"tokenizer_class": class}), &json!({"model_type": model_type}), byte_level);
            assert_eq!(found, expected, "{class:?} {model_type}");
        }
    }
}
