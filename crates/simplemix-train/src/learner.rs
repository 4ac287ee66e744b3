//! The loop's view of a model: gradients of some pairs, statistics, one update. No tensor crosses this line.

use std::path::Path;

use crate::adamw::Movement;
use crate::error::Result;
use crate::first_loss::FirstLoss;
use crate::metrics::MetricSet;
use crate::stats::PairStats;

/// A model that learns from pairs, which it knows by their number in the training set.
///
/// ```
/// use std::path::Path;
/// use simplemix_train::{Learner, PairStats, Result, Trainable};
///
/// /// Learns one number, `w`; the loss of pair `p` is `(w - p)^2`.
/// struct Number {
///     w: f64,
///     gradient: f64,
/// }
///
/// impl Learner for Number {
///     fn trainee(&self) -> &dyn Trainable {
///         self
///     }
///
///     fn trainee_mut(&mut self) -> &mut dyn Trainable {
///         self
///     }
///
///     fn accumulate(&mut self, pairs: &[usize], weight: f64) -> Result<Vec<PairStats>> {
///         let errors: Vec<f64> = pairs.iter().map(|&pair| self.w - pair as f64).collect();
///         self.gradient += errors.iter().map(|error| 2.0 * error * weight).sum::<f64>();
///         Ok(errors.iter().map(|error| PairStats { loss: error * error, ..PairStats::default() }).collect())
///     }
/// }
///
/// impl Trainable for Number {
///     fn gradient_norm(&self) -> Result<f64> {
///         Ok(self.gradient.abs())
///     }
///
///     fn update(&mut self, learning_rate: f64, scale: f64) -> Result<()> {
///         self.w -= learning_rate * scale * self.gradient;
///         self.gradient = 0.0;
///         Ok(())
///     }
///
///     fn discard(&mut self) -> Result<()> {
///         self.gradient = 0.0;
///         Ok(())
///     }
/// #     fn save(&self, _: &Path) -> Result<()> { Ok(()) }
/// #     fn restore(&mut self, _: &Path) -> Result<()> { Ok(()) }
/// #     fn restore_weights(&mut self, _: &Path) -> Result<()> { Ok(()) }
///     // save, restore and restore_weights write and read `w`.
/// }
///
/// let mut number = Number { w: 4.0, gradient: 0.0 };
/// let stats = number.accumulate(&[1, 3], 0.5)?;
/// assert_eq!((stats[0].loss, stats[1].loss), (9.0, 1.0));
/// number.trainee_mut().update(0.25, 1.0)?;
/// assert_eq!(number.w, 3.0);
/// # Ok::<(), simplemix_train::Error>(())
/// ```
pub trait Learner {
    /// The weights in training and their optimiser.
    fn trainee(&self) -> &dyn Trainable;

    /// The weights in training and their optimiser, to be updated or restored.
    fn trainee_mut(&mut self) -> &mut dyn Trainable;

    /// Prepares update `step`, counted from zero. All randomness of the update must follow from this number.
    ///
    /// # Errors
    /// Failures of the preparation.
    fn begin(&mut self, step: u64) -> Result<()> {
        let _ = step;
        Ok(())
    }

    /// Factor of each pair's loss in an update of `batch`: 1 / pairs by default; 1 / tokens where tokens weigh alike.
    fn weight(&self, batch: &[usize]) -> f64 {
        1.0 / batch.len() as f64
    }

    /// Factor of each pair's loss in an evaluation of `pairs` of a held-out set.
    fn eval_weight(&self, set: usize, pairs: &[usize]) -> f64 {
        let _ = set;
        1.0 / pairs.len() as f64
    }

    /// Runs the forward and backward pass of `pairs`; adds `weight` times the gradient of their summed loss.
    ///
    /// # Errors
    /// Failures of the forward or backward pass.
    fn accumulate(&mut self, pairs: &[usize], weight: f64) -> Result<Vec<PairStats>>;

    /// Whether all processes run as many micro-batches as the one with the most, since each helps in all passes; then a NaN loss ends
    /// none early.
    fn passes_together(&self) -> bool {
        false
    }

    /// Takes part in the passes of a micro-batch of other processes, without pairs of its own.
    ///
    /// # Errors
    /// [`crate::Error::Torch`] if another process has failed.
    fn idle(&mut self) -> Result<()> {
        Ok(())
    }

    /// Whether [`Learner::regularise`] adds gradients. Several processes add up all gradients after it then, in place of while the
    /// last backward pass of an update runs.
    fn regularises(&self) -> bool {
        false
    }

