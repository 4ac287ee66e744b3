//! Weights that are whole only while they are used, since processes divide them among themselves (ZeRO stage 3, Rajbhandari et al.
//! 2020, arXiv:1910.02054; PyTorch's FSDP).
//!
//! A model says when a pass comes to a layer and when it is through; whoever has divided the weights gathers them in between. The
//! tensors stay the same: they have no memory meanwhile.

use std::fmt::Debug;
use std::sync::Arc;

use tch::Tensor;

use crate::causal_lm::CausalLm;
use crate::config::ModelConfig;
use crate::error::Result;
use crate::network::Network;

/// Part of a model whose weights are whole at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// Embedding, position vectors, last norm, and output head or score.
    Root,
    /// A layer of the decoder, by its number.
    Layer(usize),
}

/// Keeper of weights that are whole only while they are used.
///
/// Calls come in the order of the passes, which is the same in all processes that hold parts of the weights. Stages are entered and
/// left in pairs, which may be nested; a stage is whole until it was left as often as entered.
pub trait Residence: Debug + Send + Sync {
    /// Makes the weights of `stage` whole, and begins to do so for `next`, which is entered next.
    ///
    /// # Errors
    /// [`simplemix_torch::Error::Rank`] if another process has failed, [`simplemix_torch::Error::Torch`] where memory does not suffice.
    fn enter(&self, stage: Stage, next: Option<Stage>) -> simplemix_torch::Result<()>;

    /// Gives the memory of the stage's weights back, and what [`Residence::begin_backward`] has made if the pass ends early.
    fn leave(&self, stage: Stage);

    /// Makes room for the gradients of a whole stage, whose backward pass begins.
    ///
    /// # Errors
    /// As [`Residence::enter`].
    fn begin_backward(&self, stage: Stage) -> simplemix_torch::Result<()>;

    /// Takes the gradients of a stage, which are complete for this pass. The root's come last.
    ///
    /// # Errors
    /// As [`Residence::enter`].
    fn end_backward(&self, stage: Stage) -> simplemix_torch::Result<()>;

    /// Whether several processes have parts of the weights, and so take part in each other's passes.
    fn is_shared(&self) -> bool {
        true
    }

    /// Whether it keeps a weight of this name.
    fn has(&self, name: &str) -> bool;

    /// The weight of this name, put together for the caller. All processes ask for the same weights in one order.
    ///
    /// # Errors
    /// As [`Residence::enter`].
    fn whole(&self, name: &str) -> simplemix_torch::Result<Tensor>;
}

/// Divides the weights of a model among processes while they are read, so that no process holds more than one of them whole.
pub trait Divider {
    /// Makes room for weights with these names and shapes, and returns who keeps them. Their stages are [`ModelConfig::stages`].
    ///
    /// # Errors
    /// [`simplemix_torch::Error::Torch`] where memory does not suffice.
    fn begin(
        &mut self,
        config: &ModelConfig,
        tensors: &[(String, Vec<i64>)],
    ) -> simplemix_torch::Result<Arc<dyn Residence>>;

    /// Whether the weights are divided among processes, those outside of layers too.
    fn is_shared(&self) -> bool {
        true
    }

    /// Takes a weight, and returns the model's own, which has memory while its stage is entered.
    ///
    /// # Errors
    /// As [`Divider::begin`].
    fn take(&mut self, name: &str, weight: &Tensor) -> simplemix_torch::Result<Tensor>;
}

/// A stage whose weights are whole for as long as this lives.
#[derive(Debug)]
pub struct Resident {
    residence: Arc<dyn Residence>,
    stage: Stage,
}

impl Resident {
    /// Enters a stage; `next` is the one that is entered after it.
    ///
    /// # Errors
    /// As [`Residence::enter`].
    pub fn enter(residence: &Arc<dyn Residence>, stage: Stage, next: Option<Stage>) -> Result<Self> {
        residence.enter(stage, next)?;
        Ok(Self { residence: Arc::clone(residence), stage })
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        self.residence.leave(self.stage);
    }
}

impl Network {
    /// Whether processes divide the weights among themselves.
    pub(crate) fn is_divided(&self) -> bool {
        self.residence.as_ref().is_some_and(|residence| residence.is_shared())
    }

    /// Has the weights of a stage whole; nothing is to be done where they always are.
    pub(crate) fn resident(&self, stage: Stage, next: Option<Stage>) -> Result<Option<Resident>> {
        self.residence.as_ref().map(|residence| Resident::enter(residence, stage, next)).transpose()
    }

