//! Files of TRL, of the alignment handbook, of axolotl and of LLaMA-Factory.

use super::*;
use crate::config::{DataSet, Shares, Shuffle, TrainConfig};
use crate::schedule::{Decay, Schedule};
use simplemix_model::{Dtype, LoadIn, QuantizationSettings};
use simplemix_settings::Settings;

fn read_for(objective: Objective, text: &str) -> Result<(TrainConfig, Vec<String>)> {
    let recipe = from_trl(text, Path::new("dpo.yaml"), objective, 1)?;
    Ok((TrainConfig::from_table(recipe.settings)?, recipe.ignored))
}

fn read(text: &str) -> Result<(TrainConfig, Vec<String>)> {
    read_for(Objective::Preference, text)
}

#[test]
fn a_file_of_trls_is_followed() {
    let text = "\
        model_name_or_path: ./smollm2\ndataset_name: pairs.parquet\noutput_dir: out\nloss_type: [ipo]\nbeta: 0.05\n\
        learning_rate: 5.0e-7\nlr_scheduler_type: cosine\nwarmup_ratio: 0.1\nper_device_train_batch_size: 4\n\
        gradient_accumulation_steps: 8\nnum_train_epochs: 1\nweight_decay: 0.01\nbf16: false\nuse_peft: true\nlora_r: 8\n\
        lora_target_modules: [q_proj, v_proj]\nlogging_steps: 10\nreport_to: none\neval_strategy: steps\neval_steps: 50\n";
    let (config, ignored) = read(text).unwrap();
    let (loss, optimizer) = (&config.loss, &config.optimizer);
    assert_eq!((&loss.name, loss.beta, optimizer.learning_rate), (&"ipo".into(), 0.05, 5e-7));
    assert_eq!((optimizer.schedule, optimizer.warmup_ratio), (Schedule::Cosine, 0.1));
    assert_eq!((config.batch.batch_size, config.epochs, optimizer.weight_decay), (32, 1.0, 0.01));
    assert_eq!((config.dtype, config.batch.shuffle, config.eval.eval_every_steps), (Dtype::Float32, Shuffle::Trl, 50));
    assert_eq!((config.lora.rank, config.lora.targets.len()), (8, 2));
    assert_eq!(ignored, ["report_to", "logging_steps"]);
}

#[test]
fn an_adapter_has_trls_and_pefts_defaults() {
    let lora = |text: &str| read(text).unwrap().0.lora;
    let default = lora("use_peft: true\n");
    assert_eq!((default.rank, default.alpha, default.dropout), (16, 32.0, 0.05));
    let q_and_v: &[&str] = &["q_proj", "v_proj"];
    for (model_type, expected) in [
        ("llama", Some(q_and_v)),
        ("qwen3", Some(q_and_v)),
        ("gpt2", Some(&["c_attn"])),
        ("gpt_neox", Some(&["query_key_value"])),
        ("phi3", None),
        ("olmo2", None),
        ("granite", None),
    ] {
        let mut lora = default.clone();
        let found = lora.resolve_targets(model_type).ok().map(|()| lora.targets);
        assert_eq!(found, expected.map(|names| names.iter().map(|&name| name.to_owned()).collect()), "{model_type}");
    }
    let error = default.clone().resolve_targets("phi3").unwrap_err().to_string();
    let expected = "`lora.targets` is peft-default, expected names of layers: peft has no default for `phi3`";
    assert_eq!(error, expected);
    let all = lora("use_peft: true\nlora_target_modules: all-linear\nlora_dropout: 0.0\n");
    assert_eq!((all.targets.len(), all.dropout), (0, 0.0));
    let (config, ignored) = read("lora_r: 8\n").unwrap();
    assert_eq!((config.lora.rank, ignored), (0, vec!["lora_r".to_owned()]));
}

#[test]
fn the_learning_rate_is_that_of_the_objective() {
    for (objective, expected) in [(Objective::Preference, 1e-6), (Objective::Sft, 2e-5), (Objective::Reward, 1e-4)] {
        assert_eq!(read_for(objective, "seed: 1\n").unwrap().0.optimizer.learning_rate, expected);
        assert_eq!(read_for(objective, "learning_rate: 1e-7\n").unwrap().0.optimizer.learning_rate, 1e-7);
    }
}

