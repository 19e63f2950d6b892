//! `windlass chat`: a conversation in the terminal, over HTTP.

mod connection;
mod sse;

use std::io::{IsTerminal, Write, stdin, stdout};

use anyhow::Result;
use clap::Args;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::depth_strip::DepthStrip;
use connection::{Connection, Turn};

/// Talks to a running coordinator, and shows how deep each token was thought
///
/// Reads one message per line. /reset forgets the conversation, /quit or the end of input ends it.
#[derive(Debug, Args)]
pub(crate) struct ChatArguments {
    /// Address of the coordinator's HTTP service
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8000", env = "WINDLASS_URL")]
    url: String,
    /// Name of the model [default: the first that is served]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// One of the model's named depth policies [default: the model's default effort]
    #[arg(long, value_name = "NAME")]
    effort: Option<String>,
    /// 0 takes the most likely token, 1 draws by the model's probabilities [default: 1]
    #[arg(long, value_name = "T")]
    temperature: Option<f32>,
}

/// Runs the command.
pub(crate) async fn run(arguments: ChatArguments) -> Result<()> {
    let ChatArguments { url, model, effort, temperature } = arguments;
    let connection = Connection::open(&url, model, effort, temperature).await?;
    let is_interactive = stdin().is_terminal();
    let strip = DepthStrip::new(&stdout(), connection.deepest);
    if is_interactive {
        println!("{} at {url}; /reset forgets the conversation, /quit ends it", connection.model);
    }
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut turns = Vec::new();
    loop {
        if is_interactive {
            write!(stdout(), "> ")?;
            stdout().flush()?;
        }
        let Some(line) = lines.next_line().await? else { return Ok(()) };
        match line.trim() {
            "" => {}
            "/quit" => return Ok(()),
            "/reset" => turns.clear(),
            message => {
                turns.push(Turn::user(message));
                match answer(&connection, &turns, strip).await {
                    Ok(text) => turns.push(Turn::assistant(text)),
                    // One bad message does not end a conversation that someone is typing.
                    Err(error) if is_interactive => {
                        turns.pop();
                        eprintln!("error: {}", crate::with_causes(&error));
                    }
                    Err(error) => return Err(error),
                }
            }
        }
    }
}

/// Shows the answer as it comes, each token in its depth's colour, then all depths. Returns its text.
async fn answer(connection: &Connection, turns: &[Turn], strip: DepthStrip) -> Result<String> {
    let mut stdout = stdout();
    let mut deltas = connection.send(turns).await?;
    let (mut text, mut depths) = (String::new(), Vec::new());
    while let Some(delta) = deltas.next().await? {
        write!(stdout, "{}", strip.paint(&delta.text, delta.depths.last().copied().unwrap_or(0)))?;
        stdout.flush()?;
        text.push_str(&delta.text);
        depths.extend(delta.depths);
    }
    writeln!(stdout)?;
    let mean = depths.iter().map(|depth| f64::from(*depth)).sum::<f64>() / depths.len().max(1) as f64;
    let cells = strip.strip(depths.iter().map(|depth| ("", *depth)));
    writeln!(stdout, "{cells} {} tokens, mean depth {mean:.1}", depths.len())?;
    Ok(text)
}
