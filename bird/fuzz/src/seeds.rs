//! Seed files replayed by ordinary tests: as they are, and with a few octets changed.

/// Feeds every seed to a target, then `mutants` changed copies of each, the same ones every time.
pub fn replay(file: &str, mutants: u32, target: impl Fn(&[u8])) {
    let seeds: Vec<Vec<u8>> = seeds(file).collect();
    assert!(!seeds.is_empty(), "no seeds");
    let mut random = Random(1);
    for seed in &seeds {
        target(seed);
        for _ in 0..mutants {
            let mut bytes = seed.clone();
            for _ in 0..=random.below(3) {
                change(&mut bytes, &seeds, &mut random);
            }
            target(&bytes);
        }
    }
}

/// The inputs of a seed file: one a line, in hex; a line that starts with `#` is for people.
fn seeds(file: &str) -> impl Iterator<Item = Vec<u8>> + '_ {
    let lines = file.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| {
        let octet = |pair| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
        let octets = line.as_bytes().chunks(2).map(|pair| octet(pair).filter(|_| pair.len() == 2));
        octets.collect::<Option<_>>().unwrap_or_else(|| panic!("not hex: {line}"))
    })
}

fn change(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    let at = random.below(bytes.len());
    match random.below(8) {
        0 => bytes.truncate(at),
        1 => bytes.insert(at, random.octet()),
        2 => {
            let other = &seeds[random.below(seeds.len())];
            bytes.truncate(at);
            bytes.extend_from_slice(&other[random.below(other.len())..]);
        }
        3 if !bytes.is_empty() => {
            bytes.remove(at);
        }
        kind if !bytes.is_empty() => match kind {
            4 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            5 => bytes[at] ^= 1 << random.below(8),
            6 => bytes[at] = bytes[at].wrapping_add(1),
            _ => bytes[at] = random.octet(),
        },
        _ => {}
    }
}

/// Marsaglia's xorshift: enough to pick octets, and the same on every machine.
struct Random(u32);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0
    }

    /// Below `end`, or 0.
    fn below(&mut self, end: usize) -> usize {
        (self.next() as usize).checked_rem(end).unwrap_or(0)
    }

    fn octet(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }
}