#[test]
fn a_length_of_null_is_no_limit() {
    let length = |text: &str| read(text).unwrap().0.tokens.max_length;
    assert_eq!(length("seed: 1\n"), 1024);
    assert_eq!(length("max_length: 512\n"), 512);
    assert_eq!(length("max_length: null\n"), 1 << 40);
}

#[test]
fn evaluations_are_when_transformers_has_them() {
    let eval = |text: &str| {
        let eval = read(text).unwrap().0.eval;
        (eval.eval_every_steps, eval.eval_every_epoch, eval.eval_at_end)
    };
    assert_eq!(eval("seed: 1\n"), (0, false, true));
    for no in ["\"no\"", "no", "false"] {
        assert_eq!(eval(&format!("eval_strategy: {no}\n")), (0, false, false), "{no}");
    }
    assert_eq!(eval("eval_strategy: epoch\n"), (0, true, true));
    assert_eq!(eval("eval_strategy: steps\n"), (500, false, true));
    assert_eq!(eval("eval_strategy: steps\nlogging_steps: 20\n"), (20, false, true));
    assert_eq!(eval("eval_strategy: steps\neval_steps: 5\n"), (5, false, true));
    let (config, ignored) = read("eval_steps: 50\nsave_strategy: epoch\n").unwrap();
    assert_eq!((config.eval.eval_every_steps, ignored), (0, vec!["eval_steps".to_owned()]));
    assert!(config.checkpoint.save_every_epoch);
}

#[test]
fn losses_are_added_up_with_their_weights() {
    let (config, _) = read("loss_type: [sigmoid, sft]\nloss_weights: [1, 0.2]\n").unwrap();
    assert_eq!(config.loss.name.as_slice(), ["sigmoid", "sft"]);
    assert_eq!(config.loss.weights, [1.0, 0.2]);
}

/// transformers 5.24, `get_warmup_steps`: below 1 a share, rounded up. transformers 4, with a ratio: the steps count if there are any.
#[test]
fn warm_up_is_that_of_transformers() {
    let warmup = |text: &str| read(text).unwrap().0.loop_settings(800, None).warmup_steps;
    // 800 pairs, three epochs, eight pairs an update: 300 updates.
    assert_eq!(warmup("warmup_steps: 0\nwarmup_ratio: 0.1\n"), 30);
    assert_eq!(warmup("warmup_ratio: 0.001\n"), 1);
    assert_eq!(warmup("warmup_steps: 0.1\n"), 30);
    assert_eq!(warmup("warmup_steps: 0.101\n"), 31);
    assert_eq!(warmup("warmup_steps: 10\nmax_steps: 50\nwarmup_ratio: 0.1\n"), 10);
    for steps in 1..50 {
        assert_eq!(warmup(&format!("warmup_steps: {steps}\n")), steps);
    }
    assert_eq!(warmup("lr_scheduler_type: constant\nwarmup_steps: 10\n"), 0);
    assert_eq!(warmup("lr_scheduler_type: constant_with_warmup\nwarmup_steps: 10\n"), 10);
}

#[test]
fn schedules_have_the_arguments_of_transformers() {
    let optimizer = |text: &str| read(&format!("learning_rate: 1e-6\nlr_scheduler_{text}")).unwrap().0.optimizer;
    let floor = optimizer("type: cosine_with_min_lr\nlr_scheduler_kwargs: {min_lr_rate: 0.1}");
    assert_eq!((floor.schedule, floor.min_rate_ratio), (Schedule::Cosine, 0.1));
    assert_eq!(optimizer("type: cosine_with_min_lr\nlr_scheduler_kwargs: '{\"min_lr\": 2.5e-7}'").min_rate_ratio, 0.25);
    let text = "type: warmup_stable_decay\nlr_scheduler_kwargs:\n  num_decay_steps: 20\n  min_lr_ratio: 0.2\n  decay_type: 1-sqrt";
    let wsd = optimizer(text);
    assert_eq!(
        (wsd.schedule, wsd.decay_steps, wsd.decay),
        (Schedule::WarmupStableDecay, Some(20), Decay::OneMinusSqrt)
    );
    assert_eq!(wsd.min_rate_ratio, 0.2);
    assert_eq!(optimizer("type: inverse_sqrt").schedule, Schedule::InverseSqrt);
}

