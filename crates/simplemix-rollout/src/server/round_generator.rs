//! Sampling in a round: from the server that has its weights, or from several.

use std::path::Path;

use simplemix_data::Watch;

use super::generator::ServerGenerator;
use super::round::{RoundSettings, Served, put_weights};
use super::servers::Servers;
use super::settings::ServerSettings;
use super::several::SeveralServers;
use super::verify::{Evidence, ServedReport};
use crate::error::{Error, Result};
use crate::generator::{CandidateSink, Generator, Job, SamplingConfig};
use crate::journal::json;

impl RoundSettings {
    /// Everything that responses depend on beside prompts and sampling: the model, the way to it, the fields of requests. A server
    /// may have moved to another address.
    fn mark(&self) -> String {
        let fields = self
            .server
            .all()
            .first()
            .map(|ServerSettings { endpoint, logps, extra, .. }| format!("{endpoint:?} {logps} {}", json(extra)));
        format!("round {} {} {}", self.model.name, self.weights.mark(), fields.unwrap_or_default())
    }

    /// The servers with the weights of the round, ready to sample. Of several, one that is away has no part in the round, which is
    /// told. Logs go to the folder `logs`.
    ///
    /// # Errors
    /// See [`put_weights`]; [`Error::Servers`] if all of several are away.
    pub fn open(&self, logs: &Path, watch: &mut dyn Watch) -> Result<RoundGenerator> {
        let (mut served, mut failures) = (Vec::new(), Vec::new());
        let servers = self.server.all();
        for (number, server) in (1..).zip(servers) {
            let folder = if servers.len() == 1 { logs.to_owned() } else { logs.join(format!("server-{number}")) };
            simplemix_files::create_dir_all(&folder)?;
            match put_weights(server, &self.weights, &self.model, &folder, watch) {
                Ok(one) => served.push(one),
                Err(error @ Error::Server { .. }) if servers.len() > 1 => {
                    watch.notice(&format!("{error}; it has no part in this round"));
                    failures.push(error.to_string());
                }
                Err(error) => {
                    served.into_iter().for_each(|served: Served| drop(served.end(watch)));
                    return Err(error);
                }
            }
        }
        let settings: Vec<ServerSettings> = served.iter().map(|served| served.settings.clone()).collect();
        let generator: Box<dyn Generator> = match settings.as_slice() {
            [] => return Err(Error::Servers { failures }),
            [one] if servers.len() == 1 => Box::new(ServerGenerator::known_by(one.clone(), self.mark())?),
            _ => Box::new(SeveralServers::known_by(&Servers::from(settings), self.mark())?),
        };
        Ok(RoundGenerator { served, generator })
    }
}

/// Responses from the servers that have the weights of a round.
pub struct RoundGenerator {
    served: Vec<Served>,
    generator: Box<dyn Generator>,
}

impl std::fmt::Debug for RoundGenerator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RoundGenerator").field("served", &self.served).finish_non_exhaustive()
    }
}

impl RoundGenerator {
    /// Lets go of the weights, see [`Served::end`]. The account is that of the server about which the least is known, with the notices
    /// of all.
    pub fn end(self, watch: &mut dyn Watch) -> ServedReport {
        let reports: Vec<ServedReport> = self.served.into_iter().map(|served| served.end(watch)).collect();
        let mut notices: Vec<String> = reports.iter().flat_map(|report| report.notices.clone()).collect();
        notices.dedup();
        let least = reports.into_iter().min_by_key(|report| known(report.evidence)).unwrap_or_default();
        ServedReport { notices, ..least }
    }
}

/// Order of how much is known of the weights.
fn known(evidence: Evidence) -> u8 {
    match evidence {
        Evidence::NotVerified => 0,
        Evidence::NotTold => 1,
        Evidence::Same => 2,
        Evidence::Texts => 3,
        Evidence::LogProbabilities => 4,
    }
}

impl Generator for RoundGenerator {
    fn name(&self) -> &str {
        self.generator.name()
    }

    fn fingerprint(&self) -> String {
        self.generator.fingerprint()
    }

    fn sample(
        &mut self,
        jobs: &mut dyn Iterator<Item = Result<Job>>,
        sampling: &SamplingConfig,
        sink: &mut dyn CandidateSink,
    ) -> Result<()> {
        let sampled = self.generator.sample(jobs, sampling, sink);
        sampled.map_err(|error| self.served.iter_mut().fold(error, |error, served| served.explained(error)))
    }
}
