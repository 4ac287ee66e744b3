//! The declaration of a section.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::field::Section;
use crate::read::check_table;

/// Settings that were declared with [`section!`](crate::section).
pub trait Settings: Serialize + DeserializeOwned + Default {
    /// The settings themselves, then the sections in them.
    const SECTIONS: &'static [Section];

    /// Checks every number against its range.
    ///
    /// # Errors
    /// [`Error::Value`] naming the first one out of range.
    fn check_ranges(&self) -> Result;

    /// Reads a table; keys that are absent have their defaults.
    ///
    /// # Errors
    /// [`Error::Value`] for a value of another type, [`Error::Unknown`], and [`Error::Moved`] for keys of older versions.
    fn from_table(table: toml::Table) -> Result<Self> {
        check_table(Self::SECTIONS, &table)?;
        table.try_into().map_err(|error: toml::de::Error| Error::Table(error.to_string().trim_end().to_owned()))
    }
}

/// Declares a section of settings.
///
/// Each setting has a doc comment of one paragraph, a type and a default. These may follow, in this order:
///
/// | | |
/// | --- | --- |
/// | `in above(0.0)` | numbers that are allowed, see [`range`](crate::range) |
/// | `unit "tokens"` | unit of a number |
/// | `from "TRL"` | origin of the default |
/// | `was "lora_rank"` | path of the key in older versions; refused, with the new path |
/// | `alias "old"` | an older name, still read |
///
/// The macro makes the struct with public fields, serde's traits (unknown keys are refused), `Default`, the constant
/// `SECTION`, and [`Settings`]. Sections inside follow as `sections { name: Type; }`. The calling crate needs `serde` as a
/// dependency of its own.
#[macro_export]
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $(#[derive($($derive:path),+)])?
        $vis:vis struct $name:ident($section:literal) {
            $(
                $(#[doc = $doc:literal])+
                $key:ident: $type:ty = $default:expr
                $(, in $range:expr)? $(, unit $unit:literal)? $(, from $source:literal)?
                $(, was $was:literal)? $(, alias $alias:literal)*;
            )*
        }
        $(sections {
            $($(#[doc = $part_doc:literal])+ $part:ident: $part_type:ty;)*
        })?
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        $(#[derive($($derive),+)])?
        #[serde(deny_unknown_fields, default)]
        $vis struct $name {
            $(
                $(#[doc = $doc])+
                #[serde($(alias = $alias),*)]
                pub $key: $type,
            )*
            $($($(#[doc = $part_doc])+ pub $part: $part_type,)*)?
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($key: $default,)* $($($part: <$part_type>::default(),)*)? }
            }
        }

        impl $name {
            /// Declarations of the settings.
            $vis const SECTION: $crate::Section = $crate::Section {
                name: $section,
                doc: concat!($($about),+),
                fields: &[$($crate::Field {
                    key: stringify!($key),
                    doc: concat!($($doc),+),
                    unit: $crate::optional!($($unit)?),
                    source: $crate::optional!($($source)?),
                    range: $crate::range_of!($($range)?),
                    was: $crate::optional!($($was)?),
                    aliases: &[$($alias),*],
                    default: || {
                        let default: $type = $default;
                        $crate::private::toml::Value::try_from(default).ok()
                    },
                    kind: <$type as $crate::Setting>::kind,
                    words: <$type as $crate::Setting>::words,
                    fits: |value| {
                        <$type as $crate::private::serde::Deserialize>::deserialize(value.clone()).is_ok()
                    },
                }),*],
            };
        }

        impl $crate::Settings for $name {
            const SECTIONS: &'static [$crate::Section] = &[
                $name::SECTION,
                $($(<$part_type>::SECTION,)*)?
            ];

            fn check_ranges(&self) -> $crate::Result {
                Self::SECTION.check_numbers(&[$($crate::Setting::number(&self.$key)),*])?;
                $($($crate::Settings::check_ranges(&self.$part)?;)*)?
                Ok(())
            }
        }
    };
}

/// `Some` of a literal, or `None`.
#[doc(hidden)]
#[macro_export]
macro_rules! optional {
    () => {
        None
    };
    ($value:literal) => {
        Some($value)
    };
}

/// A range, or any number.
#[doc(hidden)]
#[macro_export]
macro_rules! range_of {
    () => {
        $crate::Range::Any
    };
    ($range:expr) => {{
        #[allow(unused_imports, reason = "a range may also be spelled with its path")]
        use $crate::range::{above, at_least, between, from_to_below};
        $range
    }};
}