/// transformers 5.24, `TrainerState.compute_steps`: `math.ceil(max_steps * num_steps)` where it is below 1.
#[test]
fn intervals_below_1_are_shares_of_the_updates() {
    let text = "eval_strategy: steps\neval_steps: 0.25\nsave_steps: 0.3\nmax_steps: 11\n";
    let settings = read(text).unwrap().0.loop_settings(800, None);
    assert_eq!((settings.eval_every_steps, settings.save_every_steps), (3, 4));
    let settings =
        read("eval_strategy: steps\nlogging_steps: 0.1\nmax_steps: 11\n").unwrap().0.loop_settings(800, None);
    assert_eq!(settings.eval_every_steps, 2);
    let error = read("save_steps: 1.5\n").unwrap_err().to_string();
    assert_eq!(error, "dpo.yaml: `save_steps` is 1.5, expected a share below 1 or a whole number of updates");
}

#[test]
fn data_of_the_hub_have_configuration_split_and_revision() {
    let text = "model_name_or_path: a/model\nmodel_revision: v2\ndataset_name: a/b\ndataset_config: c\ndataset_train_split: train_prefs\n\
                eval_strategy: epoch\ndataset_test_split: test_prefs\n";
    let (config, _) = read(text).unwrap();
    assert_eq!(config.model.unwrap(), Path::new("a/model@v2"));
    assert_eq!(config.train.unwrap(), Path::new("hf://datasets/a/b?config=c&split=train_prefs"));
    let held_out = Path::new("hf://datasets/a/b?config=c&split=test_prefs").to_owned();
    assert_eq!(config.eval.files, Some(crate::config::EvalFiles::One(held_out)));
    let (config, ignored) = read("model_name_or_path: ./model\nmodel_revision: v2\n").unwrap();
    assert_eq!((config.model.unwrap(), ignored), (Path::new("./model").to_owned(), vec!["model_revision".to_owned()]));
}

#[test]
fn mixtures_of_trl_and_of_the_handbook_are_each_its_own() {
    let data = |text: &str| read(text).unwrap().0.data;
    let set = |path: &str, share: Option<f64>| DataSet { path: path.into(), share, name: None };
    let trl = data(
        "datasets:\n- {path: a/b, name: c, fraction: 0.25}\n- {path: json, data_files: x.jsonl, fraction: 0.75}\n",
    );
    assert_eq!((trl.shares, trl.shuffle, trl.held_out), (Shares::OfTheWhole, false, None));
    let expected = [set("hf://datasets/a/b?config=c&split=train", Some(0.25)), set("x.jsonl", Some(0.75))];
    assert_eq!(trl.sets, expected);
    let text = "dataset_mixture:\n  datasets:\n  - {id: a/b, split: s, columns: [chosen], weight: 0.5}\n  - {id: y.parquet}\n  \
                seed: 3\n  test_split_size: 20\n";
    let handbook = data(text);
    assert_eq!(
        (handbook.shares, handbook.shuffle, handbook.held_out, handbook.seed),
        (Shares::OfEachSet, true, Some(20.0), 3)
    );
    assert_eq!(handbook.sets, [set("hf://datasets/a/b?split=s", Some(0.5)), set("y.parquet", Some(1.0))]);
    let older = data("dataset_mixer:\n  a/b: 0.5\ndataset_splits: [train_prefs, test_prefs]\n");
    assert_eq!((older.shares, older.shuffle, older.seed), (Shares::FirstOfEachSet, true, 42));
    assert_eq!(older.sets, [set("hf://datasets/a/b?split=train_prefs", Some(0.5))]);
}

