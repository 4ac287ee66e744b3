//! Models of images or sound and text: their text part is a model of a family, under a prefix, and its settings are an object of
//! `config.json`.
//!
//! In text alone transformers computes what it computes for the text model; `tests/golden/model_multimodal.py` holds the classes
//! of 5.24 to that. A class that does otherwise, or that is not known, is refused by name.

use serde_json::{Map, Value};

use super::{FAMILIES, Family, INSIDE};
use crate::config::{Keys, ModelConfig, NameMap, refuse_what_is_not_computed};
use crate::error::Result;

/// A class of transformers with a text model inside.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Multimodal {
    /// transformers' name.
    pub(crate) model_type: &'static str,
    text: Text,
    tied: Tied,
    /// The text model's module in the class.
    decoder: &'static str,
    /// Beginnings of names in older files, and what transformers reads in their place.
    older: &'static [(&'static str, &'static str)],
    /// Whether transformers has a class for reward models.
    pub(crate) has_rewards: bool,
    /// Whether logits are capped as in the text model's own class.
    caps_logits: bool,
}

/// Family of the text part.
#[derive(Debug, PartialEq, Eq)]
enum Text {
    /// Named by the text part's `model_type`; this one where it is absent.
    Any(&'static str),
    /// This one, whatever is named.
    Only(&'static str),
    /// This one, whatever is named; older files have the settings of the text part beside the others.
    Flat(&'static str),
    /// This one where it is absent, with these settings in place of the family's defaults.
    With(&'static str, &'static str),
}

/// Rule for whether the output head is the embedding.
#[derive(Debug, PartialEq, Eq)]
enum Tied {
    /// The whole model's key says so; without the key, this.
    Whole(bool),
    /// The whole model's key or the text part's.
    Either,
    /// The text part's, unless the whole model has the key.
    TextUnlessWhole,
}

/// Duplicates that transformers 5.10 to 5.23 wrote for some models.
const DUPLICATES: [(&str, &str); 2] = [
    ("model.language_model.model.", "model.language_model."),
    ("language_model.model.model.", "model.language_model."),
];
const PRESENT: &[(&str, &str)] = &DUPLICATES;
const LLAVA: &[(&str, &str)] = &[
    DUPLICATES[0],
    DUPLICATES[1],
    ("language_model.lm_head.", "lm_head."),
    ("language_model.model.", "model.language_model."),
    ("language_model.", "model.language_model."),
];
const QWEN2_VL: &[(&str, &str)] = &[DUPLICATES[0], DUPLICATES[1], ("model.", "model.language_model.")];

const QIANFAN: &[(&str, &str)] = &[
    DUPLICATES[0],
    DUPLICATES[1],
    ("language_model.lm_head.", "lm_head."),
    // transformers renames layers of the vision tower when it saves, and these with them.
    ("language_model.model.encoder.layers.", "model.language_model.layers."),
    ("language_model.model.", "model.language_model."),
];

const fn present(model_type: &'static str, text: Text, tied: Tied) -> Multimodal {
    let (decoder, older) = ("model.language_model", PRESENT);
    Multimodal { model_type, text, tied, decoder, older, has_rewards: false, caps_logits: false }
}

const fn llava(model_type: &'static str, text: Text, tied: Tied) -> Multimodal {
    Multimodal { older: LLAVA, ..present(model_type, text, tied) }
}

const fn idefics(model_type: &'static str, text: Text) -> Multimodal {
    Multimodal { decoder: "model.text_model", older: &[], ..present(model_type, text, Tied::Whole(false)) }
}

const VOXTRAL: &str = r#"{"vocab_size": 131072, "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 30,
    "num_key_value_heads": 8, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 1e8, "head_dim": 128}"#;

/// Every class, by name.
const ALL: &[Multimodal] = &[
    llava("aya_vision", Text::Any("cohere2"), Tied::Whole(true)),
    present("cohere2_vision", Text::Any("cohere2"), Tied::Whole(true)),
    present("deepseek_vl", Text::Any("llama"), Tied::Whole(true)),
    present("deepseek_vl_hybrid", Text::Any("llama"), Tied::Whole(true)),
    present("exaone4_5", Text::Any("exaone4"), Tied::Whole(false)),
    present("fast_vlm", Text::Any("qwen2"), Tied::Either),
    Multimodal { has_rewards: true, ..llava("gemma3", Text::Only("gemma3_text"), Tied::Whole(true)) },
    Multimodal { caps_logits: true, ..present("gemma4", Text::Only("gemma4_text"), Tied::Whole(true)) },
    llava("got_ocr2", Text::Any("qwen2"), Tied::Whole(true)),
    idefics("idefics2", Text::Any("mistral")),
    idefics("idefics3", Text::Any("llama")),
    llava("internvl", Text::Any("qwen2"), Tied::Whole(true)),
    present("janus", Text::Any("llama"), Tied::Whole(true)),
    present("lighton_ocr", Text::Any("qwen3"), Tied::Whole(true)),
    llava("llava", Text::Any("llama"), Tied::Either),
    llava("llava_next", Text::Any("llama"), Tied::Whole(false)),
    llava("llava_next_video", Text::Any("llama"), Tied::Either),
    llava("llava_onevision", Text::Any("qwen2"), Tied::Either),
    llava("mistral3", Text::Any("mistral"), Tied::Whole(true)),
    present("ovis2", Text::Any("qwen2"), Tied::Whole(true)),
    present("perception_lm", Text::Any("llama"), Tied::TextUnlessWhole),
    llava("pp_chart2table", Text::Any("qwen2"), Tied::Whole(true)),
    Multimodal { older: QIANFAN, ..present("qianfan_ocr", Text::Any("qwen3"), Tied::Whole(false)) },
    Multimodal { older: QWEN2_VL, ..present("qwen2_5_vl", Text::Flat("qwen2_5_vl_text"), Tied::Either) },
    llava("qwen2_audio", Text::Any("qwen2"), Tied::Whole(false)),
    Multimodal { older: QWEN2_VL, ..present("qwen2_vl", Text::Flat("qwen2_vl_text"), Tied::Either) },
    Multimodal { has_rewards: true, ..present("qwen3_5", Text::Only("qwen3_5_text"), Tied::Whole(false)) },
    present("qwen3_vl", Text::Only("qwen3_vl_text"), Tied::Whole(false)),
    idefics("smolvlm", Text::Any("llama")),
    present("video_llama_3", Text::Any("qwen2"), Tied::Either),
    llava("video_llava", Text::Any("llama"), Tied::Whole(false)),
    llava("vipllava", Text::Any("llama"), Tied::Whole(false)),
    llava("voxtral", Text::With("llama", VOXTRAL), Tied::Whole(false)),
];

/// `model_type`s of models of images or sound and text whose text part this crate computes.
pub const MULTIMODAL_TYPES: &[&str] = &{
    let mut names = [""; ALL.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = ALL[i].model_type;
        i += 1;
    }
    names
};

/// The class of this name.
pub(super) fn of(model_type: &str) -> Option<&'static Multimodal> {
    ALL.iter().find(|class| class.model_type == model_type)
}

impl Multimodal {
    /// Reads the text part's settings.
    pub(super) fn read(&'static self, keys: &Keys<'_>) -> Result<ModelConfig> {
        const PART: &str = "text_config";
        refuse_what_is_not_computed(keys)?;
        let (mut settings, within) = match (keys.object(PART, "text_config.")?, &self.text) {
            (Some(part), _) => (part.entries().clone(), "text_config."),
            (None, Text::Flat(_)) => (keys.entries().clone(), ""),
            (None, _) => return Err(keys.refuse(PART, "an object, the settings of the text part")),
        };
        let family = self.family(&keys.of(&settings, within))?;
        // transformers reads it as the class of its name, which does not know kinds of layers.
        if family.model_type == "mistral" {
            settings.remove("layer_types");
        }
        if let Text::With(_, defaults) = self.text {
            let defaults: Map<String, Value> = serde_json::from_str(defaults).expect("the table holds valid JSON");
            settings = defaults.into_iter().chain(settings).collect();
        }
        settings.insert("model_type".to_owned(), family.model_type.into());
        let part = keys.of(&settings, within);
        let mut config = family.read(&part)?;
        config.check(&part)?;
        config.tie_word_embeddings = self.is_tied(keys, config.tie_word_embeddings)?;
        config.names = NameMap { decoder: self.decoder, head: NameMap::PLAIN.head, older: self.older, ..config.names };
        config.multimodal = Some(self);
        // Factors and caps of logits are in the text models' own classes: nearly all of these have the output head alone.
        let logit_soft_cap = config.logit_soft_cap.filter(|_| self.caps_logits);
        Ok(ModelConfig { logit_scale: 1.0, logit_soft_cap, ..config })
    }

