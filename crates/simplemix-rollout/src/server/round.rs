//! A server that has the model of a round: it gets the weights, shows that it has them, samples, and lets go of them.
//!
//! [`put_weights`] is the one way to do so, for one server. [`RoundGenerator`](super::RoundGenerator) samples from those that have them.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use simplemix_data::Watch;

use super::admin::{Admin, Listed};
use super::client::ServerClient;
use super::process::{ServerProcess, now, quoted};
use super::servers::Servers;
use super::settings::ServerSettings;
use super::verify::{ServedReport, verify};
use super::waiting::sleep;
use super::weights::{Software, WeightsBy, WeightsSettings};
use super::yardstick::Yardstick;
use crate::error::{At, Error, Result};

/// Time limit of a request that asks whether a server is ready.
const PROBE_SECS: f64 = 10.0;
/// Wait between two of them.
const PAUSE: Duration = Duration::from_millis(250);

/// Model that a server is to have in a round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoundModel {
    /// Name, another one for other weights: a server may keep what it has computed under a name.
    pub name: String,
    /// Folder of the whole model.
    pub folder: PathBuf,
    /// Adapters that make this model of the first one, in the order in which they were trained; none for the first one itself.
    #[serde(default)]
    pub adapters: Vec<PathBuf>,
    /// Names of the models of earlier rounds, of which the server needs none any more.
    #[serde(default)]
    pub before: Vec<String>,
    /// File of the model's own responses, see [`Yardstick`]; needed if the weights are verified.
    #[serde(default)]
    pub yardstick: Option<PathBuf>,
}

/// Settings of sampling from a server in a round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoundSettings {
    /// The server, or several that share the requests; without an address if it is started here.
    pub server: Servers,
    /// Way in which it gets the weights.
    pub weights: WeightsSettings,
    /// Model of the round.
    pub model: RoundModel,
}

/// A server that has the weights of a round, until this value is gone: a server that was started here ends with it.
#[derive(Debug)]
pub struct Served {
    /// Settings with the address and the name by which the model is asked for.
    pub settings: ServerSettings,
    /// Account of the weights.
    pub report: ServedReport,
    process: Option<ServerProcess>,
    adapter: Option<Adapter>,
}

/// An adapter that a server has.
#[derive(Debug)]
struct Adapter {
    admin: Admin,
    software: Software,
    name: String,
}

impl Served {
    /// Lets go of the weights once the last request is back: the adapter is unloaded, a server that was started here ends.
    pub fn end(self, watch: &mut dyn Watch) -> ServedReport {
        let Self { mut report, adapter, process, .. } = self;
        drop(process);
        if let Some(Adapter { admin, software, name }) = adapter {
            let unloaded = admin.unload_adapter(software, &name, &|| watch.is_interrupted());
            if let Err(error) = unloaded {
                let text = format!("the adapter `{name}` was not unloaded: {error}");
                watch.notice(&text);
                report.notices.push(text);
            }
        }
        report
    }

    /// A failure, or the cause of it if the server has ended.
    pub(super) fn explained(&mut self, error: Error) -> Error {
        let is_server = matches!(error, Error::Server { .. });
        self.process.as_mut().filter(|_| is_server).and_then(ServerProcess::ended).unwrap_or(error)
    }
}

/// Makes `server` have this model, and sees by its responses that it has. What is said on the way, by a command or by a server that
/// is started, goes to the folder `logs`.
///
/// # Errors
/// [`Error::Setting`] with the first setting out of range; [`Error::Weights`] if the server does not take the weights, or responds
/// by other ones; [`Error::Command`], [`Error::ServerProcess`] and [`Error::Server`] for what fails on the way;
/// [`Error::Interrupted`].
pub fn put_weights(
    server: &ServerSettings,
    weights: &WeightsSettings,
    model: &RoundModel,
    logs: &Path,
    watch: &mut dyn Watch,
) -> Result<Served> {
    weights.check()?;
    let mut put = Put { server, weights, model, logs, watch };
    let mut served = match weights.by {
        WeightsBy::Lora => put.lora(),
        WeightsBy::Disk => put.disk(),
        WeightsBy::Command => put.command(),
        WeightsBy::Serve => put.serve(),
    }?;
    let verified = put.verified(&served.settings);
    served.report = verified.map_err(|error| served.explained(error))?;
    weights.by.word().clone_into(&mut served.report.by);
    served.report.notices.iter().for_each(|notice| put.watch.notice(notice));
    Ok(served)
}