#[test]
fn older_keys_mean_what_they_meant() {
    let config = |text: &str| read(text).unwrap().0;
    assert_eq!(config("torch_dtype: bfloat16\n").dtype, Dtype::Bfloat16);
    assert_eq!(config("torch_dtype: null\nbf16: true\n").dtype, Dtype::Auto);
    assert_eq!(config("max_seq_length: 77\n").tokens.max_length, 77);
    assert!(config("evaluation_strategy: epoch\n").eval.eval_every_epoch);
    let rpo = config("rpo_alpha: 0.2\n").loss;
    assert_eq!(
        (rpo.name.as_slice(), rpo.weights.as_slice()),
        (&["sigmoid".to_owned(), "sft".to_owned()][..], &[1.0, 0.2][..])
    );
    let simpo = config("loss_type: simpo\nsimpo_gamma: 0.4\n").loss;
    assert_eq!(simpo.constants.get("simpo_gamma"), Some(&0.4));
    assert_eq!(config("chat_template: '{{ messages }}'\n").tokens.chat_template.as_deref(), Some("{{ messages }}"));
    let sft = read_for(Objective::Sft, "eos_token: <|im_end|>\n").unwrap().0;
    assert_eq!(sft.tokens.eos_token.as_deref(), Some("<|im_end|>"));
}

/// Fields of TRL 1.16's and transformers 5.24's classes, by `tests/golden/train_trl_keys.py`.
#[test]
fn every_key_of_trl_is_known() {
    let golden = crate::golden("trl_keys");
    for (name, objective) in [("dpo", Objective::Preference), ("sft", Objective::Sft), ("reward", Objective::Reward)] {
        let keys: Vec<&str> = golden["keys"][name].as_array().unwrap().iter().filter_map(|key| key.as_str()).collect();
        assert!(keys.len() > 100);
        let text: String = keys.iter().map(|key| format!("{key}: x\n")).collect();
        let recipe = import_recipe(&text, Path::new("x.yaml"), Some(objective), 1).unwrap();
        let unknown: Vec<&String> = recipe.unfollowed.iter().filter(|text| text.starts_with("unknown")).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }
}

#[test]
fn a_batch_counts_the_devices() {
    let recipe =
        |text: &str, devices: u64| from_trl(text, Path::new("dpo.yaml"), Objective::Preference, devices).unwrap();
    let text = "per_device_train_batch_size: 2\ngradient_accumulation_steps: 8\n";
    assert_eq!(recipe(text, 8).settings["batch"]["batch_size"].as_integer(), Some(128));
    assert_eq!(recipe(text, 8).remarks, ["a batch is 128 pairs: 2 a device x 8 accumulated x 8 devices"]);
    assert!(recipe(text, 1).remarks[0].ends_with("for N of them, set batch.batch_size to N times that"));
    let remarks = recipe(&format!("# Config for 2 nodes, with GBS 256\n{text}"), 1).remarks;
    let expected = "a batch is 16 pairs: 2 a device x 8 accumulated x 1 device; a comment speaks of a global batch of 256, which is 16 \
                    devices: set batch.batch_size = 256";
    assert_eq!(remarks, [expected]);
}

#[test]
fn other_files_are_told_apart() {
    let refused = |text: &str| read(text).unwrap_err().to_string();
    let hint =
        "expected one of TRL; `simplemix import-config dpo.yaml -o run.toml` writes settings for --config from it";
    assert_eq!(refused("base_model: a/b\nrl: dpo\n"), format!("dpo.yaml: a file of axolotl, {hint}"));
    assert_eq!(refused("model_name_or_path: a/b\nstage: dpo\n"), format!("dpo.yaml: a file of LLaMA-Factory, {hint}"));
    let launcher = "dpo.yaml: a file of the launcher, accelerate or DeepSpeed, expected the file of a recipe";
    assert_eq!(refused("compute_environment: LOCAL_MACHINE\nnum_processes: 8\n"), launcher);
    assert!(refused("a: [1\n").starts_with("dpo.yaml: not YAML: "));
}

