//! Matrix products `out[M, N] = x[M, K] · Wᵀ` of Windlass beside those of other libraries, in one process.
//!
//! ```text
//! compare-products [--threads 1,2] [--sizes 1024x1024,…] [--rows 1,2,…] [--types f32,bf16]
//!                  [--weights many|one] [--rounds 15] [--isa amx|avx512-dot|avx512|avx2|portable]
//!                  [--only windlass,onednn,…] [--json FILE]
//! compare-products table FILE…
//! compare-products ceilings
//! ```
//!
//! Sizes are N×K. `--weights many` (the default) goes through copies of 64 MB together, so that every product reads its
//! weight from beyond the second-level cache, as a model's layers do; `one` uses one weight again and again. The same
//! holds for all contestants. `--isa` is for Windlass; `ONEDNN_MAX_CPU_ISA` and `MKL_ENABLE_INSTRUCTIONS` limit others
//! (`tools/compare.sh` sets all three). `--json` appends one object a line to a file; `table` makes Markdown of such files.
//! What is not done here: checking speed against a bar (the table marks what misses), and PyTorch, which
//! `torch_products.py` measures with the same sizes into lines of the same form.
//!
//! One process for each number of threads, so that every library can be told by its environment variables.

mod ceilings;
mod contestant;
mod ffi;
mod measure;
mod problem;
mod table;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::rc::Rc;

use problem::{Kind, Problem};
use serde_json::Value;
use windlass_kernels::Isa;

const SIZES: [[usize; 2]; 6] =
    [[1024, 1024], [3072, 1024], [5632, 1024], [1024, 2816], [8192, 1024], [17920, 5280]];
const ROWS: [usize; 7] = [1, 2, 4, 8, 16, 64, 256];
/// All copies of one weight together, at least.
const MANY_BYTES: usize = 64 << 20;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "table") {
        let mut lines = Vec::new();
        for file in &arguments[1..] {
            for line in BufReader::new(File::open(file)?).lines() {
                lines.push(serde_json::from_str(&line?)?);
            }
        }
        print!("{}", table::markdown(&lines));
        return Ok(());
    }
    if arguments.first().is_some_and(|first| first == "ceilings") {
        let lines: Vec<Value> = [1, 2].into_iter().flat_map(ceilings::measure).collect();
        print!("{}", ceilings::markdown(&lines));
        return Ok(());
    }
    let options = Options::parse(&arguments)?;
    if options.is_child {
        return measure_all(&options);
    }
    let mut lines = Vec::new();
    for &threads in &options.threads {
        lines.extend(in_a_process_of(threads, &arguments)?);
    }
    match &options.json {
        Some(path) => {
            let mut file = OpenOptions::new().create(true).append(true).open(path)?;
            lines.iter().try_for_each(|line| writeln!(file, "{line}"))?;
        }
        None => print!("{}", table::markdown(&lines)),
    }
    Ok(())
}

struct Options {
    threads: Vec<usize>,
    sizes: Vec<[usize; 2]>,
    rows: Vec<usize>,
    kinds: Vec<Kind>,
    many: bool,
    rounds: usize,
    isa: Isa,
    only: Vec<String>,
    json: Option<String>,
    is_child: bool,
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Self, Failure> {
        let mut given = BTreeMap::new();
        let mut arguments = arguments.iter();
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
            given.insert(name.as_str(), value.as_str());
        }
        let mut take = |name: &str| given.remove(name);
        let numbers = |text: &str| text.split(',').map(str::parse).collect::<Result<Vec<usize>, _>>();
        let size = |text: &str| -> Result<[usize; 2], Failure> {
            let (outputs, inputs) =
                text.split_once('x').ok_or_else(|| format!("{text} is not N×K as NxK"))?;
            Ok([outputs.parse()?, inputs.parse()?])
        };
        let kind = |text: &str| match text {
            "f32" => Ok(Kind::F32),
            "bf16" => Ok(Kind::Bf16),
            _ => Err(format!("{text} is not f32 or bf16")),
        };
        let options = Self {
            threads: numbers(take("--threads").unwrap_or("1,2"))?,
            sizes: match take("--sizes") {
                Some(sizes) => sizes.split(',').map(size).collect::<Result<_, _>>()?,
                None => SIZES.to_vec(),
            },
            rows: take("--rows").map_or(Ok(ROWS.to_vec()), numbers)?,
            kinds: take("--types").unwrap_or("f32,bf16").split(',').map(kind).collect::<Result<_, _>>()?,
            many: match take("--weights").unwrap_or("many") {
                "many" => true,
                "one" => false,
                other => return Err(format!("--weights {other} is not many or one").into()),
            },
            rounds: take("--rounds").unwrap_or("15").parse()?,
            isa: take("--isa").map_or(Ok(Isa::detect()), str::parse)?,
            only: take("--only").map_or(Vec::new(), |only| only.split(',').map(str::to_owned).collect()),
            json: take("--json").map(str::to_owned),
            is_child: take("--child").is_some(),
        };
        match given.keys().next() {
            Some(unknown) => Err(format!("{unknown} is no option").into()),
            None => Ok(options),
        }
    }
}

/// Runs this program again for one number of threads, which every library reads from its own variable.
fn in_a_process_of(threads: usize, arguments: &[String]) -> Result<Vec<Value>, Failure> {
    let count = threads.to_string();
    let mut command = Command::new(std::env::current_exe()?);
    for variable in ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"] {
        command.env(variable, &count);
    }
    // MKL on the OpenMP runtime that oneDNN uses; none of them may use fewer threads than it was told.
    command.env("MKL_THREADING_LAYER", "GNU").env("MKL_INTERFACE_LAYER", "LP64");
    command.env("MKL_DYNAMIC", "FALSE").env("OMP_DYNAMIC", "FALSE");
    // Its threads sleep after 2^10 cycles without work instead of yielding for long beside those who come next; it is as fast.
    command.env("OPENBLAS_THREAD_TIMEOUT", "10");
    command.args(arguments).args(["--threads", &count, "--child", "yes"]);
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().ok_or("no output")?;
    let mut lines = Vec::new();
    for line in BufReader::new(output).lines() {
        lines.push(serde_json::from_str(&line?)?);
    }
    if !child.wait()?.success() {
        return Err("a measurement failed".into());
    }
    Ok(lines)
}

fn measure_all(options: &Options) -> Result<(), Failure> {
    let threads = options.threads[0];
    let most_rows = options.rows.iter().copied().max().ok_or("--rows is empty")?;
    for &kind in &options.kinds {
        for &[outputs, inputs] in &options.sizes {
            let copies = if options.many { MANY_BYTES.div_ceil(outputs * inputs * kind.bytes()) } else { 1 };
            let problem =
                Rc::new(Problem::new(kind, [outputs, inputs], most_rows, copies, (threads, options.isa)));
            let (mut contestants, absent) = contestant::contestants(&problem, &options.only);
            absent.iter().for_each(|absent| eprintln!("left out: {absent}"));
            for &rows in &options.rows {
                eprintln!("{outputs}×{inputs} {} M = {rows}, {threads} threads", kind.name());
                for line in measure::compete(&problem, &mut contestants, rows, options.rounds) {
                    println!("{line}");
                }
            }
        }
    }
    Ok(())
}
