//! Generators by settings.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::generator::Generator;
#[cfg(feature = "local")]
use crate::local::{LocalModel, LocalSettings};
#[cfg(feature = "local")]
use crate::mix_p::{MixPFolders, MixPModel};
#[cfg(feature = "server")]
use crate::server::{ServerGenerator, ServerSettings};

/// Who answers: a table `local`, `mix_p` or `server` with its settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum GeneratorSettings {
    /// A model in this process.
    #[cfg(feature = "local")]
    Local(LocalSettings),
    /// Two models in this process, as DPO-Mix-P has them.
    #[cfg(feature = "local")]
    #[serde(rename = "mix_p")]
    MixP(MixPFolders),
    /// A server with OpenAI's interface.
    #[cfg(feature = "server")]
    Server(ServerSettings),
}

impl GeneratorSettings {
    /// Loads the model, or gets ready to ask the server.
    ///
    /// # Errors
    /// [`crate::Error::Setting`] for settings out of range, whatever loading reports.
    pub fn open(&self) -> Result<Box<dyn Generator>> {
        match self {
            #[cfg(feature = "local")]
            Self::Local(settings) => Ok(Box::new(LocalModel::load(settings)?)),
            #[cfg(feature = "local")]
            Self::MixP(folders) => Ok(Box::new(MixPModel::load(folders)?)),
            #[cfg(feature = "server")]
            Self::Server(settings) => Ok(Box::new(ServerGenerator::new(settings.clone())?)),
            #[cfg(not(any(feature = "local", feature = "server")))]
            _ => unreachable!("there is no variant without a backend"),
        }
    }
}
