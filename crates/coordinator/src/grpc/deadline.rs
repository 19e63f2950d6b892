use tonic::metadata::MetadataMap;

/// The milliseconds that a client's `grpc-timeout` allows, at least 1; `None` where it says none.
pub(super) fn allowed_ms(metadata: &MetadataMap) -> Option<u32> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = digits.parse().ok()?;
    let nanoseconds_per_unit: u128 = match unit {
        "H" => 3_600_000_000_000,
        "M" => 60_000_000_000,
        "S" => 1_000_000_000,
        "m" => 1_000_000,
        "u" => 1000,
        "n" => 1,
        _ => return None,
    };
    let milliseconds = u128::from(number) * nanoseconds_per_unit / 1_000_000;
    Some(u32::try_from(milliseconds).unwrap_or(u32::MAX).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_read_and_nonsense_is_no_deadline() {
        let allowed = |text: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            allowed_ms(&metadata)
        };
        let cases =
            [("2H", 7_200_000), ("3M", 180_000), ("5S", 5000), ("250m", 250), ("1999u", 1), ("1n", 1)];
        for (text, expected) in cases {
            assert_eq!(allowed(text), Some(expected), "{text}");
        }
        for text in ["", "S", "5", "5s", "-1S", "xS"] {
            assert_eq!(allowed(text), None, "{text}");
        }
        assert_eq!(allowed_ms(&MetadataMap::new()), None);
    }
}
