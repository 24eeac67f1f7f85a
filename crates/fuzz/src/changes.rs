//! Small changes to known inputs.

/// What breaks parsers more often than random bytes do.
const TOKENS: [&[u8]; 16] = [
    b"\0",
    b"\xff",
    b"%",
    b"%00",
    b"/",
    b"..",
    b"'",
    b"\"",
    b"(",
    b")",
    b"\r\n",
    b"\xc4\xb0",
    b"-1",
    b"&",
    b"=",
    b"18446744073709551616",
];

/// An endless run of changed copies; the same for the same seeds.
pub(crate) fn of(seeds: &[Vec<u8>]) -> impl Iterator<Item = Vec<u8>> {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    (0..).map(move |number: usize| {
        let mut copy = seeds[number % seeds.len()].clone();
        for _ in 0..=random.below(4) {
            let other = &seeds[random.below(seeds.len())];
            change(&mut copy, other, &mut random);
        }
        copy
    })
}

fn change(copy: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let at = random.below(copy.len() + 1);
    let end = at + random.below(copy.len() - at + 1);
    match random.below(6) {
        0 => copy.truncate(at),
        1 => drop(copy.drain(at..end)),
        2 => drop(copy.splice(at..at, copy[at..end].to_vec())),
        3 => drop(copy.splice(at..at, TOKENS[random.below(TOKENS.len())].iter().copied())),
        4 => drop(copy.splice(at..end, other[random.below(other.len() + 1)..].iter().copied())),
        _ => {
            if let Some(byte) = copy.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
    }
}

/// Xorshift: repeatable, and good enough to choose places.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn copies_differ_and_come_again() {
        let seeds = [b"/a/b".to_vec(), Vec::new()];
        let run = || super::of(&seeds).take(200).collect::<Vec<_>>();
        assert_eq!(run(), run());
        assert!(run().iter().filter(|copy| !seeds.contains(copy)).count() > 100);
    }
}
