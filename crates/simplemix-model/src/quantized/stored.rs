//! Checkpoints that are quantised already: those of bitsandbytes, GPTQ and AWQ.
//!
//! `config.json` names the method in `quantization_config`; the tensors say which weights are quantised. A weight has several tensors,
//! which may lie in several files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tch::{Device, Kind, Tensor};

use super::blocks::{self, Blocks, Scales};
use super::groups::{self, Form, Groups};
use super::rows::Rows;
use super::{Stored, unfit};
use crate::error::{Doing, Error, Result};
use crate::safetensors_reader::Reader;

/// Method of a checkpoint, with what has to be known to read it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Method {
    /// bitsandbytes, 4 bits: NF4 or FP4.
    Bits4 {
        is_double: bool,
    },
    /// bitsandbytes, 8 bits.
    Bits8,
    Gptq {
        bits: i64,
        group_size: i64,
        stores_less: bool,
    },
    Awq {
        bits: i64,
        group_size: i64,
    },
}

/// A key of `quantization_config` that is not read, what it is and what is.
pub(crate) struct Refused {
    pub(crate) key: &'static str,
    pub(crate) found: String,
    pub(crate) expected: &'static str,
}

impl Method {
    /// The method that a `config.json` names; none if its weights are not quantised.
    ///
    /// # Errors
    /// [`Refused`] for one that is not read.
    pub(crate) fn of(config: &Value) -> std::result::Result<Option<Self>, Refused> {
        let own = match &config["quantization_config"] {
            Value::Null => &config["text_config"]["quantization_config"],
            own => own,
        };
        if own.is_null() {
            return Ok(None);
        }
        let found = |key: &str| own.get(key).map_or("not set".to_owned(), ToString::to_string);
        let refuse = |key: &'static str, expected: &'static str| Err(Refused { key, found: found(key), expected });
        let is = |key: &str| own[key].as_bool().unwrap_or(false);
        let number = |key: &str, default: i64| own.get(key).map_or(Some(default), Value::as_i64);
        match own["quant_method"].as_str() {
            Some("bitsandbytes") => {}
            Some("gptq") => {
                let Some(bits @ (4 | 8)) = number("bits", 0) else { return refuse("bits", "4 or 8") };
                let Some(group_size) = number("group_size", 128) else { return refuse("group_size", "a number") };
                // Checkpoints of earlier versions have no such key.
                let stores_less = match own.get("checkpoint_format").or_else(|| own.get("format")).map(Value::as_str) {
                    None | Some(Some("gptq")) => true,
                    Some(Some("gptq_v2")) => false,
                    Some(_) => return refuse("checkpoint_format", "`gptq` or `gptq_v2`"),
                };
                return Ok(Some(Self::Gptq { bits, group_size, stores_less }));
            }
            Some("awq") => {
                let Some(bits @ 4) = number("bits", 0).or_else(|| number("w_bit", 0)) else {
                    return refuse("bits", "4");
                };
                let Some(group_size) = number("group_size", 128) else { return refuse("group_size", "a number") };
                let version = own["version"].as_str().or_else(|| own["format"].as_str()).unwrap_or("gemm");
                return match version.to_lowercase().as_str() {
                    "gemm" => Ok(Some(Self::Awq { bits, group_size })),
                    _ => refuse("version", "`gemm`"),
                };
            }
            // Configurations of early versions of transformers name no method.
            None if is("load_in_4bit") || is("load_in_8bit") => {}
            _ => {
                return refuse(
                    "quant_method",
                    "`bitsandbytes`, `gptq` or `awq`; or take the model in bf16, f16 or f32",
                );
            }
        }
        match (is("load_in_4bit") || is("_load_in_4bit"), is("load_in_8bit") || is("_load_in_8bit")) {
            (true, false) if own["bnb_4bit_quant_storage"].as_str().is_some_and(|kind| kind != "uint8") => {
                refuse("bnb_4bit_quant_storage", "`uint8`")
            }
            (true, false) => Ok(Some(Self::Bits4 { is_double: is("bnb_4bit_use_double_quant") })),
            (false, true) => Ok(Some(Self::Bits8)),
            _ => refuse("load_in_4bit", "`true`, or `load_in_8bit` so"),
        }
    }

    /// Bytes of a weight.
    pub(super) fn weight_bytes(self) -> f64 {
        let of_groups = |bits: i64, group: i64| bits as f64 / 8.0 + if group > 0 { 8.0 / group as f64 } else { 0.0 };
        match self {
            Self::Bits4 { is_double: false } => 0.5 + blocks::SCALE_BYTES,
            Self::Bits4 { is_double: true } => 0.5 + blocks::NESTED_BYTES,
            Self::Bits8 => 1.0,
            Self::Gptq { bits, group_size, .. } | Self::Awq { bits, group_size } => of_groups(bits, group_size),
        }
    }