#[test]
fn all_that_cannot_be_followed_is_named_at_once() {
    let text = "betta: 0.1\ndataset_mixer_list: x\nload_in_4bit: maybe\nlearning_rate: fast\noptim: rmsprop\nuse_peft: maybe\nbeta: 0.1\n";
    let expected = "dpo.yaml: unknown key `betta`; did you mean `beta`?; unknown key `dataset_mixer_list`; `learning_rate` is \"fast\", \
                    expected a number; `optim` is \"rmsprop\", expected adamw_torch or adamw_torch_fused; `use_peft` is \"maybe\", \
                    expected true or false; `load_in_4bit` is \"maybe\", expected true or false";
    assert_eq!(read(text).unwrap_err().to_string(), expected);
}

#[test]
fn the_best_checkpoint_becomes_the_result_only_if_it_is_loaded() {
    let (config, ignored) = read("metric_for_best_model: loss\nload_best_model_at_end: false\n").unwrap();
    assert_eq!((config.eval.best_metric, ignored), (None, vec!["metric_for_best_model".to_owned()]));
    let best = |text: &str| read(text).unwrap().0.eval.best_metric.unwrap();
    assert_eq!(best("load_best_model_at_end: true\n"), "eval_loss");
    let accuracy = "load_best_model_at_end: true\nmetric_for_best_model: eval_rewards/accuracies\n";
    assert_eq!(best(accuracy), "eval_rewards/accuracies");
    let error = read("load_best_model_at_end: true\ngreater_is_better: true\n").unwrap_err().to_string();
    assert_eq!(error, "dpo.yaml: `greater_is_better` is true, expected false for `loss`");
}

#[test]
fn trls_defaults_are_trls() {
    let (config, _) = read("beta: 0.1\n").unwrap();
    assert_eq!((config.batch.batch_size, config.epochs, config.seed), (8, 3.0, 42));
    assert_eq!((config.batch.shuffle, config.tokens.max_length), (Shuffle::Trl, 1024));
    assert_eq!(config.optimizer.learning_rate, 1e-6);
}

/// TRL 1.16, `ModelConfig` and `get_peft_config`: a list of one becomes a text, which peft takes for a regular expression.
#[test]
fn an_adapter_is_that_of_trl() {
    let lora = |text: &str| read(&format!("use_peft: true\n{text}")).unwrap().0.lora;
    let plain = lora("");
    assert_eq!(
        (plain.rank, plain.alpha, plain.dropout, plain.targets),
        (16, 32.0, 0.05, vec!["peft-default".to_owned()])
    );
    assert_eq!(lora("lora_target_modules: [q_proj, v_proj]").targets, ["q_proj", "v_proj"]);
    assert_eq!(lora("lora_target_parameters: [experts.down_proj]").target_parameters, ["experts.down_proj"]);
    assert_eq!(lora("lora_target_modules: ['.*_proj']").target_pattern.as_deref(), Some(".*_proj"));
    assert_eq!(lora("lora_target_modules: '.*_proj'").target_pattern.as_deref(), Some(".*_proj"));
    for all in ["all-linear", "[all-linear]"] {
        let lora = lora(&format!("lora_target_modules: {all}"));
        assert_eq!((lora.targets.len(), lora.target_pattern), (0, None), "{all}");
    }
    let saved = lora("lora_modules_to_save: [lm_head]\nuse_dora: true\nuse_rslora: true\nlora_task_type: CAUSAL_LM");
    assert_eq!((saved.modules_to_save, saved.dora, saved.rslora), (vec!["lm_head".to_owned()], true, true));
    let reward = |text: &str| read_for(Objective::Reward, &format!("use_peft: true\n{text}"));
    assert_eq!(reward("lora_task_type: SEQ_CLS").unwrap().0.lora.rank, 16);
    let error = reward("").unwrap_err().to_string();
    assert_eq!(error, "dpo.yaml: `lora_task_type` is null, expected SEQ_CLS for this objective");
    let (config, ignored) = read("use_dora: true\nlora_r: 4").unwrap();
    assert_eq!((config.lora.rank, ignored), (0, vec!["lora_r".to_owned(), "use_dora".to_owned()]));
}

