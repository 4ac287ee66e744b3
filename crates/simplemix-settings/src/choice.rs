//! The declaration of a setting with a few named values.

/// Declares an enum whose values are words in a settings file; `old` spellings are read too. The first value is the
/// default.
///
/// ```
/// simplemix_settings::choice! {
///     /// Source of the reference's log-probabilities.
///     pub enum Source {
///         /// A file.
///         Cached = "cached";
///         /// Every batch.
///         OnTheFly = "on-the-fly", old "on_the_fly";
///     }
/// }
///
/// use simplemix_settings::Setting;
/// assert_eq!(Source::OnTheFly.word(), "on-the-fly");
/// assert_eq!(Source::kind(), "`cached` or `on-the-fly`");
/// assert_eq!(Source::words(), Some("cached|on-the-fly"));
/// ```
#[macro_export]
macro_rules! choice {
    (
        $(#[doc = $about:literal])+
        $(#[derive($($derive:path),+)])?
        $vis:vis enum $name:ident {
            $(
                $(#[doc = $doc:literal])+
                $variant:ident = $word:literal $(, old $old:literal)*;
            )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        $(#[derive($($derive),+)])?
        $vis enum $name {
            $(
                $(#[doc = $doc])+
                #[serde(rename = $word $(, alias = $old)*)]
                $variant,
            )+
        }

        impl $name {
            /// All values.
            $vis const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The value as it is written in a settings file.
            $vis const fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::ALL[0]
            }
        }

        impl $crate::Setting for $name {
            fn kind() -> String {
                let words: Vec<String> = Self::ALL.iter().map(|value| format!("`{}`", value.word())).collect();
                words.join(" or ")
            }

            fn words() -> Option<&'static str> {
                Some(concat!($($word, "|"),+).trim_end_matches('|'))
            }
        }
    };
}