    /// Adds gradients of batch-level regularisers, after all micro-batches of update `step`. Returns metrics; a NaN
    /// among them counts as a NaN loss.
    ///
    /// # Errors
    /// Failures of the regularisers.
    fn regularise(&mut self, step: u64, batch: &[usize]) -> Result<Vec<(&'static str, f64)>> {
        let _ = (step, batch);
        Ok(Vec::new())
    }

    /// Names of the held-out sets; none by default.
    fn eval_sets(&self) -> Vec<String> {
        Vec::new()
    }

    /// Runs the forward pass over a whole held-out set. `progress(done, total)` counts pairs.
    ///
    /// # Errors
    /// Failures of the forward pass.
    fn evaluate(&mut self, set: usize, progress: &mut dyn FnMut(usize, usize)) -> Result<Vec<PairStats>> {
        let _ = (set, progress);
        Ok(Vec::new())
    }

    /// Names of the metrics that are reported.
    fn metrics(&self) -> MetricSet {
        MetricSet::Preference
    }

    /// Facts that the first batch must show before the first update (a mean loss of ln 2 for DPO), if it is known. Not called later.
    ///
    /// # Errors
    /// Failures of its computation.
    fn first_loss(&self) -> Result<Option<FirstLoss>> {
        Ok(None)
    }

    /// Writes all state that training changes into the existing folder.
    ///
    /// # Errors
    /// [`crate::Error::Files`] or [`crate::Error::Model`].
    fn save(&self, folder: &Path) -> Result<()> {
        self.trainee().save(folder)
    }

    /// Helps the first process in [`Learner::save`], where its state is divided among several.
    ///
    /// # Errors
    /// [`crate::Error::Torch`] if another process has failed.
    fn help_save(&self) -> Result<()> {
        self.trainee().help_save()
    }

    /// Restores the state that [`Learner::save`] wrote.
    ///
    /// # Errors
    /// [`crate::Error::State`] if it belongs to another model.
    fn restore(&mut self, folder: &Path) -> Result<()> {
        self.trainee_mut().restore(folder)
    }
}

/// Weights in training with their gradients and optimiser state. [`crate::Trainee`] implements it for tensors.
pub trait Trainable {
    /// Announces that the next backward pass is this process's last one of the update: from now on gradients may go to the other
    /// processes as soon as they are final.
    fn begin_last_pass(&self) {}

    /// Begins to add up the gradients of all processes, as far as the last pass has not. Every process calls this after its passes,
    /// however many there were.
    ///
    /// # Errors
    /// [`crate::Error::LateGradient`]; [`crate::Error::Torch`] if another process has failed.
    fn begin_sum(&self) -> Result<()> {
        Ok(())
    }

    /// Adds up the accumulated gradients of all processes; nothing is to be done for one alone.
    ///
    /// # Errors
    /// [`crate::Error::Torch`] if another process has failed.
    fn sum_gradients(&self) -> Result<()> {
        Ok(())
    }

    /// Global L2 norm of the accumulated gradients.
    ///
    /// # Errors
    /// Failures of the device.
    fn gradient_norm(&self) -> Result<f64>;

    /// Updates the weights with the accumulated gradients times `scale`, then clears the gradients.
    ///
    /// # Errors
    /// Failures of the device.
    fn update(&mut self, learning_rate: f64, scale: f64) -> Result<()>;

    /// Effect of this process's updates on the weights; a run that changes nothing fails. By default, the
    /// parameters.
    fn movement(&self) -> Movement {
        Movement::Parameters
    }

    /// Clears the accumulated gradients without an update, once sums that are begun are done.
    ///
    /// # Errors
    /// Failures of the device.
    fn discard(&mut self) -> Result<()>;

    /// Most bytes that tensors have held on the device since the run began in this process; none on a CPU.
    ///
    /// # Errors
    /// Failures of the device.
    fn device_peak_bytes(&self) -> Result<Option<u64>> {
        Ok(None)
    }

    /// Writes weights and optimiser state into the existing folder.
    ///
    /// # Errors
    /// [`crate::Error::Files`] or [`crate::Error::Model`].
    fn save(&self, folder: &Path) -> Result<()>;

    /// Helps the first process in [`Trainable::save`], where its state is divided among several.
    ///
    /// # Errors
    /// [`crate::Error::Torch`] if another process has failed.
    fn help_save(&self) -> Result<()> {
        Ok(())
    }

    /// Restores the weights and optimiser state that [`Trainable::save`] wrote.
    ///
    /// # Errors
    /// [`crate::Error::State`] if they belong to another model.
    fn restore(&mut self, folder: &Path) -> Result<()>;

    /// Restores the weights alone, as those of the best checkpoint for the result.
    ///
    /// # Errors
    /// [`crate::Error::State`] if they belong to another model.
    fn restore_weights(&mut self, folder: &Path) -> Result<()>;
}