#[test]
fn what_cannot_be_followed_is_named() {
    for (text, expected) in [
        (
            "use_peft: true\nlora_task_type: SEQ_CLS\n",
            "dpo.yaml: `lora_task_type` is \"SEQ_CLS\", expected CAUSAL_LM for this objective",
        ),
        ("betta: 0.1\n", "dpo.yaml: unknown key `betta`; did you mean `beta`?"),
        ("loss_type: [1]\n", "dpo.yaml: `loss_type` is [1], expected a name, or a list of names"),
        ("warmup_ratio: 2\n", "dpo.yaml: `warmup_ratio` is 2, expected a share from 0 to 1"),
        (
            "train_sampling_strategy: group_by_length\n",
            "dpo.yaml: `train_sampling_strategy` is \"group_by_length\", expected random or sequential",
        ),
        (
            "datasets:\n- {path: a/b, split: 'train[:10%]'}\n",
            "dpo.yaml: the split `train[:10%]` of a/b is a part or a sum, expected the name of one split",
        ),
        (
            "lr_scheduler_type: polynomial\n",
            "dpo.yaml: `lr_scheduler_type` is \"polynomial\", expected linear, cosine, cosine_with_min_lr, constant, constant_with_warmup, inverse_sqrt or warmup_stable_decay",
        ),
        (
            "lr_scheduler_type: cosine\nlr_scheduler_kwargs: {power: 2}\n",
            "dpo.yaml: `lr_scheduler_kwargs.power` is set, expected of the arguments num_cycles",
        ),
        ("optim: adafactor\n", "dpo.yaml: `optim` is \"adafactor\", expected adamw_torch or adamw_torch_fused"),
        (
            "truncation_mode: keep_end\n",
            "dpo.yaml: `truncation_mode` is \"keep_end\", expected keep_start: longer pairs are cut at their end",
        ),
        (
            "disable_dropout: false\n",
            "dpo.yaml: `disable_dropout` is false, expected true: a model is trained without dropout of its own",
        ),
        (
            "deepspeed: ds.json\n",
            "dpo.yaml: `deepspeed` is \"ds.json\", expected no such key: several processes train with --processes, torchrun or Slurm",
        ),
        (
            "eval_strategy: steps\ndataset_test_split: test\n",
            "dpo.yaml: `dataset_test_split` is \"test\", expected no such key: --eval names the file of held-out pairs",
        ),
        ("eval_strategy: often\n", "dpo.yaml: `eval_strategy` is \"often\", expected no, steps or epoch"),
        ("max_steps: ten\n", "dpo.yaml: `max_steps` is \"ten\", expected a whole number"),
    ] {
        assert_eq!(read(text).unwrap_err().to_string(), expected);
    }
}

#[test]
fn quantised_weights_are_those_of_bitsandbytes() {
    let four =
        read("use_peft: true\nload_in_4bit: true\nuse_bnb_nested_quant: true\nbnb_4bit_quant_type: nf4\n").unwrap().0;
    let expected = QuantizationSettings { load_in: LoadIn::FourBit, double_quant: true };
    assert_eq!(four.quantization, expected);
    let eight = read("use_peft: true\nload_in_8bit: true\nbnb_4bit_quant_type: nf4\n").unwrap();
    assert_eq!((eight.0.quantization.load_in, eight.1), (LoadIn::EightBit, vec!["bnb_4bit_quant_type".to_owned()]));
    let refused = |text: &str| read(text).unwrap_err().to_string();
    let error = refused("use_peft: true\nload_in_4bit: true\nbnb_4bit_quant_type: fp4\n");
    assert_eq!(error, "dpo.yaml: `bnb_4bit_quant_type` is \"fp4\", expected nf4");
    let error = refused("use_peft: true\nload_in_4bit: true\nload_in_8bit: true\n");
    assert!(error.contains("expected one of `load_in_4bit` and `load_in_8bit`"), "{error}");
}
