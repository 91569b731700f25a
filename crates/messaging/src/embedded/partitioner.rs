//! Which partition a key belongs to: exactly as Kafka's Java client, and librdkafka's `murmur2_random`, decide, so that
//! a key keeps its partition number when a topic moves from one broker to the other.

/// The partition of `key` among `partitions` (at least one).
pub(super) fn partition_of(key: &[u8], partitions: i32) -> i32 {
    // Java's `toPositive`: the sign bit is dropped, not negated.
    (murmur2(key).cast_signed() & 0x7fff_ffff) % partitions.max(1)
}

/// MurmurHash2 of 32 bits with the seed of Kafka's Java client.
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;

    // The algorithm takes the length modulo 2^32; keys are far shorter.
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut hash = SEED ^ length;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !rest.is_empty() {
        for (index, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn hashes_as_kafkas_java_client_does() {
        for (key, expected) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), expected, "{key}");
        }
    }

    #[test]
    fn a_partition_is_always_one_of_the_topics() {
        for n in 0..2000 {
            let partition = partition_of(format!("user-{n}").as_bytes(), 6);
            assert!((0..6).contains(&partition));
        }
        assert_eq!(partition_of(b"21", 6), (-973_932_308_i32 & 0x7fff_ffff) % 6);
        assert_eq!(partition_of(b"anything", 0), 0, "a topic without partitions is none");
    }
}