    /// Has what is outside of layers whole, and begins with the first layer.
    pub(crate) fn begin_pass(&self) -> Result<Option<Resident>> {
        self.resident(Stage::Root, (!self.layers.is_empty()).then_some(Stage::Layer(0)))
    }

    /// Runs `work` for each layer in turn, whose weights are whole meanwhile. Those of the last one stay so for as long as what is
    /// returned lives.
    pub(crate) fn through_layers(&self, mut work: impl FnMut(usize) -> Result<()>) -> Result<Option<Resident>> {
        let (count, mut held) = (self.layers.len(), None);
        for layer in 0..count {
            // Memory of it is free for the layer after this one.
            drop(held.take());
            let next = Some(layer + 1).filter(|&next| next < count);
            held = self.resident(Stage::Layer(layer), next.map(Stage::Layer))?;
            work(layer)?;
        }
        Ok(held)
    }

    /// Runs `work`, the backward pass of a layer, for each layer from the last, which is whole as `held`.
    pub(crate) fn back_through_layers(
        &self,
        mut held: Option<Resident>,
        mut work: impl FnMut(usize) -> Result<()>,
    ) -> Result<()> {
        for layer in (0..self.layers.len()).rev() {
            if layer + 1 < self.layers.len() {
                drop(held.take());
            }
            let stage = Stage::Layer(layer);
            held = self.resident(stage, layer.checked_sub(1).map(Stage::Layer))?;
            self.begin_backward(stage)?;
            work(layer)?;
            self.end_backward(stage)?;
        }
        Ok(())
    }

    pub(crate) fn begin_backward(&self, stage: Stage) -> Result<()> {
        Ok(self.residence.as_ref().map_or(Ok(()), |residence| residence.begin_backward(stage))?)
    }

    pub(crate) fn end_backward(&self, stage: Stage) -> Result<()> {
        Ok(self.residence.as_ref().map_or(Ok(()), |residence| residence.end_backward(stage))?)
    }

    /// Takes part in a pass of other processes without tokens of its own; `trains` if theirs has a backward pass.
    pub(crate) fn idle_pass(&self, trains: bool) -> Result<()> {
        let _root = self.begin_pass()?;
        let last = self.through_layers(|_| Ok(()))?;
        if trains {
            self.begin_backward(Stage::Root)?;
            self.back_through_layers(last, |_| Ok(()))?;
            self.end_backward(Stage::Root)?;
        }
        Ok(())
    }

    /// Has all weights whole that other processes have parts of.
    pub(crate) fn resident_all(&self) -> Result<Vec<Resident>> {
        if !self.is_divided() {
            return Ok(Vec::new());
        }
        let layers = (0..self.layers.len()).map(Stage::Layer);
        let all: Vec<Stage> = std::iter::once(Stage::Root).chain(layers).collect();
        let next = all.iter().skip(1).map(|stage| Some(*stage)).chain([None]);
        let entered = all.iter().zip(next).map(|(stage, next)| self.resident(*stage, next));
        Ok(entered.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    }
}

impl CausalLm {
    /// Lets `residence` keep the weights, in this handle and those that are made of it from now on.
    pub fn set_residence(&mut self, residence: Arc<dyn Residence>) {
        self.network.residence = Some(residence);
    }

    /// Keeper of the weights, where they are not always whole.
    pub fn residence(&self) -> Option<&Arc<dyn Residence>> {
        self.network.residence.as_ref()
    }

    /// Whether processes divide the weights among themselves, so that each takes part in the passes of the others.
    pub fn is_divided(&self) -> bool {
        self.network.is_divided()
    }

    /// Whether linear layers are held in a few bits: see [`crate::Quantizer`]. Such weights are frozen.
    pub fn is_quantized(&self) -> bool {
        self.network.residence.is_some() && !self.is_divided()
    }

    /// Has the weights outside of layers whole, for as long as what is returned lives: [`CausalLm::head`] is used then.
    ///
    /// # Errors
    /// As [`Residence::enter`].
    pub fn resident_root(&self) -> Result<Option<Resident>> {
        self.network.resident(Stage::Root, None)
    }

    /// Has all weights whole, for as long as what is returned lives: sampling takes as many passes as it takes. Quantised weights stay
    /// so, and are dequantised in each pass.
    ///
    /// # Errors
    /// As [`Residence::enter`].
    pub fn resident_all(&self) -> Result<Vec<Resident>> {
        self.network.resident_all()
    }

