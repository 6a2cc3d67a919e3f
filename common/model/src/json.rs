//! How Go's `encoding/json` treats our structs, said once.
//!
//! Calico's structs are Go structs with `omitempty`: a null, absent or empty field is the zero value, and the zero value is not
//! written. The `record!` macro gives every field of a struct that behaviour and keeps unknown fields in `other`, so
//! that a read-modify-write never loses what a newer Calico stored. `text_enum!` makes closed sets of words that still carry a
//! word they do not know.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Fields that the model has no name for, kept as they are and written back.
pub type Other = serde_json::Map<String, serde_json::Value>;

/// A string that is written even when it is empty, where Calico's struct has no `omitempty`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Text(pub String);

impl Deref for Text {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Text(text.to_owned())
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Text(text)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a present value is Go's zero value for `omitempty` behind no pointer: only strings and words are.
pub(crate) trait Blank {
    fn blank(&self) -> bool {
        false
    }
}

impl Blank for String {
    fn blank(&self) -> bool {
        self.is_empty()
    }
}

macro_rules! never_blank {
    ($($ty:ty),* $(,)?) => { $(impl crate::json::Blank for $ty {})* };
}
pub(crate) use never_blank;

never_blank!(Text, bool, u8, u16, u32, u64, i32, i64, f64, serde_json::Value);
impl<T> Blank for Vec<T> {}
impl<T> Blank for Box<T> {}

/// A struct field as Go's JSON has it.
pub(crate) trait Field: Sized {
    fn absent(&self) -> bool;
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;
}

impl<T: DeserializeOwned + Blank> Field for Option<T> {
    fn absent(&self) -> bool {
        self.is_none()
    }
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::<T>::deserialize(deserializer)?.filter(|value| !value.blank()))
    }
}

impl<T: DeserializeOwned> Field for Vec<T> {
    fn absent(&self) -> bool {
        self.is_empty()
    }
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        nullable(deserializer)
    }
}

impl<V: DeserializeOwned> Field for BTreeMap<String, V> {
    fn absent(&self) -> bool {
        self.is_empty()
    }
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        nullable(deserializer)
    }
}

pub(crate) fn absent<T: Field>(field: &T) -> bool {
    field.absent()
}

pub(crate) fn read<'de, T: Field, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    T::read(deserializer)
}

/// JSON null as the default value, as Go decodes it.
pub(crate) fn nullable<'de, T: DeserializeOwned + Default, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// A float as Go prints it: a whole number without a fraction.
#[allow(clippy::ref_option, reason = "the signature that serialize_with calls")]
pub(crate) fn go_float<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    /// Whole numbers up to here are exact in a float.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        None => serializer.serialize_none(),
        Some(number) if number.fract() == 0.0 && number.abs() <= EXACT =>
        {
            #[allow(clippy::cast_possible_truncation, reason = "a whole number no larger than 2^53")]
            serializer.serialize_i64(*number as i64)
        }
        Some(number) => serializer.serialize_f64(*number),
    }
}

/// Declares structs whose fields all follow Go's `omitempty` and whose unknown fields survive in `other`.
macro_rules! record {
    ($(
        $(#[$meta:meta])*
        pub struct $name:ident {
            $( $(#[$field_meta:meta])* pub $field:ident : $ty:ty, )*
        }
    )*) => { $(
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        pub struct $name {
            $(
                $(#[$field_meta])*
                #[serde(default, skip_serializing_if = "crate::json::absent", deserialize_with = "crate::json::read")]
                pub $field: $ty,
            )*
            /// Fields this model has no name for; written back as they were read.
            #[serde(flatten)]
            pub other: crate::json::Other,
        }
        impl crate::json::Blank for $name {}
    )* };
}
pub(crate) use record;

/// Declares a set of words; a word that is not in it is carried in `Other`.
macro_rules! text_enum {
    ($(
        $(#[$meta:meta])*
        pub enum $name:ident { $( $(#[$variant_meta:meta])* $variant:ident = $text:literal, )* }
    )*) => { $(
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $( $(#[$variant_meta])* #[doc = concat!("`", $text, "`.")] $variant, )*
            /// A word this model does not know, as it is stored.
            Other(String),
        }
        impl $name {
            /// Every known word.
            pub const ALL: &'static [&'static str] = &[$($text),*];
            /// The word as it is stored.
            pub fn as_str(&self) -> &str {
                match self { $( Self::$variant => $text, )* Self::Other(word) => word }
            }
            /// Whether this model knows the word.
            pub fn is_known(&self) -> bool {
                !matches!(self, Self::Other(_))
            }
        }
        impl From<&str> for $name {
            fn from(word: &str) -> Self {
                match word { $( $text => Self::$variant, )* _ => Self::Other(word.to_owned()) }
            }
        }
        impl From<String> for $name {
            fn from(word: String) -> Self {
                match word.as_str() { $( $text => Self::$variant, )* _ => Self::Other(word) }
            }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer).map(Self::from)
            }
        }
        impl crate::json::Blank for $name {
            fn blank(&self) -> bool {
                matches!(self, Self::Other(word) if word.is_empty())
            }
        }
    )* };
}
pub(crate) use text_enum;
