//! Numbers out of a seed.

/// SplitMix64: small, and good enough to choose bytes by.
pub struct Dice(u64);

impl Dice {
    /// Different for each seed and each name.
    pub fn new(seed: u64, name: &str) -> Self {
        Self(crate::fold(name.bytes().chain(seed.to_le_bytes())))
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.any() % bound as u64) as usize
    }

    /// A place in a slice, its end included, small steps as likely as large ones.
    pub fn length(&mut self, bound: usize) -> usize {
        let bits = self.below(usize::BITS as usize - bound.leading_zeros() as usize + 1);
        let few = self.any() & ((1_u64 << bits) - 1);
        (few as usize).min(bound)
    }
}
