//! `windlass chat`: a conversation in the terminal, over HTTP.

mod connection;
mod sse;

use std::fmt::{self, Display, Formatter};
use std::io::{self, IsTerminal, Write, stderr, stdin, stdout};

use anyhow::{Result, anyhow, bail};
use clap::Args;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::connection_options::ConnectionOptions;
use crate::counted::counted;
use crate::depth_strip::DepthStrip;
use crate::policy_argument::finite;
use connection::{Connection, Refusal, Turn};

/// Talks to a running coordinator, and shows how deep each token was thought
///
/// Reads one message per line. /reset forgets the conversation, /quit or the end of input ends it.
/// A message that is refused does not end it; if input is not a terminal, the exit status is 1 then.
#[derive(Debug, Args)]
pub(crate) struct ChatArguments {
    /// Address of the coordinator's HTTP service; without a scheme, http:// is put before it, or with --ca https://
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8000", env = "WINDLASS_URL")]
    url: String,
    /// Name of the model [default: the first that is served]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// One of the model's named depth policies [default: the model's default effort]
    #[arg(long, value_name = "NAME")]
    effort: Option<String>,
    /// 0 takes the most likely token, 1 draws by the model's probabilities [default: 1]
    #[arg(long, value_name = "T", value_parser = finite)]
    temperature: Option<f32>,
    #[command(flatten)]
    connection: ConnectionOptions,
}

/// Runs the command.
pub(crate) async fn run(arguments: ChatArguments) -> Result<()> {
    let ChatArguments { url, model, effort, temperature, connection } = arguments;
    let connection = Connection::open(&url, &connection, model, effort, temperature).await?;
    let is_interactive = stdin().is_terminal();
    if is_interactive {
        let model = &connection.model;
        writeln!(stdout(), "{model} at {url}; /reset forgets the conversation, /quit ends it")?;
    }
    let strip = DepthStrip::new(&stdout(), connection.deepest);
    let mut chat = Chat { connection, strip, turns: Vec::new() };
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut refused = 0;
    loop {
        if is_interactive {
            write!(stdout(), "> ")?;
            stdout().flush()?;
        }
        let Some(line) = lines.next_line().await.map_err(unreadable)? else { break };
        let outcome = match line.trim() {
            "" => Ok(()),
            "/quit" => break,
            "/reset" => {
                chat.turns.clear();
                Ok(())
            }
            line if line.starts_with('/') => Err(UnknownCommand(line.to_owned()).into()),
            message => chat.say(message).await,
        };
        match outcome {
            Ok(()) => {}
            // One bad line does not end a conversation.
            Err(error) if is_interactive || is_refused(&error) => {
                refused += 1;
                writeln!(stderr(), "error: {}", crate::with_causes(&error))?;
            }
            Err(error) => return Err(error),
        }
    }
    if refused > 0 && !is_interactive {
        bail!("lines refused: {refused}");
    }
    Ok(())
}

/// A conversation so far.
struct Chat {
    connection: Connection,
    strip: DepthStrip,
    turns: Vec<Turn>,
}

impl Chat {
    /// Says something and shows the answer. If that fails, it was not said.
    async fn say(&mut self, message: &str) -> Result<()> {
        self.turns.push(Turn::user(message));
        match answer(&self.connection, &self.turns, self.strip).await {
            Ok(text) => self.turns.push(Turn::assistant(text)),
            Err(error) => {
                self.turns.pop();
                return Err(error);
            }
        }
        Ok(())
    }
}

/// A line that begins with `/` and is no command.
#[derive(Debug)]
struct UnknownCommand(String);

impl Display for UnknownCommand {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "'{}' is no command: use /reset or /quit", self.0)
    }
}

impl std::error::Error for UnknownCommand {}

/// Whether only this line is to blame.
fn is_refused(error: &anyhow::Error) -> bool {
    error.is::<Refusal>() || error.is::<UnknownCommand>()
}

fn unreadable(error: io::Error) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::InvalidData => anyhow!("standard input is not UTF-8: convert it first"),
        _ => anyhow::Error::new(error).context("cannot read standard input"),
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
    writeln!(stdout, "{cells} {}, mean depth {mean:.1}", counted(depths.len(), "token"))?;
    Ok(text)
}
