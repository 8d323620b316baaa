//! `tallymark serve`: one process for a container host, which ticks by itself or when it is asked
//! to.
//!
//! | module | part |
//! |---|---|
//! | `access` | where it listens, and the tokens of callers |
//! | `connections` | the limits of connections |
//! | `answers` | requests and their answers |
//! | `pages` | the console: who may see it, and who may act |
//! | `ticker` | one tick at a time |
//! | `schedule` | when to begin the next one |
//! | `export` | the metrics, to the receiver that the environment names |
//! | `health` | how the ticks go |

mod access;
mod answers;
mod connections;
mod export;
mod health;
mod pages;
mod schedule;
mod ticker;

use std::env;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::console::Actions;
use super::{Failure, Global, parse_duration, ui};
use crate::telemetry::otlp::Exporter;
use access::Token;
use answers::Site;
use pages::Gate;
use ticker::Ticker;

/// A shorter interval would only ask the checkpoints more often.
const EVERY_MIN: Duration = Duration::from_secs(1);

/// A client that waits for an interrupted tick is answered within this time.
const ANSWER_TIME: Duration = Duration::from_millis(200);

/// Tick by itself, or when a scheduler asks over HTTP.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Where to listen; for the port that a host gives: '0.0.0.0:$PORT'
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8080")]
    listen: String,
    /// Tick by itself when something is due, at most this often
    #[arg(long, value_name = "DURATION", value_parser = interval)]
    every: Option<Duration>,
    /// Time limit of a tick; a request can only lower it
    #[arg(long, value_name = "DURATION", default_value = "5 minutes", value_parser = parse_duration)]
    budget: Duration,
    /// The environment variable with the token that /tick asks for
    #[arg(long, value_name = "NAME")]
    tick_token_env: Option<String>,
    /// The environment variable with the token that the console and /metrics ask for
    #[arg(long, value_name = "NAME")]
    read_token_env: Option<String>,
    /// The environment variable with the token of operators, who act in the console
    #[arg(long, value_name = "NAME")]
    operator_token_env: Option<String>,
}

impl ServeArgs {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let token = |name: &Option<String>| name.as_deref().map(Token::of).transpose();
        let (tick_token, read_token) = (token(&self.tick_token_env)?, token(&self.read_token_env)?);
        let operator_token = token(&self.operator_token_env)?;
        let worker = global.worker(1).await?;
        let port = env::var("PORT").ok();
        let (listener, is_local) =
            access::listen(&self.listen, port.as_deref(), tick_token.is_some()).await?;
        let address = listener.local_addr().map_err(|error| Failure::usage(error.to_string()))?;
        let console = global.worker_of(worker.config.clone(), 1).await?;
        let actions = Arc::new(Actions::new(global, &worker.config));
        let ticker = Arc::new(Ticker::new(worker, self.budget));
        let gate = Gate { read_token, operator_token, is_local };
        let (ticks, acts) = (Arc::clone(&ticker), Arc::clone(&actions));
        let site =
            Site { ticker: ticks, every: self.every, tick_token, gate, console, actions: acts };
        let document = json!({
            "listening": address.to_string(),
            "every_seconds": self.every.map(|every| every.as_secs_f64()),
            "next_tick": self.every.map(|_| ui::instant(ticker.worker.clock.now())),
            "tick_token": site.tick_token.as_ref().map(|token| &token.variable),
            "read_token": site.gate.read_token.as_ref().map(|token| &token.variable),
            "operator_token": site.gate.operator_token.as_ref().map(|token| &token.variable),
        });
        global.print(&document, || started(&site, &address.to_string()));
        let serving = tokio::spawn(connections::serve(listener, Arc::new(site)));
        let schedule = async {
            match self.every {
                Some(every) => schedule::keep(&ticker, every).await,
                None => std::future::pending().await,
            }
        };
        let exporter = Exporter::of_process(ticker.worker.clock.now());
        tokio::select! {
            () = schedule => {}
            () = export::keep(&ticker, exporter.as_ref()) => {}
            () = global.interrupt.raised() => {}
        }
        ticker.idle().await;
        export::last(&ticker, exporter.as_ref()).await;
        actions.idle().await;
        // The runtime ends the connections. Those that wait for a tick are answered before.
        tokio::time::sleep(ANSWER_TIME).await;
        serving.abort();
        Ok(())
    }
}

/// The line that says what the process does from now on.
fn started(site: &Site, address: &str) -> String {
    let ticks = match site.every {
        Some(every) => {
            format!("ticks when something is due, at most every {}, first now", spoken(every))
        }
        None => "ticks when it is asked to".to_owned(),
    };
    let token = match &site.tick_token {
        Some(token) => format!("asks for the token in {}", token.variable),
        None => "is open to this machine".to_owned(),
    };
    format!("listening on http://{address}; {ticks}; /tick {token}")
}

/// The interval, without an empty smaller unit.
fn spoken(every: Duration) -> String {
    let text = ui::duration(every);
    let whole = [" 0 s", " 0 min", " 0 h"].iter().find_map(|zero| text.strip_suffix(zero));
    whole.unwrap_or(&text).replace(".0 s", " s")
}

fn interval(text: &str) -> Result<Duration, String> {
    let every = parse_duration(text)?;
    if every < EVERY_MIN {
        return Err("write 1s or more".to_owned());
    }
    Ok(every)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_at_least_a_second_and_told_briefly() {
        for (text, told) in [
            ("1s", "1 s"),
            ("90s", "1 min 30 s"),
            ("5m", "5 min"),
            ("10 minutes", "10 min"),
            ("1h", "1 h"),
            ("90m", "1 h 30 min"),
            ("2 days", "2 d"),
        ] {
            assert_eq!(interval(text).map(spoken), Ok(told.to_owned()), "{text}");
        }
        assert!(interval("999ms").is_err());
    }
}