struct Put<'a> {
    server: &'a ServerSettings,
    weights: &'a WeightsSettings,
    model: &'a RoundModel,
    logs: &'a Path,
    watch: &'a mut dyn Watch,
}

impl Put<'_> {
    fn served(&self, url: &str, asked: String) -> Served {
        let server = self.server.clone();
        let name = server.name.clone().or_else(|| Some(self.model.name.clone()));
        let settings = ServerSettings { url: url.to_owned(), model: Some(asked), name, ..server };
        Served { settings, report: ServedReport::default(), process: None, adapter: None }
    }

    fn lora(&mut self) -> Result<Served> {
        let admin = Admin::new(self.server, self.weights)?;
        let models = admin.models(&|| self.watch.is_interrupted())?;
        let first = self.first_name(&admin, &models)?;
        if self.model.adapters.is_empty() && self.model.before.is_empty() {
            return Ok(self.served(&self.server.url, first));
        }
        let software = admin.software(&models, &|| self.watch.is_interrupted())?;
        // Left by a run that was killed: all requests to them are back.
        for name in &self.model.before {
            if software == Software::Sglang || models.iter().any(|model| model.name == *name) {
                admin.unload_adapter(software, name, &|| self.watch.is_interrupted())?;
            }
        }
        if self.model.adapters.is_empty() {
            return Ok(self.served(&self.server.url, first));
        }
        let (name, folder) = (self.model.name.clone(), self.adapter()?);
        self.watch.progress("loading the adapter", 0, 1);
        admin.load_adapter(software, &name, &absolute(&folder)?, &|| self.watch.is_interrupted())?;
        self.watch.progress("loading the adapter", 1, 1);
        let asked = if software == Software::Sglang { format!("{first}:{name}") } else { name.clone() };
        Ok(Served { adapter: Some(Adapter { admin, software, name }), ..self.served(&self.server.url, asked) })
    }

    /// Folder of one adapter that does what those of all rounds do.
    fn adapter(&self) -> Result<PathBuf> {
        match self.model.adapters.as_slice() {
            [one] => Ok(one.clone()),
            #[cfg(feature = "local")]
            several => {
                let folder = self.logs.join("adapter");
                // Whole or not there at all; the same adapters give the same one.
                if !folder.is_dir() {
                    simplemix_model::compose_adapters(&self.model.folder, several, &folder)?;
                }
                Ok(folder)
            }
            #[cfg(not(feature = "local"))]
            several => {
                let found = format!("\"lora\", with {} adapters one after the other", several.len());
                Err(Error::Setting {
                    key: "weights.by",
                    found,
                    expected: "one adapter, in a build without the feature `local`",
                })
            }
        }
    }

    fn disk(&mut self) -> Result<Served> {
        let admin = Admin::new(self.server, self.weights)?;
        let models = admin.models(&|| self.watch.is_interrupted())?;
        let software = admin.software(&models, &|| self.watch.is_interrupted())?;
        self.watch.progress("loading the model", 0, 1);
        admin.update_from_disk(software, &absolute(&self.model.folder)?, &|| self.watch.is_interrupted())?;
        self.watch.progress("loading the model", 1, 1);
        // SGLang calls the model by its folder from now on.
        let models = admin.models(&|| self.watch.is_interrupted())?;
        let asked = self.name_to_ask(&admin, &models)?;
        Ok(self.served(&self.server.url, asked))
    }

    fn command(&mut self) -> Result<Served> {
        let (line, variables) = self.line(None)?;
        let log = self.logs.join("weights.log");
        let mut command = ServerProcess::start(&line, &variables, &log)?;
        let started = now();
        while !command.succeeded() {
            if let Some(error) = command.ended() {
                return Err(error);
            }
            self.wait(started, "running the command", || {
                command.failure(format!(
                    "has not ended after {} s, the limit `weights.timeout_secs`",
                    self.weights.timeout_secs
                ))
            })?;
        }
        let (admin, models) = self.when_ready(self.server, None)?;
        let asked = self.name_to_ask(&admin, &models)?;
        Ok(self.served(&self.server.url, asked))
    }

    fn serve(&mut self) -> Result<Served> {
        let port = free_port()?;
        let (line, variables) = self.line(Some(port))?;
        let url = format!("http://127.0.0.1:{port}/v1");
        let mut process = ServerProcess::start(&line, &variables, &self.logs.join("server.log"))?;
        let server = ServerSettings { url: url.clone(), ..self.server.clone() };
        let (admin, models) = self.when_ready(&server, Some(&mut process))?;
        let asked = self.name_to_ask(&admin, &models)?;
        Ok(Served { process: Some(process), ..self.served(&url, asked) })
    }

    /// The command line with its words in place of placeholders, and its variables.
    fn line(&self, port: Option<u16>) -> Result<(String, Vec<(&'static str, String)>)> {
        let folder = absolute(&self.model.folder)?;
        let mut words =
            vec![("{model}", "SIMPLEMIX_MODEL", folder), ("{name}", "SIMPLEMIX_NAME", self.model.name.clone())];
        words.extend(port.map(|port| ("{port}", "SIMPLEMIX_PORT", port.to_string())));
        let line = self.weights.command.clone().unwrap_or_default();
        let line = words.iter().fold(line, |line, (placeholder, _, word)| line.replace(placeholder, &quoted(word)));
        let mut variables: Vec<_> = words.into_iter().map(|(_, variable, word)| (variable, word)).collect();
        if !self.weights.devices.is_empty() {
            let devices: Vec<String> = self.weights.devices.iter().map(u32::to_string).collect();
            variables.push(("CUDA_VISIBLE_DEVICES", devices.join(",")));
        }
        Ok((line, variables))
    }

    /// Waits a moment, and shows since when; the failure if the time is over.
    fn wait(&mut self, started: std::time::Instant, what: &str, late: impl FnOnce() -> Error) -> Result<()> {
        let (elapsed, limit) = (started.elapsed().as_secs_f64(), self.weights.timeout_secs);
        if elapsed >= limit {
            return Err(late());
        }
        self.watch.progress(what, elapsed as u64, limit as u64);
        if sleep(PAUSE, &|| self.watch.is_interrupted()) { Ok(()) } else { Err(Error::Interrupted) }
    }

    /// Waits until a server is ready. Returns what it has.
    fn when_ready(
        &mut self,
        server: &ServerSettings,
        mut process: Option<&mut ServerProcess>,
    ) -> Result<(Admin, Vec<Listed>)> {
        let server = ServerSettings { retries: 0, ..server.clone() };
        let probing =
            WeightsSettings { timeout_secs: PROBE_SECS.min(self.weights.timeout_secs), ..self.weights.clone() };
        let admin = Admin::new(&server, &probing)?;
        let started = now();
        loop {
            if let Some(error) = process.as_mut().and_then(|process| process.ended()) {
                return Err(error);
            }
            let found = match ready(&admin, &|| self.watch.is_interrupted()) {
                Ok(models) => return Ok((admin, models)),
                Err(error) if is_final(&error) => return Err(error),
                Err(error) => error,
            };
            let limit = self.weights.timeout_secs;
            self.wait(started, "waiting for the server", || {
                let found = format!("is not ready after {limit} s, the limit `weights.timeout_secs`: {found}");
                match &process {
                    Some(process) => process.failure(found),
                    None => admin.failure(found, "`/health` and `/v1/models` with status 200".to_owned()),
                }
            })?;
        }
    }

    /// Name of the first model on a server that keeps it: the one that is set, or the only one that is no adapter.
    fn first_name(&self, admin: &Admin, models: &[Listed]) -> Result<String> {
        if let Some(name) = &self.server.model {
            return Ok(name.clone());
        }
        let is_ours = |name: &String| *name == self.model.name || self.model.before.contains(name);
        only(admin, models.iter().filter(|model| !model.is_adapter && !is_ours(&model.name)))
    }

    /// Name of the model on a server that has taken it in whole: the one that is set, the one that the command was given, the folder,
    /// or the only one.
    fn name_to_ask(&self, admin: &Admin, models: &[Listed]) -> Result<String> {
        let folder = absolute(&self.model.folder)?;
        let wanted = [self.server.model.as_ref(), Some(&self.model.name), Some(&folder)];
        let listed = |name: &&String| models.iter().any(|model| model.name == **name);
        match (&self.server.model, wanted.into_iter().flatten().find(listed)) {
            (Some(name), _) => Ok(name.clone()),
            (None, Some(name)) => Ok(name.clone()),
            (None, None) => only(admin, models.iter().filter(|model| !model.is_adapter)),
        }
    }

    /// Account of the weights by which the server responds.
    fn verified(&mut self, settings: &ServerSettings) -> Result<ServedReport> {
        let Some(path) = self.model.yardstick.as_ref().filter(|_| self.weights.verify) else {
            let because = if self.weights.verify { "there are no own responses" } else { "`weights.verify` is false" };
            let text = format!("the weights of the server are not verified: {because}");
            let model = settings.model.clone().unwrap_or_default();
            return Ok(ServedReport { model, notices: vec![text], ..ServedReport::default() });
        };
        let yardstick = Yardstick::read(path)?;
        let client = ServerClient::new(settings.clone())?;
        self.watch.progress("verifying the weights", 0, 1);
        let report = verify(&client, &yardstick, self.weights.tolerance, &|| self.watch.is_interrupted())?;
        self.watch.progress("verifying the weights", 1, 1);
        Ok(report)
    }
}

