//! Generators from settings.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::generator::Generator;
use crate::journal::kept_date;
#[cfg(feature = "local")]
use crate::local::{LocalGenerator, LocalSettings};
#[cfg(feature = "local")]
use crate::mix_p::{MixPGenerator, MixPSettings};
#[cfg(feature = "server")]
use crate::server::{RoundSettings, ServerGenerator, Servers, SeveralServers};

/// Settings of a generator: a table `local`, `mix_p`, `server` or `round`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum GeneratorSettings {
    /// A model in this process.
    #[cfg(feature = "local")]
    Local(LocalSettings),
    /// Policy and reference in this process: DPO-Mix-P.
    #[cfg(feature = "local")]
    #[serde(rename = "mix_p")]
    MixP(MixPSettings),
    /// A server with the OpenAI interface, or several that have one model.
    #[cfg(feature = "server")]
    Server(Servers),
    /// A server that gets the weights of a round first.
    #[cfg(feature = "server")]
    Round(Box<RoundSettings>),
}

impl GeneratorSettings {
    /// Like [`GeneratorSettings::open`], for responses that go to `output`. A chat template that looks at the date sees the one
    /// that unfinished work for the same output began with.
    ///
    /// # Errors
    /// See [`GeneratorSettings::open`].
    pub fn open_for(&self, output: &Path) -> Result<Box<dyn Generator>> {
        #[cfg(feature = "server")]
        if let Self::Round(round) = self {
            let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            return Ok(Box::new(round.open(folder, &mut simplemix_data::Unwatched)?));
        }
        let date = kept_date(output);
        #[cfg(any(feature = "local", feature = "server"))]
        return self.clone().with_date(date).open();
        #[cfg(not(any(feature = "local", feature = "server")))]
        {
            let _ = date;
            self.open()
        }
    }

    /// Sets the date that the chat template sees, such as 2026-01-31, unless the settings have one. A server writes its own.
    #[must_use]
    pub fn with_date(self, date: Option<String>) -> Self {
        #[cfg(not(any(feature = "local", feature = "server")))]
        let _ = date;
        match self {
            #[cfg(feature = "local")]
            Self::Local(local) => Self::Local(local.with_date(date)),
            #[cfg(feature = "local")]
            Self::MixP(mix) => Self::MixP(MixPSettings { policy: mix.policy.with_date(date), ..mix }),
            #[cfg(feature = "server")]
            Self::Server(server) => {
                let _ = date;
                Self::Server(server)
            }
            #[cfg(feature = "server")]
            Self::Round(round) => Self::Round(round),
        }
    }

    /// Loads the model, or prepares the client of the server; logs of a server that gets weights go to the present folder.
    ///
    /// # Errors
    /// [`crate::Error::Setting`] with the first setting out of range, and any error of loading.
    pub fn open(&self) -> Result<Box<dyn Generator>> {
        match self {
            #[cfg(feature = "local")]
            Self::Local(settings) => Ok(Box::new(LocalGenerator::load(settings)?)),
            #[cfg(feature = "local")]
            Self::MixP(settings) => Ok(Box::new(MixPGenerator::load(settings)?)),
            #[cfg(feature = "server")]
            Self::Server(servers) => match servers.all() {
                [one] => Ok(Box::new(ServerGenerator::new(one.clone())?)),
                _ => Ok(Box::new(SeveralServers::new(servers)?)),
            },
            #[cfg(feature = "server")]
            Self::Round(round) => Ok(Box::new(round.open(Path::new("."), &mut simplemix_data::Unwatched)?)),
            #[cfg(not(any(feature = "local", feature = "server")))]
            _ => unreachable!("there is no variant without a backend"),
        }
    }
}
