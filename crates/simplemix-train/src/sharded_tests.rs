use simplemix_model::{CausalLm, Packed, tiny};
use simplemix_torch::has_memory;

use super::*;
use crate::adamw::OptimizerSettings;
use crate::config::{ParallelSettings, Shard};
use crate::learner::Trainable;
use crate::team::tests::on_ranks;
use crate::trainee::Trainee;

/// Runs `work` on as many threads as there are processes.
fn together<T: Send>(size: usize, work: impl Fn(Arc<Group>, Team) -> T + Sync) -> Vec<T> {
    on_ranks(size, |team| work(team.shared_group().unwrap(), team.clone()))
}

/// Eight layers.
fn model() -> CausalLm {
    let mut json = tiny::config().to_json();
    json["num_hidden_layers"] = 8.into();
    let config = ModelConfig::from_json(&json.to_string(), Path::new("config.json")).unwrap();
    CausalLm::random(config, 1, Device::Cpu).unwrap()
}

fn divided(model: &mut CausalLm, team: &Team) -> Arc<Sharded> {
    let (kind, device, is_trained) = (Kind::Float, Device::Cpu, &|_: &str| true);
    let divide = Divide { team, kind, device, is_trained, has_gradients: true, sharded: None };
    let sharded = divide.rest(model.config(), model.named_parameters()).unwrap();
    model.set_residence(sharded.clone());
    sharded
}

/// Weights of the tiny model's parts, by hand: queries and output 64 x 64, keys and values 32 x 64, three matrices 160 x 64, two norms; the
/// root has 259 vectors and a norm.
const LAYER: u64 = 2 * 64 * 64 + 2 * 32 * 64 + 3 * 160 * 64 + 2 * 64;
const ROOT: u64 = 259 * 64 + 64;

#[test]
fn a_process_holds_a_quarter_and_gathers_two_layers() {
    together(4, |group, team| {
        let mut model = model();
        let sharded = divided(&mut model, &team);
        let parameters = model.trainable_parameters();
        let settings = OptimizerSettings::default();
        let parallel = ParallelSettings { shard: Shard::All, ..ParallelSettings::default() };
        let trainee = Trainee::together(parameters, &settings, team.clone(), &parallel, Some(Arc::clone(&sharded)));
        let mut trainee = trainee.unwrap();
        let mut packed = Packed::new();
        packed.push(&[1, 2, 3 + group.rank() as u32]).unwrap();
        let before = group.traffic().unwrap().bytes;
        let pass = model.checkpointed(&packed).unwrap();
        pass.hidden().square().sum(Kind::Float).backward();
        pass.backward().unwrap();
        // Forward and again backward, but the root and the last layer once; gradients once. All f32, three quarters of it sent.
        let numbers = (ROOT + 8 * LAYER) + 7 * LAYER + (ROOT + 8 * LAYER);
        assert_eq!(group.traffic().unwrap().bytes - before, 4 * numbers * 3 / 4);
        trainee.update(1e-3, 1.0).unwrap();

        // Weights, gradients and two moments of f32 numbers.
        let quarter = 4 * 4 * (ROOT + 8 * LAYER) / 4;
        let found = sharded.bytes();
        let held = found.weights + found.gradients + trainee.moment_bytes();
        assert!(held.abs_diff(quarter) < quarter / 10, "{held} of {quarter}");
        // Nothing else is left of weights and gradients.
        for (name, tensor) in model.named_parameters() {
            assert!(!has_memory(tensor).unwrap() && !tensor.grad().defined(), "{name}");
        }
        assert!(sharded.lock().spare.is_empty());
        // Weights of the root and of two layers, their gradients, and what arrives of a layer's.
        let most = 4 * 2 * (ROOT + 2 * LAYER) + LAYER;
        assert!(found.gathered <= most + 64 && found.gathered > most * 9 / 10, "{} of {most}", found.gathered);
        let tensors: Vec<_> =
            model.named_parameters().iter().map(|(name, tensor)| (name.clone(), tensor.size())).collect();
        let (stages, kind, device) = (model.config().stages(), Kind::Float, Device::Cpu);
        let layout = Layout { tensors: &tensors, stages: &stages, is_trained: &|_| true, kind, device };
        let foretold = DividedBytes::of(&layout, 4, true);
        assert_eq!((found.weights, found.gradients), (foretold.weights, foretold.gradients));
        assert!(found.gathered <= foretold.gathered, "{found:?} {foretold:?}");
    });
}

