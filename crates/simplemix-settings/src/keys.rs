//! Names of the keys that a type of serde reads.

use serde::de::{Deserialize, Deserializer, Visitor, value};
use serde::forward_to_deserialize_any;

/// Names of all keys of a struct, as its `Deserialize` knows them; none for other types.
///
/// ```
/// #[derive(serde::Deserialize)]
/// struct Prompts {
///     #[serde(rename = "files")]
///     _paths: Vec<String>,
///     #[serde(rename = "limit")]
///     _limit: Option<u64>,
/// }
/// assert_eq!(simplemix_settings::keys::<Prompts>(), ["files", "limit"]);
/// ```
pub fn keys<T: for<'de> Deserialize<'de>>() -> &'static [&'static str] {
    let mut found: &'static [&'static str] = &[];
    // The reader stops as soon as it has told its keys.
    let _ = T::deserialize(Asked(&mut found));
    found
}

/// A deserializer without data, which keeps the names of the fields that it is asked for.
struct Asked<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Asked<'_> {
    type Error = value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(serde::de::Error::custom("no data"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        *self.0 = fields;
        self.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct
        seq tuple tuple_struct map enum identifier ignored_any
    }
}
