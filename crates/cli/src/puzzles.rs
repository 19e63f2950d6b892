//! Puzzles for the demo model, with their answers. What is drawn depends on the seed alone, so runs repeat.

use windlass_model::random::{Stream, draw};

/// A family of puzzles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// `7+5-3*2`, answered by `=8`: from left to right, modulo 10. The size is the number of operations.
    Arithmetic,
    /// `yz cd ab xy de bc;ac=`: for each letter after the semicolon, the end of its chain of edges (`ab` leads from a
    /// to b). The size is the number of edges from the last letter asked for; the others are at most as far.
    Chain,
    /// `7+5a4+8bc=`, answered by `a2b3c1`: 47 + 85 = 132, column by column, ones first, each column before the letter of its
    /// place. The size is the number of columns.
    Addition,
}

/// One puzzle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Puzzle {
    pub(crate) kind: Kind,
    pub(crate) size: u32,
    pub(crate) prompt: String,
    pub(crate) answer: String,
}

/// All sizes the demo model solves, smallest first.
const SIZES: [(Kind, u32); 3] = [(Kind::Arithmetic, 10), (Kind::Chain, 8), (Kind::Addition, 8)];

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Arithmetic => "arithmetic",
            Self::Chain => "chain",
            Self::Addition => "addition",
        }
    }
}

/// `count` puzzles in which every kind and size comes up equally often, to within one.
pub(crate) fn mixed(seed: u64, count: u32) -> Vec<Puzzle> {
    let sizes: Vec<(Kind, u32)> =
        SIZES.iter().flat_map(|&(kind, largest)| (1..=largest).map(move |size| (kind, size))).collect();
    let kinds = sizes.iter().copied().cycle();
    (0..count)
        .zip(kinds)
        .map(|(index, (kind, size))| {
            let mut dice = Dice { seed, puzzle: index, thrown: 0 };
            match kind {
                Kind::Arithmetic => arithmetic(&mut dice, size),
                Kind::Chain => chain(&mut dice, size),
                Kind::Addition => addition(&mut dice, size),
            }
        })
        .collect()
}

/// Every operation changes the value: the model was trained on such puzzles.
fn arithmetic(dice: &mut Dice, operations: u32) -> Puzzle {
    let mut value = dice.below(10);
    let mut prompt = value.to_string();
    for _ in 0..operations {
        let digit = 1 + dice.below(9);
        let operator = ['+', '+', '-', '-', '*'][dice.below(5) as usize];
        let operator = if apply(value, operator, digit) == value {
            ['+', '-'][dice.below(2) as usize]
        } else {
            operator
        };
        value = apply(value, operator, digit);
        prompt.push(operator);
        prompt.push_str(&digit.to_string());
    }
    Puzzle { kind: Kind::Arithmetic, size: operations, prompt, answer: format!("={value}") }
}

fn apply(value: u32, operator: char, digit: u32) -> u32 {
    match operator {
        '+' => (value + digit) % 10,
        '-' => (value + 10 - digit) % 10,
        _ => (value * digit) % 10,
    }
}

/// Three chains of different letters, one of them `hops` edges long, and one to three letters to follow.
fn chain(dice: &mut Dice, hops: u32) -> Puzzle {
    let mut letters: Vec<char> = ('a'..='z').collect();
    dice.shuffle(&mut letters);
    let mut edges = Vec::new();
    // (letter, edges to the end of its chain, that end)
    let mut starts: Vec<(char, u32, char)> = Vec::new();
    for length in [hops, hops.min(4), hops.min(3)] {
        let chain: Vec<char> = letters.drain(..=length as usize).collect();
        edges.extend(chain.windows(2).map(|edge| format!("{}{}", edge[0], edge[1])));
        let end = chain[length as usize];
        starts.extend((0..length).map(|i| (chain[i as usize], length - i, end)));
    }
    dice.shuffle(&mut edges);
    let mut queries: Vec<u32> = (0..dice.below(3)).map(|_| 1 + dice.below(hops)).collect();
    queries.push(hops);
    let (mut asked, mut answer) = (String::new(), String::new());
    for distance in queries {
        let candidates: Vec<_> = starts.iter().filter(|start| start.1 == distance).collect();
        let (letter, _, end) = candidates[dice.below(candidates.len() as u32) as usize];
        asked.push(*letter);
        answer.push(*end);
    }
    let prompt = format!("{};{asked}=", edges.join(" "));
    Puzzle { kind: Kind::Chain, size: hops, prompt, answer }
}

