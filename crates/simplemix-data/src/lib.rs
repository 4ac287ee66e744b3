//! Preference pairs: schema, readers, writers, chat templates and tokenisation.
