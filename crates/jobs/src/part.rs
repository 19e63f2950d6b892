//! A shard's items as one object: messages, each after its length.

use prost::Message;
use windlass_proto::v1::JobItem;

use crate::error::JobsError;

/// The items as they are stored.
pub(crate) fn encode(items: &[JobItem]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for item in items {
        item.encode_length_delimited(&mut bytes).expect("a vector has room");
    }
    bytes
}

/// The `count` items that are stored in the object called `name`.
pub(crate) fn decode(name: &str, mut bytes: &[u8], count: u64) -> Result<Vec<JobItem>, JobsError> {
    let mut items = Vec::new();
    while !bytes.is_empty() {
        let item = JobItem::decode_length_delimited(&mut bytes);
        items.push(item.map_err(|error| JobsError::damaged(name, &error))?);
    }
    if items.len() as u64 != count {
        let reason = format!("it has {} items and should have {count}", items.len());
        return Err(JobsError::damaged(name, &reason));
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_back_as_they_were_and_a_damaged_part_is_refused() {
        let item = |id: &str| JobItem { id: id.into(), ..JobItem::default() };
        let items = [item("a"), item(""), item("c")];
        let bytes = encode(&items);
        assert_eq!(decode("part", &bytes, 3).unwrap(), items);
        assert!(decode("part", &bytes, 2).unwrap_err().to_string().contains("has 3 items and should have 2"));
        assert!(decode("part", &bytes[..bytes.len() - 1], 3).is_err());
    }
}