/// Two numbers of so many digits, perhaps zeros in front.
fn addition(dice: &mut Dice, columns: u32) -> Puzzle {
    let (mut prompt, mut answer, mut carry) = (String::new(), String::new(), 0);
    let mut letters = 'a'..='z';
    let mut letter = || letters.next().expect("fewer columns than letters");
    for _ in 0..columns {
        let (first, second, place) = (dice.below(10), dice.below(10), letter());
        let sum = first + second + carry;
        prompt.push_str(&format!("{first}+{second}{place}"));
        answer.push_str(&format!("{place}{}", sum % 10));
        carry = sum / 10;
    }
    let place = letter();
    prompt.push_str(&format!("{place}="));
    answer.push_str(&format!("{place}{carry}"));
    Puzzle { kind: Kind::Addition, size: columns, prompt, answer }
}

/// Random numbers for one puzzle.
struct Dice {
    seed: u64,
    puzzle: u32,
    thrown: u32,
}

impl Dice {
    /// A number below `limit`, as good as evenly.
    fn below(&mut self, limit: u32) -> u32 {
        self.thrown += 1;
        let [word, ..] = draw(self.seed, Stream::Sampling, self.puzzle, self.thrown);
        ((u64::from(word) * u64::from(limit)) >> 32) as u32
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u32 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{HashMap, HashSet};

    const COUNT: u32 = 910;

    fn of(kind: Kind) -> Vec<Puzzle> {
        mixed(7, COUNT).into_iter().filter(|puzzle| puzzle.kind == kind).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_puzzles() {
        assert_eq!(mixed(3, 40), mixed(3, 40));
        assert_eq!(mixed(3, 40)[..20], mixed(3, 20));
        assert_ne!(mixed(3, 40), mixed(4, 40));
    }

    #[test]
    fn every_kind_and_size_comes_up_equally_often() {
        let mut counts: HashMap<(Kind, u32), u32> = HashMap::new();
        for puzzle in mixed(1, COUNT) {
            *counts.entry((puzzle.kind, puzzle.size)).or_default() += 1;
        }
        assert_eq!(counts.len(), 26);
        assert!(counts.values().all(|&count| count == COUNT / 26));
    }

    #[test]
    fn arithmetic_answers_are_what_one_gets_by_hand() {
        for puzzle in of(Kind::Arithmetic) {
            let symbols: Vec<char> = puzzle.prompt.chars().collect();
            assert_eq!(symbols.len() as u32, 2 * puzzle.size + 1);
            let mut value = symbols[0].to_digit(10).unwrap() as i32;
            for pair in symbols[1..].chunks(2) {
                let digit = pair[1].to_digit(10).unwrap() as i32;
                assert_ne!(digit, 0);
                let next = match pair[0] {
                    '+' => value + digit,
                    '-' => value - digit,
                    '*' => value * digit,
                    other => panic!("operator {other}"),
                };
                assert_ne!(next.rem_euclid(10), value, "{} does not change the value", puzzle.prompt);
                value = next.rem_euclid(10);
            }
            assert_eq!(puzzle.answer, format!("={value}"), "{}", puzzle.prompt);
        }
    }

    #[test]
    fn sums_are_what_one_gets_by_hand() {
        for puzzle in of(Kind::Addition) {
            let digits: Vec<u64> =
                puzzle.prompt.chars().filter_map(|c| c.to_digit(10)).map(u64::from).collect();
            assert_eq!(digits.len() as u32, 2 * puzzle.size);
            let number =
                |first: usize| digits[first..].iter().step_by(2).rev().fold(0, |n, digit| 10 * n + digit);
            let mut rest = number(0) + number(1);
            let mut expected = String::new();
            for place in ('a'..='z').take(puzzle.size as usize + 1) {
                expected.push_str(&format!("{place}{}", rest % 10));
                rest /= 10;
            }
            assert_eq!(puzzle.answer, expected, "{}", puzzle.prompt);
        }
    }

    #[test]
    fn chain_answers_are_the_ends_of_the_chains() {
        let mut lengths = HashSet::new();
        for puzzle in of(Kind::Chain) {
            let (graph, asked) = puzzle.prompt.strip_suffix('=').unwrap().split_once(';').unwrap();
            let edges: HashMap<char, char> = graph
                .split(' ')
                .map(|edge| (edge.chars().next().unwrap(), edge.chars().nth(1).unwrap()))
                .collect();
            let mut hops = 0;
            let ends: String = asked
                .chars()
                .map(|letter| {
                    let path: Vec<char> =
                        std::iter::successors(Some(letter), |letter| edges.get(letter).copied()).collect();
                    hops = path.len() as u32 - 1;
                    *path.last().unwrap()
                })
                .collect();
            assert_eq!((ends, hops), (puzzle.answer.clone(), puzzle.size), "{}", puzzle.prompt);
            lengths.insert(asked.len());
        }
        assert_eq!(lengths, HashSet::from([1, 2, 3]));
    }
}
