//! Preference accuracy, win rates and reports for preference-trained models.
