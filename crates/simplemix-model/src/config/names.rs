//! Names of modules and tensors: the decoder's own, which are Llama's, and those of the class that transformers loads.
//!
//! Inside of the crate the decoder is `model`, its layers `model.layers.N`, and the output head `lm_head`. Parameters, files
//! and adapters have the names of transformers' class.

/// Names in transformers' class of what the decoder calls otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NameMap {
    /// The decoder: `model` here.
    pub(crate) decoder: &'static str,
    /// The output head: `lm_head` here.
    pub(crate) head: &'static str,
    /// Other modules, as pairs of ours and theirs: those below the decoder, such as `norm`, the layers as `layers`, and those of a
    /// layer without its number, such as `self_attn.o_proj`.
    pub(crate) modules: &'static [(&'static str, &'static str)],
    /// Beginnings of names in older files, and what transformers reads in their place; the first that leads to a tensor counts.
    pub(crate) older: &'static [(&'static str, &'static str)],
    /// Beginnings of names that transformers writes otherwise than its class has them, and what it writes in their place.
    pub(crate) written: &'static [(&'static str, &'static str)],
    /// Parts of names in files and of transformers' class, in its order: all that are there are replaced, on reading and on writing.
    pub(crate) inner: &'static [(&'static str, &'static str)],
}

/// Module that holds the decoder, and the output head.
const DECODER: &str = "model";
const HEAD: &str = "lm_head";
const LAYERS: &str = "layers";

impl NameMap {
    /// That of Llama: the names are the decoder's own.
    pub(crate) const PLAIN: Self =
        Self { decoder: DECODER, head: HEAD, modules: &[], older: &[], written: &[], inner: &[] };

    /// transformers' name of a module.
    ///
    /// Modules on top of the decoder that it does not know, such as a score, keep theirs.
    pub(crate) fn module(&self, name: &str) -> String {
        if name == HEAD {
            return self.head.to_owned();
        }
        let Some(below) = name.strip_prefix(DECODER).and_then(|rest| rest.strip_prefix('.')) else {
            return name.to_owned();
        };
        let layer = below.strip_prefix(LAYERS).and_then(|rest| rest.strip_prefix('.')?.split_once('.'));
        match layer {
            Some((layer, inner)) => {
                format!("{}.{}.{layer}.{}", self.decoder, self.part(LAYERS), self.part(inner))
            }
            None => format!("{}.{}", self.decoder, self.part(below)),
        }
    }

    /// transformers' name of a tensor, the last part of which is that of the tensor in its module.
    pub(crate) fn tensor(&self, name: &str) -> String {
        match name.rsplit_once('.') {
            Some((module, tensor)) => format!("{}.{tensor}", self.module(module)),
            None => name.to_owned(),
        }
    }

    /// Name in files of the tensor that transformers' class calls `name`.
    pub(crate) fn in_files(&self, name: &str) -> String {
        let other = |(class, file): &(&str, &str)| Some(format!("{file}{}", name.strip_prefix(class)?));
        let written = self.written.iter().find_map(other).unwrap_or_else(|| name.to_owned());
        self.inner.iter().fold(written, |name, (file, class)| name.replace(class, file))
    }

    /// transformers' name of the module that holds the decoder and everything beside it but the head: what a base model's names
    /// lack.
    pub(crate) fn base(&self) -> &'static str {
        self.decoder.split_once('.').map_or(self.decoder, |(base, _)| base)
    }

    /// Names that transformers would look for in the model for a tensor `name` of a file, in its order: as it is, in the place of
    /// an older name, and with or without the prefix of a base model.
    pub(crate) fn readings(&self, name: &str) -> Vec<String> {
        let name = &self.inner.iter().fold(name.to_owned(), |name, (file, class)| name.replace(file, class));
        let base = format!("{}.", self.base());
        let older = self.older.iter().filter_map(|(old, new)| Some(format!("{new}{}", name.strip_prefix(old)?)));
        let mut all: Vec<String> = std::iter::once(name.to_owned()).chain(older).collect();
        all.extend(name.strip_prefix(&base).map(str::to_owned));
        all.push(format!("{base}{name}"));
        all
    }

    fn part<'a>(&self, ours: &'a str) -> &'a str {
        self.modules.iter().find(|(part, _)| *part == ours).map_or(ours, |(_, theirs)| theirs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_translated_module_by_module() {
        let modules = &[
            ("embed_tokens", "embed_in"),
            ("layers", "h"),
            ("norm", "final_layer_norm"),
            ("self_attn.o_proj", "attention.dense"),
        ];
        let written = &[("embed_out.", "lm_head.")];
        let neo = NameMap { decoder: "gpt_neox", head: "embed_out", modules, written, ..NameMap::PLAIN };
        for (ours, theirs) in [
            ("model.embed_tokens.weight", "gpt_neox.embed_in.weight"),
            ("model.layers.11.self_attn.o_proj.bias", "gpt_neox.h.11.attention.dense.bias"),
            ("model.layers.11.input_layernorm.weight", "gpt_neox.h.11.input_layernorm.weight"),
            ("model.norm.weight", "gpt_neox.final_layer_norm.weight"),
            ("lm_head.weight", "embed_out.weight"),
            ("score.weight", "score.weight"),
        ] {
            assert_eq!(neo.tensor(ours), theirs);
            assert_eq!(NameMap::PLAIN.tensor(ours), ours);
        }
        assert_eq!(neo.module("model.layers.0.self_attn.o_proj"), "gpt_neox.h.0.attention.dense");
        assert_eq!(neo.in_files("embed_out.weight"), "lm_head.weight");
        assert_eq!(neo.in_files("gpt_neox.embed_in.weight"), "gpt_neox.embed_in.weight");
        let inner = NameMap { decoder: "model.language_model", ..NameMap::PLAIN };
        assert_eq!(
            inner.tensor("model.layers.3.mlp.up_proj.weight"),
            "model.language_model.layers.3.mlp.up_proj.weight"
        );
        let older = &[("language_model.model.", "model.language_model.")];
        let readings = NameMap { older, ..inner }.readings("language_model.model.norm.weight");
        assert_eq!(
            readings,
            [
                "language_model.model.norm.weight",
                "model.language_model.norm.weight",
                "model.language_model.model.norm.weight"
            ]
        );
        assert_eq!(NameMap::PLAIN.readings("model.score.weight")[1], "score.weight");
        assert_eq!((inner.base(), neo.base(), NameMap::PLAIN.base()), ("model", "gpt_neox", "model"));
    }
}