    /// Ending of the name of the tensor that holds a weight's codes, in place of `.weight`.
    fn codes(self) -> &'static str {
        match self {
            Self::Bits4 { .. } | Self::Bits8 => ".weight",
            Self::Gptq { .. } | Self::Awq { .. } => ".qweight",
        }
    }
}

/// A quantised checkpoint.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    folder: PathBuf,
    method: Method,
    readers: Vec<Reader>,
    /// File of each tensor.
    places: BTreeMap<String, usize>,
    /// Names, with `.weight`, of what is quantised, as in the files.
    quantised: BTreeSet<String>,
}

impl Checkpoint {
    /// Opens the files.
    pub(crate) fn open(folder: &Path, method: Method, files: &[PathBuf]) -> Result<Self> {
        let readers: Vec<Reader> = files.iter().map(|path| Reader::open(path)).collect::<Result<_>>()?;
        let mut places = BTreeMap::new();
        for (file, reader) in readers.iter().enumerate() {
            places.extend(reader.names().into_iter().map(|name| (name, file)));
        }
        let has = |name: String| places.contains_key(&name);
        let is_quantised = |module: &str| match method {
            Method::Bits4 { .. } => has(format!("{module}.weight.absmax")),
            Method::Bits8 => has(format!("{module}.SCB")),
            Method::Gptq { .. } | Method::Awq { .. } => true,
        };
        let module = |name: &String| {
            let module = name.strip_suffix(method.codes())?;
            is_quantised(module).then(|| format!("{module}.weight"))
        };
        let quantised = places.keys().filter_map(module).collect();
        Ok(Self { folder: folder.to_owned(), method, readers, places, quantised })
    }

    /// Whether a tensor of the files is part of a quantised weight.
    pub(crate) fn is_part(&self, name: &str) -> bool {
        let of = |end: &str| {
            name.strip_suffix(end).is_some_and(|module| self.quantised.contains(&format!("{module}.weight")))
        };
        let ends: &[&str] = match self.method {
            Method::Bits4 { .. } => {
                let module = name.rsplit_once(".weight").map(|(module, _)| format!("{module}.weight"));
                return module.is_some_and(|module| self.quantised.contains(&module));
            }
            Method::Bits8 => &[".weight", ".SCB", ".weight_format"],
            Method::Gptq { .. } => &[".qweight", ".qzeros", ".scales", ".g_idx"],
            Method::Awq { .. } => &[".qweight", ".qzeros", ".scales"],
        };
        ends.iter().any(|end| of(end))
    }