    /// Takes part in a pass of other processes without tokens of its own; `trains` if theirs is [`CausalLm::checkpointed`] with its
    /// backward pass.
    ///
    /// # Errors
    /// As [`Residence::enter`].
    pub fn idle_pass(&self, trains: bool) -> Result<()> {
        self.network.idle_pass(trains)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::sync::Mutex;

    use tch::{Device, Kind};

    use super::*;
    use crate::packed::Packed;
    use crate::tiny;

    /// Every tensor of a layer is of that layer's stage, whatever the family calls it.
    #[test]
    fn layers_are_stages_in_all_families() {
        let families = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/families");
        let mut seen = 0;
        for folder in std::fs::read_dir(families).unwrap() {
            let folder = folder.unwrap().path();
            if !folder.join("config.json").is_file() {
                continue;
            }
            let config = ModelConfig::from_folder(&folder).unwrap();
            let mut counts: BTreeMap<Stage, usize> = BTreeMap::new();
            let stages = config.stages();
            for (name, _) in config.tensors() {
                *counts.entry(stages.get(&name).copied().unwrap_or(Stage::Root)).or_default() += 1;
            }
            let of_root = counts.remove(&Stage::Root).unwrap();
            assert!(of_root <= 5, "{}: {of_root} tensors outside of layers", folder.display());
            assert_eq!(counts.len(), config.num_hidden_layers, "{}", folder.display());
            seen += 1;
        }
        assert!(seen > 20, "{seen}");
    }

    /// Writes down what a model tells it.
    #[derive(Debug, Default)]
    struct Told(Mutex<Vec<String>>);

    impl Told {
        fn note(&self, what: &str, stage: Stage) {
            self.0.lock().unwrap().push(match stage {
                Stage::Root => format!("{what} root"),
                Stage::Layer(layer) => format!("{what} {layer}"),
            });
        }
    }

    impl Residence for Told {
        fn enter(&self, stage: Stage, _: Option<Stage>) -> simplemix_torch::Result<()> {
            self.note("enter", stage);
            Ok(())
        }

        fn leave(&self, stage: Stage) {
            self.note("leave", stage);
        }

        fn begin_backward(&self, stage: Stage) -> simplemix_torch::Result<()> {
            self.note("begin", stage);
            Ok(())
        }

        fn end_backward(&self, stage: Stage) -> simplemix_torch::Result<()> {
            self.note("end", stage);
            Ok(())
        }

        fn has(&self, _: &str) -> bool {
            false
        }

        fn whole(&self, _: &str) -> simplemix_torch::Result<Tensor> {
            Ok(Tensor::zeros([0], (Kind::Float, Device::Cpu)))
        }
    }

    #[test]
    fn a_pass_tells_each_stage_and_an_idle_one_tells_the_same() {
        let mut model = CausalLm::random(tiny::config(), 1, Device::Cpu).unwrap();
        model.set_trainable(true);
        let told = Arc::new(Told::default());
        model.set_residence(told.clone());
        let mut packed = Packed::new();
        packed.push(&[1, 2, 3]).unwrap();
        let pass = model.checkpointed(&packed).unwrap();
        pass.hidden().square().sum(Kind::Float).backward();
        pass.backward().unwrap();
        let training = std::mem::take(&mut *told.0.lock().unwrap());
        let expected = [
            "enter root",
            "enter 0",
            "leave 0",
            "enter 1",
            "begin root", // and the last layer stays
            "enter 1",
            "leave 1",
            "begin 1",
            "end 1",
            "leave 1",
            "enter 0",
            "begin 0",
            "end 0",
            "leave 0",
            "end root",
            "leave root",
        ];
        assert_eq!(training, expected);
        model.idle_pass(true).unwrap();
        assert_eq!(std::mem::take(&mut *told.0.lock().unwrap()), expected);
        drop(tch::no_grad(|| model.hidden_states(&packed)).unwrap());
        let scoring = std::mem::take(&mut *told.0.lock().unwrap());
        assert_eq!(scoring, ["enter root", "enter 0", "leave 0", "enter 1", "leave 1", "leave root"]);
        model.idle_pass(false).unwrap();
        assert_eq!(std::mem::take(&mut *told.0.lock().unwrap()), scoring);
    }
}
