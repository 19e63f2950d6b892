//! Parts of a request that must be JSON objects of known fields, and never lists in their order.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{Error as NoValue, MapAccessDeserializer};
use serde::de::{DeserializeOwned, Deserializer, Error, MapAccess, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};

/// What an object must look like, for those who sent something else.
pub(super) trait Shape: DeserializeOwned {
    const SHAPE: &'static str;
}

/// An object with the fields of `T`.
#[derive(Debug, Default)]
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Shape> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Shape> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(T::SHAPE)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

/// Names of the fields that the struct `T` has.
pub(super) fn field_names<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut names: &'static [&'static str] = &[];
    // There is no value to read: the struct only says which fields it wants.
    let _: Result<T, NoValue> = T::deserialize(FieldNames(&mut names));
    names
}

struct FieldNames<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for FieldNames<'_> {
    type Error = NoValue;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, NoValue> {
        *self.0 = fields;
        self.deserialize_any(visitor)
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, NoValue> {
        Err(NoValue::custom("there is no value"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only its fields' names matter")]
    struct Pair {
        first: u32,
        second: Option<u32>,
    }

    impl Shape for Pair {
        const SHAPE: &'static str = "a pair";
    }

    #[test]
    fn a_struct_tells_its_fields_and_is_read_from_an_object_only() {
        assert_eq!(field_names::<Pair>(), ["first", "second"]);
        assert!(serde_json::from_str::<Object<Pair>>(r#"{"first": 1}"#).is_ok());
        let error = serde_json::from_str::<Object<Pair>>("[1, 2]").unwrap_err().to_string();
        assert!(error.contains("expected a pair"), "{error}");
    }
}
