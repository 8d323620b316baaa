//! A definition's text in checkpoints and markers: the hash, and the counts of its changes.

/// The definition's hash. From the second generation on it is followed by the generation, and from
/// the first change of the source's shape on by the number of those changes.
#[must_use]
pub(crate) fn of_generation(hash: &str, generation: u64, shapes: u64) -> String {
    let mut definition = match generation {
        0 => hash.to_owned(),
        _ => format!("{hash}.{generation}"),
    };
    if shapes > 0 {
        definition.push_str(&format!("~{shapes}"));
    }
    definition
}

/// The generation in a definition.
#[must_use]
pub(crate) fn generation_of(definition: &str) -> u64 {
    let definition = definition.split('~').next().unwrap_or_default();
    let after = definition.split_once('.').map(|(_, generation)| generation);
    after.and_then(|generation| generation.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_tells_its_generation() {
        for generation in [0, 1, 17] {
            for shapes in [0, 3] {
                let definition = of_generation("0123456789abcdef", generation, shapes);
                assert_eq!(generation_of(&definition), generation);
                assert!(definition.starts_with("0123456789abcdef"));
            }
        }
        assert_eq!(of_generation("0123456789abcdef", 0, 0), "0123456789abcdef");
        assert_eq!(generation_of("what nobody writes.x"), 0);
    }
}
