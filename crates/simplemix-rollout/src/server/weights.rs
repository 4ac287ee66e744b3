//! Settings of how a server gets the weights of each round.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Settings of how a server gets the weights of each round, and of how it is seen that it has them.
///
/// They stand beside those of the server and not among them: they hold for each of several servers alike, and a server that only
/// samples for one round, or judges, has no use for them.
///
/// # Examples
/// ```
/// use simplemix_rollout::{WeightsBy, WeightsSettings};
/// let settings = WeightsSettings::new(WeightsBy::Lora);
/// assert!(settings.check().is_ok() && settings.verify);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightsSettings {
    /// Way in which the server gets the weights: `lora`, `disk`, `command` or `serve`.
    pub by: WeightsBy,
    /// Command line, run by `sh -c`: for `command` it makes the server load the model, for `serve` it is the server. `{model}`
    /// stands for the model's folder, `{name}` for its name, `{port}` for the port of `serve`, each quoted for the shell; the same
    /// are in the variables SIMPLEMIX_MODEL, SIMPLEMIX_NAME and SIMPLEMIX_PORT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Software of the server, for `lora` and `disk`, which it has requests of its own for; `auto` asks the server.
    #[serde(default)]
    pub software: Software,
    /// Numbers of the GPUs of a server that `serve` starts (CUDA_VISIBLE_DEVICES); those that this process sees if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<u32>,
    /// Time limit in seconds of loading the weights, and of a server's start.
    #[serde(default = "timeout_secs")]
    pub timeout_secs: f64,
    /// Whether the server's responses to the first prompts are compared with the model's own before it samples: name, token
    /// ids, and log-probabilities, or texts where the server tells none.
    #[serde(default = "yes")]
    pub verify: bool,
    /// Largest root of the mean squared difference of a token's log-probability, in nats, between the server and this process.
    #[serde(default = "tolerance")]
    pub tolerance: f64,
}

fn timeout_secs() -> f64 {
    1800.0
}

fn yes() -> bool {
    true
}

fn tolerance() -> f64 {
    0.25
}

/// Way in which a server gets the weights of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightsBy {
    /// The server loads the round's adapter beside the first model, under a name of its own: vLLM, SGLang.
    Lora,
    /// The server reads the whole model from its folder, in place of the one that it has: SGLang.
    Disk,
    /// A command sees to it.
    Command,
    /// The server is started with the model for each collection, and stopped after it.
    Serve,
}

impl WeightsBy {
    /// Word in settings and reports.
    pub fn word(self) -> &'static str {
        match self {
            Self::Lora => "lora",
            Self::Disk => "disk",
            Self::Command => "command",
            Self::Serve => "serve",
        }
    }
}

/// Software of a server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Software {
    /// The server is asked.
    #[default]
    Auto,
    /// vLLM, started with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and --enable-lora.
    Vllm,
    /// SGLang, for adapters started with --enable-lora.
    Sglang,
}

impl WeightsSettings {
    /// Defaults for one way.
    pub fn new(by: WeightsBy) -> Self {
        Self {
            by,
            command: None,
            software: Software::Auto,
            devices: Vec::new(),
            timeout_secs: timeout_secs(),
            verify: true,
            tolerance: tolerance(),
        }
    }

    /// Checks that every setting is in range, and has a use.
    ///
    /// # Errors
    /// [`Error::Setting`] with the first one that is not, or has none.
    pub fn check(&self) -> Result<()> {
        let refuse = |key, found: String, expected| Err(Error::Setting { key, found, expected });
        let is_command = matches!(self.by, WeightsBy::Command | WeightsBy::Serve);
        let command = self.command.as_deref().map(str::trim);
        match command {
            None | Some("") if is_command => {
                let found = if command.is_none() { "not set" } else { "empty" };
                return refuse(
                    "weights.command",
                    found.to_owned(),
                    "a command line, for `by = \"command\"` and `\"serve\"`",
                );
            }
            Some(_) if !is_command => {
                let found = format!("given, with `by = \"{}\"`", self.by.word());
                return refuse("weights.command", found, "none, or `by = \"command\"` or `\"serve\"`");
            }
            _ => {}
        }
        let names = |placeholder: &str, variable: &str| {
            command.is_some_and(|line| line.contains(placeholder) || line.contains(variable))
        };
        if is_command && !names("{model}", "SIMPLEMIX_MODEL") {
            let found = format!("`{}`", command.unwrap_or_default());
            return refuse("weights.command", found, "a command with `{model}`, the folder of the round's model");
        }
        if self.by == WeightsBy::Serve && !names("{port}", "SIMPLEMIX_PORT") {
            let found = format!("`{}`", command.unwrap_or_default());
            return refuse(
                "weights.command",
                found,
                "a command with `{port}`, where the server is to listen on this machine",
            );
        }
        if self.software != Software::Auto && is_command {
            let found = format!("given, with `by = \"{}\"`", self.by.word());
            return refuse("weights.software", found, "none: the command knows the server");
        }
        if !self.devices.is_empty() && self.by != WeightsBy::Serve {
            let found = format!("given, with `by = \"{}\"`", self.by.word());
            return refuse("weights.devices", found, "none: they are for a server that `serve` starts");
        }
        if !(self.timeout_secs > 0.0 && self.timeout_secs <= 86_400.0) {
            return refuse(
                "weights.timeout_secs",
                self.timeout_secs.to_string(),
                "a number of seconds > 0 and <= 86400",
            );
        }
        if !(self.tolerance > 0.0 && self.tolerance.is_finite()) {
            return refuse("weights.tolerance", self.tolerance.to_string(), "a number of nats > 0");
        }
        Ok(())
    }

    /// Everything that responses may depend on, for keys of results.
    pub(crate) fn mark(&self) -> String {
        format!("{} {}", self.by.word(), self.command.as_deref().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_without_a_use_are_refused_by_name() {
        let said = |json: &str| {
            let settings: WeightsSettings = serde_json::from_str(json).unwrap();
            settings.check().err().map(|error| error.to_string()).unwrap_or_default()
        };
        for good in [
            r#"{"by": "lora"}"#,
            r#"{"by": "disk", "software": "sglang"}"#,
            r#"{"by": "command", "command": "reload.sh {model}"}"#,
            r#"{"by": "serve", "command": "x $SIMPLEMIX_MODEL --port {port}", "devices": [1, 2]}"#,
        ] {
            assert_eq!(said(good), "", "{good}");
        }
        for (bad, key) in [
            (r#"{"by": "serve"}"#, "`weights.command` is not set"),
            (r#"{"by": "command", "command": " "}"#, "`weights.command` is empty"),
            (r#"{"by": "lora", "command": "x"}"#, "`weights.command` is given, with `by = \"lora\"`"),
            (r#"{"by": "command", "command": "x"}"#, "a command with `{model}`"),
            (r#"{"by": "serve", "command": "x {model}"}"#, "a command with `{port}`"),
            (r#"{"by": "serve", "command": "x {model} {port}", "software": "vllm"}"#, "`weights.software` is given"),
            (r#"{"by": "disk", "devices": [0]}"#, "`weights.devices` is given"),
            (r#"{"by": "disk", "timeout_secs": 0}"#, "`weights.timeout_secs` is 0"),
            (r#"{"by": "disk", "tolerance": 0}"#, "`weights.tolerance` is 0"),
        ] {
            assert!(said(bad).contains(key), "{bad}: {}", said(bad));
        }
        assert!(serde_json::from_str::<WeightsSettings>(r#"{"by": "lora", "name": "x"}"#).is_err());
    }
}