#[test]
fn whole_weights_are_those_that_were_divided() {
    together(3, |_, team| {
        let (plain, mut model) = (model(), model());
        let sharded = divided(&mut model, &team);
        for (name, tensor) in plain.named_parameters().iter().rev() {
            assert_eq!(sharded.whole(name).unwrap(), *tensor, "{name}");
        }
        let all = model.resident_all().unwrap();
        for ((name, tensor), (_, own)) in plain.named_parameters().iter().zip(model.named_parameters()) {
            assert_eq!(own, tensor, "{name}");
        }
        drop(all);
        // Passes with gradients keep weights, which are gone by the backward pass.
        model.set_trainable(true);
        let mut packed = Packed::new();
        packed.push(&[1, 2]).unwrap();
        let error = model.hidden_states(&packed).unwrap_err().to_string();
        assert!(error.contains("activation checkpointing"), "{error}");
    });
}

/// Three processes with the same tokens have three times the gradients of one, which goes over the tokens three times.
#[test]
fn updates_of_parts_are_those_of_the_whole_in_half_precision_too() {
    for kind in [Kind::Float, Kind::BFloat16] {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("model");
        tiny::write_folder(&folder, 1).unwrap();
        let settings = OptimizerSettings::default();
        let mut packed = Packed::new();
        packed.push(&[1, 2, 3, 4]).unwrap();
        let accumulate = |model: &CausalLm| {
            let pass = model.checkpointed(&packed).unwrap();
            let loss = pass.hidden().to_kind(Kind::Float).square().sum(Kind::Float);
            loss.backward();
            pass.backward().unwrap();
        };
        let load = || CausalLm::load(&folder, kind, Device::Cpu).unwrap();
        let plain = load();
        let mut trainee = Trainee::new(plain.trainable_parameters(), &settings).unwrap();
        for _ in 0..2 {
            (0..3).for_each(|_| accumulate(&plain));
            trainee.update(1e-2, 0.5).unwrap();
        }
        let numbers = |tensor: &Tensor| Vec::<f32>::try_from(tensor.to_kind(Kind::Float).flatten(0, -1)).unwrap();
        let expected: BTreeMap<String, Vec<f32>> =
            plain.named_parameters().iter().map(|(name, tensor)| (name.clone(), numbers(&tensor.detach()))).collect();
        let tokens = [1, 2, 3, 4];
        together(3, |_, team| {
            let is_trained = |_: &str| true;
            let (team, device) = (&team, Device::Cpu);
            let mut divide = Divide { team, kind, device, is_trained: &is_trained, has_gradients: true, sharded: None };
            let mut model = CausalLm::load_divided(&folder, kind, device, Some(&mut divide)).unwrap();
            let sharded = divide.sharded.take().expect("divided while it is read");
            model.set_residence(sharded.clone());
            let parameters = model.trainable_parameters();
            let parallel = ParallelSettings { shard: Shard::All, ..ParallelSettings::default() };
            let trainee = Trainee::together(parameters, &settings, team.clone(), &parallel, Some(sharded.clone()));
            let mut trainee = trainee.unwrap();
            let mut packed = Packed::new();
            packed.push(&tokens).unwrap();
            for _ in 0..2 {
                let pass = model.checkpointed(&packed).unwrap();
                pass.hidden().to_kind(Kind::Float).square().sum(Kind::Float).backward();
                pass.backward().unwrap();
                trainee.sum_gradients().unwrap();
                trainee.update(1e-2, 0.5).unwrap();
            }
            for (name, expected) in &expected {
                let found = numbers(&sharded.whole(name).unwrap());
                let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|x| x * x).sum::<f32>().sqrt();
                let difference = norm(&mut found.iter().zip(expected).map(|(a, b)| a - b));
                assert!(difference <= 1e-6 * norm(&mut expected.iter().copied()), "{kind:?} {name}: {difference}");
            }
        });
    }
}