    /// Names of the weights as if nothing were quantised.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        let plain = self.places.keys().filter(|name| !self.is_part(name)).cloned();
        plain.chain(self.quantised.iter().cloned()).collect()
    }

    /// Names of what is quantised.
    pub(crate) fn quantised(&self) -> &BTreeSet<String> {
        &self.quantised
    }

    fn tensor(&mut self, name: &str) -> Result<Option<Tensor>> {
        let Some(&file) = self.places.get(name) else { return Ok(None) };
        self.readers.get_mut(file).map(|reader| reader.stored(name)).transpose()
    }

    fn needed(&mut self, name: &str) -> Result<Tensor> {
        match self.tensor(name)? {
            Some(tensor) => Ok(tensor),
            None => Err(unfit(format!("`{name}`"), "not in the files".to_owned(), "a tensor of a quantised weight")),
        }
    }

    /// Reads the weight `name`, which ends in `.weight`, of a linear layer `[O, I]`.
    pub(crate) fn read(&mut self, name: &str, shape: [i64; 2], device: Device) -> Result<Stored> {
        self.parts(name, shape, device).map_err(|error| match error {
            Error::Weights { problems, .. } => Error::Weights { folder: self.folder.clone(), problems },
            other => other,
        })
    }

    fn parts(&mut self, name: &str, shape: [i64; 2], device: Device) -> Result<Stored> {
        let module = name.strip_suffix(".weight").unwrap_or(name).to_owned();
        match self.method {
            Method::Bits4 { .. } => self.blocks(name, shape, device),
            Method::Bits8 => {
                if let Some(format) = self.tensor(&format!("{module}.weight_format"))?
                    && format.numel() > 0
                    && format.f_max().and_then(|t| t.f_double_value(&[])).doing("reading a quantised weight")? != 0.0
                {
                    let expected = "0: rows one after the other";
                    return Err(unfit(format!("`{module}.weight_format`"), "another layout".to_owned(), expected));
                }
                let [codes, scales] = [name.to_owned(), format!("{module}.SCB")].map(|name| self.needed(&name));
                Ok(Stored::Rows(Rows::of(name, moved(&codes?, device)?, moved(&scales?, device)?, shape)?))
            }
            Method::Gptq { bits, group_size, stores_less } => {
                let g_idx = self.tensor(&format!("{module}.g_idx"))?;
                self.groups(&module, g_idx, (bits, group_size, Form::Gptq { stores_less }), shape, device)
            }
            Method::Awq { bits, group_size } => {
                self.groups(&module, None, (bits, group_size, Form::Awq), shape, device)
            }
        }
    }

    fn groups(
        &mut self,
        module: &str,
        g_idx: Option<Tensor>,
        (bits, group_size, form): (i64, i64, Form),
        shape: [i64; 2],
        device: Device,
    ) -> Result<Stored> {
        let [qweight, qzeros, scales] =
            ["qweight", "qzeros", "scales"].map(|part| self.needed(&format!("{module}.{part}")));
        let parts =
            groups::Parts { qweight: qweight?, qzeros: qzeros?, scales: scales?, g_idx, bits, group_size, form };
        Ok(Stored::Groups(Groups::of(module, &parts, shape, device)?))
    }

    fn blocks(&mut self, name: &str, shape: [i64; 2], device: Device) -> Result<Stored> {
        let state = ["nf4", "fp4"].map(|word| format!("{name}.quant_state.bitsandbytes__{word}"));
        let Some(key) = state.iter().find(|key| self.places.contains_key(*key)).cloned() else {
            let expected = format!("`{}`, as bitsandbytes writes it", state[0]);
            return Err(unfit(format!("`{name}`"), "without `quant_state`".to_owned(), expected));
        };
        let text = bytes(&self.needed(&key)?)?;
        let json = |error: &dyn std::fmt::Display| unfit(format!("`{key}`"), error.to_string(), "JSON of bitsandbytes");
        let state: QuantState = serde_json::from_slice(&text).map_err(|error| json(&error))?;
        if state.shape != shape {
            return Err(unfit(format!("shape of `{name}`"), format!("{:?}", state.shape), format!("{shape:?}")));
        }
        let packed = self.needed(name)?;
        if packed.kind() != Kind::Uint8 {
            return Err(unfit(format!("`{name}`"), format!("{:?}", packed.kind()), "Uint8"));
        }
        let part = |of: &mut Self, part: &str| of.needed(&format!("{name}.{part}"));
        let values: Vec<f32> = floats(&part(self, "quant_map")?)?;
        let found = values.len();
        let values: [f32; 16] =
            values.try_into().map_err(|_| unfit(format!("values of `{name}.quant_map`"), found.to_string(), "16"))?;
        let absmax = moved(&part(self, "absmax")?, device)?.f_reshape(-1).doing("reading a quantised weight")?;
        let scales = match state.nested_blocksize {
            None => Scales::Plain(absmax.f_to_kind(Kind::Float).doing("reading a quantised weight")?),
            Some(block) => {
                if absmax.kind() != Kind::Uint8 {
                    return Err(unfit(format!("`{name}.absmax`"), format!("{:?}", absmax.kind()), "Uint8"));
                }
                let [map, scales] = ["nested_quant_map", "nested_absmax"].map(|name| part(self, name));
                let float = |t: Tensor| moved(&t, device)?.f_to_kind(Kind::Float).doing("reading a quantised weight");
                let (map, scales) = (float(map?)?, float(scales?)?);
                Scales::Nested { codes: absmax, map, scales, offset: state.nested_offset.unwrap_or(0.0), block }
            }
        };
        let parts = blocks::Parts { packed: moved(&packed, device)?, values, scales, block: state.blocksize };
        Ok(Stored::Blocks(Blocks::of(name, parts, shape[0] * shape[1])?))
    }
}

/// Facts about a 4-bit weight that bitsandbytes writes as JSON.
#[derive(Debug, serde::Deserialize)]
struct QuantState {
    blocksize: i64,
    shape: Vec<i64>,
    nested_blocksize: Option<i64>,
    nested_offset: Option<f64>,
}

fn moved(tensor: &Tensor, device: Device) -> Result<Tensor> {
    tensor.f_to_device(device).doing("copying weights")
}

fn bytes(tensor: &Tensor) -> Result<Vec<u8>> {
    Vec::try_from(tensor.flatten(0, -1)).doing("reading a quantised weight")
}

fn floats(tensor: &Tensor) -> Result<Vec<f32>> {
    Vec::try_from(tensor.flatten(0, -1).to_kind(Kind::Float)).doing("reading a quantised weight")
}