/// Models of a server that is ready.
fn ready(admin: &Admin, stopped: &dyn Fn() -> bool) -> Result<Vec<Listed>> {
    let failure = |found: &str| admin.failure(found.to_owned(), "a server that is ready".to_owned());
    if !admin.is_healthy(stopped)? {
        return Err(failure("`/health` does not have status 200"));
    }
    let models = admin.models(stopped)?;
    if models.is_empty() { Err(failure("`/v1/models` lists none")) } else { Ok(models) }
}

/// Whether no wait helps: the key is refused, or the user stops.
fn is_final(error: &Error) -> bool {
    matches!(error, Error::Server { status: Some(401 | 403), .. } | Error::Interrupted | Error::Setting { .. })
}

/// The only one of these models.
fn only<'a>(admin: &Admin, models: impl Iterator<Item = &'a Listed>) -> Result<String> {
    let names: Vec<&str> = models.map(|model| model.name.as_str()).collect();
    match names.as_slice() {
        [name] => Ok((*name).to_owned()),
        [] => Err(admin.failure("has no model".to_owned(), "one in `/v1/models`".to_owned())),
        _ => {
            let expected = "one; name the model to ask for in `model` of the server";
            Err(admin.failure(format!("has the models {}", names.join(", ")), expected.to_owned()))
        }
    }
}

/// A folder as the server finds it from wherever it runs on this machine.
fn absolute(folder: &Path) -> Result<String> {
    Ok(folder.canonicalize().at(folder, "read")?.to_string_lossy().into_owned())
}

/// A port that nobody listens on.
fn free_port() -> Result<u16> {
    let address = Path::new("127.0.0.1:0");
    let listener = TcpListener::bind("127.0.0.1:0").at(address, "open")?;
    Ok(listener.local_addr().at(address, "open")?.port())
}
