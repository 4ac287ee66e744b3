//! The preference-training loop: steps, schedules, checkpoints, metrics.
