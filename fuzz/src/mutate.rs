//! Mutations that parsers stumble over: bytes turned, cut, doubled, moved between samples, and numbers at their bounds.

use fastrand::Rng;

/// Inputs made of a corpus, the same for the same seed.
pub struct Mutator {
    rng: Rng,
    corpus: Vec<Vec<u8>>,
}

const LONGEST: usize = 1 << 14;
/// Tokens of the formats read here.
const TOKENS: &[&[u8]] = &[
    b"spiffe://",
    b"/",
    b"..",
    b".",
    b"%2e",
    b"\0",
    b"\n",
    b"\\",
    b"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"=",
    b"<<EOF\n",
    b"EOF",
    b"//",
    b"/*",
    b"*/",
    b"null",
    b"true",
    b"-1",
    b"1e999",
    b"18446744073709551616",
    b"\xff\xff\xff\xff",
    b"\x80",
    b"\xf0\x9f\x98\x80",
    b"\xed\xa0\x80",
    b"\x30\x84\xff\xff\xff\xff",
    b"\x30\x80",
    b"keys",
    b"use",
    b"kty",
    b"EC",
    b"RSA",
    b"x5c",
    b"eyJ",
    b"==",
    b"-",
    b"_",
    b"${",
    b"docker-",
    b".scope",
    b"/kubepods/",
    b"0::/",
];
const BOUNDS: [u8; 8] = [0, 1, 0x7f, 0x80, 0xff, b' ', b'/', b'"'];

impl Mutator {
    pub fn new(seed: u64, mut corpus: Vec<Vec<u8>>) -> Self {
        if corpus.is_empty() {
            corpus.push(Vec::new());
        }
        Self { rng: Rng::with_seed(seed), corpus }
    }

    pub fn next_input(&mut self) -> Vec<u8> {
        let mut input = self.sample().clone();
        for _ in 0..self.rng.u32(1..8) {
            self.step(&mut input);
        }
        input.truncate(LONGEST);
        input
    }

    fn sample(&mut self) -> &Vec<u8> {
        let at = self.rng.usize(..self.corpus.len());
        &self.corpus[at]
    }

    fn step(&mut self, input: &mut Vec<u8>) {
        let at = self.rng.usize(..=input.len());
        let until = at + self.rng.usize(..=(input.len() - at).min(64));
        match self.rng.u8(..8) {
            0 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << self.rng.u8(..8);
                }
            }
            1 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte = BOUNDS[self.rng.usize(..BOUNDS.len())];
                }
            }
            2 => drop(input.drain(at..until)),
            3 => {
                let part = input[at..until].to_vec();
                let times = self.rng.usize(1..6);
                input.splice(at..at, part.repeat(times));
            }
            4 => {
                let token = TOKENS[self.rng.usize(..TOKENS.len())];
                let times = if self.rng.u8(..16) == 0 { self.rng.usize(1..600) } else { 1 };
                input.splice(at..at, token.repeat(times));
            }
            5 => input.truncate(at),
            6 => {
                let other = self.sample().clone();
                let from = self.rng.usize(..=other.len());
                let end = from + self.rng.usize(..=other.len() - from);
                input.splice(at..until, other[from..end].iter().copied());
            }
            _ => {
                let byte = self.rng.u8(..);
                input.insert(at, byte);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_inputs() {
        let inputs = |seed| {
            let mut mutator = Mutator::new(seed, vec![b"spiffe://example.org/a".to_vec(), Vec::new()]);
            (0..200).map(|_| mutator.next_input()).collect::<Vec<_>>()
        };
        assert_eq!(inputs(1), inputs(1));
        assert_ne!(inputs(1), inputs(2));
    }
}