    fn family(&self, part: &Keys<'_>) -> Result<&'static Family> {
        let name = match self.text {
            Text::Only(name) | Text::Flat(name) => name,
            Text::Any(name) | Text::With(name, _) => match part.text("model_type")? {
                None => name,
                // The name of the released models.
                Some("exaone4_5_text") => "exaone4",
                Some(named) => named,
            },
        };
        let known = || FAMILIES.iter().chain(INSIDE);
        known().find(|family| family.model_type == name).ok_or_else(|| {
            let names: Vec<&str> = known().map(|family| family.model_type).collect();
            part.refuse("model_type", &format!("one of {}", names.join(", ")))
        })
    }

    fn is_tied(&self, keys: &Keys<'_>, text: bool) -> Result<bool> {
        const KEY: &str = "tie_word_embeddings";
        let whole = |default: bool| if keys.has(KEY) { keys.flag(KEY, false) } else { Ok(default) };
        match self.tied {
            Tied::Whole(default) => whole(default),
            Tied::Either => Ok(whole(false)? || text),
            Tied::TextUnlessWhole => keys.flag(KEY, text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: &str =
        "<!-- classes: UPDATE_DOCS=1 cargo test -p simplemix-model --lib table_of_multimodal_classes -->\n";
    const END: &str = "<!-- end of classes -->";

    #[test]
    fn the_table_of_multimodal_classes_is_up_to_date() {
        let row = |class: &Multimodal| {
            let text = match class.text {
                Text::Only(name) | Text::Flat(name) => format!("`{name}`"),
                Text::Any(name) | Text::With(name, _) => format!("any; `{name}` if it is not named"),
            };
            let rewards = if class.has_rewards { "yes" } else { "" };
            format!("| `{}` | {text} | {rewards} |\n", class.model_type)
        };
        let rows: String = ALL.iter().map(row).collect();
        let expected = format!("\n| `model_type` | text part | reward models |\n| --- | --- | --- |\n{rows}\n");
        crate::family::tests::check_table(BEGIN, END, &expected);
    }

    #[test]
    fn classes_are_in_order_and_their_tables_are_read() {
        assert!(MULTIMODAL_TYPES.is_sorted_by(|a, b| a < b), "{MULTIMODAL_TYPES:?}");
        for class in ALL {
            if let Text::With(_, defaults) = class.text {
                serde_json::from_str::<Map<String, Value>>(defaults).unwrap();
            }
        }
    }
}
